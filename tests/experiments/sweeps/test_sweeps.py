"""Sweeps on a tiny outcome table: files, resuming, sharing, and errors."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from vaportok_rl.cli.main import main
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.experiments.sweeps import running
from vaportok_rl.experiments.sweeps.plan import read_plan
from vaportok_rl.experiments.sweeps.report import CSV_FILE, PAGE_FILE, dominated, table
from vaportok_rl.experiments.sweeps.running import RESULT_FILE, Worker
from vaportok_rl.runtime.held_folders import LOCK_FILE

BASE = """
seeds = [0, 1]
[train]
table = "{table}"
path_length = 3
scenes = 2
group_size = 2
decisions = 24
held_out_scenes = 2
"""
GRID = (
    BASE
    + "[distances]\n"
    + "[variants.without-efficiency.reward.weights]\nefficiency = 0\n[grid]\nkl_coef = [0.1, 0.5]\n"
)
OPTUNA = (
    BASE + "[optuna]\ntrials = 2\n[optuna.space]\nkl_coef = {{low = 0.01, high = 1.0, log = true}}\nn_epochs = [1, 2]\n"
)


@pytest.fixture(scope="module")
def table_folder(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "tiny"
    TableBuilder(plan_table(tokenizer=tiny_world, count=18, held_out=9, grid=1), folder).run()
    return folder


@pytest.fixture
def write(table_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str) -> Path:
        file = tmp_path / "some.toml"
        file.write_text(text.format(table=table_folder))
        return file

    return written


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders in which something is trained, without the pictures of runs."""
    monkeypatch.setattr("vaportok_rl.experiments.runs.progress_report.add_clip", lambda *_: None)
    monkeypatch.setattr("vaportok_rl.experiments.runs.progress_report.comparison_frames", lambda *_, **__: None)
    before = running.learn
    seen: list[str] = []

    def noted(settings: Any, folder: Path, *more: Any, **options: Any) -> Any:
        seen.append(folder.name)
        return before(settings, folder, *more, **options)

    monkeypatch.setattr(running, "learn", noted)
    return seen


def test_a_grid_of_variants_is_made_once(write: Callable[[str], Path], tmp_path: Path, trained: list[str]) -> None:
    file, out = write(GRID), tmp_path / "out"
    main(["sweep", str(file), "--out", str(out)])
    rows = pd.read_csv(out / CSV_FILE)
    assert list(rows.columns[:2]) == ["variant", "seed"]
    assert {"tokens", "mse", "psnr", "accuracy", "rfvd", "reward", "saved", "gap_closed", "kl_coef"} <= set(
        rows.columns
    )
    assert len(rows) == len(trained) == 4
    assert set(rows["variant"]) == {f"without-efficiency kl_coef={value}" for value in (0.1, 0.5)}
    assert {path.name for path in out.iterdir()} == {"runs", CSV_FILE, PAGE_FILE, "saved.png", "pareto.png"}
    page = (out / PAGE_FILE).read_text()
    assert "| rFVD |" in page
    assert "6 clips against 6; features of stand-in" in page
    files = {name: (out / name).read_bytes() for name in (CSV_FILE, PAGE_FILE)}
    main(["sweep", str(file), "--out", str(out)])
    assert len(trained) == 4
    assert files == {name: (out / name).read_bytes() for name in files}
    first = read_plan(file).settings({"reward.weights.efficiency": 0, "kl_coef": 0.5}, 1)
    assert (first.reward.weights, first.kl_coef, first.seed, first.decisions) == ({"efficiency": "0"}, 0.5, 1, 24)


def test_an_interrupted_sweep_goes_on_and_ends_the_same(
    write: Callable[[str], Path], tmp_path: Path, trained: list[str]
) -> None:
    plan = read_plan(write(GRID))
    whole = Worker(plan, tmp_path / "whole").work()
    rounds = []

    def on_run(variant: str, seed: int) -> Callable[[int, Any], None]:
        def on_round(decisions: int, live: Any) -> None:
            rounds.append(decisions)
            if len(rounds) == 3:
                signal.raise_signal(signal.SIGINT)

        return on_round

    trained.clear()
    with pytest.raises(KeyboardInterrupt):
        Worker(plan, tmp_path / "parts", on_run).work()
    begun = len(trained)
    assert 0 < begun < 4
    assert Worker(plan, tmp_path / "parts").work() == whole
    assert len(trained) == 4 + 1  # the interrupted one was begun twice


def test_what_another_worker_has_is_left_to_it(
    write: Callable[[str], Path], tmp_path: Path, trained: list[str]
) -> None:
    plan, out = read_plan(write(GRID)), tmp_path / "out"
    theirs = out / "runs" / "without-efficiency_kl_coef=0.1-0"
    theirs.mkdir(parents=True)
    with FileLock(theirs / LOCK_FILE):
        assert Worker(plan, out).work() is None
        assert len(trained) == 3
        assert not (theirs / RESULT_FILE).exists()
    rows = Worker(plan, out).work()
    assert rows is not None
    assert len(trained) == len(rows) == 4


def test_optuna_tries_each_once_and_goes_on(write: Callable[[str], Path], tmp_path: Path, trained: list[str]) -> None:
    pytest.importorskip("optuna")
    file = write(OPTUNA)
    main(["sweep", str(file), "--out", str(tmp_path / "out")])
    rows = pd.read_csv(tmp_path / "out" / CSV_FILE)
    assert len(rows) == len(trained) == 4
    assert rows["kl_coef"].nunique() == 2
    assert rows["kl_coef"].between(0.01, 1).all()
    main(["sweep", str(file), "--out", str(tmp_path / "out")])
    assert len(trained) == 4


def test_an_interrupted_trial_goes_on_with_its_settings(
    write: Callable[[str], Path], tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    from vaportok_rl.experiments.sweeps.searching import search

    file = write(OPTUNA)
    noted = running.learn

    def killed(settings: Any, folder: Path, *more: Any, **options: Any) -> Any:
        if folder.name == "trial-001-1":
            raise KeyboardInterrupt
        return noted(settings, folder, *more, **options)

    monkeypatch.setattr(running, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        search(Worker(read_plan(file), tmp_path / "out"))
    monkeypatch.setattr(running, "learn", noted)
    from vaportok_rl.runtime.held_folders import release_run_folder

    release_run_folder(tmp_path / "out" / "trials" / "1")  # as the end of a process does
    rows = search(Worker(read_plan(file), tmp_path / "out"))
    assert rows is not None
    assert sorted(trained) == sorted(f"trial-{trial:03d}-{seed}" for trial in range(2) for seed in range(2))
    assert len({row["kl_coef"] for row in rows if row["variant"] == "trial-001"}) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = [", "TOML"),
        ("seed = [0]\n[grid]\nkl_coef = [1]", "did you mean 'seeds'"),
        ("seeds = ['a']\n[grid]\nkl_coef = [1]", "whole numbers"),
        ("seeds = [0]", "got neither; say what varies"),
        ("[grid]\nkl_coef = [1]\n[optuna]\ntrials = 1", "got both; keep one"),
        ("[grid]\nseed = [1, 2]", "seed = [1, 2] in [grid]; write seeds"),
        ("[train]\nseed = 1\n[grid]\nkl_coef = [1]", "seed = 1 in [train]"),
        ("[variants.a]\nseed = 1", "seed = 1 in [variants.a]"),
        ("[optuna]\ntrials = 1\n[optuna.space]\nseed = [1, 2]", "seed = [1, 2] in [optuna.space]"),
        ("[grid]\nkl_cof = [0.1]", "did you mean 'kl_coef'"),
        ("[grid]\nkl_coef = [-1]", "kl_coef"),
        ("[grid]\nkl_coef = 1", "list of values"),
        ("[grid]\nreward.scal = [1]", "did you mean 'scale'"),
        ("[variants.a]\nreward.weights.effort = 1", "effort"),
        ("[train]\ndecisions = 'many'\n[variants.a]", "decisions"),
        ("[optuna]\ntrials = 0\n[optuna.space]\nkl_coef = [1]", "trials"),
        ("[optuna]\ntrials = 1\n[optuna.space]\nkl_coef = {{low = 1}}", "low"),
        ("[optuna]\ntrials = 1\nmetric = 'save'\n[optuna.space]\nkl_coef = [1]", "did you mean 'saved'"),
        ("[optuna]\ntrials = 1\nmetric = 'rfvd'\n[optuna.space]\nkl_coef = [1]", "[distances]"),
        ("[optuna]\ntrials = 1\nmetric = 'gfvd'\n[optuna.space]\nkl_coef = [1]\n[distances]", "a generator in [dist"),
        ("[optuna]\ntrials = 1\n[optuna.space]\nkl_coef = [0.1, -1]", "kl_coef"),
        ("[optuna]\ntrials = 1\n[optuna.space]\nkl_coef = {{low = 0.1, high = -1}}", "low ≤ high"),
        ("[optuna]\ntrials = 1\n[optuna.space]\nkl_coef = {{low = 'a', high = 'b'}}", "low ≤ high"),
        ("[optuna]\ntrials = 1\n[optuna.space]\nkl_coef = {{low = 0, high = 1, log = true}}", "low > 0"),
        ("[optuna]\ntrials = 1\n[optuna.space]\npath_length = {{low = 1, high = 4, step = 0}}", "step > 0"),
        ("[optuna]\ntrials = 1\nspace = 3", "[optuna.space]"),
        ("train = 3\n[grid]\nkl_coef = [1]", "tables in [train]"),
        ("variants = 3", "tables in [variants]"),
        ("[variants]\nfull = 3", "tables in [variants]"),
        ("[train]\nreward = 'paper'\n[grid]\nreward.scale = [1]", "'reward' one by one"),
        ("[train]\nreward = 'paper'\n[grid]\nkl_coef = [1]", "'reward' one by one"),
        ("seeds = [0, -1]\n[grid]\nkl_coef = [1]", "seed"),
        ("[variants.'a b']\n[variants.a_b]", "'a b' and 'a_b'"),
        ("[grid]\nkl_coef = [1]\n[distances]\nnetwork = 'i3d:gone.pt'", "gone.pt"),
        ("[grid]\nkl_coef = [1]\n[distances]\ngenerator = 'gone'", "'gone'"),
        ("[grid]\nkl_coef = [1]\n[distances]\nnetwrk = 'i3d:x'", "did you mean 'network'"),
        ("[optuna]\ntrials = 1\nstorage = 'nowhere://x'\n[optuna.space]\nkl_coef = [1]", "nowhere://x"),
    ],
)
def test_mistakes_are_named(write: Callable[[str], Path], fails: Callable[..., str], text: str, said: str) -> None:
    pytest.importorskip("optuna")
    assert said in fails("sweep", str(write(text)))


def test_other_settings_in_the_folder_are_refused(write: Callable[[str], Path], tmp_path: Path) -> None:
    one = BASE.replace("[0, 1]", "[0]") + "[grid]\nkl_coef = [0.1]\n"
    Worker(read_plan(write(one)), tmp_path / "out").work()
    with pytest.raises(ValueError, match="another decisions; choose another --out"):
        Worker(read_plan(write(one.replace("decisions = 24", "decisions = 36"))), tmp_path / "out").work()
    result = tmp_path / "out" / "runs" / "kl_coef=0.1-0" / RESULT_FILE
    result.write_text(result.read_text()[:50])
    with pytest.raises(ValueError, match="delete it"):
        Worker(read_plan(write(one)), tmp_path / "out").work()


def test_the_table_and_the_front_by_hand() -> None:
    rows = [("b", 0, 10.0, 4e-3, 0.1), ("b", 1, 12.0, 6e-3, 0.3), ("a", 0, 20.0, 1e-3, -0.1)]
    frame = pd.DataFrame(rows, columns=["variant", "seed", "tokens", "mse", "saved"]).assign(accuracy=0.5, reward=1.0)
    far = table(frame.assign(gfvd=3.0, rfvd=2.0)).splitlines()
    assert far[0] == "| variant | seeds | tokens | MSE·10³ | top-5 % | rFVD | gFVD | saved % | reward |"
    assert "| 50.0 | 2 | 3 | -10.0 |" in far[3]
    lines = table(frame).splitlines()
    assert lines[2].startswith("| b | 2 | 11.0 [10.0, 12.0] | 5.00 [4.00, 6.00] | 50.0")
    assert "+20.0 [+10.0, +30.0]" in lines[2]
    assert lines[3].startswith("| a | 1 | 20.0 | 1.00 | 50.0 | -10.0 |")
    points = np.array([[1.0, 5.0], [2.0, 5.0], [2.0, 3.0], [3.0, 3.0], [4.0, 1.0]])
    assert dominated(points).tolist() == [False, True, False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("text", [GRID, OPTUNA], ids=["grid", "optuna"])
def test_two_workers_make_the_table_of_one(write: Callable[[str], Path], tmp_path: Path, text: str) -> None:
    file, command = write(text), [sys.executable, "-m", "vaportok_rl", "sweep"]
    workers = [subprocess.Popen([*command, str(file), "--out", str(tmp_path / "two")]) for _ in range(2)]
    assert [worker.wait(300) for worker in workers] == [0, 0]
    if text is OPTUNA:  # which trials come before which is chance: each was made once
        assert len(pd.read_csv(tmp_path / "two" / CSV_FILE)) == 4
        return
    main(["sweep", str(file), "--out", str(tmp_path / "one")])
    for name in (CSV_FILE, PAGE_FILE):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
