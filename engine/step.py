"""THE step function: every forward pass of the engine, for the prompt, for sampled and for forced tokens alike.

launch forward(pending tokens of every row)          the device is busy from here on
fill the bitmask of every row, on the host           meanwhile
mask, sample, launch                                 no wait between
wait for the sampled tokens                          the one wait (logprobs, where asked for, are a second)
every row: accept the token, then what the grammar forces; both become pending
"""

import logging
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field

import mlx.core as mx

from engine.cache import Cache
from engine.deciding import Decider
from engine.drafts import MAX_DRAFT, Draft, DraftSource, num_equal
from engine.draws import Drawer, StepRow
from engine.errors import GenerationError, MatcherError
from engine.events import Decision, StopReason, TokenLogprob
from engine.grammars.matcher import GrammarCompiler
from engine.memory import Memory
from engine.model import Chunk, LanguageModel, LoadedModel
from engine.passes import PASS_COST_CPU, PASS_COST_GPU, plan_passes
from engine.prefix_cache import PrefixCache, SnapshotCache
from engine.sequence import Sequence
from engine.work import Work

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """What one step did to one sequence."""

    tokens: list[int] = field(default_factory=list)  # new output
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of output tokens, in order, where asked for
    error: GenerationError | None = None
    decision: Decision | None = None  # made before the new output


class Stepper:
    """A model with what a step needs beside it. Used by the decoding thread only."""

    def __init__(
        self,
        loaded: LoadedModel,
        compiler: GrammarCompiler,
        *,
        kv_bits: int | None = None,
        look_ahead: bool = True,
        max_prefix_bytes: int = 0,
        drafts: DraftSource | None = None,
        marker_ids: frozenset[int] = frozenset(),
    ) -> None:
        """look_ahead: launch the next pass before its tokens are read, where that may pay. max_prefix_bytes: for what
        prompts that were read leave to later ones; 0 keeps none. drafts: guesses at what constrained rows will write.
        marker_ids: tokens of the model's tool format, which free text of a conversation must not have.

        Raises ConfigError where the model's cache cannot be quantised to kv_bits.
        """
        self._model: LanguageModel = loaded.model
        self._eos_ids = loaded.tokenizer.eos_ids
        self._drafts = drafts
        self._looks_ahead = look_ahead
        self._pass_cost = PASS_COST_CPU if mx.default_device().type == mx.cpu else PASS_COST_GPU
        self.memory = loaded.model.make_memory(kv_bits=kv_bits)
        self.work = Work()
        self.prefixes = _prefix_cache(max_prefix_bytes, self.memory)
        self._last_asked: tuple[int, ...] = ()  # see reuse
        self._drawer = Drawer(loaded, compiler, self.work, marker_ids)
        self._decider = Decider(loaded.model, loaded.tokenizer.num_tokens, self._drawer, self.work)

    @property
    def bytes_per_token(self) -> int:
        """Of the keys and values that a row has, with a drafting model's; 0 where the model's own do not grow."""
        own = self.memory.bytes_per_token  # where they do not, nothing is drafted
        return own + self._drafts.bytes_per_token if own and self._drafts is not None else own

    def step(self, sequences: Rows[Sequence], max_chunk: int, *, others_wait: bool = True) -> list[Progress]:
        """The next tokens of each sequence, in as few forward passes as pay. What happened, in their order.

        max_chunk: tokens of a prompt, or of what is read again, in one pass; a drafting model reads so many, too.
        others_wait: whether there is more than one sequence, so that a drafting model may read but one chunk.
        """
        with self.work.timed("step_s"):
            self.work.num_steps += 1
            rows = [self._next_row(sequence, max_chunk) for sequence in sequences]
            self._add_drafts(rows, max_chunk, others_wait)
            for row in rows:
                if row.draws and row.sequence.at_decision:
                    assert row.sequence.point is not None
                    row.scored = row.sequence.point.plan.scored
            with self.work.timed("forward_s"):
                self._launch(rows)
            if drawing := [row for row in rows if row.draws]:
                self._draw(drawing)
            self._keep_prompts(rows)
            return [self._move_on(row, len(rows)) for row in rows]

    def reuse(self, sequences: Rows[Sequence]) -> None:
        """Begin sequences whose prompts, but for their last token, are known by now: they need no turn of their own."""
        if self.prefixes is None:
            return
        unread = [sequence for sequence in sequences if sequence.cache is None]
        if not unread:
            self._last_asked = ()
            return
        asked = (self.prefixes.num_kept, *map(id, unread))
        if asked == self._last_asked:  # nothing new to be known, and nobody new to ask
            return
        self._last_asked = asked
        for sequence in unread:
            known = sequence.pending[: sequence.num_to_take_over]
            if known and self.prefixes.find(known) == len(known):
                self._try_to_begin(sequence)

    def _try_to_begin(self, sequence: Sequence) -> None:
        try:
            self._begin(sequence)
        except RuntimeError:  # MLX's only one: out of memory, say. Then it reads its prompt, when its turn comes
            logger.exception("a known prompt could not be taken over")
            sequence.release()

    def release(self, sequence: Sequence) -> None:
        """Give a sequence's memory back; what it has seen may serve later prompts. Never raises."""
        if sequence.cache is not None and sequence.stop_reason is not StopReason.FAILED:
            self._keep(sequence, sequence.cache)
        if self._drafts is not None:
            self._drafts.forget(sequence)
        sequence.release()

    # What to run.

    def _begin(self, sequence: Sequence) -> None:
        sequence.cache = self.memory.make_cache()
        if self.prefixes is None:
            return
        num_known = self.prefixes.restore(sequence.pending[: sequence.num_to_take_over], sequence.cache)
        sequence.pending = sequence.pending[num_known:]
        if not sequence.num_forward_passes:  # else it begins again
            sequence.num_reused = num_known

    def _keep_prompts(self, rows: Rows[StepRow]) -> None:
        """Let others have the prompts that were read in this step."""
        for row in rows:
            if row.reads and self.prefixes is not None and (row.draws or self.prefixes.keeps_chunks):
                self._keep(row.sequence, row.cache)

    def _keep(self, sequence: Sequence, cache: Cache) -> None:
        if self.prefixes is None:
            return
        try:
            self.work.num_waits += self.prefixes.keep(sequence.tokens_seen, cache)
        except Exception:  # whatever the device raised: it can be computed again, and nobody waits for this
            logger.exception("a prompt could not be kept")

    def _next_row(self, sequence: Sequence, max_chunk: int) -> StepRow:
        if sequence.cache is None:
            self._begin(sequence)
        if sequence.ahead is not None:
            logits, sequence.ahead = sequence.ahead, None
            return StepRow(sequence, [], 1, draws=True, logits=logits)
        reads = sequence.num_to_read > 0
        num_pending = len(sequence.pending)
        num_unread = num_pending - sequence.num_unscored - 1  # before the first position whose logits are wanted
        if num_pending > max_chunk and num_unread > 0:
            return StepRow(sequence, sequence.pending[: min(max_chunk, num_unread)], 0, draws=False, reads=reads)
        if sequence.stop_reason is not None:  # forced to its end; only their logprobs are owed
            return StepRow(sequence, sequence.pending[:-1], sequence.num_unscored, draws=False, reads=reads)
        return StepRow(sequence, sequence.pending, sequence.num_unscored + 1, draws=True, reads=reads)

    def _add_drafts(self, rows: Rows[StepRow], max_chunk: int, others_wait: bool) -> None:
        """Put guesses behind what is pending, where they may pay. A row whose pass ran ahead gets none in this step."""
        if self._drafts is None:
            return
        self._drafts.begin_step(max_chunk, others_wait=others_wait)
        for row in rows:
            if row.draws and not row.reads and row.sequence.may_draft:
                row.is_guessable = self._drafts.may_guess(row.sequence)
                if row.is_guessable and row.logits is None:
                    self._add_draft(row, self._drafts)

    def _add_draft(self, row: StepRow, source: DraftSource) -> None:
        room = min(MAX_DRAFT, row.sequence.tokens_left - 1)  # one is drawn behind them
        if room < 1:
            return
        try:
            draft = source.draft(row.sequence, room)
            self._count_draft(draft)
            row.drafts = self._legal(row.sequence, draft.tokens)
        except MatcherError:  # it shows again where the mask is filled
            return
        row.draft_cost = draft.cost_share * self._pass_cost
        row.tokens = [*row.tokens, *row.drafts]
        row.num_logits += len(row.drafts)

    def _count_draft(self, draft: Draft) -> None:
        self.work.num_draft_passes += draft.num_passes
        self.work.num_draft_positions += draft.num_positions
        self.work.num_waits += draft.num_waits

    def _legal(self, sequence: Sequence, draft: list[int]) -> list[int]:
        """A draft up to the first token that the grammar forbids, or that ends the turn."""
        ends = [index for index, token in enumerate(draft) if token in self._eos_ids]
        draft = draft[: ends[0]] if ends else draft
        if sequence.point is not None:
            draft = draft[: sequence.point.num_before(draft)]
        return draft[: self._drawer.num_legal(sequence, draft)]

    def _launch(self, rows: Rows[StepRow]) -> None:
        """Start the forward passes. What a row has run is no longer pending."""
        rows = [row for row in rows if row.logits is None]
        caches = [row.cache for row in rows]
        widths = [len(row.tokens) + len(row.scored) for row in rows]
        for members in plan_passes(widths, [cache.group for cache in caches], self._pass_cost):
            together = [rows[index] for index in members]
            logits = self._model.forward([_chunk(row) for row in together])
            unread = [array for row in together if row.num_logits == 0 for array in row.cache.arrays()]
            mx.async_eval(logits, *unread)
            self._count_pass(together, [widths[index] for index in members])
            first = 0
            for row in together:
                row.logits = _rows_of(logits, first, row.num_logits)
                first += row.num_logits
                if row.scored:
                    row.open_logits = mx.concatenate([row.logits[-1:], logits[first : first + len(row.scored)]])
                    first += len(row.scored)
                    row.cache.trim(len(row.scored))
                row.sequence.pending = row.sequence.pending[len(row.tokens) - len(row.drafts) :]

    def _look_ahead(self, rows: Rows[StepRow], tokens: mx.array) -> None:
        """Launch the next pass of rows that all may look ahead; tokens: (B,), theirs, which nobody has read yet.

        A row that then ends, or goes on otherwise, has run one pass too many. Prompts do not start it, so that a short
        answer costs none.
        """
        going_on = [index for index, row in enumerate(rows) if row.sequence.tokens_left > 1]
        groups = [rows[index].cache.group for index in going_on]
        for members in plan_passes([1] * len(going_on), groups, self._pass_cost):
            indices = [going_on[member] for member in members]
            together = [rows[index] for index in indices]
            chunks = [Chunk([0], row.cache, num_logits=1) for row in together]
            logits = self._model.forward(chunks, tokens[mx.array(indices)])
            mx.async_eval(logits)
            self._count_pass(together, [1] * len(together))
            self.work.num_ahead += 1
            for number, row in enumerate(together):
                row.sequence.ahead = logits[number : number + 1]

    def _count_pass(self, rows: Rows[StepRow], widths: Rows[int]) -> None:
        for row in rows:
            row.sequence.num_forward_passes += 1
        self.work.num_passes += 1
        self.work.num_positions += len(widths) * max(widths)
        self.work.num_padding += len(widths) * max(widths) - sum(widths)

    def _draw(self, rows: Rows[StepRow]) -> None:
        tokens = self._drawer.launch(rows)
        for row in rows:
            if row.sequence.at_decision:
                self._decider.look(row)
        if self._looks_ahead and all(_may_look_ahead(row) for row in rows):
            with self.work.timed("forward_s"):
                mx.async_eval(tokens)  # of its own: what is launched with the next pass could only be read behind it
                self._look_ahead(rows, tokens)
        drawn = self._drawer.read(tokens, *(row.marker for row in rows if row.marker is not None))
        for row in rows:
            row.drawn, drawn = drawn[: row.num_draws], drawn[row.num_draws :]

    # What comes of it.

    def _move_on(self, row: StepRow, num_rows: int) -> Progress:
        sequence, before, drawn = row.sequence, len(row.sequence.output), row.drawn[:1]
        try:
            decision, path = self._make_legal(row)
            scores = self._drawer.logprobs(row, row.drawn[0] if row.drawn else None)
            num_accepted = self._advance(row, path)
        except GenerationError as error:
            sequence.stop_reason = StopReason.FAILED
            return Progress(error=error)
        if row.drafts or row.draft_cost:
            self._settle(row, num_accepted, num_rows)
        if sequence.ahead is not None:
            self._settle_ahead(row, is_refused=row.drawn[:1] != drawn)
        # The token that ends the turn is scored with the others, but is no output.
        logprobs = scores[: len(sequence.output) - len(sequence.logprobs)]
        sequence.logprobs += logprobs
        return Progress(sequence.output[before:], logprobs, decision=decision)

    def _make_legal(self, row: StepRow) -> tuple[Decision | None, list[int]]:
        """Make what is drawn first a token to be taken. Where call or text was open: the decision, and a call's tokens.

        May raise MatcherError.
        """
        decision, path = self._decider.decide(row) if row.marker is not None else (None, [])
        if path:
            row.drawn[0] = path[0]  # its logprob may be asked for
        elif row.draws:
            self._drawer.admit(row, 0)
            if decision is not None and self._decider.undo(row):
                return None, []
        return decision, path

    def _advance(self, row: StepRow, path: list[int]) -> int:
        """Go on by a call that was decided, or by what was drawn. Returns how many drafts were right."""
        if path:
            row.sequence.enter(path)
            return 0
        return self._take(row) if row.draws else 0

    def _take(self, row: StepRow) -> int:
        """Go on by what was drawn, as far as the drafts were right. Returns how far that is. May raise MatcherError.

        The first token has been admitted.
        """
        sequence, num_accepted = row.sequence, 0
        while True:
            if num_accepted:  # the first one was
                self._drawer.admit(row, num_accepted)
            before = len(sequence.output)
            sequence.take(row.drawn[num_accepted])
            sequence.drafting.add_token()
            written = sequence.output[before:]  # with what is forced behind the token
            num_right = num_equal(row.drafts[num_accepted:], written)
            num_accepted += num_right
            if sequence.stop_reason is not None or num_right < len(written):
                sequence.pending = sequence.pending[num_right:]  # what was right has gone through the model
                return num_accepted

    def _settle(self, row: StepRow, num_accepted: int, num_rows: int) -> None:
        """Take back what was drafted in vain, and count whether drafts pay."""
        row.cache.trim(len(row.drafts) - num_accepted)
        self.work.num_drafted += len(row.drafts)
        self.work.num_accepted += num_accepted
        row.sequence.drafting.settle(
            len(row.drafts),
            num_accepted,
            num_rows=num_rows,
            pass_cost=self._pass_cost,
            draft_cost=row.draft_cost,
        )

    def _settle_ahead(self, row: StepRow, *, is_refused: bool) -> None:
        """Keep of a pass that ran ahead what the row goes on with. is_refused: another token was taken than ran."""
        sequence = row.sequence
        if is_refused or sequence.at_decision:  # there, the token runs again: with what is scored behind it
            row.cache.trim(1)
        else:
            sequence.pending = sequence.pending[1:]  # it has gone through the model
        if sequence.pending or sequence.stop_reason is not None:  # so the logits are not those of the next token
            sequence.ahead, sequence.num_unforced_now = None, 0


def _prefix_cache(max_bytes: int, memory: Memory) -> PrefixCache | SnapshotCache | None:
    if not max_bytes:
        return None
    return PrefixCache(max_bytes, memory.bytes_per_token) if memory.can_cut else SnapshotCache(max_bytes)


def _rows_of(logits: mx.array, first: int, num_rows: int) -> mx.array:
    """So many rows from the first on. All of them are the array itself: a slice would cost the host an operation."""
    return logits if num_rows == logits.shape[0] else logits[first : first + num_rows]


def _may_look_ahead(row: StepRow) -> bool:
    """A row that reads its prompt may not, however little of it: an answer that ends at once has one pass.

    Nor one that may draft in the next step: a right guess saves a whole pass.
    """
    return row.sequence.may_look_ahead and len(row.tokens) <= 1 and not row.reads and not row.is_guessable


def _chunk(row: StepRow) -> Chunk:
    tokens = [*row.tokens, *row.scored] if row.scored else row.tokens
    return Chunk(tokens, row.cache, row.num_logits + len(row.scored))
