"""The engine gives the literal method's numbers: any lengths, any company, every way of batching."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.envs import Outcome, ScoringEngine, shared_world
from vaportok_rl.envs.scoring.literal import literal_scores
from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.model import round_weights

TOKENS, MOST_CLIPS = 16, 6
# A bfloat16 number has 8 bits: one in 256 a product, and errors of the pixels that mostly cancel in the mean.
BFLOAT16_BOUND = 0.02

Score = Callable[[Tensor, Tensor], Outcome]


@pytest.fixture(scope="module")
def world(tiny_world: str) -> VaporTok:
    return shared_world(tiny_world)


@pytest.fixture(scope="module")
def rounded(world: VaporTok) -> VaporTok:
    twin = copy.deepcopy(world)
    twin.precision = "bfloat16"
    return round_weights(twin)


@pytest.fixture(scope="module")
def clips(world: VaporTok) -> Tensor:
    config = world.config
    return ProceduralClips(5, "train", frames=config.frames, size=config.size).batch(range(MOST_CLIPS)).clips


@pytest.fixture(scope="module")
def engines(world: VaporTok) -> dict[str, Score]:
    """Every way of scoring in float32; each must give the same numbers."""

    def score(engine: ScoringEngine, clips: Tensor, n_tokens: Tensor) -> Outcome:
        return engine.score(engine.encode(clips), n_tokens)

    longest = world.config.patches + world.config.tokens
    return {
        "default": partial(score, ScoringEngine(world)),
        "one clip at a time": partial(score, ScoringEngine(world, longest)),
    }


@st.composite
def requests(draw: st.DrawFn) -> Tensor:
    """Lengths ``[G, P, L]`` of at most `MOST_CLIPS` clips, with the ends and repetitions made likely."""
    group = draw(st.integers(1, 4))
    paths, length = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (1, 6), (2, 3), (3, 2)]))
    some = st.sampled_from([1, TOKENS, draw(st.integers(1, TOKENS))])
    values = draw(
        st.lists(some | st.integers(1, TOKENS), min_size=group * paths * length, max_size=group * paths * length)
    )
    return torch.tensor(values).view(group, paths, length)


@settings(max_examples=25)
@given(requests())
@pytest.mark.parametrize("way", ["default", "one clip at a time"])
def test_float32_is_the_literal_method(
    engines: dict[str, Score], world: VaporTok, clips: Tensor, way: str, n_tokens: Tensor
) -> None:
    _, paths, length = n_tokens.shape
    some = clips[: paths * length].unflatten(0, (paths, length))
    mse, accuracy = literal_scores(world, some, n_tokens)
    outcome = engines[way](some, n_tokens)
    torch.testing.assert_close(outcome.mse, mse, rtol=1e-6, atol=0)
    assert torch.equal(outcome.accuracy, accuracy)


@settings(max_examples=15)
@given(requests())
def test_bfloat16_is_near_the_literal_method(
    world: VaporTok, rounded: VaporTok, clips: Tensor, n_tokens: Tensor
) -> None:
    _, paths, length = n_tokens.shape
    some = clips[: paths * length].unflatten(0, (paths, length))
    engine = ScoringEngine(rounded)
    # The codes are float32's, so that the bound is on decoding: a clip of another code is another clip.
    scene = ScoringEngine(world).encode(some)
    outcome = engine.score(scene, n_tokens)
    mse, accuracy = literal_scores(world, some, n_tokens)
    assert outcome.mse.dtype == outcome.accuracy.dtype == torch.float32
    torch.testing.assert_close(outcome.mse, mse, rtol=BFLOAT16_BOUND, atol=0)
    assert torch.equal(outcome.accuracy, accuracy)


def test_bfloat16_encodes_to_nearly_the_same_scene(world: VaporTok, rounded: VaporTok, clips: Tensor) -> None:
    exact, near = ScoringEngine(world).encode(clips[None]), ScoringEngine(rounded).encode(clips[None])
    assert near.latents.dtype == near.hits.dtype == torch.float32
    assert (near.codes == exact.codes).float().mean() > 0.9
    assert (near.latents - exact.latents).norm() / exact.latents.norm() < 0.02


def test_a_world_of_many_patches_is_decoded_without_padding(
    engines: dict[str, Score], world: VaporTok, clips: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a CPU does where one sequence fills its cores.
    monkeypatch.setattr("vaportok_rl.envs.scoring.engine.FILLING_PATCHES", 1)
    monkeypatch.setattr(VaporTok, "decode", None)
    n_tokens = torch.arange(1, TOKENS + 1).view(-1, 1, 1).expand(-1, 1, 2).contiguous()
    mse, accuracy = literal_scores(world, clips[None, :2], n_tokens)
    outcome = engines["default"](clips[None, :2], n_tokens)
    torch.testing.assert_close(outcome.mse, mse, rtol=1e-6, atol=0)
    assert torch.equal(outcome.accuracy, accuracy)


@pytest.mark.parametrize("rows", [1, 3])
def test_logits_in_pieces_change_nothing(
    world: VaporTok, clips: Tensor, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    whole = ScoringEngine(world, bits=True).encode(clips[None])
    monkeypatch.setattr("vaportok_rl.envs.scoring.engine.MAX_LOGITS", rows * TOKENS * world.config.codebook_size)
    pieces = ScoringEngine(world, bits=True).encode(clips[None])
    assert torch.equal(pieces.hits, whole.hits)
    torch.testing.assert_close(pieces.bits, whole.bits)


def test_what_is_held_at_a_time_is_reported(world: VaporTok) -> None:
    longest = world.config.patches + world.config.tokens
    assert ScoringEngine(world, 5 * longest + 1).clips_at_once == 5
