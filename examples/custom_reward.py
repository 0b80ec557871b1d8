"""Custom reward terms, weighted together with the shipped ones.

Run: python examples/custom_reward.py, or use a term on the command line from this folder:
    PYTHONPATH=examples vaportok-rl train --reward.terms custom_reward:sharpness --reward.weights sharpness 0.5

A term is a plain function of an `Outcome`. A clip term returns `[G, P, L]` and uses each clip separately; a path term
returns `[G, P]` and may combine the clips of a path. Both return finite floats on the outcome's device, for all lengths
1 … K. A pixel term compares decoded video with the clip and returns one number per pair; it needs the network, so it
does not work on outcome tables. Environments check all terms when they are made. For schedules, constraints and group
terms see docs/rewards.md.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from torch import Tensor

import vaportok_rl  # noqa: F401  (registers the environment)
from vaportok_rl.envs import Outcome, TaildropProcess


def sharpness(outcome: Outcome) -> Tensor:
    """PSNR above 20 dB, in units of 10 dB, clamped to [0, 1]: a clip term ``[G, P, L]``."""
    return ((outcome.psnr - 20) / 10).clamp(0, 1)


def worst_clip(outcome: Outcome) -> Tensor:
    """The lowest PSNR on the path, in units of 10 dB: a path term ``[G, P]``."""
    return outcome.psnr.amin(-1) / 10


def edges(decoded: Tensor, clip: Tensor) -> Tensor:
    """A pixel term: how well horizontal edges survive, ``float32 [B, C, T, H, W]`` twice to ``[B]`` in [-1, 0]."""
    return -(decoded.diff(dim=-1) - clip.diff(dim=-1)).abs().flatten(1).mean(1)


def main(tokenizer: str = "nano") -> dict[str, float]:
    """Scores a few lengths of one scene; returns the mean reward per length."""
    reward = {
        "terms": {"sharpness": sharpness, "worst_clip": worst_clip},
        "pixel_terms": {"edges": edges},
        # Naming a weight also switches on the further terms that ship, such as `log_mse` and `ssim`.
        "weights": {"sharpness": 0.5, "worst_clip": 0.25, "edges": 5.0, "ssim": 0.5, "log_mse": 0.1, "diversity": 0.0},
    }
    process = TaildropProcess(tokenizer=tokenizer, reward=reward)
    scene = process.sample_scene([np.random.default_rng(0)])
    figures = {}
    for n in sorted({1, process.tokens // 4, process.tokens}):
        result = process.reward(process.engine.score(scene, torch.full((1, *scene.shape), n)))
        figures[f"n={n}"] = result.total.mean().item()
        terms = ", ".join(f"{name} {value.mean().item():+.3f}" for name, value in result.terms.items())
        print(f"n = {n:2d}: reward {figures[f'n={n}']:.3f} ({terms})")

    # The same reward in the environment: every term is in `info`.
    env = gymnasium.make("vaportok/Taildrop-v0", tokenizer=tokenizer, reward=reward)
    env.reset(seed=0)
    info = env.step(process.tokens // 4 - 1)[-1]
    print({name: round(float(value), 3) for name, value in info["reward_terms"].items()})
    env.close()
    return figures


if __name__ == "__main__":
    main()
