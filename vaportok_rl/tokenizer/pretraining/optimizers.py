"""Muon for the matrices inside transformer blocks, AdamW for everything else.

AdamW alone stays on the plateau of the clip's mean colour for tens of thousands of clips at this size.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaportok_rl.tokenizer.pretraining.config import PretrainConfig


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns (matrices inside blocks, everything else), each parameter that is trained once."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        inside = ".blocks." in name and parameter.dim() == 2
        (matrices if inside else others).append(parameter)
    return matrices, others


def build_optimizers(model: nn.Module, config: PretrainConfig) -> dict[str, torch.optim.Optimizer]:
    """The two optimisers by name; their learning rates are set each step by the trainer."""
    matrices, others = split_parameters(model)
    # torch's iteration is in bfloat16 for matrices of any format.
    muon = torch.optim.Muon if config.precision == "bfloat16" else SinglePrecisionMuon
    return {
        "muon": muon(
            matrices,
            lr=config.muon_learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        "adamw": torch.optim.AdamW(
            others, lr=config.adam_learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)
        ),
    }


def step_optimizers(optimizers: Mapping[str, torch.optim.Optimizer], rates: Mapping[str, float]) -> None:
    """One step of each optimiser, at the learning rate of its name."""
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = rates[name]
        optimizer.step()


def orthogonalize(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton–Schulz iteration towards the nearest semi-orthogonal matrix, in the number format of its input.

    Args:
        matrices: ``float [M, R, C]``; each is treated on its own.
        coefficients: a, b, c of the quintic polynomial a·X + b·(XXᵀ)X + c·(XXᵀ)²X.
        steps: iterations.
        eps: smallest Frobenius norm that a matrix is divided by.

    Returns:
        ``float [M, R, C]`` with singular values near 1; with Muon's coefficients between about 0.7 and 1.2.
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if tall else matrices
    found = found / torch.linalg.matrix_norm(found, keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.mT if tall else found


class SinglePrecisionMuon(torch.optim.Muon):
    """`torch.optim.Muon` with its iteration in the matrices' own number format instead of bfloat16.

    On processors without bfloat16 instructions, torch's can take longer than the rest of a training step. Matrices of
    one shape are orthogonalised together. Arguments, defaults and state are torch's; the only learning-rate rule is
    ``adjust_lr_fn="match_rms_adamw"``.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the matrices that have a gradient; see `torch.optim.Muon.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                updates = torch.stack([self._with_momentum(matrix, group) for matrix in matrices])
                updates = orthogonalize(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
                # AdamW's usual size of an update: "match_rms_adamw".
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)
        return loss

    def _with_momentum(self, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient with momentum; the running average is kept in the state."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix.grad)
        average: Tensor = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(average, group["momentum"]) if group["nesterov"] else average
