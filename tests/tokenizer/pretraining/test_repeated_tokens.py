"""Tokens that repeat an earlier one are found, and only their queries begin anew."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.tokenizer import VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.pretraining import PretrainConfig, Pretrainer
from vaportok_rl.tokenizer.pretraining.repeated_tokens import redraw_queries, repeated_tokens


@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(0, 2**31))
def test_a_token_repeats_when_one_earlier_token_agrees_often_enough(
    clips: int, tokens: int, share: float, seed: int
) -> None:
    codes = torch.randint(3, (clips, tokens), generator=torch.Generator().manual_seed(seed))
    found = repeated_tokens(codes, share).tolist()
    for later in range(tokens):
        agreements = [
            sum(int(codes[clip, later] == codes[clip, earlier]) for clip in range(clips)) for earlier in range(later)
        ]
        assert found[later] == any(agreement > share * clips + 1e-6 for agreement in agreements)


def twins(config: VaporTokConfig, tokens: tuple[int, ...]) -> VaporTok:
    """A tokenizer some of whose queries equal the first one, so that their codes do too."""
    torch.manual_seed(0)
    model = VaporTok(config)
    with torch.no_grad():
        # Far apart, or a fresh encoder would map all queries to one code.
        model.encoder_latent_query_embed.normal_(std=3)
        model.encoder_latent_query_embed[list(tokens)] = model.encoder_latent_query_embed[0].clone()
    return model.train()


def test_only_repeating_queries_are_redrawn_by_the_seed(tiny_config: VaporTokConfig) -> None:
    clips = ProceduralClips(frames=tiny_config.frames, size=tiny_config.size).batch(range(12)).clips
    last = tiny_config.tokens - 1
    model = twins(tiny_config, (2, last))
    before = model.encoder_latent_query_embed.detach().clone()
    expected = repeated_tokens(model.eval().encode(clips).codes, 0.9)
    assert expected[[2, last]].all()
    assert not expected[0]
    assert redraw_queries(model.train(), clips.split(5), 0.9, seed=3) == int(expected.sum())
    after = model.encoder_latent_query_embed.detach()
    assert torch.equal((after != before).any(1), expected)
    assert model.training
    again = twins(tiny_config, (2, last))
    redraw_queries(again, [clips], 0.9, seed=3)
    assert torch.equal(again.encoder_latent_query_embed, after)
    redraw_queries(again, [clips], 0.0, seed=4)
    assert not repeated_tokens(again.eval().encode(clips).codes, 0.9)[2]


def test_a_run_redraws_them_once_and_says_how_many(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    clips = ProceduralClips(frames=tiny_config.frames, size=tiny_config.size, length=16)
    run = PretrainConfig(
        steps=2,
        batch_size=4,
        precision="float32",
        continuous_until=0,
        quantized_from=0,
        random_lengths_from=0,
        calibration_clips=16,
        redraw_repeated=0.9,
    )
    begun = Pretrainer(tiny_config, run, clips, tmp_path, warm_start=twins(tiny_config, (2,)))
    assert begun.redrawn_tokens >= 1
    begun.train_step(begun.loader.clips_at(0, 4))
    begun.save()
    resumed = Pretrainer(tiny_config, run, clips, tmp_path, resume=True)
    assert resumed.redrawn_tokens == 0
    assert torch.equal(resumed.model.encoder_latent_query_embed, begun.model.encoder_latent_query_embed)


@pytest.mark.parametrize("settings", [{"redraw_repeated": 1.0}, {"redraw_repeated": -0.1}])
def test_a_share_out_of_range_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"Expected 0 ≤ redraw_repeated < 1.*got"):
        PretrainConfig(**settings)  # type: ignore[arg-type]


def test_a_frozen_encoder_and_new_queries_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="frozen encoder cannot teach"):
        PretrainConfig(
            redraw_repeated=0.5, frozen_encoder=True, continuous_until=0, quantized_from=0, random_lengths_from=0
        )
