"""The store of responses alone: bounded in number and in bytes, and what goes in comes out."""

from typing import Any

import pytest

from api.convert.errors import WireError
from api.convert.responses import ResponseAnswer
from api.response_store import ITEMS, ResponseStore
from api.schemas.responses import OutputMessage, OutputText, Response, ResponseRequest


def response(text: str = "x") -> Response:
    part = OutputText(type="output_text", text=text, annotations=[], logprobs=[])
    message = OutputMessage(id="msg_1", type="message", role="assistant", status="completed", content=[part])
    return ResponseAnswer(ResponseRequest(model="m", input="Hi"), ()).response("completed", [message])


def items(*texts: str) -> Any:
    return ITEMS.validate_python([{"role": "user", "content": text} for text in texts])


def kept(store: ResponseStore, *responses: Response) -> list[bool]:
    found = []
    for each in responses:
        try:
            found.append(store.get(each.id, param="p").response == each.json_text().encode())
        except WireError:
            found.append(False)
    return found


def test_the_conversation_comes_back_with_the_answer_at_its_end() -> None:
    store, answer = ResponseStore(1), response("Yes. \N{GRINNING FACE}")
    store.put(answer, items("one", "two"))
    conversation = store.get(answer.id, param="p").items()
    assert conversation[:2] == items("one", "two")
    assert (conversation[2].role, conversation[2].content[0].text) == ("assistant", "Yes. \N{GRINNING FACE}")


def test_no_more_bytes_are_kept_than_allowed_and_the_least_recently_used_goes_first() -> None:
    first, second, third = response(), response(), response()
    measure = ResponseStore(1)
    measure.put(first, items("a" * 1000))
    store = ResponseStore(100, max_bytes=2 * measure.num_bytes)
    store.put(first, items("a" * 1000))
    store.put(second, items("b" * 1000))
    assert kept(store, second, first) == [True, True]
    store.put(third, items("c" * 1000))
    assert kept(store, first, second, third) == [True, False, True]
    assert store.num_bytes == 2 * measure.num_bytes


def test_a_response_that_alone_is_too_large_is_not_kept_and_drives_no_other_out() -> None:
    small, large = response(), response("y" * 10_000)
    store = ResponseStore(100, max_bytes=8_000)
    store.put(small, items("a"))
    store.put(large, items("a"))
    assert kept(store, small, large) == [True, False]
    with pytest.raises(WireError, match="8000 bytes"):
        store.get(large.id, param="p")


def test_no_more_responses_are_kept_than_allowed() -> None:
    many = [response() for _ in range(5)]
    store, none = ResponseStore(2), ResponseStore(0)
    for each in many:
        store.put(each, items("a"))
        none.put(each, items("a"))
    assert kept(store, *many) == [False, False, False, True, True]
    assert (len(store), len(none), none.num_bytes) == (2, 0, 0)


def test_what_was_deleted_takes_no_bytes() -> None:
    store, answer = ResponseStore(2), response()
    store.put(answer, items("a"))
    store.delete(answer.id, param="p")
    assert (len(store), store.num_bytes) == (0, 0)


def test_what_clients_send_and_nobody_reads_need_not_be_text() -> None:
    part = {"type": "output_text", "text": "x", "annotations": ["\ud800"], "logprobs": [float("inf")]}
    written = ITEMS.validate_python([{"role": "assistant", "content": [part]}])
    store, answer = ResponseStore(1), response()
    store.put(answer, written)
    assert store.get(answer.id, param="p").items()[0].content[0].text == "x"
