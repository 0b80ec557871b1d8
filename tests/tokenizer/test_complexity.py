"""Complexity against Eq. 1–5 written as loops; the score and the Gaussian prior against closed forms."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.distributions import Normal

from vaportok_rl.tokenizer import ComplexityConfig, clip_complexity
from vaportok_rl.tokenizer.complexity import ComplexityScale, calibrate

SHAPES = st.tuples(st.integers(1, 2), st.sampled_from([1, 3]), st.integers(2, 4), st.integers(1, 4), st.integers(1, 4))


@st.composite
def videos(draw: st.DrawFn) -> Tensor:
    shape = draw(SHAPES)
    levels = draw(st.sampled_from([2, 4, 256]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    levels_drawn = torch.randint(levels, shape, generator=generator) * (255 // (levels - 1))
    if draw(st.booleans()):
        return levels_drawn.to(torch.uint8)
    return (levels_drawn / 255 + torch.rand(shape, generator=generator) / 300).clamp(0, 1)


def slow_grey(pixel: list[float]) -> float:
    if len(pixel) == 1:
        return pixel[0]
    red, green, blue = pixel
    return 0.299 * red + 0.587 * green + 0.114 * blue


def slow_complexity(video: Tensor) -> tuple[float, float, bool]:
    """SC and TC of one clip ``[C, T, H, W]``, and whether a grey level is too near a half to round safely."""
    scale = 1.0 if video.dtype == torch.uint8 else 255.0
    frames = [
        [
            slow_grey([value * scale for value in video[:, time, row, column].tolist()])
            for row in range(video.shape[2])
            for column in range(video.shape[3])
        ]
        for time in range(video.shape[1])
    ]
    entropies = []
    for frame in frames:
        counts = Counter(round(grey) for grey in frame)
        entropies.append(-sum(count / len(frame) * math.log2(count / len(frame)) for count in counts.values()))
    differences = [
        abs(after - before)
        for first, second in itertools.pairwise(frames)
        for before, after in zip(first, second, strict=True)
    ]
    delicate = any(abs(grey % 1 - 0.5) < 1e-3 for frame in frames for grey in frame)
    return sum(entropies) / len(entropies), sum(differences) / len(differences), delicate


@settings(deadline=None)
@given(videos())
def test_complexity_is_equations_1_to_5(clips: Tensor) -> None:
    expected = [slow_complexity(clip) for clip in clips]
    assume(not any(delicate for _, _, delicate in expected))
    complexity = clip_complexity(clips)
    assert (complexity.shape, complexity.dtype) == ((len(clips), 2), torch.float32)
    for row, (spatial, temporal, _) in enumerate(expected):
        assert complexity[row, 0].item() == pytest.approx(spatial, abs=1e-5)
        assert complexity[row, 1].item() == pytest.approx(temporal, abs=1e-3)


@pytest.mark.parametrize("level", [0, 1, 77, 255])
def test_a_constant_video_has_none(level: int) -> None:
    clips = torch.full((2, 3, 3, 8, 8), level, dtype=torch.uint8)
    assert clip_complexity(clips).tolist() == [[0.0, 0.0]] * 2
    assert clip_complexity(clips.float() / 255).tolist() == [[0.0, 0.0]] * 2


def test_known_values() -> None:
    clips = torch.zeros(1, 1, 2, 16, 16, dtype=torch.uint8)
    clips[0, 0, 0] = torch.arange(256).reshape(16, 16)  # every level once: 8 bits
    clips[0, 0, 1, :8] = 200  # two levels: 1 bit
    spatial, temporal = clip_complexity(clips)[0].tolist()
    assert spatial == pytest.approx(4.5)
    expected = [abs(level - (200 if level < 128 else 0)) for level in range(256)]
    assert temporal == pytest.approx(sum(expected) / 256)
    black_white = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2, 1, 1).expand(1, 3, 2, 4, 4)
    assert clip_complexity(black_white)[0].tolist() == pytest.approx([0.0, 255.0])


@pytest.mark.parametrize("shape", [(2, 3, 1, 8, 8), (3, 4, 8, 8)])
def test_one_frame_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 2 frames"):
        clip_complexity(torch.zeros(shape))


CONFIG = ComplexityConfig(
    spatial_quantiles=(1.0, 2.0, 5.0, 7.0),
    temporal_quantiles=(0.0, 1.0, 3.0, 10.0, 40.0),
    temporal_share=0.7,
    mean_range=(0.2, 0.8),
    deviation=0.1,
)


def test_score_interpolates_the_quantiles() -> None:
    scale = ComplexityScale(CONFIG, tokens=16)
    spatial, temporal = np.linspace(0.5, 8, 61), np.linspace(0, 50, 61)
    complexity = torch.tensor(np.stack([spatial, temporal], 1), dtype=torch.float32)
    quantiles = [
        np.interp(spatial, CONFIG.spatial_quantiles, np.linspace(0, 1, 4)),
        np.interp(temporal, CONFIG.temporal_quantiles, np.linspace(0, 1, 5)),
    ]
    np.testing.assert_allclose(scale.quantiles(complexity).numpy(), np.stack(quantiles, 1), atol=1e-5)
    np.testing.assert_allclose(scale.score(complexity).numpy(), 0.3 * quantiles[0] + 0.7 * quantiles[1], atol=1e-5)
    shaped = scale.score(complexity[:60].reshape(3, 4, 5, 2))
    assert torch.equal(shaped.flatten(), scale.score(complexity[:60]))


def test_temporal_weighs_more_than_spatial_by_default() -> None:
    scale = ComplexityScale(ComplexityConfig(), tokens=8)
    still, moving = scale.score(torch.tensor([[8.0, 0.0], [0.0, 20.0]])).tolist()
    assert moving > still
    assert moving + still == pytest.approx(1)


@pytest.mark.parametrize("tokens", [8, 64])
def test_gaussian_prior_is_a_renormalised_density(tokens: int) -> None:
    scale = ComplexityScale(CONFIG, tokens)
    complexity = torch.tensor([[0.0, 0.0], [3.0, 2.0], [9.0, 90.0]])
    log_prior = scale.gaussian_prior(complexity)
    assert log_prior.shape == (3, tokens)
    lengths = torch.arange(1.0, tokens + 1)
    for row, score in enumerate(scale.score(complexity).tolist()):
        density = Normal(tokens * (0.2 + 0.6 * score), 0.1 * tokens).log_prob(lengths).double().exp()
        torch.testing.assert_close(log_prior[row].double().exp(), density / density.sum(), rtol=1e-4, atol=1e-9)
    modes = log_prior.argmax(1) + 1
    assert modes[0] < modes[1] < modes[2]


def test_calibration_makes_both_quantiles_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    spatial = 8 * torch.rand(3000, generator=generator) ** 0.3
    temporal = torch.randn(3000, generator=generator).exp() * 5
    complexity = torch.stack([spatial, temporal], 1)
    config = calibrate(complexity, CONFIG)
    assert len(config.spatial_quantiles) == len(config.temporal_quantiles) == 21
    assert config == replace(
        CONFIG, spatial_quantiles=config.spatial_quantiles, temporal_quantiles=config.temporal_quantiles
    )
    quantiles = ComplexityScale(config, 16).quantiles(complexity).numpy()
    for axis in (0, 1):
        # Between two knots the table is a straight line; at the knots the shares are exact.
        counts, _ = np.histogram(quantiles[:, axis], bins=20, range=(0, 1))
        assert abs(counts - 150).max() <= 3
        assert stats.kstest(quantiles[:, axis], "uniform").statistic < 0.05


@pytest.mark.parametrize("temporal", [0.0, 7.5, 50.0, 255.0])
def test_identical_clips_calibrate_to_finite_scores(temporal: float) -> None:
    complexity = torch.tensor([[7.5, temporal]]).expand(10, 2)
    scale = ComplexityScale(calibrate(complexity, ComplexityConfig()), 16)
    around = torch.tensor([[7.5, temporal], [0.0, 0.0], [8.0, 255.0]])
    assert bool(torch.isfinite(scale.gaussian_prior(around)).all())
    assert bool(((scale.score(around) >= 0) & (scale.score(around) <= 1)).all())


def test_the_tables_are_not_among_the_weights() -> None:
    scale = ComplexityScale(CONFIG, 16)
    assert not scale.state_dict()
    assert {name for name, _ in scale.named_buffers()} == {"spatial_knots", "temporal_knots"}
