"""Packed sequences against each sequence on its own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vaportok_rl.tokenizer import VaporTok, VaporTokConfig
from vaportok_rl.tokenizer.attention import explicit_attention
from vaportok_rl.tokenizer.packing import Packing, decode_packed


@pytest.fixture(scope="module")
def tiny_random(tiny_config: VaporTokConfig) -> VaporTok:
    """A model with every parameter random."""
    torch.manual_seed(0)
    model = VaporTok(tiny_config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.freeze()


def packing_of(lengths: list[int], queries: int) -> Packing:
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    return Packing(tuple(lengths), starts, queries, torch.arange(len(lengths) + 1, dtype=torch.int32) * queries)


@pytest.mark.parametrize("whole", [True, False], ids=["every position", "the last two"])
@given(lengths=st.lists(st.integers(2, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_each_sequence_attends_to_itself_alone(whole: bool, lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(3, 1, 2, n, 4, generator=generator) for n in lengths]
    asked = [part[0] if whole else part[0][:, :, -2:] for part in parts]
    expected = [
        explicit_attention(q, part[1], part[2], None, causal=False) for q, part in zip(asked, parts, strict=True)
    ]
    _, k, v = torch.cat(parts, dim=3)
    found = packing_of(lengths, 2).attend(torch.cat(asked, dim=2), k, v)
    torch.testing.assert_close(found, torch.cat(expected, dim=2), rtol=1e-5, atol=1e-6)


@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_packed_clips_are_the_clips(tiny_random: VaporTok, lengths: list[int], seed: int) -> None:
    codes = torch.randint(32, (len(lengths), 8), generator=torch.Generator().manual_seed(seed))
    found = decode_packed(tiny_random, codes, lengths)
    expected = torch.cat([tiny_random.decode(codes[row : row + 1], n) for row, n in enumerate(lengths)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
