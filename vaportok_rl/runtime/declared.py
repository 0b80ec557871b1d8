"""Options declared once, as dataclass fields: type, range and docstring are used by checks, `--help` and pages."""

from __future__ import annotations

import ast
import inspect
import math
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from typeguard import TypeCheckError, check_type

from vaportok_rl.runtime.markdown import markdown_table

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Range:
    """Which numbers a field takes; write it as ``Annotated[float, Range(...)]``.

    Attributes:
        low: minimum.
        high: maximum.
        open_low: whether ``low`` itself is refused.
        open_high: whether ``high`` itself is refused.
        infinite: whether infinity is a value.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    infinite: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a number is in the range; NaN never is."""
        if math.isnan(value) or (math.isinf(value) and not self.infinite):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(above and below)

    def describe(self, name: str) -> str:
        """The range as an inequality: ``0 < name ≤ 1``."""
        low = "" if math.isinf(self.low) else f"{self.low:g} {'<' if self.open_low else '≤'} "
        high = "" if math.isinf(self.high) else f" {'<' if self.open_high else '≤'} {self.high:g}"
        if low and not high:
            return f"{name} {'>' if self.open_low else '≥'} {self.low:g}"
        return f"{low}{name}{high}" if low or high else f"a finite {name}"


POSITIVE, NOT_NEGATIVE, AT_LEAST_1 = Range(0, open_low=True), Range(0), Range(1)
SHARE = Range(0, 1)
SEED = Range(0, 2**32 - 1)
"""Seeds that NumPy's and torch's global generators accept."""


class Scheduled:
    """Marks a field that may also be a function of the remaining progress (1 at the start, 0 at the end)."""


def check_fields(settings: Any, only: type | None = None, prefix: str = "") -> None:
    """Checks the fields of a dataclass against their declared types and ranges.

    Args:
        settings: an instance.
        only: check only the fields of this base class.
        prefix: of the names in messages.

    Raises:
        TypeError: a value of another type than a number, a flag or one of the choices.
        ValueError: a number out of its range or no number, or a choice that is not offered.
    """
    for name, annotation in _hints(only or type(settings)).items():
        _check(prefix + name, getattr(settings, name), annotation)


def _check(name: str, value: Any, annotation: Any) -> None:
    marks: tuple[Any, ...] = getattr(annotation, "__metadata__", ())
    bare = get_args(annotation)[0] if marks else annotation
    # `X | None` of a Literal is a typing.Union, of a class a types.UnionType.
    kinds = get_args(bare) if get_origin(bare) in (Union, UnionType) else (bare,)
    if (value is None and NoneType in kinds) or (callable(value) and Scheduled in marks):
        return
    kind = kinds[0]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            offered = " or ".join(map(repr, (*get_args(kind), *[None] * (NoneType in kinds))))
            raise ValueError(f"Expected {name} {offered}, got {value!r}; pass one of them.")
        return
    if kind not in _KINDS:
        _require_type(name, value, bare)
        return
    wanted, told = _KINDS[kind]
    if not isinstance(value, wanted) or (kind is not bool and isinstance(value, bool)):
        also = " or a function of the remaining progress" if Scheduled in marks else ""
        raise TypeError(f"Expected {name} to be {told}{also}, got {value!r}; pass one.")
    allowed = next((mark for mark in marks if isinstance(mark, Range)), Range(infinite=True))
    if not allowed.holds(value):
        raise ValueError(f"Expected {allowed.describe(name)}, got {value}; give a value in this range.")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: checks the types of all arguments against their annotations.

    Raises:
        TypeError: on the call, with the argument's name and value.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        hints = get_type_hints(function)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python's own message
        for name, value in given.items():
            kind = signature.parameters[name]
            if name not in hints or kind.kind is kind.VAR_KEYWORD:
                continue
            _require_type(name, value, hints[name])
        return function(*args, **kwargs)

    return call


def _require_type(name: str, value: object, annotation: Any) -> None:
    try:
        # NumPy's numbers are numbers.
        check_type(value.item() if isinstance(value, np.number) else value, annotation)
    except TypeCheckError as error:
        told = annotation.__name__ if isinstance(annotation, type) else re.sub(r"\b[a-z_]+\.", "", str(annotation))
        raise TypeError(f"Expected {name} to be {told}, got {value!r}; pass one.") from error


_KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}


@cache
def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, its own or inherited, on one line each."""
    found: dict[str, str] = {}
    for base in reversed(cls.__bases__):
        found |= field_docs(base) if is_dataclass(base) else {}
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    for entry, after in zip(body.body, body.body[1:], strict=False):
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name) and isinstance(text, str):
            found[entry.target.id] = " ".join(text.split())
    return found


def options_table(cls: type[Any]) -> str:
    """A Markdown table of a dataclass's fields: name, default and docstring."""
    docs = field_docs(cls)
    meanings = {name: text.replace("|", "\\|").replace("``", "`") for name, text in docs.items()}
    rows = [(f"`{field.name}`", f"`{field.default!r}`", meanings.get(field.name, "")) for field in fields(cls)]
    return markdown_table(("option", "default", "meaning"), rows, names=3)


def signature_with(function: Callable[..., Any], cls: type) -> inspect.Signature:
    """The signature of a method whose ``**options`` are a dataclass's fields, for ``help``."""
    own = [part for part in inspect.signature(function).parameters.values() if part.kind is not part.VAR_KEYWORD]
    taken = {part.name for part in own}
    more = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(cls)
        if field.name not in taken
    ]
    return inspect.Signature([*own[1:], *more])
