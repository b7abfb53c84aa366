"""How much room rows of given lengths take. Arithmetic on tokens; no arrays."""

from collections.abc import Iterable

STEP = 256  # tokens by which room grows; as mlx-lm's own caches do
FIRST_CLASS, CLASS_FACTOR = 1024, 4


def rounded_up(num_tokens: int) -> int:
    """The room that so many tokens have."""
    return -(-num_tokens // STEP) * STEP


def capacity_class(num_tokens: int) -> int:
    """Rows of one class share slots, and so a pass pads none of them to more than CLASS_FACTOR of its length.

    One rectangle holds a pass's attention; a long row beside many short ones would make all of them as long.
    """
    number, limit = 0, FIRST_CLASS
    while num_tokens > limit:
        number, limit = number + 1, limit * CLASS_FACTOR
    return number


def room_for(lengths: Iterable[int]) -> int:
    """Tokens that rows of these lengths have room for: in each class, a rectangle as long as its longest row."""
    classes: dict[int, list[int]] = {}
    for length in lengths:
        classes.setdefault(capacity_class(length), []).append(length)
    return sum(len(members) * rounded_up(max(members)) for members in classes.values())
