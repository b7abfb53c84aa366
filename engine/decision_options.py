"""What a request, an engine or a tool format says of how a turn becomes a call or text. docs/decision.md."""

from dataclasses import dataclass, fields, replace

from engine.checks import check, is_finite


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """What is asked about the decision between a call and text, in a turn that may have either.

    What is None is as the engine has it, or else the model's tool format (`ToolFormat.decision`). Where nothing is left
    that decides, the turn is only looked at: the tokens decide.
    """

    tool_call_bias: float | None = None  # added to the log-odds of a call
    tool_call_threshold: float | None = None  # [0, 1]: call where P(call) reaches it; else a coin at the temperature
    calibrate: bool | None = None  # subtract the log-odds of a call after a prompt without content, with the same tools
    tool_probabilities: bool = False  # per tool too; costs forward passes

    def __post_init__(self) -> None:
        bias, threshold = self.tool_call_bias, self.tool_call_threshold
        check("tool_call_bias", bias, "a finite number", holds=bias is None or is_finite(bias))
        in_range = threshold is None or (is_finite(threshold) and 0 <= threshold <= 1)
        check("tool_call_threshold", threshold, "a number in [0, 1]", holds=in_range)
        check("calibrate", self.calibrate, "a bool", holds=self.calibrate is None or isinstance(self.calibrate, bool))
        check("tool_probabilities", self.tool_probabilities, "a bool", holds=isinstance(self.tool_probabilities, bool))

    @property
    def decides(self) -> bool:
        """Whether the turn follows the decision; else it is only looked at."""
        return bool(self.calibrate) or self.tool_call_bias is not None or self.tool_call_threshold is not None

    def or_else(self, default: "DecisionOptions") -> "DecisionOptions":
        """The same, and what is not given as in the default.

        calibrate=False takes nothing from it: the default's bias and threshold are for calibrated odds.
        """
        if self.calibrate is False:
            return self
        given = {name: getattr(self, name) for name in self.given}
        return replace(default, **given)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the options that were given."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return tuple(name for name, value in values.items() if value is not None and value is not False)


TOKENS_DECIDE = DecisionOptions(calibrate=False)  # it is only looked at
