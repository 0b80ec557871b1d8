"""The released LARP format: a reference checkpoint gives the reference implementation's numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.prior import cumulative_hits, prior_loss, top_k_accuracy

# Session fixture of tests/tokenizer/conftest.py; tests there cannot be imported by name.
Golden = Any


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("container", ["trainer file", "moving average", "saved again"])
def test_every_container_brings_the_same_tokenizer(
    golden: Golden, trainer_file: Callable[..., Path], tmp_path: Path, container: str
) -> None:
    weights = "model"
    if container == "trainer file":
        source = trainer_file(tmp_path / "epoch-last.pth", golden.arguments, golden.state, loss={"sd": {}}, epoch=150)
    elif container == "saved again":
        source = golden.model.save_pretrained(tmp_path / "ours")
    else:
        untrained = {name: torch.zeros_like(value) for name, value in golden.state.items()}
        averages, weights = {"ema_sd": {0.9: untrained, 0.999: golden.state}}, "ema_0.999"
        source = trainer_file(tmp_path / "ema.pth", golden.arguments, untrained, averages)
    loaded = VaporTok.from_pretrained(source, weights=weights)
    assert loaded.config == golden.model.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in golden.model.state_dict().items())


def test_codes_are_exact_and_latents_close(golden: Golden) -> None:
    encoded = golden.model.encode(golden.io["video"])
    assert torch.equal(encoded.codes, golden.io["indices"][:1])
    close(encoded.latents, golden.io["encoder_out"][:1])


def test_quantiser(golden: Golden) -> None:
    bottleneck = golden.model.bottleneck
    close(bottleneck.in_linear(golden.io["encoder_out"]), golden.io["projected_z"])
    quantized = bottleneck.quantize(golden.io["encoder_out"])
    close(quantized.unit, golden.io["normalized_z"])
    close(quantized.vectors, golden.io["quantized"])
    cosine = quantized.unit @ bottleneck.regularizer.unit_codes().T
    best = cosine.topk(2).values
    close(best[..., 0] - best[..., 1], golden.io["argmax_margin"])
    close(bottleneck.from_vectors(quantized.vectors), golden.io["decoder_in"])


@pytest.mark.parametrize(("n", "name"), [(16, "from_indices"), (4, "first4"), (8, "first8")])
def test_decoded_video(golden: Golden, n: int, name: str) -> None:
    model, codes, wanted = golden.model, golden.io["indices"][:1], golden.io[f"decoded_video_{name}"]
    vectors = model.bottleneck.regularizer.lookup(codes)
    close(model.reconstruct(vectors[:, :n]), wanted)
    close(model.reconstruct(vectors, torch.full((1,), n)), wanted)
    close(model.decode(codes, n), wanted.clamp(0, 1))


def test_prior_logits(golden: Golden) -> None:
    model, io = golden.model, golden.io
    close(model.prior_logits(io["indices"]), io["prior_logits"])
    vectors = model.bottleneck.regularizer.lookup(io["indices"])
    predicted = torch.cat([vectors[:, :1], model.prior_model.predict(vectors[:, :-1])], dim=1)
    close(predicted, io["prior_pred"])


def test_prior_loss(golden: Golden) -> None:
    full = torch.full((4,), 16)
    loss = prior_loss(golden.io["prior_logits"], golden.io["indices"], full)
    assert loss.item() == pytest.approx(golden.io["prior_ce"].item(), abs=1e-5)


@pytest.mark.parametrize(("k", "name"), [(1, "top1_acc"), (5, "top5_acc")])
def test_prior_accuracy(golden: Golden, k: int, name: str) -> None:
    model, io = golden.model, golden.io
    logits = model.prior_logits(io["indices"])
    full = torch.full((4,), 16)
    own = top_k_accuracy(cumulative_hits(logits, io["indices"], k), full).mean()
    assert 100 * own.item() == pytest.approx(io[f"prior_{name}"].item(), abs=1e-3)
    labelled = torch.cat([io["indices"][:, :1], io["alt_labels"]], dim=1)
    other = top_k_accuracy(cumulative_hits(logits, labelled, k), full).mean()
    assert 100 * other.item() == pytest.approx(io[f"alt_{name}"].item(), abs=1e-3)


def test_commitment_losses(golden: Golden) -> None:
    quantized = golden.model.bottleneck.quantize(golden.io["encoder_out"])
    error = (quantized.unit - golden.model.bottleneck.regularizer.lookup(quantized.codes)).square().mean().item()
    assert error == pytest.approx(golden.io["loss_commit"].item(), abs=1e-6)
    assert error == pytest.approx(golden.io["loss_codebook"].item(), abs=1e-6)
    assert 1.25 * error == pytest.approx(golden.io["loss_q"].item(), abs=1e-6)


def test_probes_of_tiny_variance(golden: Golden) -> None:
    # Inputs on which a wrong epsilon of a layer norm, or an approximate GELU, shows at once.
    model, io = golden.model, golden.io
    close(model.encoder.blocks[0](io["probe_in"]), io["probe_out_encoder_block0"])
    close(model.final_layer(io["probe_in"]), io["probe_out_final_layer"])
    close(model.prior_model.blocks[0](io["probe_prior_in"]), io["probe_out_prior_block0"])


def test_probes_notice_a_wrong_epsilon(golden: Golden) -> None:
    block, io = golden.model.encoder.blocks[0], golden.io
    try:
        block.norm1.eps = block.norm2.eps = 1e-6
        assert (block(io["probe_in"]) - io["probe_out_encoder_block0"]).abs().max() > 1e-3
    finally:
        block.norm1.eps = block.norm2.eps = 1e-5
