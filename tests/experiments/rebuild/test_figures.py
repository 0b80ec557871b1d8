"""Figures read from Markdown tables, and which of them changed by more than their intervals."""

from __future__ import annotations

import pytest

from vaportok_rl.experiments.rebuild.figures import Figure, changes, figures

PAGE = """# Title

| policy | tokens | saved % | seconds |
|---|---:|---:|---:|
| trained | 21.4 | +14.0 [+11.7, +16.3] | 12 |
| random | 31.7 | −36.0 [−48.0, −25.6] | 9 |

## By seed

| start | method | gap | by seed |
| --- | --- | ---: | ---: |
| fresh | grpo | 85.2 % [80.1, 88.0] | 85.5 / 1,083.9 |

<!-- begin: card -->
| tokens | PSNR |
| ---: | ---: |
| 4 | 20.74 |
<!-- end: card -->

| option | default |
| --- | --- |
| `x` | 3 |
"""


def test_every_figure_of_every_table_is_found_but_for_times() -> None:
    found = {key: (figure.value, figure.interval) for key, figure in figures(PAGE).items()}
    assert found == {
        ("Title", "policy trained", "tokens", ""): (21.4, None),
        ("Title", "policy trained", "saved %", ""): (14.0, (11.7, 16.3)),
        ("Title", "policy random", "tokens", ""): (31.7, None),
        ("Title", "policy random", "saved %", ""): (-36.0, (-48.0, -25.6)),
        ("By seed", "start fresh grpo", "gap", ""): (85.2, (80.1, 88.0)),
        ("By seed", "start fresh grpo", "by seed", ""): (85.5, None),
        ("By seed", "start fresh grpo", "by seed", "1"): (1083.9, None),
        ("card", "tokens 4", "PSNR", ""): (20.74, None),
    }


@pytest.mark.parametrize(
    ("then", "now", "beyond"),
    [
        ((1.0, (0.5, 1.5)), (1.4, (1.2, 1.6)), False),  # within the old interval
        ((1.0, (0.5, 1.5)), (1.7, (0.9, 2.5)), False),  # the old value lies within the new one
        ((1.0, (0.5, 1.5)), (1.7, (1.4, 2.0)), True),
        ((1.0, None), (1.7, (1.4, 2.0)), True),
        ((1.0, None), (1.7, (0.4, 2.0)), False),
        ((1.0, None), (9.0, None), False),  # nothing says how sure they are
    ],
)
def test_a_change_is_judged_by_both_intervals(
    then: tuple[float, tuple[float, float] | None], now: tuple[float, tuple[float, float] | None], beyond: bool
) -> None:
    assert Figure("", *now).beyond(Figure("", *then)) is beyond


def test_what_changed_is_counted_and_named() -> None:
    after = (
        PAGE.replace("+14.0 [+11.7, +16.3]", "+9.0 [+8.0, +10.0]").replace("21.4", "22.0").replace("| 12 |", "| 99 |")
    )
    assert changes(PAGE, PAGE) == (8, 0, [])
    count, differ, lines = changes(PAGE, after)
    assert (count, differ) == (8, 2)
    (line,) = lines
    assert "trained" in line
    assert line.endswith("+14.0 [+11.7, +16.3] → +9.0 [+8.0, +10.0]")
