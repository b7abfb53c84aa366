"""The vetoes of a turn's schemas: each made once, with examples of what it asks for, and only where a value passes it.

A search through the grammar alone sees what may be written, not what a veto waits for. So for keywords that ask for
certain items or names, a few such values are looked for beforehand, in a grammar of their own.
"""

import itertools
import json
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any

from engine.errors import GrammarError, MatcherError
from engine.events import Enforcement
from engine.grammars.closing import ClosingSearch
from engine.grammars.closing_hints import schema_hints
from engine.grammars.json_schema import CheckedSchema
from engine.grammars.matcher import GrammarCompiler
from engine.grammars.schema_emission import ExampleSchema
from engine.grammars.tool_format import ToolFormat
from engine.grammars.turn_closing import hints_of
from engine.grammars.turn_parser import TurnParser
from engine.grammars.turn_parts import VetoedPart
from engine.grammars.veto import Veto
from engine.grammars.veto_arrays import equality_key
from engine.grammars.veto_matcher import TurnReader, TurnVetoes, VetoMatcher
from engine.tokenizer import Tokenizer

MAX_CACHED = 64
FEW_NODES = 1024
MAX_EXAMPLES = 1024  # of one keyword


class VetoMaker:
    """Makes vetoes, and keeps the latest. Any thread may use it."""

    def __init__(
        self,
        compiler: GrammarCompiler,
        closing: ClosingSearch,
        tokenizer: Tokenizer,
        tool_format: ToolFormat,
        max_tokens: int,
    ) -> None:
        """max_tokens: of any value."""
        self._compiler, self._closing, self._tokenizer = compiler, closing, tokenizer
        self._tool_format, self._max_tokens = tool_format, max_tokens
        self._lock = threading.Lock()
        self._made: OrderedDict[str, Veto] = OrderedDict()

    def of(self, part: VetoedPart) -> Veto:
        """Raises GrammarError, by the vetoed keywords' paths, where no value is found that passes."""
        key = json.dumps([part.checked.lark(), part.checked.source, sorted(part.checked.vetoed)])
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        examples = self._examples(part.checked)
        veto = Veto(part.checked.source, part.checked.vetoed, examples)
        # Where nothing is known of what a keyword asks for, most often there is nothing.
        self._check_can_be_satisfied(part, veto, max_nodes=None if all(examples.values()) else FEW_NODES)
        with self._lock:
            self._made[key] = veto
            while len(self._made) > MAX_CACHED:
                self._made.popitem(last=False)
        return veto

    def _examples(self, checked: CheckedSchema) -> dict[str, list[Any]]:
        """By keyword, as the veto takes them."""
        found: dict[str, list[Any]] = defaultdict(list)
        for wanted in checked.examples:
            count = min(wanted.count, MAX_EXAMPLES)
            found[wanted.keyword] += itertools.islice(self._values(wanted), count)
        return {keyword: list(values) for keyword, values in found.items()}

    def _values(self, wanted: ExampleSchema) -> Iterator[Any]:
        """Different values of the schema."""
        seen = set()
        try:
            matcher = self._compiler.compile(f"start: {CheckedSchema(wanted.schema).lark()}", param=wanted.keyword)
            for text in self._closing.texts(matcher, schema_hints(wanted.schema)):
                value = json.loads(text)
                if (value_key := equality_key(value)) not in seen:
                    seen.add(value_key)
                    yield value
        except (GrammarError, MatcherError):
            return  # without examples, the search goes on alone

    def _check_can_be_satisfied(self, part: VetoedPart, veto: Veto, max_nodes: int | None) -> None:
        """A grammar that is too wide compiles where no value passes the veto."""
        alone = self._compiler.compile(f"start: {part.checked.lark()}", param=part.path)
        text = TurnParser(self._tool_format, has_calls=False, special_tokens={}, call_id=str)
        matcher = VetoMatcher(alone, TurnReader(text, TurnVetoes(response=veto), self._tokenizer))
        if self._closing.path(matcher, self._max_tokens, hints_of(part.checked), max_nodes) is None:
            paths = [entry.path for entry in part.checked.entries if entry.enforcement is Enforcement.VETO]
            reason = f"no value was found that satisfies {' and '.join(paths)}"
            param = paths[0] if len(paths) == 1 else part.path
            raise GrammarError(f"{part.path} cannot be enforced: {reason}", param=param)
