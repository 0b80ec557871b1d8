"""Batch standardisation whose statistics span every process of a run."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; so is the gradient, as each process's loss depends on all of them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


class BatchStandardize(nn.BatchNorm1d):
    """Zero mean and unit variance a channel, without parameters; running statistics in evaluation.

    In training on several processes the statistics are those of the whole batch, gradients included, so that splitting
    a batch changes nothing. PyTorch's own synchronised layer does this on CUDA devices only.

    Args:
        channels: d.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, values: Tensor) -> Tensor:
        """``float32 [N, d]`` to the same shape; every process must have the same N."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        processes = torch.distributed.get_world_size() if distributed else 1
        if not self.training or processes == 1:
            return super().forward(values)
        mean: Tensor = _SumOverProcesses.apply(values.mean(0)) / processes
        centred = values - mean
        variance: Tensor = _SumOverProcesses.apply(centred.square().mean(0)) / processes
        self._track(mean.detach(), variance.detach(), values.shape[0] * processes)
        return centred * torch.rsqrt(variance + self.eps)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        momentum = 0.1 if self.momentum is None else self.momentum
        self.get_buffer("num_batches_tracked").add_(1)
        self.get_buffer("running_mean").lerp_(mean, momentum)
        self.get_buffer("running_var").lerp_(variance * (count / (count - 1)), momentum)
