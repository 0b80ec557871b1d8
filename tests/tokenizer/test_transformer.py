"""Attention against a loop over queries and keys, blocks against torch's layers, positions against their formula."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaportok_rl.tokenizer import transformer
from vaportok_rl.tokenizer.prior import PriorBlock
from vaportok_rl.tokenizer.transformer import (
    MANY_KEYS,
    Block,
    Fastest,
    Transformer,
    attend,
    block_seconds,
    explicit_attention,
    latent_table,
    line_table,
    measure_fastest,
    patch_table,
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kernel_is_the_textbook(case: str, dtype: torch.dtype) -> None:
    """With gradients the CPU takes the explicit products for bfloat16, without them the fused kernel."""
    q, k, v, visible, causal = inputs(case)
    expected, tolerance = slow_attention(q, k, v, visible, causal), 1e-5 if dtype == torch.float32 else 0.05
    leaves = [value.to(dtype).requires_grad_(True) for value in (q, k, v)]
    weights, gradients = torch.randn(2, 3, 5, 4), []
    for kernel in (attend, explicit_attention):
        found = kernel(*leaves, visible, causal)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
        gradients.append(torch.autograd.grad((found * weights).sum(), leaves))
        with torch.no_grad():
            torch.testing.assert_close(
                kernel(*leaves, visible, causal).float(), expected, rtol=tolerance, atol=tolerance
            )
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", ["fused", "threaded"])
def test_long_sequences_in_bfloat16(monkeypatch: pytest.MonkeyPatch, kernel: transformer.Kernel) -> None:
    used: list[int] = []
    whole = threaded_attention
    monkeypatch.setattr(transformer, "fastest_on_cpu", lambda: Fastest("bfloat16", kernel))
    monkeypatch.setattr(transformer, "threaded_attention", lambda *given: used.append(1) or whole(*given))
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 1, 2, MANY_KEYS, 8).unbind(0)
    with torch.no_grad():
        found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    torch.testing.assert_close(found.float(), attend(q, k, v), rtol=0.05, atol=0.05)
    assert bool(used) == (kernel == "threaded")


@pytest.mark.parametrize(("piece", "threads"), [(512, 1), (2, 2), (3, 3)])
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


def test_threads_of_the_user_keep_their_number() -> None:
    before = torch.get_num_threads()
    pool = transformer._pool(0, before)
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
    monkeypatch.setattr(transformer, "block_seconds", lambda *_: seconds)
    assert measure_fastest() == expected


def test_parts_of_a_block_are_measured() -> None:
    taken = block_seconds(width=8, heads=2, positions=16, repeats=1)
    assert all(0 < spent < 1 for spent in taken.values())


@pytest.mark.parametrize("damage", [None, "", '{"precision": "half", "attention": "fused"}', "[]"])
def test_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str | None) -> None:
    """Two runs of one seed compute by the same kernel, however busy the machine was when each began."""
    answers = [Fastest("bfloat16", "threaded"), Fastest("float32", "fused")]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(transformer, "measure_fastest", lambda: answers.pop(0))
    choose = transformer.fastest_on_cpu.__wrapped__
    assert choose() == choose() == Fastest("bfloat16", "threaded")
    if damage is not None:
        next(tmp_path.glob("*/*.json")).write_text(damage)
        assert choose() == choose() == Fastest("float32", "fused")


def test_a_choice_that_cannot_be_kept_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vaportok_rl").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(transformer, "measure_fastest", lambda: Fastest("float32", "fused"))
    assert transformer.fastest_on_cpu.__wrapped__() == Fastest("float32", "fused")


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.eval()


def torch_layer(block: Block | PriorBlock, qkv: Tensor, bias: Tensor, parts: dict[str, nn.Module]) -> nn.Module:
    """A pre-norm layer of torch with the weights of ``block``."""
    layer = nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation="gelu", layer_norm_eps=1e-5, batch_first=True, norm_first=True
    )
    state = {"self_attn.in_proj_weight": qkv, "self_attn.in_proj_bias": bias}
    for name, part in parts.items():
        state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    layer.load_state_dict(state)
    return layer  # in training mode: the fast path of evaluation would only add another implementation


def block_and_layer() -> tuple[Block, nn.Module]:
    block = Block(16, 4)
    randomised(block)
    parts: dict[str, nn.Module] = {
        "self_attn.out_proj": block.attn.proj,
        "linear1": block.mlp.fc1,
        "linear2": block.mlp.fc2,
        "norm1": block.norm1,
        "norm2": block.norm2,
    }
    return block, torch_layer(block, block.attn.qkv.weight, torch.zeros(48), parts)


def test_block_hides_keys() -> None:
    block, layer = block_and_layer()
    x = torch.randn(2, 5, 16)
    visible = torch.tensor([[True, False, True, True, False], [True, True, True, True, True]])
    expected = layer(x, src_key_padding_mask=~visible)
    torch.testing.assert_close(block(x, visible)[visible], expected[visible], rtol=1e-4, atol=1e-4)


def test_prior_block_is_a_causal_pre_norm_gelu_layer() -> None:
    block = PriorBlock(16, 4, dropout=0.5)
    randomised(block)
    attention = block.attn
    inner = [attention.query, attention.key, attention.value]
    parts: dict[str, nn.Module] = {
        "self_attn.out_proj": attention.proj,
        "linear1": block.mlp[0],
        "linear2": block.mlp[2],
        "norm1": block.ln1,
        "norm2": block.ln2,
    }
    qkv, bias = torch.cat([part.weight for part in inner]), torch.cat([part.bias for part in inner])
    layer = torch_layer(block, qkv, bias, parts)
    x = torch.randn(2, 6, 16)
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)
    torch.testing.assert_close(block(x), layer(x, src_mask=later), rtol=1e-4, atol=1e-4)


def test_transformer_is_its_blocks_without_a_final_norm() -> None:
    stack = Transformer(16, 2, depth=3)
    randomised(stack)
    x = torch.randn(1, 4, 16)
    visible = torch.tensor([[True, True, False, True]])
    expected = x
    for block in stack.blocks:
        expected = block(expected, visible)
    assert torch.equal(stack(x, visible), expected)
    assert not torch.allclose(stack(x), expected)


def test_only_the_wanted_outputs_are_computed() -> None:
    stack = Transformer(16, 2, depth=2)
    randomised(stack)
    x = torch.randn(2, 7, 16)
    visible = torch.tensor([[True, True, False, True, True, True, False], [True] * 7])
    for mask in (None, visible):
        whole = stack(x, mask)
        torch.testing.assert_close(stack(x, mask, slice(3, None)), whole[:, 3:], rtol=1e-5, atol=1e-5)
        chosen = torch.tensor([5, 0, 2])
        torch.testing.assert_close(stack(x, mask, chosen), whole[:, chosen], rtol=1e-5, atol=1e-5)
    rows: list[int] = []
    stack.blocks[-1].mlp.register_forward_hook(lambda module, inputs, out: rows.append(inputs[0].shape[1]))
    stack(x, None, slice(3, None))
    assert rows == [4]


def slow_line(channels: int, position: int, base: float) -> list[float]:
    half = channels // 2
    rates = [base ** (-index / half) for index in range(half)]
    return [math.sin(position * rate) for rate in rates] + [math.cos(position * rate) for rate in rates]


def slow_patch_row(channels: int, time: int, row: int, column: int) -> list[float]:
    space = slow_line(channels // 2, column, 10000.0) + slow_line(channels // 2, row, 10000.0)
    return [one + two for one, two in zip(space, slow_line(channels, time, 10000.0), strict=True)]


@pytest.mark.parametrize(("channels", "base"), [(2, 10000.0), (12, 10000.0), (16, 100.0)])
def test_line(channels: int, base: float) -> None:
    table = line_table(channels, torch.arange(40), base)
    assert table.dtype == torch.float64
    expected = torch.tensor([slow_line(channels, position, base) for position in range(40)], dtype=torch.float64)
    torch.testing.assert_close(table, expected, rtol=0, atol=1e-12)


def test_latents() -> None:
    table = latent_table(24, 1024, 10000.0)
    assert (table.shape, table.dtype) == ((1, 1024, 24), torch.float32)
    expected = torch.tensor([slow_line(24, position, 10000.0) for position in range(1024)], dtype=torch.float64)
    assert torch.equal(table[0], expected.float())


@pytest.mark.parametrize(("channels", "grid"), [(8, (1, 1, 1)), (16, (3, 2, 5)), (48, (4, 6, 2))])
def test_patches_are_row_major_over_time_height_width(channels: int, grid: tuple[int, int, int]) -> None:
    table = patch_table(channels, grid)
    assert (table.shape, table.dtype) == ((1, math.prod(grid), channels), torch.float32)
    for time in range(grid[0]):
        for row in range(grid[1]):
            for column in range(grid[2]):
                index = (time * grid[1] + row) * grid[2] + column
                expected = torch.tensor(slow_patch_row(channels, time, row, column))
                torch.testing.assert_close(table[0, index], expected, rtol=0, atol=1e-6)
