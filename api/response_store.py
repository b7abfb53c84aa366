"""Responses that were answered, for those that go on from them. In memory, and bounded in number and in bytes."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from api.convert.errors import WireError
from api.schemas.response_items import InputItem
from api.schemas.responses import Response

MAX_BYTES = 64 * 2**20

ITEMS: TypeAdapter[list[InputItem]] = TypeAdapter(list[InputItem])


@dataclass(frozen=True, slots=True)
class Stored:
    """One response, and the conversation up to its end, as JSON: objects would take many times as many bytes."""

    response: bytes
    conversation: bytes

    @property
    def num_bytes(self) -> int:
        return len(self.response) + len(self.conversation)

    def items(self) -> list[InputItem]:
        """The conversation."""
        return ITEMS.validate_json(self.conversation)


class ResponseStore:
    """The latest responses by id; the one that was used least recently goes out first. For the event loop only."""

    def __init__(self, max_responses: int, max_bytes: int = MAX_BYTES) -> None:
        """max_responses: 0 keeps none. max_bytes: of all together; a response that alone has more is not kept."""
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._stored: OrderedDict[str, Stored] = OrderedDict()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def num_bytes(self) -> int:
        """Of all that are kept."""
        return self._num_bytes

    def put(self, response: Response, input_items: Sequence[InputItem]) -> None:
        """Keep a response. input_items: the conversation before it."""
        stored = Stored(response.json_text().encode(), _conversation(response, input_items))
        if stored.num_bytes > self._max_bytes:
            return
        self._stored[response.id] = stored
        self._num_bytes += stored.num_bytes
        while len(self._stored) > self._max_responses or self._num_bytes > self._max_bytes:
            self._forget(next(iter(self._stored)))

    def get(self, response_id: str, *, param: str) -> Stored:
        """Raises WireError where it is not kept, or no longer. param: who named it."""
        if response_id not in self._stored:
            bounds = f"the last {self._max_responses}, in {self._max_bytes} bytes at most"
            message = f"there is no response {response_id!r:.200}; the server keeps {bounds}"
            raise WireError(404, message, param=param, code="response_not_found")
        self._stored.move_to_end(response_id)
        return self._stored[response_id]

    def delete(self, response_id: str, *, param: str) -> None:
        """Raises WireError where it is not kept."""
        self.get(response_id, param=param)
        self._forget(response_id)

    def _forget(self, response_id: str) -> None:
        self._num_bytes -= self._stored.pop(response_id).num_bytes


def _conversation(response: Response, input_items: Iterable[InputItem]) -> bytes:
    # A call that was cut off is never among the output, so all of it can be gone on from.
    written = ITEMS.validate_python([item.model_dump() for item in response.output])
    return ITEMS.dump_json([*input_items, *written], exclude_none=True)
