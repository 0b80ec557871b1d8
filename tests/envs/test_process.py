"""Drawing scenes and presenting observations."""

import numpy as np
import pytest
import torch

from vaportok_rl.agents import HeldOut
from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs import TaildropProcess, VaporReward, shared_world


def test_scenes_are_drawn_without_repetition_from_each_generator(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=4)
    scene = process.sample_scene([np.random.default_rng(seed) for seed in (3, 8)])
    for row, seed in enumerate((3, 8)):
        expected = np.random.default_rng(seed).choice(len(process.source), 4, replace=False)
        assert scene.ids[row].tolist() == expected.tolist()
        batch = process.source.batch(torch.from_numpy(expected))
        assert torch.equal(scene.clips[row], batch.clips)
        assert torch.equal(scene.labels[row], batch.labels)
    assert torch.equal(scene.codes.flatten(0, 1), shared_world(tiny_world).encode(scene.clips.flatten(0, 1)).codes)


def test_observe_shows_each_path_its_own_step(tiny_world: str) -> None:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3, obs=("codes", "clip", "latents"))
    scene = process.sample_scene([np.random.default_rng(seed) for seed in range(3)])
    # A step past the end shows the last clip again.
    shown = process.observe(scene, np.array([0, 2, 3]))
    for name, held in (("codes", scene.codes), ("clip", scene.clips), ("latents", scene.latents)):
        for row, step in enumerate((0, 2, 2)):
            assert np.array_equal(shown[name][row], held[row, step].numpy())
        assert not np.shares_memory(shown[name], held.numpy())


def test_splits_and_clip_seeds_are_different_clips(tiny_world: str) -> None:
    sources = [
        TaildropProcess(tokenizer=tiny_world, path_length=2, **settings).source
        for settings in ({}, {"split": "test"}, {"clip_seed": 1})
    ]
    clips = [source.batch([0, 1]).clips for source in sources]
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0], clips[2])


def test_reward_may_be_given_as_an_object_or_as_plain_data(tiny_world: str) -> None:
    reward = VaporReward({"penalty": 2.0})
    assert TaildropProcess(tokenizer=tiny_world, reward=reward).reward is reward
    assert TaildropProcess(tokenizer=tiny_world, reward={"weights": {"penalty": 2.0}}).reward.weights["penalty"] == 2.0


def test_path_length_may_use_every_clip(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProceduralClips, "__len__", lambda self: 5)
    process = TaildropProcess(tokenizer=tiny_world, path_length=5)
    scene = process.sample_scene([np.random.default_rng(0)])
    assert sorted(scene.ids[0].tolist()) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="Expected path_length ≤ 5"):
        TaildropProcess(tokenizer=tiny_world, path_length=6)


class Reels(ProceduralClips):
    """Procedural clips said to come from three videos: of 2, of 5 and of 4 clips."""

    def __len__(self) -> int:
        return 11

    def consecutive_starts(self, length: int) -> torch.Tensor:
        videos = [range(2), range(2, 7), range(7, 11)]
        return torch.tensor([start for video in videos for start in video[: max(0, len(video) - length + 1)]])


def test_scenes_of_one_video(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "vaportok_rl.envs.process.open_clips", lambda clips, **settings: Reels(0, "train", frames=4, size=16)
    )
    process = TaildropProcess(tokenizer=tiny_world, path_length=4, ordering="video")
    scene = process.sample_scene([np.random.default_rng(seed) for seed in range(40)])
    assert {tuple(row) for row in scene.ids.tolist()} == {(2, 3, 4, 5), (3, 4, 5, 6), (7, 8, 9, 10)}
    again = process.sample_scene([np.random.default_rng(3)])
    assert torch.equal(again.ids[0], scene.ids[3])
    # What is measured on is drawn likewise; scenes without a common clip come first.
    measured = [HeldOut(process, scenes=count).scene.ids.tolist() for count in (2, 9)]
    assert [7, 8, 9, 10] in measured[0]
    assert sorted(measured[1]) == [[2, 3, 4, 5], [3, 4, 5, 6], [7, 8, 9, 10]]
    with pytest.raises(ValueError, match="Expected a video of at least path_length=6 clips for ordering='video'"):
        TaildropProcess(tokenizer=tiny_world, path_length=6, ordering="video")
