"""Scoring against the literal computation: every path encoded, masked, decoded and ranked on its own."""

import math
from itertools import pairwise

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


def literal_score(world: VaporTok, clip: Tensor, n: int) -> tuple[float, float]:
    """Error and top-5 accuracy of keeping n tokens of one uint8 clip, straight from the definition."""
    codes = world.encode(clip[None]).codes
    book = world.bottleneck.regularizer
    with torch.no_grad():
        # All K tokens in the sequence, those past n hidden.
        decoded = world.reconstruct(book.lookup(codes), torch.tensor([n])).clamp(0, 1)
        mse = float((decoded[0].double() - clip.double() / 255).square().mean())
        if n == 1:
            return mse, 0.0
        # The prior sees the retained tokens alone.
        logits = world.prior_model.logits(book.lookup(codes[:, :n]), book.unit_codes())[0]
    hits = 0
    for j in range(n - 1):
        hits += int(codes[0, j + 1]) in torch.topk(logits[j], 5).indices.tolist()
    return mse, hits / (n - 1)


@pytest.fixture(scope="module")
def literal(world: VaporTok, clips: Tensor) -> dict[tuple[int, int, int], tuple[float, float]]:
    return {
        (p, j, n): literal_score(world, clips[p, j], n)
        for p in range(PATHS)
        for j in range(LENGTH)
        for n in range(1, TOKENS + 1)
    }


def test_prior_logits_of_one_clip_have_one_row_a_predicted_token(world: VaporTok, scene: Scene) -> None:
    # Guards the literal reference above: its prior call must be given n vectors and return n - 1 rows.
    book = world.bottleneck.regularizer
    assert world.prior_model.logits(book.lookup(scene.codes[0, :1, :4]), book.unit_codes()).shape == (1, 3, 32)


def test_lengths_matter_in_the_tiny_world(literal: dict[tuple[int, int, int], tuple[float, float]]) -> None:
    assert len({round(literal[0, 0, n][0], 7) for n in range(1, TOKENS + 1)}) > 10
    assert len({accuracy for _, accuracy in literal.values()}) > 5


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_score_is_the_literal_score(
    engine: ScoringEngine,
    scene: Scene,
    literal: dict[tuple[int, int, int], tuple[float, float]],
    data: st.DataObject,
) -> None:
    group = data.draw(st.integers(1, 5))
    flat = st.lists(st.integers(1, TOKENS), min_size=group * 6, max_size=group * 6)
    n_tokens = torch.tensor(data.draw(flat)).view(group, PATHS, LENGTH)
    outcome = engine.score(scene, n_tokens)
    assert outcome.mse.shape == outcome.accuracy.shape == n_tokens.shape
    assert torch.equal(outcome.n_tokens, n_tokens)
    assert outcome.tokens == TOKENS
    for g in range(group):
        for p in range(PATHS):
            for j in range(LENGTH):
                mse, accuracy = literal[p, j, int(n_tokens[g, p, j])]
                assert outcome.mse[g, p, j].item() == pytest.approx(mse, rel=1e-5)
                assert outcome.accuracy[g, p, j].item() == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, TOKENS])
def test_one_clip_alone(
    engine: ScoringEngine, clips: Tensor, literal: dict[tuple[int, int, int], tuple[float, float]], n: int
) -> None:
    outcome = engine.score(engine.encode(clips[1:, 2:]), torch.full((1, 1, 1), n))
    assert outcome.mse.item() == pytest.approx(literal[1, 2, n][0], rel=1e-5)
    assert outcome.accuracy.item() == pytest.approx(literal[1, 2, n][1], abs=1e-6)


def test_score_all_holds_every_length(
    engine: ScoringEngine, scene: Scene, literal: dict[tuple[int, int, int], tuple[float, float]]
) -> None:
    every = engine.score_all(scene)
    assert every.mse.shape == (TOKENS, PATHS, LENGTH)
    for (p, j, n), (mse, accuracy) in literal.items():
        assert every.n_tokens[n - 1, p, j] == n
        assert every.mse[n - 1, p, j].item() == pytest.approx(mse, rel=1e-5)
        assert every.accuracy[n - 1, p, j].item() == pytest.approx(accuracy, abs=1e-6)


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


def test_small_batches_give_the_same_numbers(world: VaporTok, clips: Tensor, scene: Scene) -> None:
    small = ScoringEngine(world, max_batch_tokens=world.config.patches + world.config.tokens)
    rescored = small.score_all(small.encode(clips))
    reference = ScoringEngine(world).score_all(scene)
    assert torch.allclose(rescored.mse, reference.mse, rtol=1e-6, atol=0)
    assert torch.equal(rescored.accuracy, reference.accuracy)


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


def test_complexity_is_entropy_and_motion(scene: Scene, clips: Tensor) -> None:
    clip = clips[1, 0].double()
    grey = 0.299 * clip[0] + 0.587 * clip[1] + 0.114 * clip[2]
    entropies = []
    for frame in grey:
        shares = torch.bincount(frame.round().long().flatten(), minlength=256) / frame.numel()
        entropies.append(-sum(share * math.log2(share) for share in shares.tolist() if share > 0))
    motion = sum(float((later - now).abs().mean()) for now, later in pairwise(grey))
    expected = [sum(entropies) / len(entropies), motion / (len(grey) - 1)]
    assert scene.complexity[1, 0].tolist() == pytest.approx(expected, rel=1e-4)


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
        (lambda clips: clips.long(), "Expected uint8 video or floats"),
        (lambda clips: clips.float(), r"Expected float video in \[0, 1\]"),
        (lambda clips: clips.float() / 255 * math.nan, r"Expected float video in \[0, 1\]"),
    ],
    ids=["no scene axis", "wrong size", "int64", "not divided", "NaN"],
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


def test_a_batch_must_hold_a_clip(world: VaporTok) -> None:
    with pytest.raises(ValueError, match="Expected max_batch_tokens of at least one clip's sequence"):
        ScoringEngine(world, max_batch_tokens=8)
