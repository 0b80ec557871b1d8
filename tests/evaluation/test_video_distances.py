"""What stands beside a distance of two sets of clips."""

from dataclasses import replace

import pytest
import torch

from vaportok_rl.evaluation.feature_distances import (
    FeatureStatistics,
    TooFewClipsError,
    frechet_distance,
    polynomial_mmd,
)
from vaportok_rl.evaluation.feature_networks import FeatureNetwork
from vaportok_rl.evaluation.video_distances import compare

NETWORK = FeatureNetwork(
    "colours", "0123456789ab" * 5, torch.device("cpu"), lambda clips: clips.float().mean((2, 3, 4))
)


def test_distances_come_with_counts_and_hash_and_few_clips_are_said() -> None:
    sets = [FeatureStatistics.of(torch.rand(count, 6, generator=torch.manual_seed(count))) for count in (24, 30, 6)]
    found = compare(NETWORK, sets[0], sets[1])
    assert found.frechet == frechet_distance(sets[0], sets[1])
    assert found.mmd == polynomial_mmd(sets[0], sets[1]) > 0
    assert (found.clips, found.reference_clips, found.features, found.few) == (30, 24, 6, False)
    for word in ("30 clips", "24", "colours", "0123456789ab"):
        assert word in found.note()
    with pytest.raises(TooFewClipsError):
        compare(NETWORK, sets[0], sets[2])
    few = compare(NETWORK, sets[0], sets[2], allow_few=True)
    assert few.few
    assert "Too few clips" in few.note()
    assert not replace(few, clips=7).few
