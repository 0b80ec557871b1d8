"""Pictures of the environment classes, and Gymnasium's and SB3's recorders of them."""

from pathlib import Path
from typing import Any

import av
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RecordVideo

from vaportok_rl.envs import TaildropEnv, TaildropVecEnv, TaildropVectorEnv
from vaportok_rl.envs.render.drawing import render_decision, to_frames
from vaportok_rl.registration import TAILDROP_ID


def picture_of(env: Any, clip_id: int, n_tokens: int | None, terms: dict[str, float]) -> np.ndarray:
    """The picture drawn from the clip itself."""
    process = env.process
    scene = process.engine.open(np.array([[clip_id]]))
    original = to_frames(scene.clips[0, 0])
    decoded = None
    if n_tokens is not None:
        decoded = to_frames(process.engine.world.decode(scene.codes[0], n_tokens)[0])
    return render_decision(original, decoded, n_tokens, process.tokens, terms, frame=2)


def test_the_picture_is_of_the_last_decision(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=2, render_mode="rgb_array")
    env.reset(seed=1)
    before = env.render()
    unknown = dict.fromkeys(env.process.reward.names, np.nan)
    for step, action in enumerate((4, 11)):
        info = env.step(action)[4]
        terms = {name: float(value) for name, value in info["reward_terms"].items()}
        if step == 0:
            assert np.array_equal(before, picture_of(env, info["clip_id"], None, unknown))
            # Path terms are known at the end.
            terms["diversity"] = np.nan
        assert np.array_equal(env.render(), picture_of(env, info["clip_id"], action + 1, terms))


def test_gymnasium_collects_pictures_and_opens_windows(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    films = gymnasium.make(TAILDROP_ID, tokenizer=tiny_world, path_length=2, render_mode="rgb_array_list")
    films.reset(seed=0)
    films.step(3)
    assert len(films.render()) == 2
    assert films.render() == []
    with pytest.warns(UserWarning, match="HumanRendering"):
        env = gymnasium.make(TAILDROP_ID, tokenizer=tiny_world, path_length=1, render_mode="human")
    env.reset(seed=0)
    one = pygame.surfarray.array3d(pygame.display.get_surface())
    env.step(0)
    assert not np.array_equal(one, pygame.surfarray.array3d(pygame.display.get_surface()))
    env.close()


def test_a_vector_shows_a_picture_an_environment_and_the_end_of_a_path(tiny_world: str) -> None:
    env = TaildropVectorEnv(4, group_size=2, tokenizer=tiny_world, path_length=1, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert isinstance(before, tuple)
    assert np.array_equal(before[0], before[1])
    assert not np.array_equal(before[0], before[2])
    assert not np.shares_memory(before[0], before[1])
    infos = env.step(np.array([3, 9, 9, 0]))[4]["final_info"]
    for member, picture in enumerate(env.render()):
        terms = {name: float(infos["reward_terms"][name][member]) for name in env.process.reward.names}
        expected = picture_of(env, infos["clip_id"][member], int(infos["n_tokens"][member]), terms)
        assert np.array_equal(picture, expected)


def test_a_masked_reset_shows_new_clips_in_its_groups_only(tiny_world: str) -> None:
    env = TaildropVectorEnv(2, tokenizer=tiny_world, path_length=2, autoreset_mode="Disabled", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([3, 9]))
    before = env.render()
    env.reset(options={"reset_mask": np.array([False, True])})
    after = env.render()
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


def test_without_a_mode_there_is_nothing_to_see(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=1)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="make the environment with render_mode="):
        assert env.render() is None


def test_render_before_reset(tiny_world: str) -> None:
    with pytest.raises(RuntimeError, match=r"Expected reset\(\) before render\(\)"):
        TaildropEnv(tokenizer=tiny_world, render_mode="rgb_array").render()


def test_drawing_leaves_torch_alone(tiny_world: str) -> None:
    env = TaildropEnv(tokenizer=tiny_world, path_length=1, render_mode="rgb_array")
    state = torch.get_rng_state()
    env.reset(seed=0)
    env.step(3)
    assert env.render().dtype == np.uint8
    assert torch.equal(torch.get_rng_state(), state)


def video_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("mode", ["rgb_array", "rgb_array_list"])
def test_record_video(tiny_world: str, tmp_path: Path, mode: str) -> None:
    pytest.importorskip("moviepy")
    env = gymnasium.make(TAILDROP_ID, tokenizer=tiny_world, path_length=3, render_mode=mode)
    env = RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda episode: True)
    env.reset(seed=0)
    for action in (3, 8, 15):
        env.step(action)
    env.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video_frames(video) == 4


def test_vec_video_recorder(tiny_world: str, tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    from stable_baselines3.common.vec_env import VecVideoRecorder

    env = TaildropVecEnv(2, tokenizer=tiny_world, path_length=2, render_mode="rgb_array")
    assert env.render_mode == "rgb_array"
    recorder = VecVideoRecorder(env, str(tmp_path / "videos"), lambda step: step == 0, video_length=3)
    recorder.reset()
    for _ in range(4):
        recorder.step(np.array([0, 15]))
    recorder.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video_frames(video) >= 3
