"""Which model serves: listing, loading, switching, unloading, and loads that fail."""

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from api.manager import ModelManager
from engine.catalog import OnProgress, Progress
from engine.engine import Engine
from engine.errors import EngineError, ModelNotFoundError, UnsupportedModelError
from tests.api.servers import MODEL, chat_body, connected, events_of, fake_that_answers, posted, served, wait_until
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
            "queued": [],
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


TWO = {f"model-{name}": functools.partial(fake_that_answers, lambda _, name=name: f"I am {name}.") for name in "ab"}


@dataclass
class Held:
    """Loads of all but the first model wait until they may go on; tells how many of each name began."""

    may_load: threading.Event = field(default_factory=threading.Event)
    begun: list[str] = field(default_factory=list)
    has_begun: threading.Event = field(default_factory=threading.Event)

    def __call__(self, name: str) -> None:
        if name != MODEL:
            self.begun.append(name)
            self.has_begun.set()
            assert self.may_load.wait(30)


def test_requests_that_name_two_models_at_once_are_each_answered_by_their_own_in_turn() -> None:
    held = Held()
    names = ["model-a", "model-b"] * 8
    with (
        served(first(), others=TWO, known_models=tuple(TWO), allow_model_switch=True, before_load=held) as server,
        ThreadPoolExecutor(len(names)) as pool,
    ):
        answers = [pool.submit(server.chat, model=name, max_tokens=50) for name in names]
        # All wait for a switch before the first one ends.
        wait_until(lambda: sum(server.manager.waiting.values()) == len(names))
        order = list(server.manager.waiting)
        held.may_load.set()
        for name, answer in zip(names, answers, strict=True):
            body = answer.result().json()
            text = body["choices"][0]["message"]["content"]
            assert (body["model"], text) == (name, f"I am {name[-1]}.")
        assert held.begun == order  # each model was loaded once, in the order in which it was asked for
        wait_until(lambda: server.manager.num_requests == 0)


def test_a_switch_that_no_request_waits_for_any_longer_leaves_the_model_as_it_is() -> None:
    held = Held()
    with served(
        first(), others=TWO, known_models=tuple(TWO), allow_model_switch=True, before_load=held, request_timeout_s=0.2
    ) as server:
        loading = server.http.post("/v1/models/load", json={"model": "model-a", "wait": False})
        assert loading.status_code == 202
        late = server.chat(model="model-b")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "request_timeout")
        held.may_load.set()
        wait_until(lambda: not server.manager.waiting)
        assert held.begun == ["model-a"]
        assert server.http.get("/health").json()["model"] == "model-a"
        progress = server.http.get("/v1/models/load").json()
        assert (progress["model"], progress["state"]) == ("model-b", "failed")


def test_a_switch_is_waited_for_no_longer_when_the_client_that_wants_a_count_is_gone() -> None:
    held = Held()
    with served(first(), others=TWO, known_models=tuple(TWO), allow_model_switch=True, before_load=held) as server:
        with connected(server) as client:
            client.sendall(posted("/v1/tokenize", {"model": "model-a", "text": "x"}))
            wait_until(lambda: server.manager.waiting == {"model-a": 1})
        wait_until(lambda: server.manager.waiting == {"model-a": 0})
        held.may_load.set()


def refuse(name: str) -> None:
    raise ModelNotFoundError(f"no model is called {name!r}")


def test_a_load_behind_another_is_told_as_queued_and_listed() -> None:
    held = Held()
    with served(first(), others=TWO, before_load=held) as server:
        server.http.post("/v1/models/load", json={"model": "model-a", "wait": False})
        assert held.has_begun.wait(30)
        second = server.http.post("/v1/models/load", json={"model": "model-b", "wait": False})
        assert second.status_code == 202
        assert (second.json()["model"], second.json()["state"], second.json()["done_bytes"]) == ("model-b", "queued", 0)
        now = server.http.get("/v1/models/load").json()
        assert (now["model"], now["state"], now["queued"]) == ("model-a", "loading", ["model-b"])
        held.may_load.set()
        last = server.http.post("/v1/models/load", json={"model": "model-b"}).json()
        assert (last["model"], last["state"], last["queued"]) == ("model-b", "ready", [])


def test_a_name_that_no_model_can_have_is_refused_at_once_also_while_another_loads() -> None:
    held = Held()
    with served(first(), others=TWO, known_models=tuple(TWO), before_load=held, check=refuse) as server:
        server.http.post("/v1/models/load", json={"model": "model-a", "wait": False})
        assert held.has_begun.wait(30)
        for wait in (True, False):
            refused = server.http.post("/v1/models/load", json={"model": "nowhere", "wait": wait})
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
            assert refused.json()["error"]["param"] == "model"
        assert server.http.get("/v1/models/load").json()["queued"] == []
        held.may_load.set()


def test_no_third_model_is_loaded_before_a_replaced_one_has_finished() -> None:
    held, gate = Held(), Gate()
    held.may_load.set()
    with served(with_hook(fake_loaded(bonus={EOS: -(10**6)}), gate), others=TWO, before_load=held) as server:
        request = server.http.build_request("POST", "/v1/chat/completions", json=chat_body(stream=True))
        response = server.http.send(request, stream=True)
        assert gate.arrived.acquire(timeout=30)
        server.http.post("/v1/models/load", json={"model": "model-a"})
        server.http.post("/v1/models/load", json={"model": "model-b", "wait": False})
        assert server.chat(model="model-a", max_tokens=50).status_code == 200
        assert held.begun == ["model-a"]
        gate.open()
        response.read()
        server.http.post("/v1/models/load", json={"model": "model-b"})
        assert held.begun == ["model-a", "model-b"]


def test_a_load_that_runs_when_the_server_stops_ends_when_it_next_tells_how_far_it_is() -> None:
    reports: list[Exception | None] = []

    def load(_: str, on_progress: OnProgress) -> Engine:
        has_begun.set()
        assert may_go_on.wait(30)
        try:
            on_progress(Progress("downloading", 1, 2))
        except EngineError as error:
            reports.append(error)
            raise
        raise AssertionError("it would go on")

    async def run() -> None:
        manager = ModelManager(load)
        manager.start_load("big")
        await asyncio.to_thread(has_begun.wait)
        closing = asyncio.create_task(manager.close())
        await asyncio.sleep(0)
        may_go_on.set()
        await closing

    has_begun, may_go_on = threading.Event(), threading.Event()
    asyncio.run(run())
    wait_until(lambda: len(reports) == 1)  # nobody waits for its thread


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
