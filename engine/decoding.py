"""The one decoding thread: it steps what the scheduler says and passes on what comes of it.

The rule: all arrays belong to this thread; what other threads touch, they touch under the lock of `wake`.
"""

import logging
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx

from engine.capacity import STEP
from engine.config import EngineConfig
from engine.device_thread import in_own_thread
from engine.drafts import DraftSource, FirstGuess, ModelDrafts, PromptLookup
from engine.errors import ConfigError, EngineClosedError, GenerationError, QueueFullError
from engine.generation import Generation, Run, Source
from engine.grammars.matcher import GrammarCompiler
from engine.memory import SlotMemory
from engine.model import LoadedModel
from engine.prefix_cache import PrefixCache
from engine.prefix_store import PrefixStore
from engine.scheduler import Batch, Scheduler
from engine.sequence import Sequence
from engine.step import Progress, Stepper
from engine.work import Work

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is, and what it did since its start."""

    num_running: int  # sequences in turn
    num_waiting: int  # sequences that wait for one to end
    num_preemptions: int = 0  # sequences that gave their memory back and were read again
    bytes_moved: int = 0  # of caches, from place to place
    work: Work = field(default_factory=Work)

    @property
    def mask_seconds(self) -> float:
        """Host time spent filling masks."""
        return self.work.mask_s


class Decoder:
    """Runs sequences in a thread of its own, from the start to `close`."""

    def __init__(
        self,
        loaded: LoadedModel,
        compiler: GrammarCompiler,
        config: EngineConfig,
        *,
        drafter: LoadedModel | None = None,
        marker_ids: frozenset[int] = frozenset(),
    ) -> None:
        """drafter: a smaller model that makes guesses. marker_ids: as in Stepper.

        Raises ConfigError where a model cannot do what is asked.
        """
        self._max_waiting = config.max_waiting
        self._stepper, self._store = in_own_thread(lambda: _device_parts(loaded, compiler, config, drafter, marker_ids))
        max_room = _max_room(config, self._stepper.bytes_per_token)
        most = loaded.model.context_length
        self.context_length = most if max_room is None else min(most, max_room)  # tokens that one sequence may have
        self._scheduler = Scheduler(
            config.max_running, config.max_waiting, config.prefill_chunk, config.shared_prefill_chunk, max_room
        )
        self._runs: dict[Sequence, Run] = {}
        self._new: list[Run] = []  # what is forced at their start has not been reported
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._decode, name="toolmask-decoding", daemon=True)
        self._thread.start()

    def start(self, runs: list[Run]) -> list[Generation]:
        """Let all of them wait for their turn, or none. Raises QueueFullError and EngineClosedError."""
        with self._wake:
            if self._closed:
                raise EngineClosedError("the engine is closed")
            for position, run in enumerate(runs):
                if self._scheduler.is_full:
                    for added in runs[:position]:
                        self._scheduler.remove(added.sequence)
                    most = f"{self._max_waiting} requests wait already"
                    raise QueueFullError(f"there is no place for all {len(runs)} choices" if position else most)
                self._scheduler.add(run.sequence)
            self._runs |= {run.sequence: run for run in runs}
            self._new += runs
            self._wake.notify()
        return [self.generation(run) for run in runs]

    def generation(self, source: Source) -> Generation:
        """What a consumer holds of runs that were started."""
        return Generation(source, self._wake)

    @property
    def is_own_thread(self) -> bool:
        """Whether whoever asks is the decoding thread, in a callback."""
        return threading.current_thread() is self._thread

    @property
    def can_take_back(self) -> bool:
        """Whether the model's cache can forget its last tokens."""
        return self._stepper.memory.can_cut

    def load_now(self) -> EngineLoad:
        """How busy it is. Cheap; any thread may ask."""
        with self._wake:
            running, waiting = len(self._scheduler.running), len(self._scheduler.waiting)
            num_preemptions = self._scheduler.num_preemptions
        work = replace(self._stepper.work)
        return EngineLoad(running, waiting, num_preemptions, self._stepper.memory.bytes_moved, work)

    def close(self) -> bool:
        """End the thread. False where its own thread asks: it then ends after this step."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self.is_own_thread:  # a callback closes its own engine
            return False  # whoever closes next waits for it
        self._thread.join()
        return True

    # The thread.

    def _decode(self) -> None:
        try:
            while not self._closed:
                self._work_once()
        finally:  # also where this thread dies of a bug: nobody may wait for it in vain
            self._abort_all()
            self._keep_prefixes()
            mx.clear_streams()  # as in_own_thread does, and for its reason

    def _work_once(self) -> None:
        # A function of its own, so that no local keeps a sequence and its cache alive while the engine waits.
        self._begin_new()
        self._drop_cancelled()
        batch = self._next_batch()
        for sequence, progress in zip(batch.sequences, self._step(batch), strict=True):
            self._report(self._runs[sequence], progress)

    def _next_batch(self) -> Batch:
        """Wait for work. Empty when the engine closes, or when the work is to begin a new run."""
        self._stepper.reuse(self._scheduler.running)  # what the last step has read
        with self._wake:
            while not self._closed and not self._new:
                batch = self._scheduler.next_batch()
                if batch.sequences:
                    return batch
                self._wake.wait()
            return Batch([], 1)

    def _abort_all(self) -> None:
        with self._wake:
            self._closed = True
            runs = list(self._runs.values())
        for run in runs:
            self._forget(run)
            run.fail(EngineClosedError("the engine was closed while this ran"))

    def _keep_prefixes(self) -> None:
        if self._store is not None and isinstance(self._stepper.prefixes, PrefixCache):
            self._store.save(self._stepper.prefixes)

    def _begin_new(self) -> None:
        """Report what is forced at the start. It may be the whole answer, and then no step is needed."""
        with self._wake:
            new, self._new = self._new, []
        for run in new:
            if run.sequence in self._runs:
                self._report(run, Progress(tokens=list(run.sequence.output)))

    def _drop_cancelled(self) -> None:
        with self._wake:
            cancelled = [run for run in self._runs.values() if run.cancelled]
        for run in cancelled:
            self._forget(run)
            run.cancel()

    def _report(self, run: Run, progress: Progress) -> None:
        if run.report(progress):
            self._forget(run)

    def _step(self, batch: Batch) -> list[Progress]:
        if not batch.sequences:
            return []
        try:
            return self._stepper.step(batch.sequences, batch.max_chunk, others_wait=batch.others_wait)
        except Exception as error:  # whatever the device raised: it must end these sequences, not the engine
            logger.exception("a step failed")
            failure = GenerationError(f"the forward pass failed: {error}")
            return [Progress(error=failure) for _ in batch.sequences]

    def _forget(self, run: Run) -> None:
        with self._wake:
            self._scheduler.remove(run.sequence)
            del self._runs[run.sequence]
        self._stepper.release(run.sequence)


def _device_parts(
    loaded: LoadedModel,
    compiler: GrammarCompiler,
    config: EngineConfig,
    drafter: LoadedModel | None,
    marker_ids: frozenset[int],
) -> tuple[Stepper, PrefixStore | None]:
    kept = config.prompt_cache_memory
    stepper = Stepper(
        loaded,
        compiler,
        kv_bits=config.kv_bits,
        look_ahead=config.look_ahead,
        drafts=_draft_source(loaded, config, drafter),
        max_prefix_bytes=_machine_bytes() // 8 if kept is None else kept,
        marker_ids=marker_ids,
    )
    return stepper, _prefix_store(loaded, config, stepper)


def _draft_source(loaded: LoadedModel, config: EngineConfig, drafter: LoadedModel | None) -> DraftSource | None:
    if not config.drafts:
        return None
    return PromptLookup() if drafter is None else FirstGuess([PromptLookup(), ModelDrafts(drafter, loaded)])


def _prefix_store(loaded: LoadedModel, config: EngineConfig, stepper: Stepper) -> PrefixStore | None:
    """Where prompts are kept between two runs, with what it has loaded."""
    if config.prompt_cache_dir is None:
        return None
    if not isinstance(stepper.memory, SlotMemory) or not isinstance(stepper.prefixes, PrefixCache):
        raise ConfigError("prompt_cache_dir: the cache of this model's architecture cannot be kept on disk")
    bits = "" if config.kv_bits is None else f"-{config.kv_bits}bit"
    store = PrefixStore(Path(config.prompt_cache_dir), loaded.model.fingerprint() + bits, stepper.memory)
    store.load(stepper.prefixes)
    return store


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _max_room(config: EngineConfig, bytes_per_token: int) -> int | None:
    """Tokens that all rows together may keep, in whole steps; None where the model's cache is not counted in them."""
    if bytes_per_token == 0:
        if config.kv_memory is not None:
            # A bound that is not held is worse than none.
            bound = "the caches of this model's architecture cannot be bounded; max_running bounds how many there are"
            raise ConfigError(f"kv_memory is {config.kv_memory}; {bound}")
        return None
    room = (config.kv_memory or _machine_bytes() // 4) // bytes_per_token // STEP * STEP
    if room == 0:
        least = bytes_per_token * STEP
        raise ConfigError(f"kv_memory is {config.kv_memory}; {STEP} tokens of this model take {least} bytes")
    return room
