"""Which model serves: listing, loading, switching, unloading, and loads that fail."""

import threading
from collections.abc import Callable

import pytest

from engine.errors import UnsupportedModelError
from tests.api.servers import MODEL, events_of, fake_that_answers, served
from tests.fakes import EOS, Gate, fake_loaded, with_hook

OTHERS = {"other/model": lambda: fake_that_answers(lambda _: "I am the other one.")}


def first() -> Callable[[], object]:
    return fake_that_answers(lambda _: "I am the first.")


def test_a_load_replaces_the_model_and_lists_it() -> None:
    with served(first(), others=OTHERS) as server:
        loaded = server.http.post("/v1/models/load", json={"model": "other/model"})
        assert (loaded.status_code, loaded.json()["state"]) == (200, "ready")
        assert server.chat(model="other/model", max_tokens=50).json()["model"] == "other/model"
        models = {model["id"]: model["status"] for model in server.http.get("/v1/models").json()["data"]}
        assert models == {MODEL: "known", "other/model": "serving"}
        assert server.http.get("/v1/models/other/model").json()["id"] == "other/model"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (None, 404, "model_not_found"),
        (MemoryError(), 507, "out_of_memory"),
        (RuntimeError("[metal::malloc] Unable to allocate 9 bytes"), 507, "out_of_memory"),
        (UnsupportedModelError("mamba is not supported"), 400, "unsupported_model"),
        (RuntimeError("secret"), 500, "internal_error"),
    ],
    ids=str,
)
def test_a_load_that_fails_leaves_the_old_model_serving(failure: Exception | None, status: int, code: str) -> None:
    def before_load(name: str) -> None:
        if name != MODEL and failure is not None:
            raise failure

    with served(first(), before_load=before_load) as server:
        failed = server.http.post("/v1/models/load", json={"model": "missing/folder"})
        assert (failed.status_code, failed.json()["error"]["code"]) == (status, code)
        assert "secret" not in failed.text
        progress = server.http.get("/v1/models/load").json()
        assert (progress["state"], progress["error"]) == ("failed", failed.json()["error"]["message"])
        assert server.chat().status_code == 200
        assert server.http.get("/health").json() == {"status": "ok", "model": MODEL}
        assert server.chat(model="missing/folder").status_code == 404


def test_the_progress_of_a_load_can_be_read_while_the_old_model_answers() -> None:
    may_load, is_loading = threading.Event(), threading.Event()

    def before_load(name: str) -> None:
        if name != MODEL:
            is_loading.set()
            assert may_load.wait(30)

    with served(first(), others=OTHERS, before_load=before_load) as server:
        started = server.http.post("/v1/models/load", json={"model": "other/model", "wait": False})
        assert (started.status_code, started.json()["state"]) == (202, "loading")
        assert is_loading.wait(30)
        progress = server.http.get("/v1/models/load").json()
        assert progress == {
            "model": "other/model",
            "state": "loading",
            "stage": "downloading other/model",
            "done_bytes": 1,
            "total_bytes": 2,
            "error": None,
        }
        assert server.chat().status_code == 200
        may_load.set()
        assert server.http.post("/v1/models/load", json={"model": "other/model"}).json()["state"] == "ready"


def test_while_the_first_model_loads_requests_are_told_to_come_back() -> None:
    may_load = threading.Event()
    with served(first(), before_load=lambda _: may_load.wait(30), waits=False) as server:
        for response in (server.chat(), server.chat(stream=True), server.http.post("/v1/tokenize", json={"text": "a"})):
            assert (response.status_code, response.json()["error"]["code"]) == (503, "model_loading")
            assert int(response.headers["retry-after"]) >= 1
        assert server.http.get("/health").json() == {"status": "loading", "model": None}
        assert server.http.get("/health").status_code == 503
        may_load.set()
        server.http.post("/v1/models/load", json={"model": MODEL})
        assert server.chat().status_code == 200


def test_requests_in_flight_finish_on_the_model_that_they_began_with() -> None:
    gate = Gate()
    with served(with_hook(fake_loaded(bonus={EOS: -(10**6)}), gate), others=OTHERS) as server:
        request = server.http.build_request(
            "POST",
            "/v1/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "stream": True},
        )
        response = server.http.send(request, stream=True)
        assert gate.arrived.acquire(timeout=30)
        server.http.post("/v1/models/load", json={"model": "other/model"})
        assert server.chat(model="other/model").status_code == 200
        gate.open()
        response.read()
        *chunks, done = events_of(response)
        assert done == "data: [DONE]"
        assert chunks[-1]["toolmask"]["forward_passes"] == 9


def test_a_request_that_names_a_known_model_switches_to_it_only_where_that_is_allowed() -> None:
    body = {"model": "other/model", "max_tokens": 50}
    with served(first(), others=OTHERS, known_models=("other/model",)) as server:
        refused = server.chat(**body)
        assert refused.status_code == 404
        assert "--allow-model-switch" in refused.json()["error"]["message"]
    with served(first(), others=OTHERS, known_models=("other/model",), allow_model_switch=True) as server:
        assert server.chat(**body).json()["choices"][0]["message"]["content"] == "I am the other one."
        assert server.chat(max_tokens=50).json()["choices"][0]["message"]["content"] == "I am the first."
        assert server.chat(model="unknown").status_code == 404
        assert set(server.loader.engines) == {MODEL, "other/model"}


def test_an_unloaded_model_answers_nothing_until_it_is_loaded_again() -> None:
    with served(first()) as server:
        wrong = server.http.post("/v1/models/unload", json={"model": "other"})
        assert wrong.status_code == 404
        assert server.http.post("/v1/models/unload", json={"model": MODEL}).json()["unloaded"] is True
        refused = server.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_not_loaded")
        assert server.http.get("/health").json()["status"] == "no_model"
        server.http.post("/v1/models/load", json={"model": MODEL})
        assert server.chat().status_code == 200


def test_an_engine_that_was_replaced_is_closed() -> None:
    def threads() -> int:
        return sum(thread.name == "toolmask-decoding" for thread in threading.enumerate())

    before = threads()
    with served(first(), others=OTHERS) as server:
        for _ in range(3):
            for name in ("other/model", MODEL):
                server.http.post("/v1/models/load", json={"model": name})
        server.http.post("/v1/models/unload", json={"model": MODEL})
    assert threads() == before
