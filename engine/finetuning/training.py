"""LoRA by mlx-lm's trainer, on written examples. The loss is taken over the answers alone.

The rule: the head is computed at the answers' positions only. Prompts are several times as long, and the head is a
large part of a small model.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn, optimizers
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers

from engine.checks import is_integer, is_number, shown
from engine.errors import ConfigError, UnsupportedModelError
from engine.finetuning.writing import WrittenExample
from engine.model import LoadedModel, MLXModel

ADAPTER_FILE, CONFIG_FILE = "adapters.safetensors", "adapter_config.json"
PAD_TO = 32  # tokens: every width that is new costs a compilation
WARM_UP_SHARE = 0.1  # of the iterations

OnReport = Callable[[int, float], None]  # iterations so far, and the loss over the latest of them


@dataclass(frozen=True, slots=True)
class LoRASettings:
    """How an adapter is trained."""

    rank: int = 8
    scale: float = 10.0  # of what the adapter adds
    num_layers: int = 16  # the last so many; all where the model has no more
    learning_rate: float = 2e-4
    batch_size: int = 4
    iterations: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "num_layers", "batch_size", "iterations"):
            value = getattr(self, name)
            if not is_integer(value) or value < 1:
                raise ConfigError(f"{name} is {shown(value)}; it must be an integer, 1 or more")
        if not is_integer(self.seed) or not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {shown(self.seed)}; it must be an integer in [0, 2**63)")
        for name in ("scale", "learning_rate"):
            value = getattr(self, name)
            if not is_number(value) or not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {shown(value)}; it must be a number above 0")

    def lora_parameters(self) -> dict[str, Any]:
        """In mlx-lm's words."""
        return {"rank": self.rank, "scale": self.scale, "dropout": 0.0}


def train_adapter(
    loaded: LoadedModel,
    examples: Sequence[WrittenExample],
    settings: LoRASettings,
    out: Path,
    *,
    on_report: OnReport = lambda _, __: None,
) -> list[float]:
    """Train an adapter and write it into a folder, in the form that `adapter_path` reads. Returns the losses reported.

    The loaded model is changed: load it anew to use it. mlx-lm shows a progress bar. Raises UnsupportedModelError for
    a model that is not one of mlx-lm's, ConfigError where there are fewer examples than a batch has.
    """
    if not isinstance(loaded.model, MLXModel):
        raise UnsupportedModelError(f"{loaded.name} is no model of mlx-lm, and cannot be trained")
    if len(examples) < settings.batch_size:
        raise ConfigError(f"batch_size is {settings.batch_size}; there are {len(examples)} examples")
    model, module = loaded.model, loaded.model.module
    mx.random.seed(settings.seed)
    module.freeze()
    linear_to_lora_layers(module, settings.num_layers, settings.lora_parameters())
    out.mkdir(parents=True, exist_ok=True)
    losses: list[float] = []
    train(
        module,
        optimizers.Adam(learning_rate=_schedule(settings)),
        examples,
        args=_arguments(settings, out / ADAPTER_FILE),
        loss=_loss_of(model),
        iterate_batches=_batches(settings.seed),
        training_callback=_Reports(losses, on_report),
    )
    _write_config(out / CONFIG_FILE, loaded.name, settings)
    return losses


def _schedule(settings: LoRASettings) -> Callable[[mx.array], mx.array]:
    """Up in a straight line, then down along a cosine to a tenth."""
    num_warm_up = max(round(settings.iterations * WARM_UP_SHARE), 1)
    rate, rest = settings.learning_rate, max(settings.iterations - num_warm_up, 1)
    rise = optimizers.linear_schedule(rate / num_warm_up, rate, num_warm_up)
    schedule: Callable[[mx.array], mx.array] = optimizers.join_schedules(
        [rise, optimizers.cosine_decay(rate, rest, rate / 10)], [num_warm_up]
    )
    return schedule


def _arguments(settings: LoRASettings, adapter: Path) -> TrainingArgs:
    return TrainingArgs(
        batch_size=settings.batch_size,
        iters=settings.iterations,
        steps_per_report=max(settings.iterations // 20, 1),
        steps_per_save=settings.iterations + 1,  # at the end only
        adapter_file=str(adapter),
    )


def _write_config(path: Path, model: str, settings: LoRASettings) -> None:
    """What mlx-lm reads, and how the adapter came about."""
    adapter = {
        "fine_tune_type": "lora",
        "num_layers": settings.num_layers,
        "lora_parameters": settings.lora_parameters(),
    }
    path.write_text(json.dumps({**adapter, "model": model, "settings": asdict(settings)}, indent=1) + "\n")


class _Reports(TrainingCallback):
    def __init__(self, losses: list[float], on_report: OnReport) -> None:
        self._losses = losses
        self._on_report = on_report

    def on_train_loss_report(self, train_info: Mapping[str, Any]) -> None:
        self._losses.append(float(train_info["train_loss"]))
        self._on_report(int(train_info["iteration"]), self._losses[-1])


# Batches, and their loss.

Batch = tuple[mx.array, mx.array, mx.array, mx.array]


def _loss_of(model: MLXModel) -> Callable[..., tuple[mx.array, mx.array]]:
    def loss(
        _: nn.Module, tokens: mx.array, positions: mx.array, targets: mx.array, weights: mx.array
    ) -> tuple[mx.array, mx.array]:
        """The answers' mean cross entropy, and how many tokens they have."""
        entropies = nn.losses.cross_entropy(model.logits_at(tokens, positions), targets) * weights
        num_tokens = weights.sum()  # once: MLX's compiler loses an output that it finds written twice
        return entropies.sum() / num_tokens, num_tokens

    return loss


def _batches(seed: int) -> Callable[..., Iterator[Batch]]:
    def iterate(dataset: Sequence[WrittenExample], batch_size: int, **_: Any) -> Iterator[Batch]:
        """For ever. Examples of similar length stand together; the batches come in a new order each time."""
        source = random.Random(seed)
        ordered = sorted(dataset, key=len)
        starts = list(range(0, len(ordered) - batch_size + 1, batch_size))
        while True:
            source.shuffle(starts)
            for start in starts:
                yield to_batch(ordered[start : start + batch_size])

    return iterate


def to_batch(examples: Sequence[WrittenExample]) -> Batch:
    """tokens (B, L), padded on the right; and of each answer's token, N in all, padded with those of weight 0:
    the position before it, counted through all rows; the token; the weight. L and N are multiples of PAD_TO."""
    width = _padded(max(map(len, examples)))
    tokens = np.zeros((len(examples), width), np.int32)
    positions: list[int] = []
    targets: list[int] = []
    for row, example in enumerate(examples):
        tokens[row, : len(example)] = (*example.prompt, *example.answer)
        first = row * width + len(example.prompt) - 1
        positions += range(first, first + len(example.answer))
        targets += example.answer
    missing = _padded(len(targets)) - len(targets)
    weights = [1.0] * len(targets) + [0.0] * missing
    return (
        mx.array(tokens),
        mx.array(positions + [0] * missing),
        mx.array(targets + [0] * missing),
        mx.array(weights),
    )


def _padded(length: int) -> int:
    return -(-length // PAD_TO) * PAD_TO
