"""What was made last, by what it was made of: bounded in number, and by the size of what it was made of."""

import json
import marshal
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar, cast

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def content_key(value: object) -> bytes:
    """Bytes that differ where JSON values differ, in the order of their keys too. Quick: a request asks for them."""
    try:
        return marshal.dumps(cast("dict[str, object]", value), 2)  # later versions write what is the same object once
    except ValueError:  # a subclass of a plain type
        return json.dumps(value).encode()


class Recent(Generic[K, V]):
    """The least recently used goes first. Any thread may use it."""

    def __init__(self, max_values: int, max_size: int) -> None:
        """max_size: of all values together, in the unit in which `put` is told."""
        self._max_values, self._max_size = max_values, max_size
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value, in place of what the key had. One that is larger than all may be is not kept."""
        with self._lock:
            _, old = self._values.pop(key, (None, 0))
            self._values[key] = value, size
            self._size += size - old
            while len(self._values) > self._max_values or self._size > self._max_size:
                _, (_, dropped) = self._values.popitem(last=False)
                self._size -= dropped
