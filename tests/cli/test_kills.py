"""Commands killed at any moment, or started twice at once, end with a whole run's bytes."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# One process imports, makes the whole run, and forks a process for each kill and one that resumes.
SCRIPT = """
import functools
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from vaportok_rl.agents.agent_file import read_record
from vaportok_rl.cli.main import main
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.experiments.runs import training
from vaportok_rl.experiments.runs.progress_report import ProgressReport

torch.set_num_threads(1)
training.ProgressReport = functools.partial(ProgressReport, save_every=-1.0)  # after every round
training.draw = lambda *_: None  # most of the time, and the last thing
# An agent's file holds how long its training took: without clocks it is the same each time.
time.perf_counter = time.time = lambda: 1e9
time.time_ns = lambda: 10**18
root, kind, world, kills, races = Path(sys.argv[1]), *sys.argv[2:4], *map(json.loads, sys.argv[4:6])
walk = ["--tokenizer", world, "--path-length", "3"]
groups = ["--scenes", "2", "--group-size", "4", "--held-out-scenes", "2", "--decisions", "144", "--pool", "6"]
learnt = ["--width", "16", "--layers", "1", "--heads", "2", "--steps", "12", "--batch-size", "4", "--save-every", "3"]
settings = {
    "train": ["train", *walk, *groups],
    "table": ["table", "build", "--tokenizer", world, "--count", "24", "--held-out", "8", "--shard-clips", "4"],
    "rollout": ["rollout", *walk, "--episodes", "24"],
    "minari": ["rollout", *walk, "--episodes", "24", "--minari", "some/mine-v0"],
    "generator": ["generator", "train", "--tokenizer", world, *learnt, "--sequences", "24", "--held-out", "8"],
    "generate": ["generate", str(root / "generator"), "--count", "2"],
}[kind]


def attempt(folder, *more, kill=None, gate=None):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.environ["MINARI_DATASETS_PATH"] = f"{folder}-minari"
            if gate is not None:
                os.close(gate[1])
                os.dup2(os.open(f"{folder}-{more[0]}", os.O_WRONLY | os.O_CREAT), 2)
                os.read(gate[0], 1)  # until the other end is closed
                more = ()
            main([*settings, "--out", str(folder), *more])
            code = 0
        except SystemExit as stopped:
            code = stopped.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if gate is not None:
        return child
    if kill is not None:
        time.sleep(kill * seconds)
        os.kill(child, signal.SIGKILL)
    return ended(child)


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(path):
    if path.name != "training_state.pt":
        return path.read_bytes()
    # How long it took is no result, and the order of tensors in the file differs after --resume.
    state = torch.load(path, weights_only=True)
    return repr([flat(state["model"]), flat(state["optimizers"]), state["step"]])


def flat(value):
    if isinstance(value, dict):
        return {name: flat(part) for name, part in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor) else value


def left(folder):
    # Events, archives and compute.json hold the time; half-written files are hidden.
    places = [folder, folder.with_name(folder.name + "-minari")]
    return {
        path.relative_to(root / folder.name if place == folder else place).as_posix(): content(path)
        for place in places
        for path in place.rglob("*")
        if path.is_file() and "tfevents" not in path.name and path.suffix != ".zip" and path.name != "compute.json"
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


def torn(folder):
    # What is there under its own name and is neither what a whole run leaves nor known for an earlier state.
    changed = {name for name, content in left(folder).items() if whole.get(name) != content}
    if kind == "train" and "agent.safetensors" in changed:
        read_record(folder / "agent.safetensors")
        changed.remove("agent.safetensors")
    if kind == "table" and "manifest.json" in changed:
        try:
            OutcomeTable.load(folder)
        except ValueError:
            changed.remove("manifest.json")
    if kind == "generator":  # an earlier step's, which --resume reads
        changed -= {"training_state.pt", "model/generator.safetensors"}
    if kind == "minari" and not listed(folder):
        changed = {name for name in changed if not name.startswith("some/mine-v0/data/")}
    return sorted(changed)


def listed(folder):
    minari = importlib.import_module("minari")
    os.environ["MINARI_DATASETS_PATH"] = f"{folder}-minari"
    return list(minari.list_local_datasets()) if Path(f"{folder}-minari").is_dir() else []


def clear(folder):
    for place in (folder, folder.with_name(folder.name + "-minari")):
        shutil.rmtree(place, ignore_errors=True)


def again(folder):
    if kind in ("train", "generator") and (folder / "config.yaml").is_file():
        return attempt(folder, "--resume")
    code = attempt(folder)
    if code == 2 and kind in ("rollout", "minari", "generate"):  # it asks to move away what is there
        clear(folder)
        code = attempt(folder)
    return code


os.environ["MINARI_DATASETS_PATH"] = str(root / "warm-minari")
if kind == "generate":
    sizes = ["--sequences", "16", "--held-out", "8", *learnt]
    main(["generator", "train", "--tokenizer", world, *sizes, "--out", str(root / "generator")])
main([*settings, "--out", str(root / "warm")])
started = time.monotonic()
assert attempt(root / "whole") == 0
seconds = time.monotonic() - started
whole = left(root / "whole")
assert left(root / "warm") == whole, [name for name in whole if left(root / "warm").get(name) != whole[name]]
print(f"{seconds:.2f} s: {sorted(whole)}")
for kill in kills:
    folder = root / f"{kill}"
    while (code := attempt(folder, kill=kill)) == 0:  # faster than the run that was timed
        clear(folder)
        kill *= 0.7
    found, broken = sorted(left(folder)), torn(folder)
    rerun = again(folder)
    differs = [name for name in whole if left(folder).get(name) != whole[name]]
    print(json.dumps([kill, code, found, broken, rerun, differs]), flush=True)
for number in range(races):
    folder, gate = root / f"race{number}", os.pipe()
    both = [attempt(folder, name, gate=gate) for name in ("first", "second")]
    time.sleep(0.01)
    for end in reversed(gate):
        os.close(end)
    codes = [ended(child) for child in both]
    loser = (root / f"{folder.name}-{('first', 'second')[codes.index(2)]}").read_text() if 2 in codes else ""
    print(json.dumps([sorted(codes), loser, left(folder) == whole]), flush=True)
"""


def run(folder: Path, kind: str, world: str, kills: list[float], races: int) -> list[list[object]]:
    for module in {"minari": ("minari",), "generator": ("transformers",), "generate": ("transformers",)}.get(kind, ()):
        pytest.importorskip(module)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(folder), kind, world, json.dumps(kills), str(races)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.parametrize("kind", ["train", "table", "rollout", "minari", "generator", "generate"])
def test_what_is_killed_at_any_moment_ends_with_the_bytes_of_a_whole_run(
    kind: str, tiny_world: str, tmp_path: Path
) -> None:
    moments = random.Random(kind)
    outcomes = run(tmp_path, kind, tiny_world, [moments.random() for _ in range(20)], 0)
    assert len(outcomes) == 20
    for kill, code, found, torn, rerun, differs in outcomes:
        assert (code, torn, rerun, differs) == (-signal.SIGKILL, [], 0, []), f"killed at {kill}, which left {found}"


@pytest.mark.parametrize("kind", ["train", "table", "rollout", "minari", "generator", "generate"])
def test_of_two_that_start_at_once_in_one_folder_one_is_refused(kind: str, tiny_world: str, tmp_path: Path) -> None:
    outcomes = run(tmp_path, kind, tiny_world, [], 50)
    assert len(outcomes) == 50
    for codes, said, whole in outcomes:
        assert (codes, whole) == ([0, 2], True), said
        assert "choose another --out" in str(said).lower()
