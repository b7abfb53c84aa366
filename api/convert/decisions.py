"""Call or text on the wire: what is asked about it, and what is told of it."""

from collections.abc import Iterable, Sequence

from api.convert.paths import inside
from api.schemas.common import Decision, DecisionFields, ToolmaskDecision, ToolmaskInfo
from engine.decision_options import DecisionOptions
from engine.events import Decided, Event
from engine.events import Decision as EngineDecision
from engine.types import ToolChoiceBy

OPTIONS = ("tool_call_bias", "tool_call_threshold", "calibrate", "tool_probabilities")
DECISION_RULES = (
    *((f"decision.{name}", f"toolmask.{name}") for name in OPTIONS),
    ("decision", "toolmask.decision"),
    ("tool_choice_by", "toolmask.tool_choice_by"),
    ("best_of", "toolmask.best_of"),
    ("optional_bias", "toolmask.optional_bias"),
)


def to_decision_options(wire: DecisionFields) -> DecisionOptions | None:
    """What is asked about the decision; None where nothing is. Raises RequestError."""
    given = {name: value for name in OPTIONS if (value := getattr(wire, name)) is not None}
    if not given and not wire.decision:
        return None
    with inside("decision"):
        return DecisionOptions(**given)


def to_tool_choice_by(wire: DecisionFields) -> ToolChoiceBy | None:
    """How a call's tool is chosen; None where that is not said."""
    return None if wire.tool_choice_by is None else ToolChoiceBy(wire.tool_choice_by)


def decision_of(events: Iterable[Event]) -> EngineDecision | None:
    """The decision that a turn's events tell of."""
    return next((event.decision for event in events if isinstance(event, Decided)), None)


def to_decision(decision: EngineDecision) -> Decision:
    """One decision in the client's words."""
    wire = Decision(
        p_call=decision.p_call,
        p_text=decision.p_text,
        p_call_raw=decision.p_call_raw,
        calibrated=decision.calibrated,
        bias=decision.bias,
        threshold=decision.threshold,
        chosen=None if decision.chosen is None else decision.chosen.value,
        fits=decision.fits,
        passes=decision.passes,
    )
    if decision.tools is not None:
        wire.tools = dict(decision.tools)
    return wire


def add_decisions(info: ToolmaskInfo, decisions: Sequence[EngineDecision | None]) -> None:
    """Tell of the decisions of all choices, in their order; a turn that ended in its reasoning has none."""
    made = [None if each is None else to_decision(each) for each in decisions]
    if made[0] is not None:
        info.decision = made[0]
    if len(made) > 1 and any(made):
        info.decisions = made


def of_stream(decision: EngineDecision) -> ToolmaskDecision:
    """What stands under `toolmask` in a choice's first chunk behind the decision."""
    return ToolmaskDecision(decision=to_decision(decision))
