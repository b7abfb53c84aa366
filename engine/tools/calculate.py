"""A calculator that a hostile user may type into.

Bounded by construction: the text is short, only listed characters, names and operators get through, and no intermediate
value is larger than MAX_INT_BITS, so that no step can be slow. simpleeval evaluates what is left.

Operators: + - * / // % ** and ^, which is a power too. Functions: sqrt, exp, log (natural), ln, log2, log10, sin, cos,
tan, asin, acos, atan, atan2, degrees, radians, hypot, abs, round, floor, ceil, min, max, pow, gcd, factorial.
Constants: pi, e, tau. Angles are in radians. The tool's own description is short: it becomes part of every prompt.
"""

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import Annotated, NoReturn

from pydantic import Field
from simpleeval import SimpleEval

from engine.tools.registry import ToolError, tool

MAX_EXPRESSION_CHARS = 1000
MAX_DEPTH = 200  # of the syntax tree; a sum of n terms has depth n
MAX_INT_BITS = 4096  # four times what a float holds: room for quotients such as factorial(400) / factorial(398)
MAX_FACTORIAL = 500  # 500! has 3767 bits
MAX_ROUND_DIGITS = 300  # round(5, -n) computes 10**n

Number = int | float


class CalculationError(ToolError, ValueError):
    """An expression without a value: malformed, not allowed, undefined or too large."""


# What a model may write: narrower than what is understood, so that a small one cannot drift into prose or endless
# digits. Parentheses may still be unbalanced, which no regular expression can hold.
_NUMBER = r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?"
_FUNCTION = "(sqrt|exp|log|ln|log2|log10|sin|cos|tan|abs|round|floor|ceil|factorial)"
_OPERAND = rf"(-|\(|{_FUNCTION}\()*({_NUMBER}|pi|e|tau)\)*"
WRITABLE = rf"^{_OPERAND}( ?(\*\*|//|[-+*/%^]) ?{_OPERAND})*$"
MAX_WRITABLE_CHARS = 200
# In the call that untrained models are shown; without one, small ones write the first number in place of an expression
# (docs/accuracy.md).
EXAMPLE = "log(8) + 3 * 4"

Expression = Annotated[
    str, Field(examples=[EXAMPLE], json_schema_extra={"pattern": WRITABLE, "maxLength": MAX_WRITABLE_CHARS})
]


@tool
def calculate(expression: Expression) -> float:
    """Evaluate an arithmetic expression and return the number.

    Args:
        expression: The expression, such as (2 + 3) * 4 or sqrt(2) ^ 3.
    """
    tree = _parse(" ".join(_tokens(expression)))
    _check(tree)
    try:
        return float(_EVALUATOR.eval(expression, previously_parsed=tree))
    except ZeroDivisionError:
        _refuse("division by zero")
    except OverflowError:
        _refuse("a number in the calculation is too large")
    except RecursionError:  # the caller's own stack was nearly full
        _refuse("the expression is nested too deeply")


def _refuse(reason: str) -> NoReturn:
    raise CalculationError(reason) from None


# What may be written.

# ^ is Python's exclusive or, but nobody who types 2^3 into a calculator wants 1.
_SPELLINGS = str.maketrans({"^": "**", "×": "*", "·": "*", "÷": "/", "−": "-"})  # noqa: RUF001

_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<operator>\*\*|//|[-+*/%(),])",
    re.ASCII,
)


def _tokens(expression: str) -> list[str]:
    """Numbers, names and operators. No quote, bracket, dot or comparison gets past here, so no such syntax does."""
    if len(expression) > MAX_EXPRESSION_CHARS:
        _refuse(f"the expression has {len(expression)} characters; {MAX_EXPRESSION_CHARS} are allowed")
    tokens: list[str] = []
    for word in expression.translate(_SPELLINGS).split():
        position = 0
        while position < len(word):
            match = _TOKEN.match(word, position)
            if match is None:
                _refuse(f"{word[position]!r} is not allowed here; use numbers, operators, functions and parentheses")
            tokens.append(match.group())
            position = match.end()
    return tokens or _refuse("the expression is empty")


def _parse(source: str) -> ast.expr:
    try:
        return ast.parse(source, mode="eval").body
    except (RecursionError, MemoryError):  # MemoryError: CPython's parser ran out of its own stack
        _refuse("the expression is nested too deeply")
    except (SyntaxError, ValueError) as error:
        # 3.11 says "too many nested parentheses" in a SyntaxError; its other texts speak of Python, not of arithmetic.
        nested = "too many nested" in str(error)
        _refuse("the expression is nested too deeply" if nested else "the expression is not well-formed arithmetic")


def _check(tree: ast.expr) -> None:
    """Walk the tree without recursion; raise CalculationError at the first thing that is not on a list."""
    nodes = [(tree, 1)]
    while nodes:
        node, depth = nodes.pop()
        if depth > MAX_DEPTH:
            _refuse(f"the expression is nested too deeply, or has more than {MAX_DEPTH} operations in a row")
        nodes.extend((operand, depth + 1) for operand in _operands(node))


def _operands(node: ast.expr) -> list[ast.expr]:
    match node:
        case ast.Constant(value=bool() | None):
            _refuse("True, False and None are not numbers")
        case ast.Constant(value=int() | float() as number):
            _bounded(number)
            return []
        case ast.Name(id=name) if name in CONSTANTS:
            return []
        case ast.Name(id=name):
            known = f"write {name}(...)" if name in FUNCTIONS else f"known are {', '.join(CONSTANTS)}"
            _refuse(f"{name!r:.40} is not a number; {known}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return [left, right]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return [operand]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return arguments if name in FUNCTIONS else _refuse(f"there is no function {name!r:.40}")
        case ast.Call(keywords=[]):
            _refuse("something that is not a function is called; write a multiplication with *")
        case ast.Tuple():
            _refuse("a comma may only separate a function's arguments; write 1000, not 1,000")
        case _:
            _refuse("only numbers, + - * / // % **, functions and parentheses are allowed")


# What it means. The functions below see ints and floats only.


def _bounded(value: Number) -> Number:
    if isinstance(value, int):
        return value if value.bit_length() <= MAX_INT_BITS else _refuse("a number in the calculation is too large")
    if math.isnan(value):
        _refuse("the result is undefined")
    return value if math.isfinite(value) else _refuse("a number in the calculation is too large")


def _power(base: Number, exponent: Number) -> Number:
    # Before the power is computed, since afterwards is too late: 9**9**9 has 370 million digits.
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1:  # noqa: SIM102
        if base.bit_length() * exponent > MAX_INT_BITS:
            raise OverflowError
    power = base**exponent
    return _refuse("a root of a negative number is not a real number") if isinstance(power, complex) else power


def _whole(value: Number) -> int:
    """4.0 counts as whole: it may be the result of a division."""
    return int(value) if value == int(value) else _refuse(f"{_short(value)} is not a whole number")


def _factorial(n: Number) -> int:
    if not 0 <= n <= MAX_FACTORIAL:
        _refuse(f"factorial takes a whole number from 0 to {MAX_FACTORIAL}")
    return math.factorial(_whole(n))


def _round(value: Number, digits: Number = 0) -> Number:
    if abs(digits) > MAX_ROUND_DIGITS:
        _refuse(f"round takes from -{MAX_ROUND_DIGITS} to {MAX_ROUND_DIGITS} digits")
    return round(value, _whole(digits))


def _gcd(*values: Number) -> int:
    return math.gcd(*(_whole(value) for value in values))


def _min(first: Number, *others: Number) -> Number:
    return min(first, *others) if others else first


def _max(first: Number, *others: Number) -> Number:
    return max(first, *others) if others else first


def _bounded_operator(operation: Callable[..., Number]) -> Callable[..., Number]:
    return lambda *operands: _bounded(operation(*operands))


def _bounded_function(name: str, function: Callable[..., Number]) -> Callable[..., Number]:
    def call(*arguments: Number) -> Number:
        try:
            return _bounded(function(*arguments))
        except CalculationError:
            raise
        except ValueError:  # math's word for an argument outside the domain
            _refuse(f"{name}({', '.join(map(_short, arguments))}) is undefined for real numbers")
        except TypeError:
            _refuse(f"{name} does not take {len(arguments)} argument{'' if len(arguments) == 1 else 's'}")

    return call


def _short(value: Number) -> str:
    return f"{value:.15g}" if abs(value) < 10**15 else "a large number"


CONSTANTS: dict[str, float] = {"pi": math.pi, "e": math.e, "tau": math.tau}

OPERATORS: dict[type[ast.operator | ast.unaryop], Callable[..., Number]] = {
    node: _bounded_operator(operation)
    for node, operation in (
        (ast.Add, operator.add),
        (ast.Sub, operator.sub),
        (ast.Mult, operator.mul),
        (ast.Div, operator.truediv),
        (ast.FloorDiv, operator.floordiv),
        (ast.Mod, operator.mod),
        (ast.Pow, _power),
        (ast.USub, operator.neg),
        (ast.UAdd, operator.pos),
    )
}

_DEFINITIONS: dict[str, Callable[..., Number]] = {
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "ln": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "atan2": math.atan2,
    "degrees": math.degrees,
    "radians": math.radians,
    "hypot": math.hypot,
    "abs": abs,
    "round": _round,
    "floor": math.floor,
    "ceil": math.ceil,
    "min": _min,
    "max": _max,
    "pow": _power,
    "gcd": _gcd,
    "factorial": _factorial,
}

FUNCTIONS = {name: _bounded_function(name, function) for name, function in _DEFINITIONS.items()}

# One for all threads: making one changes Python's warning filters for a moment, evaluating changes nothing we read.
_EVALUATOR = SimpleEval(operators=OPERATORS, functions=FUNCTIONS, names=CONSTANTS)
