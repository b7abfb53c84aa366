"""Responses that were answered, for those that go on from them. In memory, and bounded."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from api.convert.errors import WireError
from api.schemas.response_items import InputItem
from api.schemas.responses import Response

ITEMS: TypeAdapter[list[InputItem]] = TypeAdapter(list[InputItem])


@dataclass(frozen=True, slots=True)
class Stored:
    """One response, and the conversation up to its end. Conversations share the items that they have in common."""

    response: Response
    items: Sequence[InputItem]


class ResponseStore:
    """The latest responses by id; the one that was used least recently goes out first. For the event loop only."""

    def __init__(self, max_responses: int) -> None:
        """max_responses: 0 keeps none."""
        self._max_responses = max_responses
        self._stored: OrderedDict[str, Stored] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stored)

    def put(self, response: Response, input_items: Iterable[InputItem]) -> None:
        """Keep a response. input_items: the conversation before it."""
        # A call that was cut off is never among the output, so all of it can be gone on from.
        written = ITEMS.validate_python([item.model_dump() for item in response.output])
        self._stored[response.id] = Stored(response, (*input_items, *written))
        while len(self._stored) > self._max_responses:
            self._stored.popitem(last=False)

    def get(self, response_id: str, *, param: str) -> Stored:
        """Raises WireError where it is not kept, or no longer. param: who named it."""
        if response_id not in self._stored:
            message = f"there is no response {response_id!r:.200}; the server keeps the last {self._max_responses}"
            raise WireError(404, message, param=param, code="response_not_found")
        self._stored.move_to_end(response_id)
        return self._stored[response_id]

    def delete(self, response_id: str, *, param: str) -> None:
        """Raises WireError where it is not kept."""
        self.get(response_id, param=param)
        del self._stored[response_id]
