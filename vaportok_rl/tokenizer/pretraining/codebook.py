"""Keeping the codebook alive: initialisation from latents and revival of unused codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Maximum size of an array in `spherical_kmeans`.
MAX_COSINES = 1 << 25


def spherical_kmeans(unit: Tensor, codes: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Clusters unit vectors by cosine.

    Args:
        unit: ``[N, d]`` with N ≥ codes.
        codes: number of clusters V.
        rounds: Lloyd iterations.
        generator: picks the starting vectors and refills empty clusters.

    Returns:
        ``[V, d]`` unit centres.
    """
    centres = unit[torch.randperm(unit.shape[0], generator=generator)[:codes]]
    # All cosines at once would be 8.6 GB for 8,192 codes.
    parts = unit.split(max(1, MAX_COSINES // codes))
    for _ in range(rounds):
        nearest = torch.cat([(part @ centres.T).argmax(1) for part in parts])
        sums = torch.zeros_like(centres).index_add_(0, nearest, unit)
        empty = torch.bincount(nearest, minlength=codes) == 0
        refill = unit[torch.randperm(unit.shape[0], generator=generator)[:codes]]
        centres = F.normalize(torch.where(empty[:, None], refill, sums), dim=-1)
    return centres


@torch.no_grad()
def initialize_codes(embedding: torch.nn.Embedding, unit: Tensor, generator: torch.Generator) -> None:
    """Initialises the codes with the cluster centres of latents.

    Args:
        embedding: the codebook, V codes.
        unit: ``[N, d]`` unit latents; at most 32 V of them are used, and repeated if there are fewer than V.
        generator: of the host.
    """
    codes = embedding.num_embeddings
    if unit.shape[0] < codes:
        unit = unit.repeat(codes // unit.shape[0] + 1, 1)
    kept = unit[torch.randperm(unit.shape[0], generator=generator)[: 32 * codes]]
    embedding.weight.copy_(spherical_kmeans(kept, codes, 10, generator))


class CodebookCare:
    """Counts which codes are in use and moves the unused ones onto current latents.

    Args:
        codes: V.
    """

    def __init__(self, codes: int) -> None:
        self.counts = torch.zeros(codes, dtype=torch.int64)

    def record(self, codes: Tensor) -> None:
        """Adds a batch of indices to the counts."""
        self.counts += torch.bincount(codes.flatten().cpu(), minlength=len(self.counts))

    def used_share(self) -> float:
        """Fraction of the codes seen since the last `revive`."""
        return float((self.counts > 0).float().mean())

    @torch.no_grad()
    def revive(
        self,
        embedding: torch.nn.Embedding,
        unit: Tensor,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> int:
        """Moves codes not seen since the last call to random current latents and restarts the count.

        Args:
            embedding: the codebook.
            unit: ``[..., d]``, current unit latents.
            optimizer: its running moments for the moved rows are cleared.
            generator: of the host; picks the latents.

        Returns:
            How many codes were moved.
        """
        dead = (self.counts == 0).nonzero().flatten().to(embedding.weight.device)
        self.counts.zero_()
        if len(dead):
            pool = unit.reshape(-1, unit.shape[-1])
            picks = torch.randint(pool.shape[0], (len(dead),), generator=generator).to(pool.device)
            embedding.weight[dead] = pool[picks]
            for value in optimizer.state[embedding.weight].values():
                if value.shape == embedding.weight.shape:
                    value[dead] = 0
        return len(dead)
