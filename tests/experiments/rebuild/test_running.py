"""Stand-in steps: what is done stays done, what was interrupted goes on, what failed holds up what needs it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from vaportok_rl.envs.table.shards import weights_digest
from vaportok_rl.evaluation.feature_networks import open_feature_network
from vaportok_rl.experiments.rebuild import __main__ as command
from vaportok_rl.experiments.rebuild.publishing import publish, report
from vaportok_rl.experiments.rebuild.running import Rebuild
from vaportok_rl.experiments.rebuild.steps import Passage, Step, fingerprints
from vaportok_rl.runtime.held_folders import release_run_folder

# Notes each run in a file; writes its words, and fails where it is told to.
SCRIPT = """
import pathlib, sys
out, *words = sys.argv[1:]
with open("runs.txt", "a") as notes:
    notes.write(pathlib.Path(out).name + "\\n")
mark = pathlib.Path(out, "parts.txt")
done = mark.read_text() if mark.exists() else ""
mark.write_text(done + "part ")
if pathlib.Path("fail").exists() and pathlib.Path("fail").read_text() in out:
    sys.exit("no luck")
table = "| a | b |\\n| --- | ---: |\\n| x | " + " ".join(words) + " |\\n"
pathlib.Path(out, "page.md").write_text(table + mark.read_text())
"""


def made(name: str, words: str, **more: object) -> Step:
    return Step(name, f"python stand_in.py {{out}} {words}", 2, {"page.md": f"docs/{name}.md"}, **more)  # type: ignore[arg-type]


def sum_of_both(work: Path) -> str:
    return "".join((work / name / "page.md").read_text().splitlines()[2] + "\n" for name in ("first", "second"))


STEPS = (
    made("first", "1.0 [0.9, 1.1]"),
    made("second", "{first}", resumes=True, weights=False),
    Step("both", passages=(Passage("README.md", "both", sum_of_both),), after=("first", "second")),
    made("film", "{footage}"),
    made("alone", "7", alone=True, weights=False),
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Read\n\n<!-- begin: both -->\n<!-- end: both -->\n\nmore\n")
    (tmp_path / "stand_in.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rebuild(root: Path, steps: tuple[Step, ...] = STEPS, weights: str = "w1", jobs: int = 2, **places: str) -> Rebuild:
    marks = fingerprints(steps, {"weights": weights, "judge": "", **places})
    console = Console(file=io.StringIO(), width=200)
    return Rebuild(steps, Path("work"), root, places, marks, console, jobs)


def run_by(root: Path, **more: str) -> tuple[list[str], dict[str, str]]:
    """Names of the steps that ran, and what was left out."""
    notes = root / "runs.txt"
    notes.unlink(missing_ok=True)
    task = rebuild(root, **more)  # type: ignore[arg-type]
    task.run()
    return sorted(notes.read_text().split()) if notes.exists() else [], task.left_out


def test_what_is_done_is_not_made_again_unless_its_inputs_change(root: Path) -> None:
    ran, left_out = run_by(root)
    assert ran == ["alone", "first", "second"]
    assert left_out == {"film": "needs --footage"}
    assert run_by(root)[0] == []
    assert run_by(root, footage="films")[0] == ["film"]
    assert run_by(root, weights="w2", footage="films")[0] == ["film", "first", "second"]  # needs are inputs too
    (root / "work" / "alone" / "page.md").unlink()
    assert run_by(root, weights="w2", footage="films")[0] == ["alone"]
    shutil.rmtree(root / "work" / "second")
    assert run_by(root, weights="w2", footage="films")[0] == ["second"]


def test_what_is_made_again_keeps_its_finished_runs(root: Path) -> None:
    run_by(root)
    task = rebuild(root)
    task.reopen([step for step in STEPS if step.command])
    assert not any(task.is_done(step) for step in STEPS)
    task.run()
    parts = {name: (root / "work" / name / "parts.txt").read_text() for name in ("first", "second")}
    assert parts == {"first": "part ", "second": "part part "}  # the second one resumes


def test_a_failed_or_interrupted_step_goes_on_and_the_rest_is_kept(root: Path) -> None:
    (root / "fail").write_text("second")
    ran, left_out = run_by(root)
    assert ran == ["alone", "first", "second"]
    assert left_out["second"].startswith("failed")
    assert left_out["both"] == "needs second"
    (root / "fail").unlink()
    ran, left_out = run_by(root)
    assert ran == ["second"]
    assert "both" not in left_out
    # It resumes, so that its folder was kept; one that does not begins anew.
    assert (root / "work" / "second" / "parts.txt").read_text() == "part part "
    (root / "fail").write_text("first")
    run_by(root, weights="w2")
    (root / "fail").unlink()
    run_by(root, weights="w2")
    assert (root / "work" / "first" / "parts.txt").read_text() == "part "


def test_long_runs_of_other_settings_are_kept_and_not_mixed(root: Path) -> None:
    run_by(root)
    before = (root / "work" / "second" / "page.md").read_text()
    run_by(root, weights="w2")
    assert (root / "work" / "second.before-1" / "page.md").read_text() == before
    assert (root / "work" / "second" / "parts.txt").read_text() == "part "
    assert not (root / "work" / "first.before-1").exists()  # it does not resume, so it is short


def test_a_command_is_told_to_resume_once_its_folder_holds_something(root: Path) -> None:
    steps = (made("generator", "fresh", resumes=True, resume_option="--resume"),)
    pages = []
    for _ in range(2):
        rebuild(root, steps).run()
        pages.append((root / "work" / "generator" / "page.md").read_text())
        rebuild(root, steps).reopen(steps)
    assert [" fresh |" in page for page in pages] == [True, False]
    assert "fresh --resume |" in pages[1]


def test_ctrl_c_ends_the_commands_and_nothing_counts_as_done(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "stand_in.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr("vaportok_rl.experiments.rebuild.running._PATIENCE", 0.01)

    start = Rebuild._start

    def second_time(task: Rebuild, step: Step) -> object:
        if step.name == "second":
            raise KeyboardInterrupt
        return start(task, step)

    monkeypatch.setattr(Rebuild, "_start", second_time)
    steps = tuple(step if step.name != "second" else replace(step, command=STEPS[0].command) for step in STEPS)
    task = rebuild(root, steps)
    with pytest.raises(KeyboardInterrupt):
        task.run()
    assert not any(task.is_done(step) for step in STEPS)


def test_two_rebuilds_differ_in_no_byte_and_the_table_says_what_changed(root: Path) -> None:
    pages = {}
    for weights in ("w1", "w2"):
        task = rebuild(root, weights=weights)
        written = publish(task.run(), task.work, root, {"work/first": "FIRST"})
        assert written == ["README.md", "docs/alone.md", "docs/first.md", "docs/second.md"]
        pages[weights] = {name: (root / name).read_bytes() for name in written}
    assert pages["w1"] == pages["w2"]
    assert b"FIRST" in pages["w1"]["README.md"]
    assert pages["w1"]["README.md"].endswith(b"<!-- end: both -->\n\nmore\n")
    text, beyond = report(pages["w1"], root, written, ())
    assert beyond == 0
    assert text.count("as before") == 4

    before = {
        **pages["w1"],
        "docs/first.md": pages["w1"]["docs/first.md"].replace(b"1.0 [0.9, 1.1]", b"3.0 [2.9, 3.1]"),
    }
    text, beyond = report(before, root, written, ())
    assert beyond == 1
    assert "docs/first.md" in text
    assert "3.0 [2.9, 3.1] → 1.0 [0.9, 1.1]" in text
    assert report(before, root, written, ("docs/first.md",))[1] == 0  # of a page of times nothing is said


def test_all_results_of_other_settings_are_kept_and_an_empty_folder_is_none(root: Path) -> None:
    run_by(root)
    page, kept = root / "work" / "second" / "page.md", (root / "work" / "second").with_name
    page.write_text("of w1")
    (root / "fail").write_text("second")
    run_by(root, weights="w2")  # the second step has only begun
    (root / "fail").unlink()
    run_by(root, weights="w3")
    assert (kept("second.before-1") / "page.md").read_text() == "of w1"
    assert kept("second.before-2").is_dir()
    for file in page.parent.iterdir():
        file.unlink()
    run_by(root, weights="w4")
    assert not kept("second.before-3").exists()


def test_the_marks_are_of_the_weights_and_of_the_judge(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(task: Rebuild) -> None:
        raise KeyboardInterrupt

    asked: list[dict[str, str]] = []

    def noted(steps: Sequence[Step], inputs: dict[str, str]) -> dict[str, str]:
        asked.append(inputs)
        return fingerprints(steps, inputs)

    monkeypatch.setattr(command, "fingerprints", noted)
    monkeypatch.setattr(Rebuild, "run", interrupted)
    assert command.main(command.Options(only=("options",)), Console(quiet=True)) == 130
    release_run_folder(command.WORK)
    assert asked == [{"weights": weights_digest("nano"), "judge": open_feature_network().sha256}]
