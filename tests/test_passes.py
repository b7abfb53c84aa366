"""Which rows go through one forward pass together."""

from hypothesis import given
from hypothesis import strategies as st

from engine.passes import plan_passes

WIDTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def cost(passes: list[list[int]], widths: list[int], pass_cost: int) -> int:
    """Of passes where whoever runs alone leaves its slot idle in the others' rectangle."""
    rectangle, *alone = passes
    height = len(widths)
    return sum(pass_cost + widths[row] for (row,) in alone) + pass_cost + height * max(widths[row] for row in rectangle)


def plan(widths: list[int], pass_cost: int = 12) -> list[list[int]]:
    return plan_passes(widths, [0] * len(widths), pass_cost)


def test_rows_of_one_width_go_together() -> None:
    assert plan([1, 1, 1]) == [[0, 1, 2]]
    assert plan([5]) == [[0]]


def test_a_much_wider_row_runs_alone() -> None:
    assert plan([1, 30, 1, 1]) == [[0, 2, 3], [1]]


def test_a_little_padding_is_cheaper_than_another_pass() -> None:
    assert plan([1, 3, 1, 1]) == [[0, 1, 2, 3]]


def test_on_a_device_where_positions_cost_little_more_padding_is_taken() -> None:
    assert plan([1, 30, 1, 1], pass_cost=128) == [[0, 1, 2, 3]]


def test_rows_that_may_not_go_together_do_not() -> None:
    assert plan_passes([1, 1, 1, 1], ["a", "b", "a", "b"], 12) == [[0, 2], [1, 3]]


@given(WIDTHS, st.integers(0, 5), st.integers(1, 200))
def test_every_row_runs_once(widths: list[int], num_groups: int, pass_cost: int) -> None:
    groups = [row % (num_groups + 1) for row in range(len(widths))]
    passes = plan_passes(widths, groups, pass_cost)
    assert sorted(row for one in passes for row in one) == list(range(len(widths)))
    assert all(len({groups[row] for row in one}) == 1 for one in passes)


@given(WIDTHS, st.integers(1, 200))
def test_it_costs_no_more_than_all_together_nor_than_any_other_limit(widths: list[int], pass_cost: int) -> None:
    found = cost(plan(widths, pass_cost), widths, pass_cost)
    for limit in set(widths):
        narrow = [row for row, width in enumerate(widths) if width <= limit]
        wide = [[row] for row, width in enumerate(widths) if width > limit]
        assert found <= cost([narrow, *wide], widths, pass_cost)
