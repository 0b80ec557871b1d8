"""The taildrop module as a Stable-Baselines3 policy: the same distribution everywhere, weights of the world."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from vaportok_rl.agents import TaildropPolicy
from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs import TaildropProcess, shared_world
from vaportok_rl.tokenizer import VaporTok


@pytest.fixture(scope="module")
def latents(tiny_world: str) -> Tensor:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3)
    return process.sample_scene([np.random.default_rng(0), np.random.default_rng(1)]).latents


def make_policy(tokenizer: str, **settings: Any) -> TaildropPolicy:
    process = TaildropProcess(tokenizer=tokenizer)
    return TaildropPolicy(
        process.single_observation_space,
        process.single_action_space,
        lambda progress: 1e-3,
        tokenizer=tokenizer,
        **settings,
    )


@pytest.mark.parametrize("smoothing", [0.0, None, 3.0])
def test_starts_as_the_pretrained_module_smoothed(tiny_world: str, latents: Tensor, smoothing: float | None) -> None:
    policy = make_policy(tiny_world, smoothing=smoothing)
    got, module = policy.length_log_probs(latents), shared_world(tiny_world).taildrop(latents.flatten(0, 1)).logits
    expected = torch.from_numpy(by_hand(module.double().numpy(), 1.0 if smoothing is None else smoothing))
    assert torch.allclose(got.flatten(0, 1).double(), expected, atol=1e-5)
    assert policy._get_constructor_parameters()["smoothing"] == smoothing


def by_hand(logits: np.ndarray, width: float) -> np.ndarray:
    """Logits averaged over neighbouring lengths, one length at a time, and made log-probabilities again."""
    lengths = np.arange(logits.shape[-1])
    if width:
        weights = [np.exp(-0.5 * ((lengths - at) / width) ** 2) for at in lengths]
        logits = np.stack([logits @ (each / each.sum()) for each in weights], -1)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [-1.0, math.inf, math.nan])
def test_bad_smoothing_is_refused(tiny_world: str, smoothing: float) -> None:
    with pytest.raises(ValueError, match="Expected a finite smoothing ≥ 0"):
        make_policy(tiny_world, smoothing=smoothing)


def test_without_pretraining_it_starts_uniform(tiny_world: str, latents: Tensor) -> None:
    got = make_policy(tiny_world, pretrained=False).length_log_probs(latents)
    assert torch.allclose(got, torch.full_like(got, -math.log(16)), atol=0.05)


def test_without_pretraining_its_features_tell_clips_apart(tiny_world: str) -> None:
    policy = make_policy(tiny_world, pretrained=False)
    latents = shared_world(tiny_world).encode(ProceduralClips(frames=4, size=16).batch(range(100, 356)).clips).latents
    features = policy.features_extractor(latents)
    assert features.mean(0).abs().median() < 0.3
    assert 0.6 < features.std(0).median() < 1.6


def test_only_the_module_is_read(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = TaildropProcess(tokenizer=tiny_world)
    spaces_of = process.single_observation_space, process.single_action_space
    monkeypatch.setattr(VaporTok, "__init__", None)
    monkeypatch.setattr("vaportok_rl.envs.scoring.worlds._WORLDS", {})
    TaildropPolicy(*spaces_of, lambda progress: 1e-3, tokenizer=tiny_world)


def test_training_it_leaves_the_world_alone(tiny_world: str, latents: Tensor) -> None:
    module = shared_world(tiny_world).taildrop_module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    policy = make_policy(tiny_world)
    policy.length_log_probs(latents)[..., 0].sum().backward()
    policy.optimizer.step()
    assert not torch.equal(policy.action_net.weight, module.head.weight)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_every_route_gives_the_same_distribution(tiny_world: str, latents: Tensor) -> None:
    policy = make_policy(tiny_world)
    obs = latents.flatten(0, 1)
    log_probs = policy.length_log_probs(obs)
    distribution = policy.get_distribution(obs)
    assert torch.allclose(distribution.distribution.logits, log_probs, atol=1e-5)
    for action in (0, 7, 15):
        actions = torch.full((6,), action)
        values, log_prob, spread = policy.evaluate_actions(obs, actions)
        assert torch.allclose(log_prob, log_probs[:, action], atol=1e-5)
        assert torch.allclose(spread, -(log_probs.exp() * log_probs).sum(-1), atol=1e-5)
        # The critic starts at zero.
        assert values.abs().max() == 0
    torch.manual_seed(0)
    actions, _, log_prob = policy(obs)
    assert torch.allclose(log_prob, log_probs.gather(1, actions[:, None])[:, 0], atol=1e-5)


def test_saves_and_loads_by_itself(tiny_world: str, latents: Tensor, tmp_path: Any) -> None:
    policy = make_policy(tiny_world)
    with torch.no_grad():
        policy.action_net.bias.add_(torch.arange(16.0))
    policy.save(tmp_path / "policy.pt")
    # Stable-Baselines3 stores the constructor's arguments, the schedule among them, with pickle.
    saved = torch.load(tmp_path / "policy.pt", weights_only=False)
    again = TaildropPolicy(**saved["data"])
    again.load_state_dict(saved["state_dict"])
    assert saved["data"]["tokenizer"] == tiny_world
    assert torch.equal(again.length_log_probs(latents), policy.length_log_probs(latents))


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Box(0, 1, (2,)), spaces.Discrete(16), r"Expected observations Box \(16, 32\)"),
        (spaces.Box(-1, 1, (32, 16)), spaces.Discrete(16), r"Expected observations Box \(16, 32\)"),
        (spaces.Discrete(3), spaces.Discrete(16), r"Expected observations Box \(16, 32\)"),
        (spaces.Box(-1, 1, (16, 32)), spaces.Discrete(15), r"Expected Discrete\(16\) actions"),
        (spaces.Box(-1, 1, (16, 32)), spaces.Box(0, 1, (1,)), r"Expected Discrete\(16\) actions"),
    ],
    ids=["complexity", "transposed", "discrete", "one action short", "continuous"],
)
def test_wrong_spaces_are_refused(tiny_world: str, observation: Any, action: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaildropPolicy(observation, action, lambda progress: 1e-3, tokenizer=tiny_world)
