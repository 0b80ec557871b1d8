"""Transformer blocks against torch's own layers with the same weights."""

import torch
from torch import Tensor, nn

from vaportok_rl.tokenizer.prior import PriorBlock
from vaportok_rl.tokenizer.transformer import Block, Transformer


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


def test_block_is_a_pre_norm_gelu_layer() -> None:
    block, layer = block_and_layer()
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(block(x), layer(x), rtol=1e-4, atol=1e-4)


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
