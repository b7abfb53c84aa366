"""Fewer tools for a prompt: those whose names and descriptions say most of what the user asked for.

BM25, Robertson et al., TREC-3 (1994), by the library bm25s. What is left out cannot be called in this turn, and its
schema is not looked at; paths keep counting the tools as they were offered.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import bm25s

from engine.types import CustomTool, OfferedTool, Request, Role

# camelCase, snake_case and dotted names are as many words.
WORDS = re.compile(r"[^\W\d_]+|\d+")
CASE_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def with_retrieved_tools(request: Request) -> Request:
    """The same request with no more tools to call than its `tool_retrieval` says, in the order of their offer."""
    limit, tools = request.tool_retrieval, request.callable_tools
    if limit is None or len(tools) <= limit:
        return request
    names = tuple(tool.name for tool in retrieved(tools, _question(request), limit))
    return replace(request, tool_choice=replace(request.tool_choice, allowed=names))


def retrieved(tools: tuple[OfferedTool, ...], question: str, limit: int) -> tuple[OfferedTool, ...]:
    """The tools that fit the question best, in the order in which they were offered; of equal ones the first."""
    scores = _scores([_words(_document(tool)) for tool in tools], _words(question))
    best = sorted(range(len(tools)), key=lambda position: -scores[position])[:limit]
    return tuple(tools[position] for position in sorted(best))


def _scores(documents: list[list[str]], question: list[str]) -> list[float]:
    known = {word for document in documents for word in document}
    if not (asked := [word for word in question if word in known]):
        return [0.0] * len(documents)
    index = bm25s.BM25()
    index.index(documents, show_progress=False)
    scores: list[float] = index.get_scores(asked).tolist()
    return scores


def _question(request: Request) -> str:
    """The latest message of the user: it stays the same while tools are called for it."""
    asked = (message.content for message in reversed(request.messages) if message.role is Role.USER)
    return next(asked, None) or ""


def _document(tool: OfferedTool) -> str:
    """Its name, its description, and those of its parameters."""
    parts = [tool.name, tool.description]
    if not isinstance(tool, CustomTool):
        properties = (tool.parameters or {}).get("properties")
        # Where it is no object, the schema is refused; but by whoever compiles it, who names the place.
        for name, schema in properties.items() if isinstance(properties, Mapping) else ():
            parts += [name, str(schema.get("description", "")) if isinstance(schema, dict) else ""]
    return " ".join(parts)


def _words(text: str) -> list[str]:
    """Lower-case words, the plural's s off: what a user calls a route, a tool may call routes."""
    words = WORDS.findall(CASE_BORDER.sub(" ", text))
    return [word.lower().removesuffix("s") if len(word) > 3 else word.lower() for word in words]
