"""The engine: encoding, scoring and errors; test_literal.py compares its numbers with the literal method."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.envs import Scene, ScoringEngine
from vaportok_rl.tokenizer import VaporTok

PATHS, LENGTH, TOKENS = 2, 3, 16


@pytest.fixture(scope="module")
def engine(world: VaporTok) -> ScoringEngine:
    return ScoringEngine(world)


@pytest.fixture(scope="module")
def scene(engine: ScoringEngine, clips: Tensor) -> Scene:
    return engine.encode(clips)


def test_score_all_holds_every_length(engine: ScoringEngine, scene: Scene) -> None:
    every = engine.score_all(scene)
    assert every.n_tokens[:, 0, 0].tolist() == list(range(1, TOKENS + 1))
    for n in (1, 7, TOKENS):
        outcome = engine.score(scene, torch.full((1, PATHS, LENGTH), n))
        assert torch.equal(every.mse[n - 1], outcome.mse[0])
        assert torch.equal(every.accuracy[n - 1], outcome.accuracy[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_a_number_does_not_depend_on_its_company(engine: ScoringEngine, scene: Scene, seed: int, group: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n_tokens = torch.randint(1, TOKENS + 1, (group, PATHS, LENGTH), generator=generator)
    together = engine.score(scene, n_tokens)
    p, j, g = seed % PATHS, seed % LENGTH, seed % group
    here = scene.at(torch.tensor([p]), torch.tensor([j]))
    alone = engine.score(here, n_tokens[g, p, j].view(1, 1, 1))
    # Bitwise: every face of the environment pays the same reward for the same decision.
    assert alone.mse.item() == together.mse[g, p, j].item()
    assert alone.accuracy.item() == together.accuracy[g, p, j].item()


def test_float_and_uint8_clips_are_the_same_scene(engine: ScoringEngine, clips: Tensor, scene: Scene) -> None:
    from_float = engine.encode(clips.float() / 255)
    assert torch.equal(from_float.clips, clips)
    assert torch.equal(from_float.codes, scene.codes)
    assert torch.equal(from_float.latents, scene.latents)
    assert torch.equal(from_float.hits, scene.hits)
    assert torch.allclose(from_float.complexity, scene.complexity, atol=1e-4)


def test_encode_keeps_labels_and_ids(engine: ScoringEngine, clips: Tensor) -> None:
    labels, ids = torch.arange(6).view(2, 3) % 4, torch.arange(6).view(2, 3) + 40
    scene = engine.encode(clips, labels, ids)
    assert torch.equal(scene.labels, labels)
    assert torch.equal(scene.ids, ids)
    plain = engine.encode(clips)
    assert plain.labels.unique().tolist() == [0]
    assert plain.ids.flatten().tolist() == list(range(6))


def test_reconstruct_is_the_video_that_was_scored(engine: ScoringEngine, scene: Scene, clips: Tensor) -> None:
    n_tokens = torch.tensor([[1, 7, 16], [3, 16, 2]])
    video = engine.reconstruct(scene, n_tokens)
    assert video.shape == clips.shape
    mse = (video - clips.float() / 255).square().flatten(2).mean(-1)
    assert torch.allclose(mse, engine.score(scene, n_tokens[None]).mse[0], rtol=1e-5, atol=0)


def test_nothing_carries_a_gradient(engine: ScoringEngine, scene: Scene) -> None:
    assert not any(parameter.requires_grad for parameter in engine.world.parameters())
    assert not scene.latents.requires_grad
    assert not engine.score(scene, torch.ones(1, PATHS, LENGTH, dtype=torch.int64)).mse.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clips: clips[0], r"Expected clips \[P, L, C, T, H, W\]"),
        (lambda clips: clips[..., :8], "Expected clips of shape"),
    ],
    ids=["no scene axis", "wrong size"],
)
def test_bad_clips_are_refused(engine: ScoringEngine, clips: Tensor, change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        engine.encode(change(clips))


@pytest.mark.parametrize(
    ("n_tokens", "message"),
    [
        (torch.ones(PATHS, LENGTH, dtype=torch.int64), r"Expected n_tokens int64 \[G, 2, 3\]"),
        (torch.ones(1, LENGTH, PATHS, dtype=torch.int64), r"Expected n_tokens int64 \[G, 2, 3\]"),
        (torch.ones(1, PATHS, LENGTH), r"got torch.float32"),
        (torch.ones(1, PATHS, LENGTH, dtype=torch.int32), r"got torch.int32"),
        (torch.zeros(1, PATHS, LENGTH, dtype=torch.int64), "Expected n_tokens in 1…16, got 0…0"),
        (torch.full((1, PATHS, LENGTH), TOKENS + 1), "Expected n_tokens in 1…16, got 17…17"),
    ],
    ids=["no group axis", "transposed", "float", "int32", "zero", "past K"],
)
def test_bad_lengths_are_refused(engine: ScoringEngine, scene: Scene, n_tokens: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine.score(scene, n_tokens)
