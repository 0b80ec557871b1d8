"""A reward term of one's own, weighted beside the five that ship.

Run: python examples/custom_reward.py, or use the term on the command line from this folder:
    PYTHONPATH=examples vaportok-rl train --reward.terms custom_reward:sharpness --reward.weights sharpness 0.5
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaportok_rl.envs import Outcome, TaildropProcess


def sharpness(outcome: Outcome) -> Tensor:
    """PSNR above 20 dB, in units of 10 dB, clamped to [0, 1]: a clip term ``[G, P, L]``."""
    return ((outcome.psnr - 20) / 10).clamp(0, 1)


def main(tokenizer: str = "nano") -> dict[str, float]:
    """Scores a few lengths of one scene with and without the term; returns the mean reward of each length."""
    reward = {"terms": {"sharpness": sharpness}, "weights": {"sharpness": 0.5, "diversity": 0.0}}
    process = TaildropProcess(tokenizer=tokenizer, reward=reward)
    scene = process.sample_scene([np.random.default_rng(0)])
    figures = {}
    for n in sorted({1, process.tokens // 4, process.tokens}):
        result = process.reward(process.engine.score(scene, torch.full((1, *scene.shape), n)))
        figures[f"n={n}"] = result.total.mean().item()
        terms = ", ".join(f"{name} {value.mean().item():+.3f}" for name, value in result.terms.items())
        print(f"n = {n:2d}: reward {figures[f'n={n}']:.3f} ({terms})")
    return figures


if __name__ == "__main__":
    main()
