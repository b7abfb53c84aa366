"""300 walks of the guarantee's fuzzing: every budget from the least upward, every keyword, nothing invalid."""

from collections.abc import Iterator

import pytest

from benchmarks.guarantee_schemas import random_schema
from benchmarks.guarantee_walks import GOOD, SHAPES, Coverage, Walk, Walker
from benchmarks.random_model import MOODS
from tests.fakes import fake_tokenizer

NUM_WALKS = 300
WALKS_A_SCHEMA = 5
FIRST_SEED = 7_000_000  # other schemas than the script's


@pytest.fixture(scope="module")
def walked() -> Iterator[tuple[list[Walk], Coverage]]:
    walker = Walker(fake_tokenizer())
    walks: list[Walk] = []
    number = FIRST_SEED
    while len(walks) < NUM_WALKS:
        walks += walker.walks(str(number), random_schema(number), num_walks=WALKS_A_SCHEMA, seed=0)
        number += 1
    yield walks, walker.coverage
    walker.close()


def test_every_answer_is_valid_and_complete(walked: tuple[list[Walk], Coverage]) -> None:
    """F1, F2, F7."""
    walks, _ = walked
    assert [walk for walk in walks if walk.outcome not in GOOD] == []
    assert all(walk.num_tokens <= walk.max_tokens for walk in walks)


def test_the_walks_go_everywhere(walked: tuple[list[Walk], Coverage]) -> None:
    _, coverage = walked
    assert coverage.outcomes["valid"] > NUM_WALKS / 2
    assert coverage.shapes.keys() == set(SHAPES)
    assert coverage.moods.keys() == MOODS.keys()
    assert {"grammar", "veto", "narrowed"} <= coverage.enforcements.keys()
    assert coverage.enforcements["veto"] > NUM_WALKS / 20
    assert coverage.budgets["least"] > NUM_WALKS / 10
    assert coverage.budgets["used up"] > NUM_WALKS / 10
    kinds = {"object", "empty object", "longer array", "array of one", "empty array", "str", "empty string", "int"}
    assert kinds | {"bool", "NoneType", "float"} <= coverage.values.keys()


def test_the_same_walk_gives_the_same_answer() -> None:
    answers = []
    for _ in range(2):
        walker = Walker(fake_tokenizer())
        answers.append([walk.values for walk in walker.walks("again", random_schema(3), num_walks=5, seed=0)])
        walker.close()
    assert answers[0] == answers[1]
