"""GRPO's options: the effect of each, and refused combinations that would have none."""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from vaportok_rl.agents import GRPO
from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.envs import TaildropVecEnv
from vaportok_rl.runtime.declared import options_table

FLAT = {"weights": dict.fromkeys(("efficiency", "penalty", "diversity", "reconstruction", "generation"), 0)}


def make(world: str, *, reward: Any = None, **options: Any) -> GRPO:
    env = TaildropVecEnv(12, group_size=4, path_length=2, tokenizer=world, reward=reward)
    return GRPO(env=env, **{"seed": 0, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_rewards": "std"}, "Expected scale_rewards 'group' or 'batch' or 'none', got 'std'"),
        ({"gradient": "all"}, "Expected gradient 'sampled' or 'enumerated'"),
        ({"kl_estimator": "k1"}, "Expected kl_estimator"),
        ({"credit": "token"}, "Expected credit"),
        ({"reward_aggregation": "sum"}, "Expected reward_aggregation"),
        ({"kl_coef": 0, "kl_estimator": "k3"}, "Expected kl_coef > 0 with kl_estimator='k3'"),
        ({"kl_coef": 0, "ref_sync_every": 2}, "Expected kl_coef > 0 with ref_sync_every"),
        ({"kl_estimator": "k3", "gradient": "enumerated"}, "Expected kl_estimator='exact'"),
        ({"reward_aggregation": "normalize_then_sum", "scale_rewards": "batch"}, "Expected scale_rewards='group'"),
        ({"n_epochs": 1, "target_kl": 0.1}, "more than one gradient step per round with target_kl"),
        ({"n_epochs": 1, "batch_size": 3, "delta": 4}, "more than one gradient step per round with delta"),
    ],
    ids=str,
)
def test_what_is_unknown_or_without_effect_is_refused(tiny_world: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tiny_world, **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_grad_norm", value) for value in (-1.0, 0.0, math.nan)),
        *(("learning_rate", value) for value in (-1e-3, math.nan, math.inf)),
        ("final_learning_rate", 2.0),
        *(("kl_coef", value) for value in (-1.0, math.nan)),
        *(("target_kl", value) for value in (0.0, math.nan)),
        *(("clip_range", value) for value in (0.0, -1.0)),
        ("clip_range_high", 0.0),
        ("delta", 1.28),
        ("n_epochs", 0),
        ("batch_size", 0),
        ("ent_coef", -0.1),
        ("advantage_eps", -1.0),
        ("ref_sync_every", 0),
        ("ref_sync_mix", 0.0),
    ],
)
def test_what_is_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"Expected .*{name}.*, got {value:g}"):
        GRPO("MlpPolicy", "CartPole-v1", group_size=2, scenes=1, **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_epochs": 2.0}, "n_epochs to be a whole number, got 2.0"),
        ({"kl_coef": "0.1"}, "kl_coef to be a number or a function"),
        ({"kl_coeff": 0.1}, "got 'kl_coeff'; did you mean 'kl_coef'"),
    ],
)
def test_what_is_no_such_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        GRPO("MlpPolicy", "CartPole-v1", group_size=2, scenes=1, **options)


@pytest.mark.parametrize("options", [{"clip_range": lambda left: left - 1}, {"kl_coef": lambda left: -1.0}])
def test_schedules_are_checked_each_round(tiny_world: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"Expected {next(iter(options))} [>≥] 0, got"):
        make(tiny_world, **options).learn(24)


def test_help_and_page_show_every_option() -> None:
    shown = inspect.signature(GRPO).parameters
    for field in fields(GRPOOptions):
        assert shown[field.name].default == field.default
    page = (Path(__file__).parents[3] / "docs/grpo.md").read_text()
    assert options_table(GRPOOptions) in page


def test_the_learning_rate_falls_linearly_to_its_final_share() -> None:
    schedule = GRPOOptions(learning_rate=4e-4, final_learning_rate=0.25).schedule()
    assert [schedule(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([4e-4, 2.5e-4, 1e-4])
    assert GRPOOptions(learning_rate=4e-4).schedule()(0.25) == pytest.approx(1e-4)
    with pytest.raises(ValueError, match="no final_learning_rate with a schedule"):
        GRPOOptions.of({"learning_rate": lambda left: left, "final_learning_rate": 0.5})


@pytest.mark.parametrize("layer", [lambda: nn.Dropout(0.5), lambda: nn.BatchNorm1d(16)])
def test_a_round_may_end_before_its_first_step(layer: Callable[[], nn.Module]) -> None:
    policy = {"features_extractor_class": Noisy, "features_extractor_kwargs": {"layer": layer}}
    agent = GRPO("MlpPolicy", "CartPole-v1", group_size=2, scenes=2, seed=0, target_kl=1e-6, policy_kwargs=policy)
    before = copy.deepcopy(agent.policy.mlp_extractor.state_dict())
    agent.learn(1)
    assert agent._n_updates == 0
    assert all(torch.equal(value, before[name]) for name, value in agent.policy.mlp_extractor.state_dict().items())


class Noisy(BaseFeaturesExtractor):
    """Moves the policy when it is put into training mode."""

    def __init__(self, space: Any, layer: Callable[[], nn.Module]) -> None:
        super().__init__(space, 16)
        self.net = nn.Sequential(nn.Linear(4, 16), layer())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.net(observations)


@pytest.mark.parametrize("options", [{"credit": "clip"}, {"gradient": "enumerated"}])
def test_clips_are_credited_only_where_there_are_clips(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="outside the taildrop environment"):
        GRPO("MlpPolicy", "CartPole-v1", group_size=2, scenes=1, **options)


def test_one_step_a_round_makes_clipping_inert(tiny_world: str) -> None:
    ends = []
    for clip in (1e-6, 10.0):
        model = make(tiny_world, n_epochs=1, clip_range=clip, clip_range_high=clip)
        model.learn(72)
        ends.append(model.policy.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_delta_bounds_ratios_of_bad_decisions_only(tiny_world: str) -> None:
    model = make(tiny_world, delta=1.5)
    rollout = model.collect()
    advantage = model.advantages(rollout)
    rollout.old_log_prob.sub_(2.0)  # every ratio is now exp(2)
    scenes = torch.arange(3)
    _, capped = model.loss(rollout, advantage, scenes)
    model.delta = None
    _, free = model.loss(rollout, advantage, scenes)
    good, bad = advantage.clamp(min=0).mean(), advantage.clamp(max=0).mean()
    assert capped["policy_gradient_loss"].item() == pytest.approx(-(1.28 * good + 1.5 * bad).item(), abs=1e-5)
    assert free["policy_gradient_loss"].item() == pytest.approx(-(1.28 * good + math.e**2 * bad).item(), abs=1e-4)


def test_target_kl_ends_a_round(tiny_world: str) -> None:
    steps = []
    for target in (1e-6, None):
        model = make(tiny_world, n_epochs=5, learning_rate=1e-2, target_kl=target)
        model.learn(24)
        steps.append(model._n_updates)
    assert steps == [1, 5]  # the first step is taken where the policy has not moved yet


def test_k3_is_the_estimate_at_the_sampled_lengths(tiny_world: str) -> None:
    model = make(tiny_world, kl_estimator="k3", kl_coef=0.5)
    with torch.no_grad():
        model.policy.action_net.bias.add_(torch.linspace(-1, 1, 16))
    rollout = model.collect()
    loss, figures = model.loss(rollout, model.advantages(rollout), torch.arange(3))
    expected = []
    log_p = model.policy.length_log_probs(rollout.scene.latents).tolist()
    log_ref = model.reference_policy.length_log_probs(rollout.scene.latents).tolist()
    for g in range(4):
        for p in range(3):
            for j in range(2):
                a = int(rollout.actions[g, p, j])
                r = log_ref[p][j][a] - log_p[p][j][a]
                expected.append(math.exp(r) - r - 1)
    assert figures["kl"].item() == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert (loss - figures["policy_gradient_loss"]).item() == pytest.approx(0.5 * figures["kl"].item(), abs=1e-6)


def test_the_reference_follows_the_policy(tiny_world: str) -> None:
    model = make(tiny_world, ref_sync_every=2, ref_sync_mix=0.25, learning_rate=1e-2)
    start = model.reference_policy.action_net.weight.clone()
    model.learn(24)
    assert torch.equal(model.reference_policy.action_net.weight, start)
    model.learn(24, reset_num_timesteps=False)
    expected = 0.75 * start + 0.25 * model.policy.action_net.weight
    torch.testing.assert_close(model.reference_policy.action_net.weight, expected)
    assert not model.reference_policy.action_net.weight.requires_grad


def test_groups_without_advantage_can_be_dropped(tiny_world: str) -> None:
    model = make(tiny_world, kl_coef=0.7)
    rollout = model.collect()
    with torch.no_grad():
        model.policy.action_net.bias.add_(torch.linspace(0, 1, 16))
    advantage = model.advantages(rollout).clone()
    advantage[:, 1] = 0
    kept, _ = model.loss(rollout, advantage, torch.tensor([0, 2]))
    model.drop_zero_std_groups = True
    dropped, figures = model.loss(rollout, advantage, torch.arange(3))
    assert dropped.item() == pytest.approx(kept.item(), abs=1e-6)
    nothing, _ = model.loss(rollout, torch.zeros_like(advantage), torch.arange(3))
    assert nothing.item() == 0
    assert math.isfinite(figures["kl"])


@pytest.mark.parametrize("gradient", ["sampled", "enumerated"])
@pytest.mark.parametrize("credit", ["path", "clip"])
@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("drop", [False, True])
def test_flat_rewards_teach_nothing(tiny_world: str, gradient: str, credit: str, aggregation: str, drop: bool) -> None:
    options = {"gradient": gradient, "credit": credit, "reward_aggregation": aggregation, "drop_zero_std_groups": drop}
    model = make(tiny_world, reward=FLAT, kl_coef=0.0, **options)
    rollout = model.collect()
    assert model.advantages(rollout).abs().max() == 0
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(24)
    assert all(torch.equal(value, before[name]) for name, value in model.policy.state_dict().items())
