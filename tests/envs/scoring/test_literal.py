"""The engine equals the literal method for all lengths, batches and ways of batching."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.envs import ScoringEngine
from vaportok_rl.envs.scoring.literal import literal_scores
from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.model import round_weights

TOKENS = 16
# A bfloat16 number has 8 bits: one in 256 a product, and errors of the pixels that mostly cancel in the mean.
BFLOAT16_BOUND = 0.02


@pytest.fixture(scope="module")
def rounded(world: VaporTok) -> VaporTok:
    twin = copy.deepcopy(world)
    twin.precision = "bfloat16"
    return round_weights(twin)


@st.composite
def requests(draw: st.DrawFn) -> Tensor:
    """Lengths ``[G, P, L]`` of at most six clips, with the ends and repetitions made likely."""
    paths, length = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (1, 6), (2, 3), (3, 2)]))
    count = draw(st.integers(1, 4)) * paths * length
    some = st.sampled_from([1, TOKENS, draw(st.integers(1, TOKENS))])
    values = draw(st.lists(some | st.integers(1, TOKENS), min_size=count, max_size=count))
    return torch.tensor(values).view(-1, paths, length)


def as_asked(clips: Tensor, n_tokens: Tensor) -> Tensor:
    """As many of the clips as there are lengths, ``[P, L, C, T, H, W]``."""
    _, paths, length = n_tokens.shape
    return clips.flatten(0, 1)[: paths * length].unflatten(0, (paths, length))


def assert_literal(engine: ScoringEngine, clips: Tensor, n_tokens: Tensor) -> None:
    mse, accuracy = literal_scores(engine.world, clips, n_tokens)
    outcome = engine.score(engine.encode(clips), n_tokens)
    torch.testing.assert_close(outcome.mse, mse, rtol=1e-6, atol=0)
    assert torch.equal(outcome.accuracy, accuracy)


@settings(max_examples=25)
@given(requests())
@pytest.mark.parametrize("at_once", [None, 1], ids=["default", "one clip at a time"])
def test_float32_is_the_literal_method(world: VaporTok, clips: Tensor, at_once: int | None, n_tokens: Tensor) -> None:
    longest = world.config.patches + world.config.tokens
    engine = ScoringEngine(world, at_once and at_once * longest)
    assert at_once in (None, engine.clips_at_once)
    assert_literal(engine, as_asked(clips, n_tokens), n_tokens)


@settings(max_examples=15)
@given(requests())
def test_bfloat16_is_near_the_literal_method(
    world: VaporTok, rounded: VaporTok, clips: Tensor, n_tokens: Tensor
) -> None:
    some = as_asked(clips, n_tokens)
    # The codes are float32's, so that the bound is on decoding: a clip of another code is another clip.
    outcome = ScoringEngine(rounded).score(ScoringEngine(world).encode(some), n_tokens)
    mse, accuracy = literal_scores(world, some, n_tokens)
    assert outcome.mse.dtype == outcome.accuracy.dtype == torch.float32
    torch.testing.assert_close(outcome.mse, mse, rtol=BFLOAT16_BOUND, atol=0)
    assert torch.equal(outcome.accuracy, accuracy)


def test_bfloat16_encodes_to_nearly_the_same_scene(world: VaporTok, rounded: VaporTok, clips: Tensor) -> None:
    exact, near = ScoringEngine(world).encode(clips), ScoringEngine(rounded).encode(clips)
    assert near.latents.dtype == near.hits.dtype == torch.float32
    assert (near.codes == exact.codes).float().mean() > 0.9
    assert (near.latents - exact.latents).norm() / exact.latents.norm() < 0.02


def test_a_world_of_many_patches_is_decoded_without_padding(
    world: VaporTok, clips: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a CPU does where one sequence fills its cores.
    monkeypatch.setattr("vaportok_rl.envs.scoring.engine.FILLING_PATCHES", 1)
    monkeypatch.setattr(VaporTok, "decode", None)
    n_tokens = torch.arange(1, TOKENS + 1).view(-1, 1, 1).expand(-1, 1, 3).contiguous()
    assert len({value.item() for value in literal_scores(world, clips[:1], n_tokens)[0][:, 0, 0]}) > 10
    assert_literal(ScoringEngine(world), clips[:1], n_tokens)


@pytest.mark.parametrize("rows", [1, 3])
def test_logits_in_pieces_change_nothing(
    world: VaporTok, clips: Tensor, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    whole = ScoringEngine(world, bits=True).encode(clips)
    monkeypatch.setattr("vaportok_rl.envs.scoring.engine.MAX_LOGITS", rows * TOKENS * world.config.codebook_size)
    pieces = ScoringEngine(world, bits=True).encode(clips)
    assert torch.equal(pieces.hits, whole.hits)
    torch.testing.assert_close(pieces.bits, whole.bits)
