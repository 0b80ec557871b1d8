"""The bottleneck: latents to unit code vectors and back, with stochastic vector quantisation (as in LARP)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from vaportok_rl.runtime.ranks import Processes

# Draws uniform numbers in [0, 1) of a shape.
Uniform = Callable[[torch.Size], Tensor]


@dataclass(frozen=True)
class Quantized:
    """Quantised ``[B, K]`` latents.

    Attributes:
        unit: ``float32 [B, K, d]``, the latents' unit vectors before quantisation.
        codes: ``int64 [B, K]``, codebook indices.
        vectors: ``float32 [B, K, d]``, the unit code vectors, with the straight-through gradient to ``unit``.
    """

    unit: Tensor
    codes: Tensor
    vectors: Tensor


def gumbel_max(logits: Tensor, uniform: Uniform) -> Tensor:
    """Draws from softmax(logits), each row on its own, by the Gumbel-max trick: ``[..., V]`` to ``int64 [...]``."""
    noise = uniform(logits.shape).to(logits.device).clamp_(1e-20, 1 - 1e-7)
    return (logits - (-noise.log()).log()).argmax(-1)


class Codebook(nn.Module):
    """V code vectors of width d, compared by cosine; stored unnormalised."""

    def __init__(self, codes: int, width: int, temperature: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)
        self.temperature = temperature

    def unit_codes(self) -> Tensor:
        """All code vectors on the unit sphere: ``float32 [V, d]``."""
        return F.normalize(self.embedding.weight.float(), dim=-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Unit code vectors of ``int64 [...]`` indices: ``float32 [..., d]``."""
        return F.normalize(F.embedding(codes, self.embedding.weight).float(), dim=-1)

    def nearest(self, unit: Tensor) -> Tensor:
        """Indices of the most similar code: ``[..., d]`` to ``int64 [...]``."""
        return (unit @ self.unit_codes().T).argmax(-1)

    def similarities(self, unit: Tensor) -> Tensor:
        """Logits of the quantiser's draw, cosine / temperature: ``[..., d]`` to ``[..., V]``; they move no code."""
        return (unit @ self.unit_codes().detach().T) / self.temperature

    def sample(self, unit: Tensor, uniform: Uniform = torch.rand) -> Tensor:
        """Indices drawn from softmax(`similarities`), each token on its own."""
        return gumbel_max(self.similarities(unit), uniform)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over ranks; its gradient is summed too, because each rank's loss depends on all of them."""

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
    """Zero mean and unit variance per channel, without parameters; running statistics in evaluation.

    With several ranks, training uses the statistics of the whole batch, gradients included, so that splitting a batch
    changes nothing. PyTorch's own synchronised layer does this on CUDA devices only.

    Args:
        channels: d.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, values: Tensor) -> Tensor:
        """``float32 [N, d]`` to the same shape; all ranks must have the same N."""
        processes = Processes.current().count
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


class Bottleneck(nn.Module):
    """Projects latents to the code width, quantises, and projects back. Always float32.

    Args:
        width: D of the latents.
        codes: V.
        code_width: d.
        norm: ``"batch"`` standardises the projection before the unit sphere, which keeps the latents from
            bunching up before the codebook exists; ``"none"`` is LARP's.
        temperature: of the stochastic quantiser.
    """

    def __init__(self, width: int, codes: int, code_width: int, norm: str, temperature: float) -> None:
        super().__init__()
        self.in_linear = nn.Linear(width, code_width)
        self.out_linear = nn.Linear(code_width, width)
        self.norm_layer = BatchStandardize(code_width) if norm == "batch" else None
        self.regularizer = Codebook(codes, code_width, temperature)

    def to_unit(self, latents: Tensor) -> Tensor:
        """``[B, K, D]`` to unit vectors ``float32 [B, K, d]``."""
        with torch.autocast(latents.device.type, enabled=False):
            projected = F.linear(latents.float(), self.in_linear.weight, self.in_linear.bias)
            if self.norm_layer is not None:
                projected = self.norm_layer(projected.flatten(0, 1)).view_as(projected)
            return F.normalize(projected, dim=-1, eps=1e-12)

    def quantize(self, latents: Tensor, uniform: Uniform | None = None) -> Quantized:
        """Quantises latents.

        Args:
            latents: ``[B, K, D]``.
            uniform: draws uniform numbers of a shape; codes are then sampled (training). None takes the nearest
                (evaluation).
        """
        unit = self.to_unit(latents)
        with torch.autocast(latents.device.type, enabled=False):
            detached = unit.detach()
            book = self.regularizer
            codes = book.nearest(detached) if uniform is None else book.sample(detached, uniform)
            vectors = unit + (book.lookup(codes) - unit).detach()
        return Quantized(unit, codes, vectors)

    def from_vectors(self, vectors: Tensor) -> Tensor:
        """Unit code vectors ``[B, K, d]`` to decoder inputs ``[B, K, D]``."""
        out: Tensor = self.out_linear(vectors)
        return out
