"""Fields accept exactly what they declare."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from vaportok_rl.runtime.declared import SHARE, Range, Scheduled, check_fields, field_docs, options_table


@dataclass(frozen=True)
class Options:
    rate: Annotated[float, Range(0, open_low=True), Scheduled] = 0.5
    """How fast | in `x`,
    on two lines."""
    share: Annotated[float | None, SHARE] = None
    """A share."""
    count: int = 1
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    other: str | int = "any"


@pytest.mark.parametrize(
    "given", [{}, {"rate": lambda left: left}, {"rate": 1}, {"share": 1}, {"share": 0.0}, {"count": -3}, {"other": 1}]
)
def test_what_is_declared_is_taken(given: dict[str, Any]) -> None:
    check_fields(Options(**given))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"rate": 0}, ValueError, "Expected rate > 0, got 0"),
        ({"rate": math.nan}, ValueError, "Expected rate > 0, got nan"),
        ({"rate": math.inf}, ValueError, "got inf"),
        ({"share": 1.5}, ValueError, "Expected 0 ≤ share ≤ 1, got 1.5"),
        ({"share": lambda left: left}, TypeError, "share to be a number, got"),
        ({"count": 1.0}, TypeError, "count to be a whole number, got 1.0"),
        ({"count": True}, TypeError, "count to be a whole number, got True"),
        ({"count": None}, TypeError, "count to be a whole number, got None"),
        ({"kind": "c"}, ValueError, "kind 'a' or 'b', got 'c'"),
        ({"flag": 1}, TypeError, "flag to be True or False, got 1"),
    ],
)
def test_anything_else_is_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_fields(Options(**given))


def test_docstrings_become_a_table() -> None:
    assert field_docs(Options) == {"rate": "How fast | in `x`, on two lines.", "share": "A share."}
    assert options_table(Options).splitlines()[2] == "| `rate` | `0.5` | How fast \\| in `x`, on two lines. |"
