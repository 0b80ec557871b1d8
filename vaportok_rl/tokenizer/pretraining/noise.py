"""Random numbers per clip, independent of the process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaportok_rl.runtime.seeds import derive_seed


class ClipNoise:
    """Uniform numbers for a batch, one stream per clip, addressed by the clip's position in the training order.

    A clip's numbers do not depend on the batch, the process or the number of devices. So a resumed run needs no random
    state, and several processes draw the same numbers as one.

    Args:
        seed: of the run.
        positions: place of each clip in the training order.
        device: of the numbers; CPU and accelerator streams differ.
    """

    def __init__(self, seed: int, positions: Sequence[int], device: torch.device) -> None:
        self.device = device
        self._streams = [
            torch.Generator(device).manual_seed(derive_seed("clip", seed, position)) for position in positions
        ]

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1).

        Args:
            shape: ``[B, ...]`` with B the number of clips.

        Returns:
            ``float32`` of that shape; later calls continue each clip's stream.

        Raises:
            ValueError: the first axis is not the number of clips.
        """
        if shape[0] != len(self._streams):
            raise ValueError(f"Expected {len(self._streams)} rows, one per clip, got shape {tuple(shape)}.")
        numbers = torch.empty(tuple(shape), device=self.device)
        for row, stream in zip(numbers, self._streams, strict=True):
            row.uniform_(generator=stream)
        return numbers
