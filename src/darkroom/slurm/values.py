"""What a resource of a profile comes to, as Snakemake reads it: a number, a text, or an expression in Python.

Snakemake evaluates expressions with Python's `eval`; here only arithmetic is, and what needs more is told apart.
"""

import ast
import math
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

from humanfriendly import InvalidSize, InvalidTimespan, parse_size, parse_timespan

Value = int | str
# Names that Snakemake gives expressions and that only the graph of jobs knows.
_LATER = {"input", "wildcards", "async_run", "shutil", "system_tmpdir"}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min, "max": max, "int": int, "float": float, "round": round, "abs": abs, "str": str,
}  # fmt: skip
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.USub: operator.neg, ast.UAdd: operator.pos,
    ast.Not: operator.not_, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
# More than any cluster has of anything; keeps a mistyped power from taking all memory.
_LARGEST = 2.0**63


class NotComputable(Exception):
    """A value that is known only when the jobs are, or that this check does not compute."""


def evaluate(key: str, text: str, variables: Mapping[str, int]) -> Value:
    """The value of `text`, which is what stands behind `key=` on Snakemake's command line.

    `variables` are `attempt` and, for resources, `threads`.

    Raises:
        ValueError: Snakemake does not take it; says what it takes.
        NotComputable: it depends on a job's inputs, or is no arithmetic.
    """
    human = _human_friendly(key, text)
    if isinstance(human, int):
        return human
    try:
        number = int(text)
    except ValueError:
        pass
    else:
        if number < 0:
            raise ValueError(f"{key} is {text}; it should not be negative")
        return number
    value = _python(key, os.path.expanduser(os.path.expandvars(text)), variables)
    if isinstance(value, float):
        value = round(value)
    if isinstance(value, str):
        human = _human_friendly(key, value)
        if human is None:
            kind = "a size like 8GB" if key == "mem" else "minutes or a time of one unit like 90m, 2h, 1.5d"
            raise ValueError(f"{key} is {value!r}; it should be {kind}")
        return human
    return value


def _human_friendly(key: str, text: str) -> Value | None:
    """MB of `mem` or minutes of `runtime`; other keys' text as it is; None for text that is neither."""
    plain = text.strip("'\"")
    if key not in ("mem", "runtime"):
        return text
    if plain.isdecimal():
        return int(plain)
    try:
        if key == "mem":
            return max(math.ceil(parse_size(plain) / 1e6), 1)
        return max(int(round(parse_timespan(plain)) / 60), 1)
    except (InvalidSize, InvalidTimespan):
        return None


def _python(key: str, text: str, variables: Mapping[str, int]) -> Any:
    """What Python makes of it; where that is no expression, or has unknown names, the text itself."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return text
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if names & _LATER:
        raise NotComputable(f"{key}: {text} depends on a job's own files")
    builtins = __builtins__ if isinstance(__builtins__, dict) else vars(__builtins__)
    if names - set(variables) - set(builtins):
        return text
    if isinstance(tree, ast.Name) and tree.id not in variables:
        raise ValueError(f"{key} is {text}, which Python has a meaning for; write {key}: \"'{text}'\"")
    try:
        return _compute(tree, variables)
    except NotComputable:
        raise NotComputable(f"{key}: {text} is not computed here") from None
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"{key} is {text!r}, which does not work out: {error}") from None


def _compute(node: ast.AST, variables: Mapping[str, int]) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() as value):
            return value
        case ast.Name(id=name) if name in variables:
            return variables[name]
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            base, power = _compute(left, variables), _compute(right, variables)
            if abs(power) * math.log2(max(abs(base), 2)) > math.log2(_LARGEST):
                raise ValueError("too large")
            return base**power
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
            a, b = _compute(left, variables), _compute(right, variables)
            if not (isinstance(a, int | float) and isinstance(b, int | float)):
                raise NotComputable
            return _OPERATORS[type(op)](a, b)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_compute(operand, variables))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_compute(left, variables), _compute(right, variables))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _compute(body if _compute(test, variables) else orelse, variables)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_compute(element, variables) for element in elements]
        case ast.Subscript(value=ast.List() | ast.Tuple() as rows, slice=index):
            return _compute(rows, variables)[_compute(index, variables)]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_compute(arg, variables) for arg in args))
    raise NotComputable
