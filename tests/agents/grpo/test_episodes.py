"""Groups of whole episodes of any environment: collection, counting and credit."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from vaportok_rl.agents import GRPO
from vaportok_rl.agents.grpo.episodes import EpisodeRollout
from vaportok_rl.envs import TaildropVecEnv
from vaportok_rl.registration import TAILDROP_ID

COUNTDOWN = "vaportok-tests/Countdown-v0"


class Countdown(gymnasium.Env[Any, int]):
    """Lasts as many steps as its seed says, 1 … 5; action 1 pays 1, action 0 nothing."""

    def __init__(self, named: bool = False, start: int = 0) -> None:
        box = spaces.Box(0, 10, (2,), np.float32)
        self.observation_space: Any = spaces.Dict({"left": box}) if named else box
        self.action_space = spaces.Discrete(2, start=start)
        self.named, self.steps = named, 0

    def see(self) -> Any:
        left = np.array([self.left, 1], dtype=np.float32)
        return {"left": left} if self.named else left

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 6))
        return self.see(), {}

    def step(self, action: int) -> Any:
        self.left -= 1
        self.steps += 1
        # One action in two ends the episode a step earlier, so that members of a group differ.
        done = self.left <= 0 or (action == 1 and self.left == 1)
        return self.see(), float(action), done, False, {}


@pytest.fixture(autouse=True)
def registered() -> Any:
    gymnasium.register(COUNTDOWN, Countdown)
    yield
    del gymnasium.registry[COUNTDOWN]


def agent(policy: str = "MlpPolicy", env: Any = COUNTDOWN, **options: Any) -> GRPO:
    return GRPO(policy, env, **{"group_size": 3, "scenes": 4, "seed": 0, "device": "cpu", **options})


@pytest.mark.parametrize("kind", ["id", "instance", "named", "vec env"])
def test_whole_episodes_from_one_start_a_group(kind: str) -> None:
    env: Any = COUNTDOWN
    if kind in ("instance", "named"):
        env = gymnasium.make(COUNTDOWN, named=kind == "named")
    elif kind == "vec env":
        env = make_vec_env(Countdown, n_envs=12)
    model = agent("MultiInputPolicy" if kind == "named" else "MlpPolicy", env)
    rollout = model.collect()
    assert isinstance(rollout, EpisodeRollout)
    seen = rollout.observations["left"] if isinstance(rollout.observations, dict) else rollout.observations
    group, scenes, longest = rollout.actions.shape
    assert (group, scenes) == (3, 4)
    assert len({seen[0, p, 0, 0].item() for p in range(4)}) > 1
    log_p = rollout.log_probs(model.policy)
    for g, p in np.ndindex(group, scenes):
        start = int(seen[0, p, 0, 0])
        assert seen[g, p, 0, 0] == start  # members of a group have the same start
        actions, left = rollout.actions[g, p].tolist(), start
        length = 0
        while True:  # the episode, played by hand
            assert rollout.alive[g, p, length]
            assert seen[g, p, length, 0] == left
            taken = log_p[g, p, length, actions[length]].item()
            assert taken == pytest.approx(rollout.old_log_prob[g, p, length].item(), abs=1e-6)
            left -= 1
            length += 1
            if left <= 0 or (actions[length - 1] == 1 and left == 1):
                break
        assert not rollout.alive[g, p, length:].any()
        assert rollout.rewards.total[g, p] == sum(actions[:length])
    assert rollout.alive.any((0, 1)).all()
    assert longest <= 5


def test_every_step_that_the_environments_take_is_counted() -> None:
    model = agent()
    played = []

    class Count(BaseCallback):
        def _on_step(self) -> bool:
            assert len(self.locals["infos"]) == len(self.locals["dones"]) == 12
            return True

        def _on_rollout_end(self) -> None:
            played.append(sum(env.unwrapped.steps for env in model.env.envs))  # type: ignore[union-attr]

    model.learn(60, callback=Count())
    assert model.num_timesteps == played[-1] >= 60
    assert model.rounds == len(played)
    assert len(model.ep_info_buffer or []) == min(100, 12 * len(played))


def test_every_decision_is_credited_with_its_return() -> None:
    model = agent()
    rollout = model.collect()
    advantage = model.advantages(rollout)
    returns = rollout.rewards.total
    expected = (returns - returns.mean(0)) / (returns.std(0) + 1e-4)
    flat = (returns == returns[:1]).all(0)
    for j in range(rollout.actions.shape[2]):
        assert torch.allclose(advantage[:, ~flat, j], expected[:, ~flat], atol=1e-5)
    assert not advantage[:, flat].any()
    # The mean is over decisions (DAPO's token-level loss), none of which lies behind the end of an episode.
    log_p = rollout.log_probs(model.policy)
    loss, figures = model.loss(rollout, advantage, torch.arange(4))
    alive = rollout.alive
    assert figures["policy_gradient_loss"].item() == pytest.approx(-advantage[alive].mean().item(), abs=1e-6)
    assert figures["entropy"].item() == pytest.approx(-(log_p.exp() * log_p).sum(-1)[alive].mean().item(), abs=1e-6)
    assert loss.requires_grad


def test_it_learns_and_evaluates_as_any_other_algorithm(tmp_path: Path) -> None:
    model = agent(learning_rate=1e-2, kl_coef=0.0, n_epochs=4)
    stop = StopTrainingOnRewardThreshold(reward_threshold=2.0, verbose=0)
    held_out = make_vec_env(Countdown, n_envs=2, seed=77)
    callback = EvalCallback(
        held_out,
        callback_on_new_best=stop,
        eval_freq=20,
        n_eval_episodes=40,
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    model.learn(20_000, callback=callback, progress_bar=False)
    assert model.num_timesteps < 20_000
    best = GRPO.load(tmp_path / "best_model.zip", device="cpu")
    assert best.predict(np.array([3, 1], dtype=np.float32), deterministic=True)[0] == 1
    # On its own environment too, which then no longer waits for the group.
    assert model.env is not None
    mean, _ = evaluate_policy(model, model.env, n_eval_episodes=50, warn=False)
    assert mean >= 1.5  # type: ignore[operator]


def test_other_policies_step_through_the_taildrop_environment(tiny_world: str) -> None:
    env = TaildropVecEnv(8, group_size=4, path_length=3, tokenizer=tiny_world, obs="complexity")
    model = GRPO("MlpPolicy", env, seed=0)
    rollout = model.collect()
    assert isinstance(rollout, EpisodeRollout)
    assert rollout.actions.shape == (4, 2, 3)
    assert rollout.alive.all()
    assert torch.equal(rollout.observations, rollout.observations[:1].expand_as(rollout.observations))  # type: ignore[arg-type]
    again = model.collect()
    assert torch.equal(again.rewards.total, rollout.rewards.total)
    model.learn(24)
    assert model.num_timesteps == 24


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: Countdown(), "Expected an environment id, a registered environment or a VecEnv, got Countdown"),
        (lambda: "Pendulum-v1", "Expected Discrete actions"),
        (lambda: DummyVecEnv([lambda: Countdown(start=1)] * 12), r"count from 0, got Discrete\(2, start=1\)"),
        (lambda: DummyVecEnv([Countdown] * 7), "Expected a multiple of group_size=3 environments, got 7"),
        (lambda: DummyVecEnv([Countdown] * 9), "Expected scenes=3, the environment's own, got 4"),
    ],
    ids=["not registered", "continuous", "shifted", "cut groups", "contradiction"],
)
def test_what_cannot_be_grouped_is_refused(env: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agent(env=env())


class MinusSeven(VecEnvWrapper):
    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, np.full_like(rewards, -7), dones, infos


@pytest.mark.parametrize("monitored", [False, True])
def test_what_wraps_a_vector_environment_is_honoured(tiny_world: str, monitored: bool) -> None:
    env = TaildropVecEnv(4, group_size=2, path_length=2, tokenizer=tiny_world)
    model = GRPO(env=VecMonitor(MinusSeven(env)) if monitored else MinusSeven(VecMonitor(env)), seed=0)
    assert model.collect().rewards.total.tolist() == [[-14.0] * 2] * 2
    normalised = VecNormalize(VecMonitor(env))
    GRPO(env=normalised, seed=0).learn(16)
    assert normalised.ret_rms.count > 16


def test_wrappers_that_would_be_lost_are_refused(tiny_world: str) -> None:
    env = gymnasium.make(TAILDROP_ID, tokenizer=tiny_world, path_length=2)
    GRPO(env=gymnasium.wrappers.RecordEpisodeStatistics(env), group_size=2, scenes=1)
    wrappers = gymnasium.wrappers
    for wrapped in (wrappers.TransformReward(env, lambda r: -7.0), wrappers.FlattenObservation(env)):
        with pytest.raises(ValueError, match=f"without wrappers, got {type(wrapped).__name__}"):
            GRPO("MlpPolicy", wrapped, group_size=2, scenes=1)


@pytest.mark.parametrize("notebook", [False, True])
def test_the_progress_bar_counts_decisions(monkeypatch: pytest.MonkeyPatch, tiny_world: str, notebook: bool) -> None:
    counted = []

    class Bar:
        def __init__(self, total: int, unit: str = "") -> None:
            counted.append(-total)

        def update(self, steps: int) -> None:
            counted.append(steps)

        def refresh(self) -> None:
            pass

        close = refresh

    ours, theirs = "vaportok_rl.agents.grpo.logged", "stable_baselines3.common.callbacks"
    monkeypatch.setattr(f"{ours if notebook else theirs}.tqdm", Bar)
    monkeypatch.setattr(f"{ours}.Console", lambda: SimpleNamespace(is_jupyter=notebook))
    env = TaildropVecEnv(8, group_size=4, path_length=3, tokenizer=tiny_world)
    GRPO(env=env, seed=0).learn(48, progress_bar=True)
    assert counted == [-48, *[8] * 6]
    counted.clear()
    model = agent()
    model.learn(50, progress_bar=True)
    assert sum(counted[1:]) == model.num_timesteps
    assert math.isfinite(sum(counted))
