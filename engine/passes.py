"""Which rows go through one forward pass together. Arithmetic on widths; no arrays.

A pass is a rectangle: its narrow rows are padded to the widest. Every pass also costs something of its own, mostly
reading the weights. So rows whose widths differ much are better off in passes of their own.
"""

from collections.abc import Hashable, Sequence

# What a pass costs besides its positions, in positions. On the CPU, milliseconds by width with the embedded model
# (2 cores): 1: 41, 2: 43, 8: 72, 16: 94. A device that waits for its memory computes many positions in that time.
PASS_COST_CPU = 12
PASS_COST_GPU = 128


def plan_passes(widths: Sequence[int], groups: Sequence[Hashable], pass_cost: int) -> list[list[int]]:
    """Indices of the rows of each pass, every row in one. widths: a row's tokens; groups: who may go with whom."""
    if len(widths) == 1:
        return [[0]]
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [one for rows in members.values() for one in _split(rows, widths, pass_cost)]


def _split(rows: Sequence[int], widths: Sequence[int], pass_cost: int) -> list[list[int]]:
    """One rectangle of all that are no wider than some limit, and the others alone; the cheapest limit."""
    limits = {widths[row] for row in rows}
    if len(limits) == 1:
        return [list(rows)]
    limit = min(limits, key=lambda limit: (_cost(rows, widths, limit, pass_cost), -limit))
    together = [row for row in rows if widths[row] <= limit]
    return [together, *([row] for row in rows if widths[row] > limit)]


def _cost(rows: Sequence[int], widths: Sequence[int], limit: int, pass_cost: int) -> int:
    # Rows that run alone keep their slots, which lie idle in the rectangle: it is as high as all of them.
    alone = sum(pass_cost + widths[row] for row in rows if widths[row] > limit)
    return pass_cost + len(rows) * limit + alone
