"""Tokens that the decoder ignores are found and restarted."""

from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.tokenizer import VaporTok, load_checkpoint, save_checkpoint
from vaportok_rl.tokenizer.pretraining import PretrainConfig, Pretrainer
from vaportok_rl.tokenizer.pretraining.unheard_tokens import influence, unheard_tokens, wake_unheard

TOKENS = 16
WAKING = PretrainConfig(
    steps=2,
    batch_size=4,
    precision="float32",
    continuous_until=0,
    quantized_from=0,
    random_lengths_from=0,
    calibration_clips=16,
    wake_unheard=0.05,
)


def deaf(world: str, positions: tuple[int, ...]) -> VaporTok:
    """A tokenizer whose tokens at some positions say nothing: their queries are so large that no clip changes them."""
    model = load_checkpoint(world)
    # Codes that go by the clip more than by the query.
    model.x_embedder.proj.weight.mul_(10)
    model.encoder_latent_query_embed.mul_(0.1)
    model.encoder_latent_query_embed[list(positions)] *= 1e4
    return model.train()


def some_clips(count: int = 12) -> Tensor:
    return ProceduralClips(frames=4, size=16).batch(range(count)).clips


def test_influence_is_the_change_that_one_other_code_makes(tiny_world: str) -> None:
    model, clips = deaf(tiny_world, (3,)).eval(), some_clips(5)
    found = influence(model, clips.split(5))
    codes = model.encode(clips).codes
    for position in range(TOKENS):
        changes = []
        for clip in range(5):
            changed = codes[clip].clone()
            changed[position] = codes[(clip - 1) % 5, position]
            videos = model.decode(torch.stack([changed, codes[clip]]))
            changes.append((videos[0] - videos[1]).square().mean())
        assert torch.isclose(found[position], torch.stack(changes).mean(), rtol=1e-4, atol=1e-9)
    assert found[3] == 0
    assert (found[[0, 1, 2]] > 0).all()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9), st.floats(0, 0.9))
def test_a_token_is_unheard_well_below_the_median_and_some_token_is_always_heard(
    influences: list[float], share: float
) -> None:
    found = unheard_tokens(torch.tensor(influences), share)
    middle = sorted(influences)[(len(influences) - 1) // 2]
    assert found.tolist() == [value < torch.tensor(share * middle, dtype=torch.float32) for value in influences]
    assert not found.all()
    assert 2 * found.sum() < len(influences)


def test_unheard_tokens_move_beside_heard_ones_and_nothing_else_changes(tiny_world: str) -> None:
    clips, asleep = some_clips(), (2, 5)
    model = deaf(tiny_world, asleep)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert wake_unheard(model, clips.split(6), 0.05, seed=3) == len(asleep)
    assert model.training
    after = model.state_dict()
    touched = {name for name in before if not torch.equal(before[name], after[name])}
    assert touched == {"encoder_latent_query_embed", "decoder_latent_pe"}
    heard = [position for position in range(TOKENS) if position not in asleep]
    sources = []
    for name in touched:
        rows, old = after[name].reshape(TOKENS, -1), before[name].reshape(TOKENS, -1)
        assert torch.equal(rows[heard], old[heard])
        nearest = torch.cdist(rows[list(asleep)], old[heard]).argmin(1)
        sources.append([heard[index] for index in nearest])
        assert not (rows[list(asleep)][:, None] == old[heard]).all(-1).any()
    queries = after["encoder_latent_query_embed"]
    assert not torch.equal(queries[asleep[0]], queries[asleep[1]])
    assert len(set(sources[0])) == len(asleep)
    # And they matter at once.
    assert not unheard_tokens(influence(model.eval(), [clips]), 0.05)[list(asleep)].any()


def test_the_seed_decides_and_no_unheard_token_changes_nothing(tiny_world: str) -> None:
    clips = some_clips()
    tables = []
    for seed in (1, 1, 2):
        model = deaf(tiny_world, (1, 4))
        wake_unheard(model, [clips], 0.05, seed)
        tables.append(model.encoder_latent_query_embed.detach().clone())
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    model = deaf(tiny_world, ())
    before = model.encoder_latent_query_embed.detach().clone()
    assert wake_unheard(model, [clips], 0.0, seed=0) == 0
    assert torch.equal(model.encoder_latent_query_embed, before)


def test_a_run_wakes_them_once_and_its_weights_keep_the_places(tiny_world: str, tmp_path: Path) -> None:
    clips = ProceduralClips(frames=4, size=16, length=16)
    source = deaf(tiny_world, (2,))
    config = source.config
    begun = Pretrainer(config, WAKING, clips, tmp_path / "run", warm_start=source)
    assert begun.woken_tokens >= 1
    begun.train_step(begun.loader.clips_at(0, 4))
    begun.save()
    resumed = Pretrainer(config, WAKING, clips, tmp_path / "run", resume=True)
    assert resumed.woken_tokens == 0
    later = load_checkpoint(str(save_checkpoint(begun.model, tmp_path / "model")))
    further = Pretrainer(
        config,
        PretrainConfig(precision="float32", calibration_clips=16),
        clips,
        tmp_path / "more",
        warm_start=later,
    )
    for model in (resumed.model, later, further.model):
        assert torch.equal(model.get_buffer("decoder_latent_pe"), begun.model.get_buffer("decoder_latent_pe"))


def test_with_a_frozen_encoder_they_move_in_the_decoder_alone(tiny_world: str, tmp_path: Path) -> None:
    clips = ProceduralClips(frames=4, size=16, length=16)
    run = replace(WAKING, frozen_encoder=True)
    source = deaf(tiny_world, (2,))
    begun = Pretrainer(source.config, run, clips, tmp_path / "run", warm_start=source)
    assert begun.woken_tokens >= 1
    assert not torch.equal(begun.model.get_buffer("decoder_latent_pe"), source.get_buffer("decoder_latent_pe"))
    seen = some_clips()
    assert torch.equal(begun.model.eval().encode(seen).codes, source.eval().encode(seen).codes)
