"""Random walks through grammars under a veto: what ends is valid, and where no way is looked for, there is one."""

import itertools
import json
import random
from typing import Any

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from engine.errors import GrammarError, SchemaError, VetoError
from engine.grammars.json_schema import check_schema
from engine.grammars.tool_formats import PLAIN
from engine.grammars.veto import Veto
from engine.grammars.veto_matcher import TurnReader, TurnVetoes, VetoMatcher
from tests.grammars.turns import compiler_of, parser_of, takes, tokenizer_of, written
from tests.grammars.vetoes import SCHEMAS, SCHEMAS_AND_VALUES, is_valid, vetoed_in, without_vetoed

TOKENIZER = tokenizer_of(PLAIN)
CLOSERS = '"ab]}, :0123tfn{['  # what a search tries first, in this order
MAX_TOKENS = 120
MAX_NODES, MAX_DEPTH = 200, 60  # of a search


def start(schema: Any) -> VetoMatcher | None:
    """A matcher of the schema as a response; None where the rest of it is nothing for the grammar."""
    try:
        lark = check_schema(without_vetoed(schema), "response").lark()
        inner = compiler_of(PLAIN).compile(f"start: {lark}", param="response")
    except (SchemaError, GrammarError):
        return None
    veto = Veto(schema, frozenset(vetoed_in(schema)))
    parser = parser_of(PLAIN, has_calls=False, has_response=True)
    return VetoMatcher(inner, TurnReader(parser, TurnVetoes(response=veto), TOKENIZER))


def allowed(matcher: VetoMatcher) -> list[int]:
    row = np.zeros((TOKENIZER.num_tokens + 31) // 32, dtype=np.int32)
    matcher.fill_bitmask(row)
    return [int(token) for token in np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))]


def after(matcher: VetoMatcher, token: int) -> VetoMatcher | None:
    """The matcher one token further; None where that is vetoed."""
    copy = matcher.copy()
    try:
        copy.accept([token])
    except VetoError:
        return None
    return copy


def closers(matcher: VetoMatcher) -> list[int]:
    """Tokens of one character, best first; where bytes are forced, the one token that the mask allows."""
    tokens = allowed(matcher)
    texts = {token: TOKENIZER.token_bytes(token).decode(errors="replace") for token in tokens}
    ranks = {token: CLOSERS.find(text) % 99 for token, text in texts.items() if len(text) == 1 or len(tokens) == 1}
    return sorted(ranks, key=lambda token: ranks[token])[:14]


class SearchGaveUpError(Exception):
    """Neither an end was found, nor that there is none."""


def can_end(matcher: VetoMatcher) -> bool:
    """Whether tokens complete the value: depth first, so that it is soon done where it is easy."""
    left, num_nodes = [(matcher, 0)], 0
    while left:
        node, depth = left.pop()
        num_nodes += 1
        if node.is_accepting:
            return True
        if num_nodes > MAX_NODES or depth > MAX_DEPTH:
            raise SearchGaveUpError
        moved = (after(node, token) for token in reversed(closers(node)))
        left += [(each, depth + 1) for each in moved if each is not None]
    return False


def step(matcher: VetoMatcher, rng: random.Random) -> tuple[int, VetoMatcher] | None:
    """One token further, looking for a way to the end where that is due; None where there is none."""
    tokens = [token for token in allowed(matcher) if token not in TOKENIZER.eos_ids]
    likely = {token: rng.random() + (TOKENIZER.token_bytes(token)[:1] in b'"]},') for token in tokens}
    for token in sorted(tokens, key=lambda token: -likely[token]):
        moved = after(matcher, token)
        if moved is not None and (not moved.must_look_ahead or can_end(moved)):
            return token, moved
    return None


def walk(matcher: VetoMatcher, rng: random.Random) -> tuple[list[int], VetoMatcher]:
    """Where a walk ended: where the value may end, or at its limit of tokens, or where no token leads on."""
    tokens: list[int] = []
    while len(tokens) < MAX_TOKENS and not (matcher.is_accepting and (matcher.is_terminated or rng.random() < 0.5)):
        moved = step(matcher, rng)
        if moved is None:
            break
        token, matcher = moved
        tokens.append(token)
    return tokens, matcher


@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_whatever_is_drawn_the_end_is_valid_and_where_nothing_is_looked_for_some_token_leads_on(
    schema: Any, seed: int
) -> None:
    """F2."""
    matcher = start(schema)
    assume(matcher is not None)
    assert matcher is not None
    try:
        assume(not matcher.must_look_ahead or can_end(matcher))
        tokens, matcher = walk(matcher, random.Random(seed))
    except SearchGaveUpError:
        event("gave up")
        return
    if matcher.is_accepting:
        event("ended")
        assert is_valid(schema, json.loads(TOKENIZER.decode(tokens)))
    else:
        event("cut off")
        assert len(tokens) == MAX_TOKENS


@given(pair=SCHEMAS_AND_VALUES, places=st.lists(st.integers(1, 40), max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_value_is_let_through_if_the_grammar_can_write_it_and_it_is_valid(
    pair: tuple[Any, Any], places: list[int]
) -> None:
    schema, value = pair
    matcher, text = start(schema), written(value)
    assume(matcher is not None)
    assert matcher is not None
    bounds = [0, *sorted({place for place in places if place < len(text)}), len(text)]
    tokens = [token for first, last in itertools.pairwise(bounds) for token in TOKENIZER.encode(text[first:last])]
    can_be_written = takes(matcher.grammar.copy(), tokens)  # in this order, and in our style
    assert takes(matcher, tokens) == (can_be_written and is_valid(schema, value))
