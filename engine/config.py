"""Options of an engine, resolved and checked once."""

from dataclasses import dataclass, field
from pathlib import Path

from engine.checks import is_integer, shown
from engine.decision_options import DecisionOptions
from engine.errors import ConfigError

KV_BITS = (4, 8)
TYPES = (
    ("fast_forward", bool, "a bool"),
    ("drafts", bool, "a bool"),
    ("look_ahead", bool, "a bool"),
    ("decision", DecisionOptions | None, "DecisionOptions, or None"),
)


def default_cache_dir() -> Path:
    """Where fetched weights are kept between runs."""
    return Path.home() / ".cache" / "toolmask"


def to_path(option: str, value: str | Path) -> Path:
    """An option that is a path. Raises ConfigError."""
    if not isinstance(value, (str, Path)) or value == "":
        raise ConfigError(f"{option} is {shown(value)}; it must be a path")
    return Path(value)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How an engine runs. Every limit is per engine."""

    cache_dir: str | Path = field(default_factory=default_cache_dir)  # a Path once it is made
    prefill_chunk: int = 512  # prompt tokens of one forward pass
    shared_prefill_chunk: int = 128  # the same while other sequences decode: between two steps they wait for a chunk
    max_running: int = 16  # sequences that are decoded together; the others wait
    max_waiting: int = 256  # sequences that may wait
    kv_memory: int | None = None  # bytes for the keys and values of all that run; None: a quarter of the machine's
    prompt_cache_memory: int | None = None  # bytes for prompts seen before; None: an eighth of the machine's; 0: none
    prompt_cache_dir: str | Path | None = None  # keeps those prompts between two runs; None: they go with the engine
    kv_bits: int | None = None  # 4 or 8: keys and values are kept in so many bits; None: as the model computes them
    fast_forward: bool = True  # put forced tokens into one forward pass; off only to measure what it saves
    drafts: bool = True  # run guesses from the prompt along, for rows inside a grammar; they change no answer
    decision: DecisionOptions | None = None  # of requests that do not say; None: the default of the model's tool format
    look_ahead: bool = True  # launch a row's next pass before its token is read, where it pays; off only to measure

    def __post_init__(self) -> None:
        for name in ("prefill_chunk", "shared_prefill_chunk", "max_running", "max_waiting", "kv_memory"):
            value = getattr(self, name)
            if name == "kv_memory" and value is None:
                continue
            if not is_integer(value) or value < 1:
                raise ConfigError(f"{name} is {shown(value)}; it must be an integer, 1 or more")
        kept = self.prompt_cache_memory
        if kept is not None and (not is_integer(kept) or kept < 0):
            raise ConfigError(f"prompt_cache_memory is {shown(kept)}; it must be an integer, 0 or more")
        if self.kv_bits is not None and (not is_integer(self.kv_bits) or self.kv_bits not in KV_BITS):
            raise ConfigError(f"kv_bits is {shown(self.kv_bits)}; it must be {' or '.join(map(str, KV_BITS))}")
        for name, kind, allowed in TYPES:
            if not isinstance(value := getattr(self, name), kind):
                raise ConfigError(f"{name} is {shown(value)}; it must be {allowed}")
        if self.prompt_cache_dir is not None:
            if kept == 0:
                raise ConfigError("prompt_cache_dir stands beside a prompt_cache_memory of 0, which keeps nothing")
            object.__setattr__(self, "prompt_cache_dir", to_path("prompt_cache_dir", self.prompt_cache_dir))
        object.__setattr__(self, "cache_dir", to_path("cache_dir", self.cache_dir))
