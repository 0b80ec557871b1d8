"""rFVD of a tiny tokenizer, with a network whose features are known."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from vaportok_rl.evaluation.feature_distances import FeatureStatistics, TooFewClipsError, frechet_distance
from vaportok_rl.evaluation.feature_networks import FeatureNetwork
from vaportok_rl.evaluation.video_distances import clip_statistics, compare, reconstruction_distance
from vaportok_rl.tokenizer import VaporTok


def colours(clips: Tensor) -> Tensor:
    """Mean and deviation of the colours: six features."""
    video = clips.float() / 255 if clips.dtype == torch.uint8 else clips
    return torch.cat([video.mean((2, 3, 4)), video.std((2, 3, 4))], 1)


NETWORK = FeatureNetwork("colours", "0" * 64, torch.device("cpu"), colours)


@pytest.fixture(scope="module")
def world(tiny_world: str) -> VaporTok:
    return VaporTok.from_pretrained(tiny_world)


def batches(world: VaporTok, clips: Tensor, lengths: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for some, kept in zip(clips.split(size), lengths.split(size), strict=True):
        yield some, world.encode(some).codes, kept


def test_rfvd_is_the_distance_of_reconstructions_at_their_lengths(world: VaporTok) -> None:
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(256, (24, *world.config.clip_shape), generator=generator, dtype=torch.uint8)
    clips = (clips * torch.rand(24, 3, 1, 1, 1, generator=generator)).to(torch.uint8)
    lengths = torch.randint(1, 17, (24,), generator=generator)
    found = reconstruction_distance(world, NETWORK, batches(world, clips, lengths, 5))
    codes = world.encode(clips).codes
    decoded = torch.cat([world.decode(codes[i : i + 1], int(n)) for i, n in enumerate(lengths)])
    expected = frechet_distance(FeatureStatistics.of(colours(clips)), FeatureStatistics.of(colours(decoded)))
    assert found.frechet == pytest.approx(expected, rel=1e-4)
    assert (found.clips, found.reference_clips, found.features, found.few) == (24, 24, 6, False)
    assert "24 clips" in found.note()
    assert NETWORK.sha256[:12] in found.note()


def test_few_clips_are_said_beside_the_figure(world: VaporTok) -> None:
    sets = [clip_statistics(NETWORK, [torch.rand(6, 3, 4, 8, 8)]) for _ in range(2)]
    with pytest.raises(TooFewClipsError):
        compare(NETWORK, *sets)
    found = compare(NETWORK, *sets, allow_few=True)
    assert found.few
    assert "Too few clips" in found.note()
    with pytest.raises(ValueError, match="got none"):
        reconstruction_distance(world, NETWORK, [])
