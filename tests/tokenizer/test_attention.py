"""Every computation of attention against a loop over queries and keys."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vaportok_rl.tokenizer import transformer as attention
from vaportok_rl.tokenizer.transformer import (
    MANY_KEYS,
    Fastest,
    attend,
    block_seconds,
    explicit_attention,
    measure_fastest,
    threaded_attention,
)

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
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_attention_by_threads_is_the_textbook(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, piece: int, threads: int
) -> None:
    monkeypatch.setattr("vaportok_rl.tokenizer.transformer.PIECE", piece)
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(threads)
    q, k, v, visible, _ = inputs("all")
    expected = slow_attention(q, k, v, visible, causal=False)
    torch.testing.assert_close(threaded_attention(q, k, v), expected, rtol=1e-5, atol=1e-6)
    few = threaded_attention(q[:, :, 1:4], k, v)
    torch.testing.assert_close(few, expected[:, :, 1:4], rtol=1e-5, atol=1e-6)
    with torch.inference_mode():
        assert torch.equal(threaded_attention(q, k, v), threaded_attention(q.clone(), k, v))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [MANY_KEYS - 1, MANY_KEYS, MANY_KEYS + 700])
@pytest.mark.parametrize("kernel", ["fused", "threaded"])
def test_long_sequences_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, keys: int, causal: bool, kernel: attention.Kernel
) -> None:
    monkeypatch.setattr(attention, "fastest_on_cpu", lambda: Fastest("bfloat16", kernel))
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 1, 2, keys, 8).unbind(0)
    with torch.no_grad():
        found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal=causal)
    torch.testing.assert_close(found.float(), attend(q, k, v, causal=causal), rtol=0.05, atol=0.05)


def test_threads_of_the_user_keep_their_number() -> None:
    before = torch.get_num_threads()
    pool = attention._pool(0, before)
    assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == before
    pool.shutdown()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"float32": 9.0, "bfloat16": 3.0, "fused": 4.0, "threaded": 2.0}, Fastest("bfloat16", "threaded")),
        ({"float32": 9.0, "bfloat16": 3.0, "fused": 4.0, "threaded": 3.9}, Fastest("bfloat16", "fused")),
        ({"float32": 9.0, "bfloat16": 5.0, "fused": 3.0, "threaded": 9.0}, Fastest("float32", "fused")),
    ],
)
def test_a_choice_needs_a_margin(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], expected: Fastest) -> None:
    monkeypatch.setattr(attention, "block_seconds", lambda *_: seconds)
    assert measure_fastest() == expected


def test_parts_of_a_block_are_measured() -> None:
    taken = block_seconds(width=8, heads=2, positions=16, repeats=1)
    assert all(0 < spent < 1 for spent in taken.values())


@pytest.mark.parametrize("damage", [None, "", '{"precision": "half", "attention": "fused"}', "[]"])
def test_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str | None) -> None:
    """Two runs of one seed compute by the same kernel, however busy the machine was when each began."""
    answers = [Fastest("bfloat16", "threaded"), Fastest("float32", "fused")]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(attention, "measure_fastest", lambda: answers.pop(0))
    choose = attention.fastest_on_cpu.__wrapped__
    assert choose() == choose() == Fastest("bfloat16", "threaded")
    if damage is not None:
        next(tmp_path.glob("*/*.json")).write_text(damage)
        assert choose() == choose() == Fastest("float32", "fused")


def test_a_choice_that_cannot_be_kept_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vaportok_rl").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(attention, "measure_fastest", lambda: Fastest("float32", "fused"))
    assert attention.fastest_on_cpu.__wrapped__() == Fastest("float32", "fused")
