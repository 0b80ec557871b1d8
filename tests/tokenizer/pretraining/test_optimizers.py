"""Muon in single precision against torch's own in bfloat16, and its iteration against singular values."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vaportok_rl.tokenizer.pretraining.config import PretrainConfig
from vaportok_rl.tokenizer.pretraining.optimizers import SinglePrecisionMuon, build_optimizers, orthogonalize

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), steps=st.integers(0, 6), seed=st.integers(0, 99))
def test_the_iteration_changes_singular_values_by_its_polynomial_and_nothing_else(
    rows: int, columns: int, steps: int, seed: int
) -> None:
    matrices = drawn(3, rows, columns, seed=seed).double()
    a, b, c = COEFFICIENTS
    found = orthogonalize(matrices, COEFFICIENTS, steps, 1e-7)
    for matrix, result in zip(matrices, found, strict=True):
        left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
        for _ in range(steps):
            values = a * values + b * values**3 + c * values**5
        assert torch.allclose(result, left @ values.diag() @ right, atol=1e-9)


def test_a_zero_gradient_gives_a_zero_update() -> None:
    assert torch.equal(orthogonalize(torch.zeros(2, 3, 4), COEFFICIENTS, 5, 1e-7), torch.zeros(2, 3, 4))


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_equal_torch_within_bfloat16(nesterov: bool) -> None:
    ours = [nn.Parameter(drawn(*shape, seed=index)) for index, shape in enumerate([(8, 24), (24, 8), (8, 24), (8, 8)])]
    theirs = copy.deepcopy(ours)
    started = [matrix.detach().clone() for matrix in ours]
    settings: Any = {"lr": 0.02, "weight_decay": 0.1, "nesterov": nesterov, "adjust_lr_fn": "match_rms_adamw"}
    mine, reference = SinglePrecisionMuon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for step in range(4):
        for index, (matrix, other) in enumerate(zip(ours, theirs, strict=True)):
            matrix.grad = drawn(*matrix.shape, seed=100 * step + index)
            other.grad = matrix.grad.clone()
        mine.step()
        reference.step()
    for matrix, other, start in zip(ours, theirs, started, strict=True):
        moved = (other - start).norm()
        # Eight bits of mantissa through five iterations and four steps.
        assert (matrix - other).norm() < 0.03 * moved
        assert torch.equal(mine.state[matrix]["momentum_buffer"], reference.state[other]["momentum_buffer"])


def test_matrices_of_one_shape_do_not_mix() -> None:
    together = [nn.Parameter(drawn(6, 10, seed=index)) for index in range(3)]
    alone = copy.deepcopy(together)
    optimizers = [SinglePrecisionMuon(together, lr=0.1), *(SinglePrecisionMuon([one], lr=0.1) for one in alone)]
    for index, (one, other) in enumerate(zip(together, alone, strict=True)):
        one.grad = drawn(6, 10, seed=50 + index) * 10.0**index
        other.grad = one.grad.clone()
    for optimizer in optimizers:
        optimizer.step()
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_matrices_without_a_gradient_stay_and_a_closure_is_evaluated() -> None:
    trained, left = nn.Parameter(drawn(4, 4)), nn.Parameter(drawn(4, 4, seed=1))
    before = left.detach().clone()
    optimizer = SinglePrecisionMuon([trained, left], lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = trained.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == drawn(4, 4).square().sum()
    assert torch.equal(left, before)
    assert not torch.equal(trained, drawn(4, 4))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_a_gradient_every_parameter_decays(precision: str) -> None:
    model = nn.ModuleDict({"encoder": nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(3, 3)])})})
    nn.init.ones_(model.get_parameter("encoder.blocks.0.bias"))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    settings: dict[str, Any] = {"precision": precision, "weight_decay": 0.5}
    config = PretrainConfig(muon_learning_rate=0.1, adam_learning_rate=0.2, **settings)
    for optimizer in build_optimizers(model, config).values():
        for value in optimizer.param_groups[0]["params"]:
            value.grad = torch.zeros_like(value)
        optimizer.step()
    for name, value in model.named_parameters():
        rate = 0.1 if name.endswith("weight") else 0.2
        torch.testing.assert_close(value.detach(), before[name] * (1 - rate * 0.5))


@pytest.mark.parametrize(("precision", "kind"), [("float32", SinglePrecisionMuon), ("bfloat16", torch.optim.Muon)])
def test_training_in_float32_orthogonalises_in_float32(precision: str, kind: type) -> None:
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(3, 3)])})
    named = nn.ModuleDict({"encoder": model})
    config = PretrainConfig(precision=precision)  # type: ignore[arg-type]
    assert type(build_optimizers(named, config)["muon"]) is kind
