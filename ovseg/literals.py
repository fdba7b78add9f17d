"""Python source read as plain values: literals and ``dict(…)``; nothing is executed."""

import ast
from typing import Any


def literal(node: ast.AST) -> Any:
    """The value of an expression.

    Raises:
        ValueError: anything but literals, their containers and ``dict(…)`` with keywords.
    """
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs) if all(pair.arg for pair in pairs):
            return {pair.arg: literal(pair.value) for pair in pairs}
        case ast.Dict(keys=keys, values=values) if all(keys):
            return {literal(key): literal(each) for key, each in zip(keys, values, strict=True) if key is not None}
        case ast.List(elts=parts):
            return [literal(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(literal(part) for part in parts)
    return ast.literal_eval(node)
