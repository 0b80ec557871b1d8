"""Named rewards: their weights, in Python and as plain data."""

import pytest

from vaportok_rl.envs import DEFAULT_WEIGHTS, VaporReward
from vaportok_rl.envs.rewards.reward import build_reward


def test_paper_is_the_default_and_equal_weights() -> None:
    assert VaporReward.preset("paper").weights == VaporReward().weights == DEFAULT_WEIGHTS
    assert set(DEFAULT_WEIGHTS.values()) == {1.0}
    assert len(DEFAULT_WEIGHTS) == 5


def test_quality_pays_nothing_for_diversity() -> None:
    weights = VaporReward.preset("quality").weights
    assert weights.pop("diversity") == 0
    assert set(weights.values()) == {1.0}


def test_weights_and_constants_on_top() -> None:
    for reward in (
        VaporReward.preset("quality", {"efficiency": 2, "log_mse": 0.5}, scale=30.0),
        build_reward({"preset": "quality", "weights": {"efficiency": 2, "log_mse": 0.5}, "scale": 30.0}),
    ):
        assert reward.weights["efficiency"] == 2
        assert reward.weights["diversity"] == 0
        assert reward.weights["log_mse"] == 0.5
        assert reward.scale == 30


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Expected a reward preset among paper, quality; got 'papr'; did you mean 'paper'"
    ):
        build_reward({"preset": "papr"})
    with pytest.raises(ValueError, match="did you mean 'preset'"):
        build_reward({"presett": "paper"})
