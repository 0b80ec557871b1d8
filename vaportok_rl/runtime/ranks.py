"""Ranks of a multi-process run: which scenes each takes, and the exchanges that make the result that of one process."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """The ranks of a run; a single one without torch.distributed.

    Rank r of N takes the scenes r, r + N, r + 2N, … of every round. A single process exchanges nothing.

    Attributes:
        rank: of this process, 0 … count - 1.
        count: N.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Processes:
        """The ranks of torch.distributed's default group, if there is one."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @classmethod
    def launched(cls) -> Processes:
        """The ranks that ``torchrun`` or ``accelerate launch`` started, whether or not they have joined a group."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @classmethod
    def start(cls, device: str) -> Processes:
        """Joins the ranks that ``torchrun`` started, if it did.

        Args:
            device: ``"cpu"`` (gloo) or ``"cuda"`` (NCCL, one device per rank).
        """
        if cls.launched().count > 1 and not dist.is_initialized():
            on_gpu = torch.device(device).type == "cuda"
            if on_gpu:
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if on_gpu else "gloo")
            atexit.register(_leave)
        return cls.current()

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def share(self, scenes: int) -> range:
        """The numbers of this rank's scenes.

        Raises:
            ValueError: the number of scenes is not a multiple of the number of ranks.
        """
        if scenes % self.count:
            raise ValueError(
                f"Expected a number of scenes that {self.count} processes can share equally, got {scenes}; change "
                "scenes or the number of processes."
            )
        return range(self.rank, scenes, self.count)

    def gather(self, values: Tensor, axis: int) -> Tensor:
        """The scenes of all ranks, in order.

        Args:
            values: this rank's scenes along ``axis``.
            axis: not negative.
        """
        if self.count == 1:
            return values
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(self.count)]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts, axis + 1).flatten(axis, axis + 1)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, detached."""
        if self.count == 1:
            return values.detach()
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks, detached."""
        return self.sum(values) / self.count

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces each gradient by its sum over ranks, in one exchange."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, total.split([value.numel() for value in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def all_agree(self, yes: bool) -> bool:
        """Whether the answer is yes on every rank."""
        if self.count == 1:
            return yes
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return int(self.sum(torch.tensor(int(yes), device=device))) == self.count

    def wait(self) -> None:
        """Returns when all ranks have called it."""
        self.all_agree(True)

    def broadcast(self, module: nn.Module) -> None:
        """Copies the parameters and buffers of rank 0 to all ranks."""
        if self.count > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)


def _leave() -> None:
    """Ends the group's threads: the interpreter would abort on one that still runs at its end."""
    if dist.is_initialized():
        dist.destroy_process_group()
