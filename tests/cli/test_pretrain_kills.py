"""``pretrain`` killed at any moment: the same command again, or with --resume, ends with the bytes of a whole run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# One process imports, makes the whole run, and forks a process for each kill and one that resumes.
SCRIPT = """
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from vaportok_rl.cli.main import main
from vaportok_rl.tokenizer import PRESETS, PriorConfig, VaporTokConfig

torch.set_num_threads(1)
PRESETS["nano"] = VaporTokConfig(
    frames=4, size=16, tokens=8, width=16, encoder_depth=1, decoder_depth=1, heads=2, codebook_size=32, code_width=4,
    prior=PriorConfig(layers=1, heads=2, width=16, positions=8),
)
root, kills = Path(sys.argv[1]), json.loads(sys.argv[2])
settings = [
    "pretrain", "--steps", "12", "--batch-size", "4", "--precision", "float32", "--calibration-clips", "8",
    "--codebook-clips", "8", "--validation-clips", "4", "--validate-every", "6", "--save-every", "4", "--out",
]
writes = 0


def count(event, arguments):
    global writes
    if event == "os.rename":  # what every file that appears whole ends with
        writes += 1
        if writes == last_write:
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(arguments, kill=None):
    global last_write, writes
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if isinstance(kill, int):
                writes, last_write = 0, kill
            main(arguments)
            code = 0
        finally:
            os._exit(code)
    if isinstance(kill, float):
        time.sleep(kill * seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def left(folder):
    found = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json", ".md", ".png")]
    found = [path for path in found if path.name != "compute.json"]  # times
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    state = torch.load(folder / "training_state.pt", weights_only=True)
    tensors = [value for kind in ("model", "optimizers") for value in flat(state[kind])]
    return files, tensors, sorted(path.name for path in folder.iterdir() if "tfevents" not in path.name)


def flat(value):
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in flat(part)]
    return [value.tolist()] if isinstance(value, torch.Tensor) else []


last_write = -1
main([*settings, str(root / "warm")])
started = time.monotonic()
sys.addaudithook(count)
writes = 0
assert attempt([*settings, str(root / "whole")]) == 0
seconds = time.monotonic() - started
whole = left(root / "whole")
for kill in kills:
    folder = root / f"{kill}"
    ended = attempt([*settings, str(folder)], kill)
    begun = (folder / "config.yaml").is_file()
    again = attempt([*settings, str(folder), *["--resume"] * begun])
    print(json.dumps([kill, ended, begun, again, left(folder) == whole if again == 0 else False]))
"""


def kill_all(folder: Path, kills: list[float]) -> list[list[int]]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(folder), json.dumps(kills)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.parametrize(
    "kills",
    [
        # The first checkpoint, and the last one's weights after its state.
        [2, 10],
        # All files, and twenty moments as shares of the whole run's time.
        pytest.param([*range(1, 14), *(0.05 * part for part in range(20))], marks=pytest.mark.slow),
    ],
    ids=["two", "all"],
)
def test_a_killed_run_ends_with_the_bytes_of_a_whole_one(tmp_path: Path, kills: list[float]) -> None:
    for kill, ended, begun, again, same in kill_all(tmp_path, kills):
        assert ended == -signal.SIGKILL or isinstance(kill, float), kill
        assert (again, same) == (0, True), f"killed at {kill}, {'resumed' if begun else 'started again'}"
