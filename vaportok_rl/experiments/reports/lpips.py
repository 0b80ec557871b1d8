"""Adds LPIPS to a comparison, if its network is available."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from vaportok_rl.agents import Comparison, HeldOut, PolicyScore
from vaportok_rl.envs import ScoringEngine
from vaportok_rl.tokenizer.perceptual import PerceptualDistance, PerceptualNetwork

MEASURE = "lpips"


def with_lpips(held_out: HeldOut, comparison: Comparison, network: PerceptualNetwork) -> tuple[Comparison, str | None]:
    """Measures LPIPS of each policy's reconstructions; each distinct (clip, length) pair once.

    Args:
        held_out: the scenes.
        comparison: of policies on them.
        network: backbone of LPIPS.

    Returns:
        The comparison with the measure ``lpips``, and None. Or the comparison unchanged, and the reason: the backbone's
        weights or the clips are missing, or the clips are too small for it.
    """
    if MEASURE in held_out.every.measures:
        return comparison, None
    engine = held_out.process.engine
    names = list(comparison.scores)
    lengths = torch.stack([comparison.scores[name].n_tokens for name in names])
    try:
        distance = PerceptualDistance(network).to(engine.device)
        measured = ScoringEngine(engine.world, engine.max_batch_tokens, distances={MEASURE: distance})
        found = measured.score(held_out.scene, lengths).measures[MEASURE]
    except (FileNotFoundError, ValueError) as error:
        return comparison, f"no LPIPS: {error}"
    scores: Mapping[str, PolicyScore] = {
        name: replace(score, outcome=replace(score.outcome, measures={**score.outcome.measures, MEASURE: found[[row]]}))
        for row, (name, score) in enumerate(comparison.scores.items())
    }
    return replace(comparison, scores=dict(scores)), None
