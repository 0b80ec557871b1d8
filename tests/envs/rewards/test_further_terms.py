"""Optional terms against closed forms and slow references; nothing is measured unless needed."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.agents import HeldOut
from vaportok_rl.envs import (
    DEFAULT_WEIGHTS,
    Outcome,
    OutcomeOfAllLengths,
    Scene,
    ScoringEngine,
    TaildropEnv,
    VaporReward,
)
from vaportok_rl.envs.rewards.pixels import pixel_measures, ssim
from vaportok_rl.envs.rewards.terms import FURTHER_TERMS, budget_overrun, codebook_usage, generation, log_mse
from vaportok_rl.envs.scoring import engine as engine_module
from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.perceptual import PerceptualDistance

TOKENS, PATHS, LENGTH = 16, 2, 3
OFF = dict.fromkeys(DEFAULT_WEIGHTS, 0.0)


def random_outcome(seed: int, codebook: int = 6, length: int = 4) -> Outcome:
    rng = np.random.default_rng(seed)
    shape = (3, PATHS, length)
    n_tokens = torch.from_numpy(rng.integers(1, TOKENS + 1, shape))
    mse = torch.from_numpy(rng.random(shape, dtype=np.float32))
    codes = torch.from_numpy(rng.integers(0, codebook, (PATHS, length, TOKENS)))
    return Outcome(Scene.bare(codes, torch.zeros(PATHS, length, 2)), n_tokens, mse, torch.zeros(shape))


def bare_scene(length: int) -> Scene:
    return Scene.bare(torch.zeros(1, length, TOKENS, dtype=torch.int64), torch.zeros(1, length, 2))


def test_further_terms_are_off_until_weighted() -> None:
    assert VaporReward().names == tuple(DEFAULT_WEIGHTS)
    for name in FURTHER_TERMS:
        reward = VaporReward({name: 0.0}, terms={"mine": generation})
        assert reward.names == (*DEFAULT_WEIGHTS, name, "mine")
        assert reward.weights[name] == 0
    every = VaporReward(dict.fromkeys(reversed(FURTHER_TERMS), 0.1))
    assert every.names == (*DEFAULT_WEIGHTS, *FURTHER_TERMS)
    assert every.needs == {"bits", "lpips", "ssim"}


def test_log_mse_is_psnr_in_tens_of_decibels() -> None:
    mse = torch.tensor([[[1.0, 0.1, 0.001, 0.0]]])
    value = log_mse(Outcome(bare_scene(4), torch.ones(1, 1, 4, dtype=torch.int64), mse, mse))
    assert value[0, 0].tolist() == pytest.approx([0.0, 1.0, 3.0, 10.0], abs=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 6))
def test_codebook_usage_counts_different_codes(seed: int, codebook: int, length: int) -> None:
    outcome = random_outcome(seed, codebook, length)
    value = codebook_usage(outcome)
    for g, p in np.ndindex(3, PATHS):
        kept = {
            int(code) for j in range(length) for code in outcome.codes[p, j, : int(outcome.n_tokens[g, p, j])].tolist()
        }
        assert value[g, p].item() == pytest.approx(len(kept) / (length * TOKENS), abs=1e-6)


@given(st.lists(st.integers(1, TOKENS), min_size=1, max_size=8), st.integers(1, 8 * TOKENS))
def test_budget_overrun_is_the_share_beyond(lengths: list[int], budget: int) -> None:
    n_tokens = torch.tensor([[lengths]])
    zeros = torch.zeros(n_tokens.shape)
    outcome = Outcome(bare_scene(len(lengths)), n_tokens, zeros, zeros)
    expected = -max(0, sum(lengths) - budget) / (TOKENS * len(lengths))
    value = budget_overrun(outcome, token_budget=budget)
    assert value.item() == pytest.approx(expected, abs=1e-6)
    assert not (torch.signbit(value) & (value == 0)).any()
    named = VaporReward({"budget_overrun": 1.0}, token_budget=budget)(outcome).raw["budget_overrun"]
    assert torch.equal(named, value)
    quarter = VaporReward({"budget_overrun": 1.0})(outcome).raw["budget_overrun"]
    assert torch.equal(quarter, budget_overrun(outcome, token_budget=TOKENS * len(lengths) // 4))


def absolute_error(decoded: Tensor, clips: Tensor) -> Tensor:
    assert decoded.dtype == clips.dtype == torch.float32
    return (decoded - clips).abs().flatten(1).mean(1)


@pytest.fixture(scope="module")
def measuring(world: VaporTok) -> ScoringEngine:
    return ScoringEngine(world, bits=True, distances={"absolute": absolute_error, "lpips": absolute_error})


@pytest.fixture(scope="module")
def scene(measuring: ScoringEngine, clips: Tensor) -> Scene:
    return measuring.encode(clips)


def brightness(decoded: Tensor, clip: Tensor) -> Tensor:
    return -(decoded - clip).flatten(1).mean(1).abs()


def test_ssim_is_one_for_equals_and_falls_with_noise() -> None:
    clip = torch.rand(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(1))
    values = [ssim((clip + level * noise).clamp(0, 1), clip) for level in (0.0, 0.05, 0.3)]
    assert torch.equal(values[0], torch.ones(2))
    assert (values[0] > values[1]).all()
    assert (values[1] > values[2]).all()
    # The mean over frames of each pair by itself.
    frames = torch.stack([ssim(clip[:1, :, [t]] * 0.5, clip[:1, :, [t]]) for t in range(4)])
    assert ssim(clip[:1] * 0.5, clip[:1]).item() == pytest.approx(frames.mean().item(), abs=1e-6)


def test_a_pixel_term_is_a_measure_and_a_term(tiny_world: str) -> None:
    env = TaildropEnv(
        tokenizer=tiny_world, path_length=LENGTH, reward={"pixel_terms": [brightness], "weights": {**OFF, "ssim": 2.0}}
    )
    assert env.process.engine.measures == ("ssim", "brightness")
    env.reset(seed=2)
    for action in (0, 7, 15):
        _, reward, _, _, info = env.step(action)
        scene = env.process.engine.open(info["clip_id"].reshape(1, 1))
        decoded = env.process.engine.reconstruct(scene, torch.tensor([[action + 1]]))[0]
        clip = scene.clips[0].float() / 255
        expected = {"brightness": brightness(decoded, clip).item(), "ssim": ssim(decoded, clip).item()}
        for name, value in expected.items():
            assert info["reward_terms"][name] == pytest.approx(value, abs=1e-5)
        assert reward == pytest.approx((expected["brightness"] + 2 * expected["ssim"]) / LENGTH, abs=1e-5)
    # And a column of every table of policies.
    columns = HeldOut(env.process, scenes=1).evaluate(torch.full((1, LENGTH), 3)).metrics()
    assert {"brightness", "ssim", "reward_brightness", "reward_ssim"} <= columns.keys()
    with pytest.raises(ValueError, match="got 'ssim' twice"):
        VaporReward(pixel_terms={"ssim": brightness})
    with pytest.raises(ValueError, match=r"pixel term 'brightness' to return floats \[B\]"):
        TaildropEnv(tokenizer=tiny_world, reward={"pixel_terms": {"brightness": lambda decoded, clip: decoded.mean()}})


def test_bits_are_the_literal_likelihood(world: VaporTok, measuring: ScoringEngine, scene: Scene) -> None:
    n_tokens = torch.randint(1, TOKENS + 1, (4, PATHS, LENGTH), generator=torch.Generator().manual_seed(2))
    n_tokens[0, 0, 0], n_tokens[1, 1, 1] = 1, TOKENS
    outcome = measuring.score(scene, n_tokens)
    value = VaporReward({"prior_bits": 1.0})(outcome).raw["prior_bits"]
    for g, p, j in np.ndindex(4, PATHS, LENGTH):
        codes = scene.codes[p, j]
        n = int(n_tokens[g, p, j])
        bits = 0.0
        for token in range(1, n):
            # The prior sees the tokens before alone.
            chances = world.prior_logits(codes[None, : token + 1])[0, -1].double().softmax(-1)
            bits -= math.log2(chances[codes[token]])
        assert value[g, p, j].item() == pytest.approx(-bits, rel=1e-4, abs=1e-5)


def test_distances_are_those_of_the_decoded_video(measuring: ScoringEngine, scene: Scene, clips: Tensor) -> None:
    assert measuring.measures == ("bits", "absolute", "lpips")
    n_tokens = torch.tensor([[[1, 7, 16], [3, 16, 2]], [[2, 7, 9], [3, 1, 16]]])
    outcome = measuring.score(scene, n_tokens)
    for g in range(2):
        video = measuring.reconstruct(scene, n_tokens[g])
        expected = (video - clips.float() / 255).abs().flatten(2).mean(-1)
        assert torch.allclose(outcome.measures["absolute"][g], expected, rtol=1e-5, atol=0)
    raw = VaporReward({"lpips": 1.0})(outcome).raw["lpips"]
    assert torch.equal(raw, -outcome.measures["lpips"])
    assert outcome.codes is scene.codes


@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_measure_does_not_depend_on_its_company(
    measuring: ScoringEngine, scene: Scene, seed: int, group: int
) -> None:
    n_tokens = torch.randint(1, TOKENS + 1, (group, PATHS, LENGTH), generator=torch.Generator().manual_seed(seed))
    together = measuring.score(scene, n_tokens)
    p, j, g = seed % PATHS, seed % LENGTH, seed % group
    alone = measuring.score(scene.at(torch.tensor([p]), torch.tensor([j])), n_tokens[g, p, j].view(1, 1, 1))
    for name in measuring.measures:
        assert alone.measures[name].item() == together.measures[name][g, p, j].item()


def test_measures_survive_lookup_and_joining(measuring: ScoringEngine, scene: Scene) -> None:
    every = measuring.score_all(scene)
    n_tokens = torch.tensor([[[1, 7, 16], [3, 16, 2]]])
    taken, scored = every.take(n_tokens), measuring.score(scene, n_tokens)
    for name in measuring.measures:
        assert torch.equal(taken.measures[name], scored.measures[name])
    reward = VaporReward({"prior_bits": 0.01, "codebook_usage": 1.0})
    assert torch.equal(reward(taken).total, reward(scored).total)
    swapped = scene.replace_paths(torch.tensor([1, 0]), scene)
    joined = OutcomeOfAllLengths.joined([every, measuring.score_all(swapped)]).take(n_tokens.repeat(1, 2, 1))
    at_once = measuring.score(scene.joined([swapped]), n_tokens.repeat(1, 2, 1))
    for name in measuring.measures:
        assert torch.equal(joined.measures[name], at_once.measures[name])
    assert torch.equal(reward(joined).total, reward(at_once).total)


def test_nothing_is_measured_that_no_term_needs(
    world: VaporTok, clips: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the likelihood was computed")

    monkeypatch.setattr(engine_module, "cumulative_bits", refuse)
    plain = ScoringEngine(world)
    scene = plain.encode(clips)
    assert plain.measures == ()
    assert scene.bits.shape == (PATHS, LENGTH, 0)
    assert plain.score_all(scene).measures == {}
    assert pixel_measures(VaporReward()) == {}
    with pytest.raises(ValueError, match="Expected a scene with the prior's bits, got one encoded without"):
        ScoringEngine(world, bits=True).score_all(scene)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the backbone of LPIPS: random weights in torchvision's layout, not ImageNet's."""
    path = tmp_path_factory.mktemp("random-weights-not-imagenet") / "vgg.pth"
    with torch.device("meta"):
        layout = torchvision.models.vgg16(weights=None).features.state_dict()
    rng = torch.Generator().manual_seed(0)
    scale = {name: (2 / max(1, empty[0].numel())) ** 0.5 if empty.dim() > 1 else 0.05 for name, empty in layout.items()}
    weights = {name: scale[name] * torch.randn(empty.shape, generator=rng) for name, empty in layout.items()}
    torch.save({f"features.{name}": value for name, value in weights.items()}, path)
    return path


def walk(env: TaildropEnv, seed: int) -> tuple[float, list[dict[str, Any]]]:
    """One path of random lengths: its return and infos."""
    env.reset(seed=seed)
    env.action_space.seed(seed)
    total, infos, finished = 0.0, [], False
    while not finished:
        _, reward, finished, _, info = env.step(env.action_space.sample())
        total += float(reward)
        infos.append(info)
    return total, infos


def test_every_further_term_in_the_environment(tiny_world: str, backbone: Path) -> None:
    reward = {
        "weights": {
            **OFF,
            "log_mse": 0.5,
            "lpips": 2.0,
            "ssim": 0.5,
            "prior_bits": 0.01,
            "codebook_usage": 3.0,
            "budget_overrun": 4,
        },
        "token_budget": 9,
        "perceptual_backbone": str(backbone),
    }
    env = TaildropEnv(tokenizer=tiny_world, path_length=LENGTH, reward=reward)
    total, infos = walk(env, seed=3)
    assert list(infos[0]["reward_terms"]) == [*DEFAULT_WEIGHTS, *FURTHER_TERMS]
    # The return is the path reward of the same lengths, scored at once.
    process = env.process
    scene = process.sample_scene([np.random.default_rng(3)])
    n_tokens = torch.tensor([[[int(info["n_tokens"]) for info in infos]]])
    assert scene.ids[0].tolist() == [info["clip_id"] for info in infos]
    result = process.reward(process.engine.score(scene, n_tokens))
    assert total == pytest.approx(result.total.item(), abs=1e-6)
    assert infos[-1]["reward_terms"]["budget_overrun"] == pytest.approx(
        -max(0, int(n_tokens.sum()) - 9) / (LENGTH * TOKENS)
    )

    # LPIPS itself is held against its package in the tests of the tokenizer.
    metric = PerceptualDistance("vgg", backbone)
    video = process.engine.reconstruct(scene, n_tokens[0])
    expected = -metric(video[0], scene.clips[0].float() / 255)
    assert (expected < -0.01).all()
    assert [info["reward_terms"]["lpips"] for info in infos] == pytest.approx(expected.tolist(), rel=1e-5)


def test_lpips_without_its_backbone_says_which_file(tiny_world: str, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.pth"
    reward = {"weights": {"lpips": 1.0}, "perceptual_backbone": str(missing)}
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        TaildropEnv(tokenizer=tiny_world, path_length=LENGTH, reward=reward)
    # Asked for nothing, the same path is never opened.
    TaildropEnv(tokenizer=tiny_world, path_length=LENGTH, reward={"perceptual_backbone": str(missing)})
