"""Which precision a world runs in, and that rounding its weights once changes no number."""

import copy
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from vaportok_rl.tokenizer import PRESETS, Precision, VaporTok
from vaportok_rl.tokenizer.model import round_weights
from vaportok_rl.tokenizer.precision import multiplies_bfloat16, resolve_precision
from vaportok_rl.tokenizer.transformer import Fastest

WIDE, NARROW = PRESETS["vaportok-b"], PRESETS["nano"]


@pytest.mark.parametrize("fastest", get_args(Precision))
def test_auto_is_what_is_fastest_for_wide_worlds(monkeypatch: pytest.MonkeyPatch, fastest: Precision) -> None:
    monkeypatch.setattr("vaportok_rl.tokenizer.precision.fastest_on_cpu", lambda: Fastest(fastest, "fused"))
    monkeypatch.setattr("vaportok_rl.tokenizer.precision.multiplies_bfloat16", lambda device: fastest == "bfloat16")
    assert resolve_precision("auto", WIDE, "cpu") == resolve_precision("auto", WIDE, "cuda") == fastest
    assert resolve_precision("auto", NARROW, "cpu") == "float32"
    assert resolve_precision("auto", replace(WIDE, width=384), "cpu") == "float32"


def test_what_is_asked_for_is_done() -> None:
    assert resolve_precision("bfloat16", NARROW, "cpu") == "bfloat16"
    assert resolve_precision("float32", WIDE, "cpu") == "float32"
    with pytest.raises(ValueError, match="'half'; pass one of the two, or 'auto'"):
        resolve_precision("half", WIDE, "cpu")


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [((True, False), True), ((False, True), True), ((False, False), False)],
    ids=["AVX-512 BF16", "AMX", "neither"],
)
def test_the_processor_is_asked(
    monkeypatch: pytest.MonkeyPatch, instructions: tuple[bool, bool], expected: bool
) -> None:
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for name, there in zip(names, instructions, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda there=there: there, raising=False)
    assert multiplies_bfloat16("cpu") is expected
    assert multiplies_bfloat16("meta") is False
    # An older torch does not know.
    for name in names:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert multiplies_bfloat16("cpu") is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_there_is_none() -> None:
    assert multiplies_bfloat16("cuda") is False


def test_rounded_weights_give_the_numbers_of_autocast(tiny: VaporTok, clips: Tensor) -> None:
    tiny.precision = "bfloat16"
    rounded = round_weights(copy.deepcopy(tiny))
    assert rounded.encoder.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert rounded.bottleneck.in_linear.weight.dtype == torch.float32
    assert rounded.taildrop_module.head.weight.dtype == torch.float32
    encoded, again = tiny.encode(clips), rounded.encode(clips)
    assert torch.equal(encoded.latents, again.latents)
    assert torch.equal(encoded.codes, again.codes)
    assert torch.equal(tiny.decode(encoded.codes, 3), rounded.decode(encoded.codes, 3))
    assert torch.equal(tiny.prior_logits(encoded.codes), rounded.prior_logits(encoded.codes))


def test_a_float32_world_is_left_as_it_is(tiny: VaporTok) -> None:
    assert round_weights(tiny) is tiny
    assert {value.dtype for value in tiny.parameters()} == {torch.float32}
