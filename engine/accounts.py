"""Whether guessing pays. Counted, not timed: the same on every machine and under every load."""

FIRST_CREDIT = 32.0  # positions that a row may lose on drafts before it stops; it earns back what right ones save
CREDIT_PER_TOKEN = 0.25  # so that a row which had stopped tries again, later


class Account:
    """Whether drafts pay for one row, counted in positions."""

    def __init__(self) -> None:
        self._credit = FIRST_CREDIT

    @property
    def is_good(self) -> bool:
        return self._credit > 0

    def settle(self, num_drafted: int, num_accepted: int, *, num_rows: int, pass_cost: int, draft_cost: float) -> None:
        """After a pass that num_rows shared. A right token saves its share of a pass; every guess costs its position.

        In a rectangle the other rows are padded to the same width, unless a pass of its own is cheaper.
        """
        cost = min(num_rows * num_drafted, pass_cost + num_drafted) + draft_cost
        gain = num_accepted * (pass_cost / num_rows + 1)
        self._credit = min(self._credit + gain - cost, 2 * FIRST_CREDIT)

    def add_token(self) -> None:
        """The row has written another token."""
        self._credit = min(self._credit + CREDIT_PER_TOKEN, 2 * FIRST_CREDIT)
