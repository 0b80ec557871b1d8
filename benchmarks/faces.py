"""What the faces of the environment add to the engine's own time."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from gymnasium.utils import seeding

from benchmarks.timing import seconds, table
from vaportok_rl.envs import TaildropEnv, TaildropVecEnv, TaildropVectorEnv

ENVIRONMENTS, LENGTH, TURNS = 64, 8, 3


def _bare(vector_env: TaildropVectorEnv, actions: np.ndarray, seed: int) -> float:
    """Seconds of the engine calls, and no others, behind one path of a seeded vector environment."""
    process, groups = vector_env.process, vector_env.groups
    generators = [seeding.np_random(seed + group)[0] for group in range(groups)]
    scene = process.sample_scene(generators)

    def run() -> None:
        for step in range(LENGTH):
            here = scene.at(torch.arange(groups), torch.full((groups,), step))
            lengths = torch.from_numpy(actions[step].reshape(groups, -1).T.copy() + 1)
            process.engine.score(here, lengths[..., None])
        # Every path ends with the beginning of the next.
        process.sample_scene(generators)

    return seconds(run)


def _vector(env: TaildropVectorEnv, actions: np.ndarray, seed: int) -> float:
    env.reset(seed=seed)
    return seconds(lambda: [env.step(row) for row in actions])


def _sb3(env: TaildropVecEnv, actions: np.ndarray, seed: int) -> float:
    env.seed(seed)
    env.reset()
    return seconds(lambda: [env.step(row) for row in actions])


def _scalar(env: TaildropEnv, actions: np.ndarray, seed: int) -> float:
    env.reset(seed=seed)

    def run() -> None:
        for action in actions:
            env.step(int(action))
        env.reset()

    return seconds(run)


def section(quick: bool) -> str:
    """The page's part about the faces."""
    rows = []
    for group in (1, 8):
        vector_env = TaildropVectorEnv(ENVIRONMENTS, group_size=group, path_length=LENGTH)
        sb3_env = TaildropVecEnv(ENVIRONMENTS, group_size=group, path_length=LENGTH)
        actions = np.random.default_rng(0).integers(0, int(0.6 * vector_env.process.tokens), (LENGTH, ENVIRONMENTS))
        taken = []
        for seed in range(2 if quick else 8):
            order = [
                partial(_bare, vector_env, actions, seed),
                partial(_vector, vector_env, actions, seed),
                partial(_sb3, sb3_env, actions, seed),
            ]
            # The first seed warms up; which goes first changes, as what was read last may be in a cache. Each takes
            # some turns, of which the shortest counts: what interrupts a turn makes it longer, never shorter.
            turns = [(place + seed) % 3 for place in range(3)]
            rounds = [{place: order[place]() for place in turns} for _ in range(TURNS)]
            spent = {place: min(turn[place] for turn in rounds) for place in turns}
            if seed:
                taken.append([spent[0], spent[1], spent[2]])
        bare, vector, sb3 = np.median(np.array(taken), axis=0)
        vector_share, sb3_share = (np.median([row[face] / row[0] - 1 for row in taken]) for face in (1, 2))
        rows.append(
            [
                f"64 environments, groups of {group}",
                f"{1e3 * bare:.0f} ms",
                f"**{100 * vector_share:+.1f} %**",
                f"**{100 * sb3_share:+.1f} %**",
                f"{ENVIRONMENTS * LENGTH / vector:.0f}",
                f"{ENVIRONMENTS * LENGTH / sb3:.0f}",
            ]
        )
    env, alone = TaildropEnv(path_length=LENGTH), TaildropVectorEnv(1, path_length=LENGTH)
    single = np.random.default_rng(0).integers(0, 38, (LENGTH, 1))
    pairs = []
    for seed in range(1, 3 if quick else 8):
        twice = [(_bare(alone, single, seed), _scalar(env, single[:, 0], seed)) for _ in range(TURNS)]
        pairs.append(tuple(map(min, *twice)))
    share = np.median([face / bare - 1 for bare, face in pairs])
    scalar = np.median([face for _, face in pairs])
    rows.append(["one `TaildropEnv`", "", f"scalar **{100 * share:+.1f} %**", "", f"scalar {LENGTH / scalar:.0f}", ""])
    return (
        "## Faces against bare engine calls\n\n"
        f"One path of {LENGTH} clips on nano and the beginning of the next: the engine calls alone, and what a face "
        "adds to them (targets: vector 5 %, Stable-Baselines3 10 %).\n\n"
        + table(["", "engine", "vector", "SB3", "vector, decisions/s", "SB3, decisions/s"], rows)
    )
