"""Forked workers of several libraries."""

import os
import subprocess
import sys

import pytest

# Clips in a pool, and an environment that was made before the fork: torch has computed with threads in the parent.
_PROGRAM = """
import multiprocessing
import torch
from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs import TaildropEnv

torch.set_num_threads(2)
torch.ones(1 << 22).exp()
source, env = ProceduralClips(), TaildropEnv(tokenizer={world!r}, path_length=2)
env.reset(seed=0)

def in_worker(_):
    env.reset(seed=0)
    torch.ones(1 << 22).exp()
    return int(source.batch([0]).clips.sum()), float(env.step(3)[1]), torch.get_num_threads()

with multiprocessing.get_context("fork").Pool(1) as pool:
    there = pool.apply_async(in_worker, (0,)).get(60)
print(there == (int(source.batch([0]).clips.sum()), float(env.step(3)[1]), 1), torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_worker_does_not_wait_for_threads_it_has_not(tiny_world: str) -> None:
    program = _PROGRAM.format(world=tiny_world)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True", "2"]
