"""The engine without a network: whatever it is asked for is looked up in an outcome table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.envs.scene import Outcome, OutcomeOfAllLengths, Scene
from vaportok_rl.envs.scoring.engine import MAX_BATCH_TOKENS, all_lengths, check_shape, reconstructed
from vaportok_rl.envs.scoring.worlds import shared_world
from vaportok_rl.envs.table.clips import TableClips
from vaportok_rl.envs.table.scene import TableScene
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.complexity import ComplexityScale


class TableEngine:
    """`Engine` over an outcome table: the same calls and the same numbers as `ScoringEngine`, without a network.

    Args:
        table: the table.
        split: one of its splits.
        bits: also look up the prior's negative log-likelihood; see `ScoringEngine`.
        tokenizer: where the network is, should a picture or the pretrained length policy ask for it; the table's own
            by default.

    Attributes:
        table: the split.
        source: its clips.
        config: of the tokenizer.
        device: where the table is.
        complexity_scale: as the tokenizer's.
        measures: names of what outcomes hold in ``measures``.
        max_batch_tokens: of the network, should it be asked for.

    Raises:
        ValueError: the table has no such split, is damaged, or lacks the bits.
        FileNotFoundError: a shard is missing.
    """

    max_batch_tokens = MAX_BATCH_TOKENS

    def __init__(
        self, table: OutcomeTable, split: str = "train", *, bits: bool = False, tokenizer: str | None = None
    ) -> None:
        build = table.manifest.build
        self.config = build.config
        self.device = table.device
        self.complexity_scale = ComplexityScale(build.config.complexity, build.config.tokens).to(table.device)
        self.source = TableClips(table, split)
        self.table = table[split]
        self.measures = ("bits",) if bits else ()
        if bits and self.table.bits is None:
            raise ValueError(
                f"Expected an outcome table with the prior's bits, got {table.folder} without; build it with `--bits`."
            )
        self._quantiles = self.complexity_scale.quantiles(self.table.complexity)
        self._whole, self._tokenizer = table, tokenizer or build.tokenizer

    @property
    def world(self) -> VaporTok:
        """The tokenizer itself, shared by the process.

        Raises:
            FileNotFoundError: it is not on this machine.
            ValueError: it has other weights than the table's.
        """
        self._whole.check_tokenizer(self._tokenizer)
        return shared_world(self._tokenizer, str(self.device), self._whole.manifest.build.precision)

    def open(self, indices: NDArray[np.int64], apart: bool = False) -> TableScene:
        """See `Engine.open`."""
        return self.scene(torch.from_numpy(indices))

    def scene(self, rows: Tensor) -> TableScene:
        """Scenes of the table's clips; nothing but the row numbers is held until more is read.

        Args:
            rows: ``int64 [P, L]``.

        Raises:
            IndexError: a row lies outside the table.
        """
        if rows.dim() != 2 or rows.dtype != torch.int64:
            raise ValueError(f"Expected rows int64 [P, L], got {rows.dtype} {tuple(rows.shape)}; add the scene axis.")
        if rows.numel() and (int(rows.min()) < 0 or int(rows.max()) >= len(self.table)):
            raise IndexError(
                f"Expected rows in 0…{len(self.table) - 1}, got {int(rows.min())}…{int(rows.max())}; see "
                f"{self.source.describe()}."
            )
        return TableScene(self.table, rows.to(self.device), self._read_clips)

    def _read_clips(self, rows: Tensor) -> Tensor:
        return self.source.batch(rows.cpu()).clips

    def quantiles(self, scene: Scene, paths: Tensor, steps: Tensor) -> Tensor:
        """See `Engine.quantiles`."""
        return self._quantiles[self._rows(scene)[paths, steps]]

    def score(self, scene: Scene, n_tokens: Tensor) -> Outcome:
        """See `Engine.score`.

        Raises:
            ValueError: wrong shape or type, a length outside 1 … K, or a scene of no table.
        """
        check_shape(scene, n_tokens)
        tokens, rows = self.table.tokens, self._rows(scene)
        low, high = torch.stack(torch.aminmax(n_tokens)).tolist()  # the one copy to the host
        if low < 1 or high > tokens:
            raise ValueError(f"Expected n_tokens in 1…{tokens}, got {low}…{high}; n_tokens = action + 1.")
        places = rows * tokens + (n_tokens - 1)
        return Outcome(scene, n_tokens, *self._looked_up(lambda stored: stored.take(places)))

    def score_all(self, scene: Scene) -> OutcomeOfAllLengths:
        """See `Engine.score_all`; one indexing for all lengths."""
        rows = self._rows(scene)
        found = self._looked_up(lambda stored: stored[rows].permute(2, 0, 1).contiguous())
        return OutcomeOfAllLengths(scene, all_lengths(scene), *found)

    def every_clip(self) -> OutcomeOfAllLengths:
        """Every length of every clip of the split, as N scenes of one clip: ``[K, N, 1]``."""
        return self.score_all(self.scene(torch.arange(len(self.table))[:, None]))

    def remember(self, every: OutcomeOfAllLengths) -> None:
        """A table remembers everything as it is."""

    def reconstruct(self, scene: Scene, n_tokens: Tensor) -> Tensor:
        """See `Engine.reconstruct`; the network decodes."""
        return reconstructed(self.world, scene, n_tokens)

    def _looked_up(self, lookup: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        further = {"bits": lookup(self.table.bits)} if self.measures and self.table.bits is not None else {}
        return lookup(self.table.mse), lookup(self.table.accuracy), further

    def _rows(self, scene: Scene) -> Tensor:
        if not (isinstance(scene, TableScene) and scene.table is self.table):
            raise ValueError("Expected a scene of this outcome table, got another one; make it with scene(rows).")
        return scene.rows
