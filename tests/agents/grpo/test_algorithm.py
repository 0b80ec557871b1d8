"""GRPO as a Stable-Baselines3 algorithm: accepted arguments, loss, learning, reproducibility, saving and loading."""

import math
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor, nn

from vaportok_rl.agents import GRPO, TaildropPolicy
from vaportok_rl.agents.grpo.rollout import GroupRollout
from vaportok_rl.envs import Outcome, TaildropEnv, TaildropVecEnv, make_sb3_env, shared_world
from vaportok_rl.tokenizer.pretraining import NonFiniteLossError

ONLY_EFFICIENCY = {"weights": {"efficiency": 1, "penalty": 0, "diversity": 0, "reconstruction": 0, "generation": 0}}


def make_env(tiny_world: str, groups: int = 3, group_size: int = 4, **settings: Any) -> TaildropVecEnv:
    settings = {"path_length": 2, "tokenizer": tiny_world, **settings}
    return TaildropVecEnv(groups * group_size, group_size=group_size, **settings)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert list(first) == list(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


class Memory(KVWriter):
    """Keeps every dump of a logger."""

    def __init__(self) -> None:
        self.dumps: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.dumps.append(dict(key_values))

    def close(self) -> None:
        pass


class TestEnvironments:
    def test_a_vec_env_brings_its_own_groups(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world, groups=3, group_size=4))
        rollout = model.collect()
        assert rollout.actions.shape == rollout.old_log_prob.shape == (4, 3, 2)
        assert rollout.rewards.total.shape == (4, 3)
        assert model.policy.tokenizer == tiny_world

    @pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "made"])
    def test_a_scalar_env_is_multiplied(self, tiny_world: str, wrapped: bool) -> None:
        settings: dict[str, Any] = {"tokenizer": tiny_world, "path_length": 3, "reward": ONLY_EFFICIENCY}
        env: Any = gymnasium.make("vaportok/Taildrop-v0", **settings) if wrapped else TaildropEnv(**settings)
        model = GRPO("TaildropPolicy", env, group_size=2, scenes=5)
        assert model.collect().actions.shape == (2, 5, 3)
        assert model.vector_env.process.reward.weights["diversity"] == 0
        assert GRPO(TaildropPolicy, env).n_envs == 8 * 16

    def test_an_id(self, tiny_world: str) -> None:
        name = "vaportok-tests/GRPO-v0"
        gymnasium.register(
            name, "vaportok_rl.envs.taildrop_env:TaildropEnv", kwargs={"tokenizer": tiny_world, "path_length": 2}
        )
        try:
            assert GRPO(env=name, group_size=2, scenes=2).collect().actions.shape == (2, 2, 2)
        finally:
            del gymnasium.registry[name]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"group_size": 1}, "Expected group_size ≥ 2, got 1"),
            ({"group_size": 3}, "Expected group_size=4, the environment's own, got 3"),
            ({"scenes": 5}, "Expected scenes=3, the environment's own, got 5"),
        ],
        ids=str,
    )
    def test_bad_settings_are_refused(self, tiny_world: str, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            GRPO(env=make_env(tiny_world), **settings)

    def test_groups_of_one_are_refused(self, tiny_world: str) -> None:
        with pytest.raises(ValueError, match="Expected an environment with group_size ≥ 2, got 1"):
            GRPO(env=make_env(tiny_world, group_size=1))
        with pytest.raises(ValueError, match="Expected group_size ≥ 2, got 1"):
            GRPO(env=TaildropEnv(tokenizer=tiny_world), group_size=1)

    def test_wrong_observations_are_refused(self, tiny_world: str) -> None:
        with pytest.raises(ValueError, match="obs='latents'"):
            GRPO(env=make_env(tiny_world, obs="complexity"))


def slow_loss(model: GRPO, rollout: GroupRollout, low: float, high: float, beta: float) -> float:
    """The objective from the paper's equations, one decision at a time."""
    group, paths, length = rollout.actions.shape
    total = rollout.rewards.total.double()
    objective, divergence = [], []
    for p in range(paths):
        mean = sum(total[:, p].tolist()) / group
        deviation = math.sqrt(sum((reward - mean) ** 2 for reward in total[:, p].tolist()) / (group - 1))
        for j in range(length):
            latents = rollout.scene.latents[p, j][None]
            log_p = model.policy.length_log_probs(latents)[0].tolist()
            log_ref = model.reference_policy.length_log_probs(latents)[0].tolist()
            divergence.append(sum(math.exp(a) * (a - b) for a, b in zip(log_p, log_ref, strict=True)))
            for g in range(group):
                ratio = math.exp(log_p[int(rollout.actions[g, p, j])] - rollout.old_log_prob[g, p, j].item())
                advantage = (total[g, p].item() - mean) / (deviation + 1e-4)
                clipped = min(max(ratio, 1 - low), 1 + high)
                objective.append(min(ratio * advantage, clipped * advantage))
    return -sum(objective) / len(objective) + beta * sum(divergence) / len(divergence)


class TestLoss:
    def test_the_rollout_is_consistent(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world), seed=0)
        rollout = model.collect()
        log_p = model.policy.length_log_probs(rollout.scene.latents)
        for g, p, j in np.ndindex(4, 3, 2):
            action = rollout.actions[g, p, j]
            assert rollout.old_log_prob[g, p, j].item() == pytest.approx(log_p[p, j, action].item(), abs=1e-6)
        assert torch.equal(rollout.outcome.n_tokens, rollout.actions + 1)
        rescored = model.vector_env.process.engine.score(rollout.scene, rollout.actions + 1)
        assert torch.equal(rescored.mse, rollout.outcome.mse)
        assert torch.equal(model.vector_env.process.reward(rescored).total, rollout.rewards.total)
        assert not rollout.old_log_prob.requires_grad

    def test_actions_follow_the_policy(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world, groups=1, group_size=4000, path_length=1), seed=0)
        rollout = model.collect()
        shares = torch.bincount(rollout.actions.flatten(), minlength=16) / 4000
        expected = model.policy.length_log_probs(rollout.scene.latents)[0, 0].exp()
        assert (shares - expected).abs().max() < 0.04

    def test_first_step_clips_nothing(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world), seed=0)
        rollout = model.collect()
        advantage = model.advantages(rollout)
        paths = torch.arange(3)
        loss, logged = model.loss(rollout, advantage, paths)
        assert logged["clip_fraction"] == 0
        assert logged["approx_kl"].item() == pytest.approx(0, abs=1e-6)
        assert logged["kl"].item() == pytest.approx(0, abs=1e-6)
        # Every ratio is 1, so the objective is the mean advantage, which is 0 in each group.
        assert loss.item() == pytest.approx(0, abs=1e-5)
        model.clip_range, model.clip_range_high = 1e-3, 1e-3
        (plain,) = torch.autograd.grad(loss, model.policy.action_net.weight)
        narrow, _ = model.loss(rollout, advantage, paths)
        (clipped,) = torch.autograd.grad(narrow, model.policy.action_net.weight)
        assert torch.allclose(plain, clipped, atol=1e-6)

    @pytest.mark.parametrize(("low", "high", "beta"), [(0.2, 0.28, 0.1), (0.05, 0.1, 2.0)])
    def test_against_the_equations(self, tiny_world: str, low: float, high: float, beta: float) -> None:
        model = GRPO(
            env=make_env(tiny_world), seed=1, clip_range=low, clip_range_high=high, kl_coef=beta, credit="path"
        )
        rollout = model.collect()
        torch.manual_seed(0)
        with torch.no_grad():  # away from the sampling policy, far enough to clip some ratios
            model.policy.action_net.weight.add_(0.2 * torch.randn_like(model.policy.action_net.weight))
        loss, logged = model.loss(rollout, model.advantages(rollout), torch.arange(3))
        assert 0 < logged["clip_fraction"] < 1
        assert loss.item() == pytest.approx(slow_loss(model, rollout, low, high, beta), abs=1e-5)

    def test_an_entropy_bonus_lowers_the_loss(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world), seed=1)
        rollout = model.collect()
        plain, logged = model.loss(rollout, model.advantages(rollout), torch.arange(3))
        model.ent_coef = 0.5
        bonus, _ = model.loss(rollout, model.advantages(rollout), torch.arange(3))
        assert (plain - bonus).item() == pytest.approx(0.5 * logged["entropy"].item(), abs=1e-5)
        assert logged["entropy"] > 0

    def test_clips_are_credited_unless_paths_are_asked_for(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world), seed=1)
        rollout = model.collect()
        assert not torch.equal(*model.advantages(rollout).unbind(-1))
        model.credit = "path"
        assert torch.equal(*model.advantages(rollout).unbind(-1))

    def test_some_scenes_only(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world), seed=1)
        rollout = model.collect()
        with torch.no_grad():
            model.policy.action_net.bias.add_(torch.linspace(0, 1, 16))
        advantage = model.advantages(rollout)
        each = [model.loss(rollout, advantage, torch.tensor([p]))[0].item() for p in range(3)]
        assert model.loss(rollout, advantage, torch.arange(3))[0].item() == pytest.approx(sum(each) / 3, abs=1e-5)


class TestLearning:
    @pytest.mark.parametrize("credit", ["path", "clip"])
    def test_learns_to_keep_few_tokens_when_only_that_pays(self, tiny_world: str, credit: Any) -> None:
        env = make_env(tiny_world, groups=8, group_size=8, reward=ONLY_EFFICIENCY)
        model = GRPO(env=env, learning_rate=3e-3, kl_coef=0.0, credit=credit, seed=0)
        latents = model.collect().scene.latents
        lengths = torch.arange(1, 17.0)

        def expected_length() -> float:
            with torch.no_grad():
                return float((model.policy.length_log_probs(latents).exp() @ lengths).mean())

        before = expected_length()
        model.learn(128 * 25)
        assert before > 4
        assert expected_length() < before / 2

    def test_the_kl_penalty_holds_it_back(self, tiny_world: str) -> None:
        moved = []
        for beta in (0.0, 10.0):
            env = make_env(tiny_world, groups=4, group_size=8, reward=ONLY_EFFICIENCY)
            model = GRPO(env=env, learning_rate=3e-3, kl_coef=beta, seed=0)
            model.learn(64 * 8)
            latents = model.collect().scene.latents
            with torch.no_grad():
                log_p, log_ref = (
                    model.policy.length_log_probs(latents),
                    model.reference_policy.length_log_probs(latents),
                )
            moved.append(float((log_p.exp() * (log_p - log_ref)).sum(-1).mean()))
        assert moved[1] < moved[0] / 3

    def test_the_reference_and_the_world_stay(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world), seed=0)
        reference, world = weights_of(model.reference_policy), weights_of(shared_world(tiny_world))
        model.learn(48)
        assert_same_weights(reference, weights_of(model.reference_policy))
        assert_same_weights(world, weights_of(shared_world(tiny_world)))
        assert not torch.equal(reference["action_net.weight"], model.policy.action_net.weight)

    def test_counts(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world, groups=3), n_epochs=2, batch_size=2)
        model.learn(25)
        # 24 decisions an iteration, so two; two passes over three scenes in batches of two.
        assert model.num_timesteps == 48
        assert model._n_updates == 2 * 2 * 2
        model.learn(24, reset_num_timesteps=False)
        assert model.num_timesteps == 72

    def test_clip_and_kl_schedules(self, tiny_world: str) -> None:
        seen: list[tuple[float, float, float]] = []

        class Watched(GRPO):
            def train(self, rollout: GroupRollout) -> dict[str, Tensor]:
                now = self.options.at(self._current_progress_remaining)
                seen.append((now.clip_range, now.clip_range_high, now.kl_coef))
                return super().train(rollout)

        model = Watched(
            env=make_env(tiny_world),
            clip_range=lambda remaining: 0.1 + remaining,
            clip_range_high=None,
            kl_coef=lambda remaining: 2 * remaining,
        )
        model.learn(24 * 4)
        expected = [(0.1 + left, 0.1 + left, 2 * left) for left in (1.0, 0.75, 0.5, 0.25)]
        assert [value for row in seen for value in row] == pytest.approx([value for row in expected for value in row])

    def test_learning_rate_schedule(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world), learning_rate=lambda remaining: 1e-3 * remaining)
        memory = Memory()
        model.set_logger(Logger(None, [memory]))
        model.learn(24 * 4)
        rates = [dump["train/learning_rate"] for dump in memory.dumps]
        assert rates == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])

    def test_a_reward_that_is_not_finite_stops_it(self, tiny_world: str) -> None:
        state = {"broken": False}  # only later: an environment refuses a term that is broken from the start

        def broken(outcome: Outcome) -> Tensor:
            return torch.full_like(outcome.mse, torch.nan if state["broken"] else 0.0)

        model = GRPO(env=make_env(tiny_world, reward={"terms": {"broken": broken}}), seed=0)
        state["broken"] = True
        before = weights_of(model.policy)
        with pytest.raises(NonFiniteLossError, match="Expected a finite loss, got nan"):
            model.learn(24)
        assert_same_weights(before, weights_of(model.policy))


class TestSaving:
    @pytest.fixture
    def trained(self, tiny_world: str) -> GRPO:
        model = GRPO(env=make_env(tiny_world), seed=0, kl_coef=0.25, learning_rate=1e-3)
        model.learn(48)
        return model

    def test_without_an_environment(self, trained: GRPO, tmp_path: Path) -> None:
        trained.save(tmp_path / "agent.zip")
        torch.manual_seed(123)  # loading must not draw weights from the global stream
        loaded = GRPO.load(tmp_path / "agent.zip")
        assert_same_weights(weights_of(trained.policy), weights_of(loaded.policy))
        assert_same_weights(weights_of(trained.reference_policy), weights_of(loaded.reference_policy))
        assert not any(parameter.requires_grad for parameter in loaded.reference_policy.parameters())
        assert (loaded.kl_coef, loaded.num_timesteps) == (0.25, 48)

    def test_the_file_holds_no_tokenizer(self, tiny_world: str, trained: GRPO, tmp_path: Path) -> None:
        trained.save(tmp_path / "agent.zip")
        with zipfile.ZipFile(tmp_path / "agent.zip") as file:
            sizes = {entry.filename: entry.file_size for entry in file.infolist()}
            assert {"policy.pth", "policy.optimizer.pth", "reference_policy.pth"} <= set(sizes)
            for name in ("policy.pth", "reference_policy.pth"):
                with file.open(name) as entry:
                    state = torch.load(entry, weights_only=True)
                assert set(state) == set(trained.policy.state_dict())
        world = sum(value.nbytes for value in shared_world(tiny_world).state_dict().values())
        policy = sum(value.nbytes for value in trained.policy.state_dict().values())
        # The rest of the file is small: no world, no observations.
        assert sizes["data"] < 40_000 < world
        assert sizes["policy.pth"] < policy + 30_000

    def test_set_parameters(self, tiny_world: str, trained: GRPO) -> None:
        other = GRPO(env=make_env(tiny_world), seed=9)
        other.set_parameters(trained.get_parameters())
        assert_same_weights(weights_of(trained.policy), weights_of(other.policy))


class StopAfter(BaseCallback):
    """Stops training in its n-th step, and records its calls."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.seen: list[str] = []

    def _on_training_start(self) -> None:
        assert self.locals["total_timesteps"] > 0
        self.seen.append("training start")

    def _on_rollout_start(self) -> None:
        self.seen.append("rollout start")

    def _on_step(self) -> bool:
        assert len(self.locals["infos"]) == len(self.locals["rewards"]) == len(self.locals["dones"]) == 12
        self.paid = self.locals["rewards"] + (self.paid if self.n_calls % 2 == 0 else 0)
        if self.locals["dones"].all():
            returns = [info["episode"]["r"] for info in self.locals["infos"]]
            assert returns == pytest.approx(self.paid.tolist(), abs=1e-6)
        self.seen.append("step")
        return self.n_calls < self.steps

    def _on_rollout_end(self) -> None:
        self.seen.append("rollout end")

    def _on_training_end(self) -> None:
        self.seen.append("training end")


class TestCallbacks:
    def test_order_and_stop(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world), seed=0)
        callback = StopAfter(3)
        model.learn(10_000, callback=callback)
        assert callback.seen == [
            "training start",
            *["rollout start", "step", "step", "rollout end"],
            *["rollout start", "step"],
            "training end",
        ]
        assert model.num_timesteps == 36

    def test_evaluation(self, tiny_world: str, tmp_path: Path) -> None:
        held_out = make_sb3_env(4, tokenizer=tiny_world, path_length=2, split="test")
        callback = EvalCallback(
            held_out, eval_freq=1, n_eval_episodes=4, best_model_save_path=str(tmp_path), verbose=0, warn=False
        )
        # EvalCallback compares the classes of the two environments: both monitored.
        model = GRPO(env=VecMonitor(make_env(tiny_world)), seed=0)
        model.learn(48, callback=callback)
        assert math.isfinite(callback.best_mean_reward)
        assert (tmp_path / "best_model.zip").is_file()


class TestLogging:
    def test_names_and_values(self, tiny_world: str) -> None:
        model = GRPO(env=make_env(tiny_world), seed=0)
        memory = Memory()
        model.set_logger(Logger(None, [memory]))
        rollouts: list[GroupRollout] = []
        collect = model.collect

        def remember(on_step: Any) -> GroupRollout:
            rollouts.append(collect(on_step))
            return rollouts[-1]

        model.collect = remember  # type: ignore[method-assign]
        model.learn(48)
        assert len(memory.dumps) == 2
        log = memory.dumps[0]
        terms = ("efficiency", "penalty", "diversity", "reconstruction", "generation")
        assert set(log) == {
            *(f"time/{name}" for name in ("iterations", "fps", "time_elapsed", "total_timesteps")),
            *("rollout/ep_rew_mean", "rollout/ep_len_mean"),
            *(f"rewards/{name}/{figure}" for name in terms for figure in ("mean", "std")),
            *("rewards/total/mean", "rewards/reward_std", "rewards/frac_reward_zero_std"),
            *(f"lengths/{name}" for name in ("mean_tokens", "share_smallest", "share_largest", "histogram_entropy")),
            *("quality/mse", "quality/psnr"),
            *(f"train/{name}" for name in ("loss", "policy_gradient_loss", "kl", "entropy", "entropy_loss")),
            *(f"train/{name}" for name in ("approx_kl", "clip_fraction", "n_updates", "learning_rate")),
            *(f"train/clip_ratio/{side}_mean" for side in ("low", "high", "region")),
            "train/gradient_norm",
        }
        assert all(math.isfinite(value) for value in log.values())
        total, lengths = rollouts[0].rewards.total, rollouts[0].outcome.n_tokens
        assert log["rollout/ep_rew_mean"] == pytest.approx(total.mean().item(), abs=1e-5)
        assert log["rewards/reward_std"] == pytest.approx(float(np.std(total.numpy(), axis=0, ddof=1).mean()), abs=1e-5)
        assert log["lengths/mean_tokens"] == pytest.approx(lengths.double().mean().item())
        assert log["lengths/share_smallest"] == pytest.approx((lengths == 1).double().mean().item())
        assert log["lengths/share_largest"] == pytest.approx((lengths == 16).double().mean().item())
        counts = np.bincount(lengths.flatten().numpy())
        shares = counts[counts > 0] / counts.sum()
        assert log["lengths/histogram_entropy"] == pytest.approx(
            -(shares * np.log(shares)).sum() / np.log(16), abs=1e-5
        )
        assert log["train/n_updates"] == 2

    def test_flat_groups_are_counted(self, tiny_world: str) -> None:
        off = {"weights": dict.fromkeys(ONLY_EFFICIENCY["weights"], 0)}
        model = GRPO(env=make_env(tiny_world, reward=off), seed=0)
        memory = Memory()
        model.set_logger(Logger(None, [memory]))
        model.learn(24)
        assert memory.dumps[0]["rewards/frac_reward_zero_std"] == 1.0
