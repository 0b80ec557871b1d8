"""Policies with one or two parameters fitted on training scenes: best fixed length, affine, loss-proportional."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.agents.lengths.calibration import Calibration
from vaportok_rl.agents.lengths.scripted import LengthChoice, LengthPolicy, fixed_lengths
from vaportok_rl.envs import Outcome, Scene, TaildropProcess

# Grid size at either end of the affine rule; its square is the number of candidates.
_GRID = 49


def best_fixed_lengths(process: TaildropProcess, calibration: Calibration) -> LengthPolicy:
    """The fixed length with the highest reward on training scenes: the best policy that ignores the clips.

    (`HeldOut.compare` picks its own on the evaluated scenes, a stronger baseline.)
    """
    return fixed_lengths(calibration.best_fixed(), process.tokens)


def affine_lengths(process: TaildropProcess, calibration: Calibration) -> LengthPolicy:
    """``n = round(a + b · score)`` of the complexity score, clipped to 1 … K; a and b are fitted on training scenes.

    Grid search over the rule's values at scores 0 and 1, from -K / 2 to 1.5 K.
    """
    tokens, scale = process.tokens, process.engine.complexity_scale
    training = calibration.scored()
    ends = torch.linspace(-tokens / 2, 1.5 * tokens, _GRID, device=training.score.device)
    rules = torch.cartesian_prod(ends, ends)

    def lengths(score: Tensor, simple: Tensor, complex_: Tensor) -> Tensor:
        return torch.lerp(simple, complex_, score).round().clamp(1, tokens).long()

    found = calibration.best_candidate(lengths(training.score, *rules.T[..., None, None]))

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        return LengthChoice.certain(lengths(scale.score(scene.complexity), *rules[found]))

    return policy


def loss_proportional_lengths(process: TaildropProcess, calibration: Calibration) -> LengthPolicy:
    """Length proportional to the reconstruction error: ``n = round(N · e / ē)``, clipped to 1 … K.

    InfoTok (arXiv 2512.16975) sets a clip's length in proportion to its negative evidence lower bound. Here the bound
    is the error e with all K tokens, ē its mean over training clips, and N is fitted on them. Each clip is decoded
    once.
    """
    tokens = process.tokens
    training = calibration.scored()
    mean_error = training.every.mse[-1].mean()

    def lengths(error: Tensor, mean_tokens: Tensor) -> Tensor:
        return (mean_tokens * (error / mean_error)).round().clamp(1, tokens).long()

    options = torch.arange(1, tokens + 1, device=mean_error.device)[:, None, None]
    mean_tokens = options[calibration.best_candidate(lengths(training.every.mse[-1], options))]

    def policy(scene: Scene, generator: torch.Generator) -> LengthChoice:
        everything: Outcome = process.engine.score(scene, torch.full_like(scene.ids, tokens)[None])
        return LengthChoice.certain(lengths(everything.mse[0], mean_tokens[0]))

    return policy
