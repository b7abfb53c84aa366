"""Rows of unequal length go through one forward pass, and none of them notices."""

from collections.abc import Hashable, Sequence

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlx_lm.models import gemma3_text, llama

from engine.cache import Part
from engine.capacity import CLASS_FACTOR, FIRST_CLASS, STEP, capacity_class, room_for
from engine.errors import ConfigError
from engine.memory import LayerMemory, SlotCache, SlotMemory
from engine.model import Chunk, MLXModel
from tests.tiny_models import CONFIG, ROTATING, random_weights

TOLERANCE = 1e-3  # float32
VOCABULARY = CONFIG["vocab_size"]


@pytest.fixture(scope="module")
def model() -> MLXModel:
    return tiny_model()


def tiny_model(**changes: object) -> MLXModel:
    config = CONFIG | changes
    module = llama.Model(llama.ModelArgs.from_dict(config))
    module.load_weights(list(random_weights(config).items()))
    mx.eval(module.parameters())
    return MLXModel(module, 128)


def memory_of(model: MLXModel, *, kv_bits: int | None = None) -> SlotMemory:
    memory = model.make_memory(kv_bits=kv_bits)
    assert isinstance(memory, SlotMemory)
    return memory


def tokens(seed: int, num_tokens: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(VOCABULARY, size=num_tokens)]


def alone(model: MLXModel, seen: list[int], num_logits: int = 1) -> np.ndarray:
    """Logits (num_logits, V) after these tokens, read at once by mlx-lm's own cache."""
    return np.array(model.module(mx.array([seen]))[0, len(seen) - num_logits :])


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


class Walk:
    """Rows with what they have seen, to compare each with itself alone."""

    def __init__(self, model: MLXModel, memory: SlotMemory) -> None:
        self.model = model
        self.memory = memory
        self.rows: list[tuple[SlotCache, list[int]]] = []

    def begin(self) -> None:
        self.rows.append((self.memory.make_cache(), []))

    def append(self, chunks: dict[int, list[int]], num_logits: int = 1) -> None:
        """One forward pass over some rows, checked."""
        asked = [Chunk(new, self.rows[at][0], min(num_logits, len(new))) for at, new in chunks.items()]
        logits = np.array(self.model.forward(asked))
        for (at, new), chunk in zip(chunks.items(), asked, strict=True):
            seen = self.rows[at][1]
            seen += new
            own, logits = logits[: chunk.num_logits], logits[chunk.num_logits :]
            assert difference(own, alone(self.model, seen, chunk.num_logits)) < TOLERANCE
        assert len(logits) == 0

    def trim(self, at: int, num_tokens: int) -> None:
        cache, seen = self.rows[at]
        cache.trim(num_tokens)
        del seen[len(seen) - num_tokens :]

    def end(self, at: int) -> None:
        self.rows.pop(at)[0].release()


@settings(deadline=None, max_examples=40)
@given(data=st.data(), kept=st.integers(0, 2**31))
def test_rows_that_join_leave_trim_and_pause_have_the_logits_that_they_have_alone(
    model: MLXModel, data: st.DataObject, kept: int
) -> None:
    walk = Walk(model, memory_of(model))
    for step in range(data.draw(st.integers(1, 10))):
        what = data.draw(st.sampled_from(["begin", "append", "append", "append", "trim", "end"]))
        indices = list(range(len(walk.rows)))
        if what == "begin" or not indices:
            walk.begin()
            walk.append({len(walk.rows) - 1: tokens(kept + step, data.draw(st.integers(1, 20)))})
        elif what == "append":
            chosen = data.draw(st.lists(st.sampled_from(indices), min_size=1, unique=True))
            widths = {at: data.draw(st.integers(1, 5)) for at in chosen}
            chunks = {at: tokens(kept + 100 * step + at, width) for at, width in widths.items()}
            walk.append(chunks, num_logits=data.draw(st.integers(1, 3)))
        else:
            at = data.draw(st.sampled_from(indices))
            if what == "end":
                walk.end(at)
            else:
                walk.trim(at, data.draw(st.integers(0, min(4, len(walk.rows[at][1]) - 1))))


def test_a_row_that_outgrows_its_slots_makes_them_larger(model: MLXModel) -> None:
    walk = Walk(model, memory_of(model))
    for at, num_tokens in enumerate((STEP - 3, 5)):
        walk.begin()
        walk.append({at: tokens(at, num_tokens)})
    for step in range(3):
        walk.append({0: tokens(10 + step, 2), 1: tokens(20 + step, 1)})
    slots = walk.rows[0][0].row.slots
    assert slots is walk.rows[1][0].row.slots
    assert (slots.num_slots, slots.capacity) == (2, 2 * STEP)


def test_rows_of_very_different_length_do_not_share_a_pass() -> None:
    limits = [FIRST_CLASS * CLASS_FACTOR**number for number in range(3)]
    assert [capacity_class(limit) for limit in limits] == [0, 1, 2]
    assert [capacity_class(limit + 1) for limit in limits] == [1, 2, 3]


def test_a_row_leaves_the_slots_of_its_class_when_it_grows_out_of_it(
    model: MLXModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.capacity.FIRST_CLASS", 16)
    walk = Walk(model, memory_of(model))
    for at, num_tokens in enumerate((15, 5, 15)):
        walk.begin()
        walk.append({at: tokens(at, num_tokens)})
    walk.append({at: tokens(10 + at, 2) for at in range(3)})  # 17, 7, 17
    long, short, other = (cache for cache, _ in walk.rows)
    assert long.group == other.group != short.group

    walk.append({0: tokens(20, 1)})
    assert long.row.slots not in (short.row.slots, other.row.slots)
    walk.append({0: tokens(21, 1), 2: tokens(22, 3)})
    walk.append({1: tokens(23, 1)})
    assert long.row.slots is other.row.slots is not short.row.slots


def test_joining_is_one_copy_and_steps_move_nothing(model: MLXModel) -> None:
    memory = memory_of(model)
    walk = Walk(model, memory)
    for at in range(3):
        walk.begin()
        walk.append({at: tokens(at, 10)})
    assert memory.bytes_moved == 0

    walk.append({at: tokens(at, 1) for at in range(3)})
    joined = memory.bytes_moved
    assert joined >= 3 * 10 * memory.bytes_per_token

    for step in range(20):
        walk.append({at: tokens(step, 1) for at in range(3)})
    assert memory.bytes_moved == joined


def test_leaving_moves_the_last_row_into_the_free_slot_and_joining_takes_it(model: MLXModel) -> None:
    memory = memory_of(model)
    walk = Walk(model, memory)
    for at in range(4):
        walk.begin()
        walk.append({at: tokens(at, 10)})
    walk.append({at: tokens(at, 1) for at in range(4)})
    before = memory.bytes_moved

    walk.end(1)
    walk.append({at: tokens(9, 1) for at in range(3)})
    assert [cache.row.index for cache, _ in walk.rows] == [0, 2, 1]
    assert memory.bytes_moved - before == 11 * memory.bytes_per_token


def test_slots_that_few_rows_use_give_their_memory_back(model: MLXModel) -> None:
    walk = Walk(model, memory_of(model))
    for at in range(8):
        walk.begin()
        walk.append({at: tokens(at, 10)})
    walk.append({at: tokens(at, 1) for at in range(8)})
    slots = walk.rows[0][0].row.slots
    assert 8 <= slots.num_slots <= 12
    for _ in range(6):
        walk.end(0)
    walk.append({0: tokens(1, 1), 1: tokens(2, 1)})
    assert slots.num_slots == 2
    walk.end(0)
    walk.end(0)
    assert slots.arrays() == []


class Rooms:
    """Rows of made-up lengths in one memory. Nothing is computed: shapes say what is held."""

    def __init__(self) -> None:
        self.memory = SlotMemory(1)
        self.caches: list[SlotCache] = []

    def begin(self, num_tokens: int) -> None:
        self.caches.append(self.memory.make_cache())
        self.caches[-1].write([(Part([[mx.zeros((1, 1, num_tokens, 1))]], 0), num_tokens)])

    def step(self, widths: Sequence[int]) -> None:
        groups: dict[Hashable, list[tuple[SlotCache, int]]] = {}
        for cache, width in zip(self.caches, widths, strict=True):
            groups.setdefault(cache.group, []).append((cache, width))
        for rows in groups.values():
            slots = self.memory.together([cache for cache, _ in rows])
            slots.open({cache.row.index: width for cache, width in rows})
            for cache, width in rows:
                cache.row.num_tokens += width

    @property
    def counted(self) -> int:
        """As the scheduler counts."""
        return room_for(cache.num_tokens for cache in self.caches)

    @property
    def held(self) -> int:
        slots = {id(cache.row.slots): cache.row.slots for cache in self.caches}
        return sum(each.num_slots * each.capacity for each in slots.values())


def test_a_long_row_that_leaves_takes_its_room_with_it() -> None:
    rooms = Rooms()
    for num_tokens in (4000, 1030, 1030, 1030):
        rooms.begin(num_tokens)
    rooms.step([1] * 4)
    assert rooms.held == rooms.counted == 4 * 4096
    rooms.caches.pop(0).release()
    rooms.step([1] * 3)
    assert rooms.held == rooms.counted == 3 * 1280
    for _ in range(2):
        rooms.caches.pop().release()
    rooms.step([1])
    assert rooms.held == rooms.counted == 1280


LENGTHS = st.sampled_from([1, 100, 255, 256, 700, 1023, 1024, 1030, 2000, 4000, 4096, 5000])
MOVES = st.lists(st.tuples(st.sampled_from(["begin", "end", "step"]), LENGTHS), max_size=40)


@given(MOVES)
@example([("begin", 1023), ("begin", 4096), ("begin", 1)])  # a row outgrows its slots after its neighbour's pass
def test_slots_hold_at_most_twice_what_is_counted(moves: list[tuple[str, int]]) -> None:
    rooms = Rooms()
    for move, number in moves:
        if move == "begin":
            rooms.begin(number)
        elif move == "end" and rooms.caches:
            rooms.caches.pop(number % len(rooms.caches)).release()
        before = rooms.counted
        rooms.step([1 + (number + at) % 5 for at in range(len(rooms.caches))])
        assert rooms.held <= 2 * max(before, rooms.counted)


def test_what_an_earlier_tenant_left_in_a_slot_cannot_spoil_the_next(model: MLXModel) -> None:
    """Masked positions are weighed 0, and 0 times NaN is NaN."""
    walk = Walk(model, memory_of(model))
    for at in range(3):
        walk.begin()
        walk.append({at: tokens(at, 30)})
    walk.append({at: tokens(at, 1) for at in range(3)})
    slots = walk.rows[1][0].row.slots
    for layer in slots.layers:
        for plane in layer.planes:
            plane[1:2] = mx.nan
    walk.end(1)
    walk.begin()
    walk.append({2: tokens(7, 4)})
    walk.append({at: tokens(at, 2) for at in range(3)})
    assert walk.rows[2][0].row.index == 1


def test_a_row_takes_over_what_another_has_read(model: MLXModel) -> None:
    memory = memory_of(model)
    walk = Walk(model, memory)
    walk.begin()
    walk.append({0: tokens(0, 12)})
    heir = memory.make_cache()
    first = walk.rows[0][0]
    one, other = first.read([(0, 5), (5, 12)])
    heir.write([(one, 5), (other, 4)])
    walk.rows.append((heir, tokens(0, 12)[:9]))
    walk.append({0: tokens(1, 2), 1: tokens(2, 3)})


def test_the_memory_of_a_token_is_told(model: MLXModel) -> None:
    head_size = CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    floats = 2 * CONFIG["num_hidden_layers"] * CONFIG["num_key_value_heads"] * head_size
    assert memory_of(model).bytes_per_token == 4 * floats


# Other kinds of caches.


def test_a_model_with_rotating_layers_keeps_the_caches_of_mlx_lm_and_its_rows_run_alone() -> None:
    config = {**ROTATING, "vocab_size": 64, "sliding_window": 8}
    module = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(config))
    mx.eval(module.parameters())
    model = MLXModel(module, 128)
    memory = model.make_memory()
    assert isinstance(memory, LayerMemory)
    one, other = memory.make_cache(), memory.make_cache()
    assert one.group != other.group

    for chunk in ([1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [12]):
        found = np.array(model.forward([Chunk(chunk, one, num_logits=1)]))
    assert difference(found, np.array(module(mx.array([list(range(1, 13))]))[0, -1:])) < TOLERANCE
    assert not one.can_trim

    heir = memory.make_cache()
    (state,) = one.read([(0, 12)])
    heir.write([(state, 12)])
    for cache in (one, heir):  # each goes on by itself
        again = np.array(model.forward([Chunk([13, 14], cache, num_logits=1)]))
        assert difference(again, np.array(module(mx.array([list(range(1, 15))]))[0, -1:])) < TOLERANCE
    with pytest.raises(ConfigError, match="kv_bits is 8"):
        model.make_memory(kv_bits=8)


@pytest.mark.parametrize("kv_bits", [4, 8])
def test_quantised_rows_have_the_logits_that_they_have_alone(kv_bits: int) -> None:
    model = tiny_model(hidden_size=128, num_attention_heads=2)  # heads of one group
    memory = memory_of(model, kv_bits=kv_bits)
    rows = [tokens(at, 10 + at) for at in range(3)]
    caches = [memory.make_cache() for _ in rows]
    for row, cache in zip(rows, caches, strict=True):
        model.forward([Chunk(row[:-2], cache, num_logits=0)])
    together = np.array(model.forward([Chunk(row[-2:], cache, 1) for row, cache in zip(rows, caches, strict=True)]))
    for row, found in zip(rows, together, strict=True):
        cache = memory.make_cache()
        model.forward([Chunk(row[:-2], cache, num_logits=0)])
        assert difference(found, np.array(model.forward([Chunk(row[-2:], cache, num_logits=1)]))[0]) < TOLERANCE
    exact = np.stack([alone(model, row)[0] for row in rows])
    assert 0 < difference(together, exact) < {4: 8, 8: 1}[kv_bits]
    assert memory.bytes_per_token < memory_of(model).bytes_per_token / 3


def test_a_head_size_that_cannot_be_quantised_is_refused_by_name(model: MLXModel) -> None:
    with pytest.raises(ConfigError, match="kv_bits is 4"):
        model.make_memory(kv_bits=4)  # heads of 16 values, where groups have 64


def test_a_memory_is_its_engines_own(model: MLXModel) -> None:
    one, other = memory_of(model), memory_of(model)
    caches = [one.make_cache(), one.make_cache()]
    for seed in range(2):
        for cache in caches:
            model.forward([Chunk(tokens(seed, 3), cache, 1)])
        model.forward([Chunk(tokens(seed, 2), cache, 1) for cache in caches])
    assert one.bytes_moved > other.bytes_moved == 0
