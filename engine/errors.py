"""Every exception that leaves the engine.

EngineError
|-- RequestError            the caller can fix it; raised before the first token
|   |-- SchemaError         a JSON schema that is malformed, too large or cannot be enforced
|   |   `-- UnenforceableError  for one keyword, without which the rest may well be: `lenient` drops it
|   |-- GrammarError        a regex, Lark or choice grammar that does not compile
|   |-- ContextLengthError  prompt and answer do not fit into the model's context
|   |-- BudgetError         no complete answer fits into max_tokens
|   `-- UnknownToolError    a tool name that nobody registered
|-- ModelError              a model cannot be had
|   |-- ModelNotFoundError      no such name, folder or file, or no network to fetch it
|   `-- UnsupportedModelError   found, but of a kind that is not supported
|-- ConfigError             an engine option with a value that is not allowed
|-- GenerationError         the engine's own fault; ends one sequence, never the engine
|   `-- MatcherError        a matcher lost step with the tokens, or hit a limit
|       `-- VetoError           a token completes what the schema refuses; others may do
|-- QueueFullError          as many requests wait as may wait; try again later
|-- ToolError               in engine.tools: a tool's own failure, told to the model
|   |-- CalculationError        of the calculator
|   `-- WebSearchError          of the search
|-- OutputError             in engine.structured: an answer that is no value of the type asked for
|-- BatchError              in engine.structured: some prompts of several have no answer
`-- EngineClosedError       submitted to, or interrupted by, a closed engine
"""


class EngineError(Exception):
    """Base of all errors that the engine raises on purpose."""


class RequestError(EngineError):
    """The caller can fix this. Raised before the first token, never after."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param  # path into the request: "tools[0].function.parameters"


class SchemaError(RequestError):
    """A JSON schema is malformed, or has something that no grammar here can hold."""


class UnenforceableError(SchemaError):
    """A keyword that cannot be enforced, where all else may be well: `lenient` drops it, or the `not` around it."""


class GrammarError(RequestError):
    """A regex, choice or Lark grammar that does not compile."""


class ContextLengthError(RequestError):
    """The prompt, or the prompt with its answer, is longer than the model's context."""


class BudgetError(RequestError):
    """No complete answer fits into max_tokens."""

    def __init__(self, message: str, *, param: str, least: int) -> None:
        super().__init__(message, param=param)
        self.least = least  # tokens; with so many, or more, the request is taken


class UnknownToolError(RequestError):
    """A tool name that was not offered or registered."""


class ModelError(EngineError):
    """A model cannot be had."""


class ModelNotFoundError(ModelError):
    """No such model name, folder or file, or no network to fetch it."""


class UnsupportedModelError(ModelError):
    """The model was found, but its architecture, tokenizer or number format is not supported."""


class ConfigError(EngineError):
    """An engine option has a value that is not allowed."""


class GenerationError(EngineError):
    """The engine's own fault. It ends one sequence and leaves the others alone."""


class MatcherError(GenerationError):
    """A matcher rejected a token that it had allowed, or ran into one of its limits."""


class VetoError(MatcherError):
    """A token that the grammar allows completes what the schema refuses. The matcher stands where it stood."""


class QueueFullError(EngineError):
    """As many requests wait as may wait; try again later."""


class EngineClosedError(EngineError):
    """The engine was closed before, or while, this was asked of it."""
