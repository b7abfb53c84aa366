"""The options that every generating endpoint has: sampling, stop strings, grammars of the answer."""

from api.convert.errors import WireError, from_exception
from api.convert.paths import from_rules
from api.schemas.common import JsonSchema, SamplingOptions, ToolmaskOptions
from engine.errors import RequestError
from engine.types import Grammar, SamplingParams

EXTENSION_RULES = tuple((name, f"toolmask.{name}") for name in ("top_k", "min_p", "repetition_penalty"))


def to_sampling(body: SamplingOptions, top_logprobs: int | None) -> SamplingParams:
    """How tokens are chosen. What is left out has the engine's default. Raises RequestError, WireError."""
    extension = body.toolmask or ToolmaskOptions()
    given = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "top_k": extension.top_k,
        "min_p": extension.min_p,
        "repetition_penalty": extension.repetition_penalty,
    }
    return SamplingParams(
        seed=body.seed,
        top_logprobs=top_logprobs,
        logit_bias=_logit_bias(body.logit_bias or {}),
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]  # by name
    )


def _logit_bias(wire: dict[str, float]) -> dict[int, float]:
    for key in wire:
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise WireError(400, f"logit_bias has the key {key!r:.80}; keys are token ids", param="logit_bias")
    return {int(key): bias for key, bias in wire.items()}


def to_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    """One stop string, or several."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def includes_usage(body: SamplingOptions) -> bool:
    """Whether the stream ends with its usage. Raises WireError where there is no stream that could."""
    wanted = body.stream_options is not None and body.stream_options.include_usage is True
    if wanted and not body.stream:
        raise WireError(400, "stream_options needs stream to be true", param="stream_options")
    return wanted


def schema_grammar(schema: JsonSchema, path: str) -> Grammar:
    """Text that satisfies the schema. Raises WireError with the path; whoever looks for paths can use no other."""
    try:
        return Grammar.json_schema(schema)
    except RequestError as error:
        raise from_exception(error, from_rules([("response", path)])) from None


def to_grammar(extension: ToolmaskOptions | None) -> tuple[Grammar, str] | None:
    """What binds the answer's text, and the option that said so. Raises WireError where two do."""
    if extension is None:
        return None
    found: list[tuple[Grammar, str]] = []
    if extension.regex is not None:
        found.append((Grammar.regex(extension.regex), "toolmask.regex"))
    if extension.choice is not None:
        found.append((Grammar.choice(extension.choice), "toolmask.choice"))
    if extension.grammar is not None:
        found.append((Grammar.lark(extension.grammar), "toolmask.grammar"))
    if len(found) > 1:
        names = " and ".join(name for _, name in found)
        raise WireError(400, f"{names} are given; the answer can follow one of them", param=found[1][1])
    return found[0] if found else None
