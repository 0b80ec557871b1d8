"""Both computations of attention against a loop over queries and keys."""

import math

import pytest
import torch
from torch import Tensor

from vaportok_rl.tokenizer.attention import PIECEWISE_KEYS, attend, explicit_attention, piecewise_attention

CASES = ["all", "keys", "pairs", "causal"]


def inputs(case: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None, bool]:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 5, 4).unbind(0)
    visible = None
    if case == "keys":
        visible = torch.tensor([[True, True, False, True, False], [True, False, False, False, False]])[:, None, None]
    if case == "pairs":
        visible = (torch.rand(2, 1, 5, 5) < 0.5) | torch.eye(5, dtype=torch.bool)
    return q, k, v, visible, case == "causal"


def slow_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, causal: bool) -> Tensor:
    out = torch.zeros_like(v)
    allowed = torch.ones(2, 3, 5, 5, dtype=torch.bool) if visible is None else visible.expand(2, 3, 5, 5)
    for clip, head, query in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5)).tolist():
        keys = [key for key in range(5) if allowed[clip, head, query, key] and not (causal and key > query)]
        weights = [math.exp(float(q[clip, head, query] @ k[clip, head, key]) / math.sqrt(4)) for key in keys]
        for key, weight in zip(keys, weights, strict=True):
            out[clip, head, query] += weight / sum(weights) * v[clip, head, key]
    return out


@pytest.mark.parametrize("case", CASES)
def test_fused_and_explicit_attention_are_the_textbook(case: str) -> None:
    q, k, v, visible, causal = inputs(case)
    expected = slow_attention(q, k, v, visible, causal)
    torch.testing.assert_close(attend(q, k, v, visible, causal), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(explicit_attention(q, k, v, visible, causal), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_gradients_agree(case: str) -> None:
    q, k, v, visible, causal = inputs(case)
    leaves = [tensor.clone().requires_grad_(True) for tensor in (q, k, v)]
    weights = torch.randn(2, 3, 5, 4)
    fused = torch.autograd.grad((attend(*leaves, visible, causal) * weights).sum(), leaves)
    explicit = torch.autograd.grad((explicit_attention(*leaves, visible, causal) * weights).sum(), leaves)
    for one, two in zip(fused, explicit, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_bfloat16_with_and_without_gradients(case: str, grad: bool) -> None:
    # With gradients the CPU takes the explicit path, without them the fused one.
    q, k, v, visible, causal = inputs(case)
    with torch.set_grad_enabled(grad):
        out = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), visible, causal)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), attend(q, k, v, visible, causal), rtol=0.05, atol=0.05)


def test_hidden_keys_do_not_matter() -> None:
    q, k, v, visible, _ = inputs("keys")
    before = attend(q, k, v, visible)
    k[0, :, 2] += 100
    v[0, :, [2, 4]] -= 50
    assert torch.equal(attend(q, k, v, visible), before)


@pytest.mark.parametrize("piece", [2, 3, 512])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_pieces_is_the_textbook(monkeypatch: pytest.MonkeyPatch, piece: int, causal: bool) -> None:
    monkeypatch.setattr("vaportok_rl.tokenizer.attention.PIECE", piece)
    q, k, v, visible, _ = inputs("all")
    found = piecewise_attention(q, k, v, causal)
    torch.testing.assert_close(found, slow_attention(q, k, v, visible, causal), rtol=1e-5, atol=1e-6)


def test_attention_of_few_queries_in_pieces() -> None:
    q, k, v, visible, _ = inputs("all")
    expected = slow_attention(q, k, v, visible, causal=False)[:, :, 1:4]
    torch.testing.assert_close(piecewise_attention(q[:, :, 1:4], k, v, causal=False), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [PIECEWISE_KEYS - 1, PIECEWISE_KEYS, PIECEWISE_KEYS + 700])
def test_long_sequences_in_bfloat16(keys: int, causal: bool) -> None:
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 1, 2, keys, 8).unbind(0)
    with torch.no_grad():
        found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal=causal)
    torch.testing.assert_close(found.float(), attend(q, k, v, causal=causal), rtol=0.05, atol=0.05)
