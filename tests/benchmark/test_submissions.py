"""A submission from the template passes the check; each kind of fault is found."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vaportok_rl.benchmark import TASKS
from vaportok_rl.benchmark.methods import registry
from vaportok_rl.benchmark.methods.registry import METHODS, open_method
from vaportok_rl.benchmark.report import write_report
from vaportok_rl.benchmark.running import RESULTS_FILE, read_results, run_seeds
from vaportok_rl.benchmark.submissions import problems, write_template
from vaportok_rl.cli.main import main
from vaportok_rl.experiments.rebuild import steps
from vaportok_rl.runtime.held_folders import LOCK_FILE

Rows = list[dict[str, str]]
FEW = 1024


def changed(folder: Path, edit: Callable[[Rows], None]) -> None:
    path = folder / RESULTS_FILE
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    edit(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def made(pinned: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template's method on a scalar and on the vector task, two seeds."""
    folder = tmp_path_factory.mktemp("made") / "mine"
    write_template(folder)
    method = open_method(str(folder))
    for name in ("budget-v1", "pareto-v1"):
        run_seeds(method, TASKS[name], [0, 1], folder, decisions=FEW)
    return folder


@pytest.fixture
def submission(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "leaderboard" / "mine"))


def test_the_template_passes_and_is_on_the_leaderboard(submission: Path, tmp_path: Path) -> None:
    assert list(problems(submission, seeds=2)) == []
    assert len(read_results(submission)) == 2 + 2 * len(TASKS["pareto-v1"].sweep)
    for name in ("random", "oracle"):
        run_seeds(open_method(name), TASKS["budget-v1"], [0, 1], submission.parent / name)
    page = write_report(submission.parent, tmp_path / "docs")[0].read_text()
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows.count("mine") == 2
    assert rows[1:5][-3:] == ["oracle", "mine", "random"] or rows[2] == "oracle"
    assert "| oracle | all outcomes | 1.000" in page
    with pytest.raises(FileExistsError):
        write_template(submission)


def _set(column: str, value: str) -> Callable[[Rows], None]:
    return lambda rows: rows[0].update({column: value})


def _longest(rows: Rows) -> None:
    rows[0]["lengths"] = " ".join("17" for _ in rows[0]["lengths"].split())


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (_set("objective_test", "0.99"), "0.99"),
        (_set("objective_test", "nan"), "got nan"),
        (_set("objective_test", ""), "got nan"),
        (_set("objective_test", "good"), "'good'"),
        (_set("curve", ""), "curve"),
        (_set("curve", "8:nan 16:0.1"), "curve"),
        (_set("curve", "16:0.1 8:0.1"), "curve"),
        (_set("curve", "16:0.1 9999:0.1"), "curve"),
        (_set("seconds", "nan"), "seconds"),
        (_set("weights", "one"), "weights"),
        (_set("seed", "-1"), "seed"),
        (lambda rows: rows.append(rows[0]), "got 2"),
        (_set("identity", "0" * 12), "another version"),
        (_set("table", "0" * 12), "another version"),
        (_set("method", "theirs"), "theirs"),
        (_set("task", "budget-v0"), "budget-v1"),
        (_set("decisions", "99999"), "99,999"),
        (_set("lengths", "1 2 3"), "got 3"),
        (_set("lengths", "a b"), "whole numbers"),
        (_set("lengths", "1" + 30 * "0"), "whole numbers"),
        (_set("lengths", 200_000 * "1"), "damaged"),
        (_longest, "within the purse"),
        (lambda rows: rows.pop(), "weightings"),
    ],
)
def test_each_fault_is_found(submission: Path, edit: Callable[[Rows], None], fault: str) -> None:
    changed(submission, edit)
    assert any(fault in found for found in problems(submission, seeds=2))


def test_missing_parts_are_found(submission: Path, fails: Callable[..., str]) -> None:
    assert any("10 seeds" in found for found in problems(submission))
    (submission / "README.md").write_text("nothing")
    (submission / "method.py").unlink()
    message = fails("benchmark", "check", str(submission))
    assert "README.md" in message
    assert "method.py" in message


def test_the_command_line(pinned: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "random"
    arguments = ["benchmark", "run", "random", "--task", "procedural-v1", "--seeds", "0-2", "--out", str(out)]
    main(arguments)
    told = capsys.readouterr().out
    assert "seed 2" in told
    assert RESULTS_FILE in told
    assert LOCK_FILE not in told
    before = (out / RESULTS_FILE).read_bytes()
    main(arguments)  # what is done is not done again
    assert "seed 2" not in capsys.readouterr().out
    assert (out / RESULTS_FILE).read_bytes() == before
    with pytest.raises(SystemExit):  # fewer decisions would replace more
        main([*arguments, "--decisions", "64"])
    assert "40,960" in capsys.readouterr().err
    assert (out / RESULTS_FILE).read_bytes() == before
    main(["benchmark", "tasks"])
    assert "stream-v1" in capsys.readouterr().out


def test_the_rebuild_fills_in_every_method() -> None:
    assert tuple(METHODS) == steps._METHODS


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("run", "randon"), "random"),
        (("run", "random", "--task", "budget-v2"), "budget-v1"),
        (("run", "planner", "--task", "stream-v1", "budget-v1"), "stream-v1"),
        (("run", "random", "--seeds", "0..9"), "0-9"),
        (("run", "random", "--seeds", "9-0"), "'9-0'"),
        (("run", "random", "--decisions", "0"), "decisions ≥ 1"),
        (("run", "random", "--task", "pareto-v1", "--decisions", "7"), "8 weightings"),
        (("run", "random", "--out", __file__), "test_submissions"),
        (("report", "--folder", "nothing", "--out", "pages"), "nothing"),
        (("report", "--out", __file__), "test_submissions"),
        (("template", __file__), "test_submissions"),
    ],
)
def test_mistakes_are_answered(
    pinned: dict[str, Path],
    fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    found: str,
) -> None:
    monkeypatch.setattr("vaportok_rl.benchmark.running.run_method", None)  # nothing is trained before the answer
    monkeypatch.chdir(tmp_path)
    assert found in fails("benchmark", *arguments)


def test_all_methods_leave_out_tasks_they_are_not_made_for(
    pinned: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "METHODS", {name: METHODS[name] for name in ("planner", "random")})
    main(["benchmark", "run", "all", "--task", "budget-v1", "--decisions", "8", "--out", str(tmp_path)])
    assert [folder.name for folder in tmp_path.iterdir()] == ["random"]
