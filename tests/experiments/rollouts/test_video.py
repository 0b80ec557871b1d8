"""The video of a rollout: one frame for every frame of every clip, whole or not there."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from vaportok_rl.agents import build_length_policy
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.render.drawing import render_decision, tile_frames, to_frames
from vaportok_rl.experiments.rollouts.playing import Episode, play
from vaportok_rl.experiments.rollouts.video import RolloutVideo, episode_frames


@pytest.fixture(scope="module")
def process(tiny_world: str) -> TaildropProcess:
    return TaildropProcess(tokenizer=tiny_world, path_length=2, token_budget=20, reward={"scale": 1.0})


@pytest.fixture(scope="module")
def episodes(process: TaildropProcess) -> list[Episode]:
    return list(play(process, build_length_policy("random", process), episodes=3, seed=1, paths=2))


def test_every_frame_of_every_decision(process: TaildropProcess, episodes: list[Episode]) -> None:
    frames = list(episode_frames(episodes[0], process.engine))
    assert len(frames) == 2 * 4
    rows = episodes[0].rows(process).set_index(["path", "step"])
    for step in range(2):
        for frame in range(4):
            pictures = []
            for path in range(2):
                row = rows.loc[(path, step)]
                clip = process.source[int(row["clip_id"])]
                codes = process.engine.world.encode(clip[None]).codes
                decoded = process.engine.world.decode(codes, int(row["n_tokens"]))[0]
                terms = {name: float(row[f"reward_{name}"]) for name in process.reward.names}
                terms["diversity"] = terms["diversity"] if step == 1 else float("nan")
                pictures.append(
                    render_decision(to_frames(clip), to_frames(decoded), int(row["n_tokens"]), 16, terms, frame=frame)
                )
            shown = frames[4 * step + frame].astype(int)
            # Decoding one clip or two may round a grey level, which the error panel shows fourfold, otherwise.
            assert np.abs(shown - tile_frames(pictures)).max() <= 4


def test_the_file_holds_the_first_scenes(process: TaildropProcess, episodes: list[Episode], tmp_path: Path) -> None:
    with RolloutVideo(tmp_path / "decisions.mp4", process.engine, scenes=2, fps=4) as video:
        for episode in episodes:
            video.add(episode)
    assert [path.name for path in tmp_path.iterdir()] == ["decisions.mp4"]
    with av.open(str(tmp_path / "decisions.mp4")) as container:
        assert container.streams.video[0].average_rate == 4
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    first = next(episode_frames(episodes[0], process.engine))
    assert shown.shape == (2 * 2 * 4, *first.shape)
    assert np.abs(shown[0].astype(int) - first).mean() < 8


def test_a_video_cut_short_is_no_video(process: TaildropProcess, episodes: list[Episode], tmp_path: Path) -> None:
    def play_until_interrupted() -> None:
        with RolloutVideo(tmp_path / "decisions.mp4", process.engine) as video:
            video.add(episodes[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play_until_interrupted()
    assert not list(tmp_path.iterdir())


def test_a_video_of_nothing_is_an_error(process: TaildropProcess, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected at least 1 scene in the video, got 0"):
        RolloutVideo(tmp_path / "decisions.mp4", process.engine, scenes=0)
