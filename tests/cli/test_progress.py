"""Progress in a terminal, in a pipe, and with slow rounds."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vaportok_rl.cli import progress as module
from vaportok_rl.cli.progress import progress_bar


@pytest.mark.parametrize("columns", [80, 60])
def test_percentage_rate_and_time_left_come_first_and_no_number_is_cut(columns: int) -> None:
    clock = iter(range(0, 100_000, 20))
    console = Console(width=columns, file=io.StringIO(), force_terminal=True, color_system=None)
    shown = progress_bar(console)
    shown.get_time = lambda: float(next(clock))
    task = shown.add_task("grpo", total=100, live="")
    for _ in range(45):
        shown.update(task, advance=1, live="saved +12.5 %  tokens 27.6  reward 0.808")
    console.print(shown.make_tasks_table(shown.tasks))
    text = " ".join(console.file.getvalue().split())
    assert text.startswith("45 % 0.1/s 0:1")
    assert text.endswith("left grpo saved +12.5 % tokens 27.6 reward 0.808")


def test_a_pipe_gets_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    console = Console(file=io.StringIO())
    with progress_bar(console) as shown:
        task = shown.add_task("clips", total=None, live="")
        for second in range(100):
            now[0] = float(second)
            shown.advance(task)
    lines = [line.split()[:2] for line in console.file.getvalue().splitlines() if line]
    assert lines == [["31", "done"], ["61", "done"], ["91", "done"]]


@pytest.mark.parametrize("widgets", [None, object()])
def test_a_notebook_gets_a_bar_only_with_widgets(widgets: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: widgets)
    console = Console(file=io.StringIO(), force_jupyter=True)
    assert progress_bar(console).disable == (widgets is None)
