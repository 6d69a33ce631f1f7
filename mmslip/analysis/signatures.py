"""Arguments of classes, and whether a value of a config can stand for one."""

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

__all__ = ['Signature', 'hinted', 'is_a', 'signature_of', 'type_of_default']


class Signature(NamedTuple):
    """Arguments of a class.

    Attributes:
        arguments: By name, with their resolved annotations.
        required: Those without a default.
        closed: Whether it refuses any other.
    """

    arguments: dict[str, inspect.Parameter]
    required: set[str]
    closed: bool


@cache
def signature_of(target: Callable) -> Signature:
    """Arguments of a class, with those of its bases as far as it passes them on."""
    if inspect.isclass(target):
        owners = [cls.__dict__['__init__'] for cls in target.__mro__ if '__init__' in vars(cls)]
    else:
        owners = [target]
    arguments: dict[str, inspect.Parameter] = {}
    required: set[str] = set()
    for number, function in enumerate(owners):
        if function in (object.__init__, nn.Module.__init__):
            break
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # of C code without a signature
            return Signature(arguments, required, False)
        try:
            hints = typing.get_type_hints(function)
        except Exception:  # annotations that name what only a type checker imports
            hints = {}
        parameters = parameters[1:] if inspect.isclass(target) else parameters
        rest = None
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = parameter.name
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                hint = hints.get(parameter.name, parameter.empty)
                arguments.setdefault(parameter.name, parameter.replace(annotation=hint))
                if number == 0 and parameter.default is parameter.empty:
                    required.add(parameter.name)
        if rest is None:
            break
        if not _passes_on(function, rest):
            return Signature(arguments, required, False)
    return Signature(arguments, required, True)


def _passes_on(function: Callable, name: str) -> bool:
    """Whether an ``__init__`` hands ``**name`` to that of its base."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        return False
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr == '__init__'
        and any(not word.arg and getattr(word.value, 'id', '') == name for word in call.keywords)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
    )


def hinted(hint: Any) -> inspect.Parameter:
    return inspect.Parameter('setting', inspect.Parameter.KEYWORD_ONLY, annotation=hint)


def type_of_default(default: Any) -> Any:
    """Type of an argument without an annotation, as far as its default tells."""
    if isinstance(default, bool):
        return bool | int | None
    if isinstance(default, int | float):
        return float | list[float] | None
    if isinstance(default, str):
        return str | dict | list | tuple | None
    if isinstance(default, dict):
        return dict | list | None
    return Any


def is_a(value: Any, hint: Any) -> bool:
    """Whether a value of a config can stand where a type is annotated."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(is_a(value, part) for part in arguments)
    if origin is typing.Literal:
        return value in arguments
    kind = origin or hint
    if kind in (None, type(None)):
        return value is None
    if kind in (Any, inspect.Parameter.empty, object) or not inspect.isclass(kind):
        return True
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind is str or issubclass(kind, Path):
        return isinstance(value, str | Path)
    if issubclass(kind, Mapping):
        return isinstance(value, dict)
    if kind is tuple and len(arguments) > 1 and Ellipsis not in arguments:
        return isinstance(value, list | tuple) and len(value) == len(arguments) and all(
            map(is_a, value, arguments)
        )  # fmt: skip
    if kind in (list, tuple, set, Sequence, Iterable, Collection):
        items = arguments if len(arguments) == 1 or arguments[1:] == (Ellipsis,) else ()
        return isinstance(value, list | tuple | kind) and not isinstance(value, str) and all(
            is_a(item, part) for item in value for part in items[:1]
        )  # fmt: skip
    # An object, which a config describes by a dict.
    return isinstance(value, dict | kind) or callable(value)
