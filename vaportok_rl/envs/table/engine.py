"""The scoring engine without a network: everything it is asked is a lookup."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Categorical

from vaportok_rl.envs.scene import Outcome, Scene
from vaportok_rl.envs.scoring.engine import MAX_BATCH_TOKENS, ScoringEngine
from vaportok_rl.envs.scoring.worlds import shared_world
from vaportok_rl.envs.table.clips import TableClips
from vaportok_rl.envs.table.scene import TableScene
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.complexity import ComplexityScale


class TableWorld:
    """What the layers above read of a tokenizer, out of a table's manifest.

    The network is loaded only by whoever calls it: a picture's decoder, the pretrained length policy.

    Args:
        table: its manifest has the configuration.
        tokenizer: where the network is, should it be asked for; the table's own by default.
    """

    def __init__(self, table: OutcomeTable, tokenizer: str | None = None) -> None:
        build = table.manifest.build
        self.config = build.config
        self.device = table.device
        self.precision = build.precision
        self.complexity_scale = ComplexityScale(build.config.complexity, build.config.tokens).to(table.device)
        self._table = table
        self._tokenizer = tokenizer or build.tokenizer

    @property
    def network(self) -> VaporTok:
        """The tokenizer itself, shared by the process.

        Raises:
            FileNotFoundError: it is not on this machine.
            ValueError: it has other weights than the table's.
        """
        self._table.check_tokenizer(self._tokenizer)
        return shared_world(self._tokenizer, str(self.device), self.precision)

    def taildrop(self, latents: Tensor) -> Categorical:
        """See `VaporTok.taildrop`."""
        return self.network.taildrop(latents)

    def decode(self, codes: Tensor, n_tokens: Tensor | int | None = None) -> Tensor:
        """See `VaporTok.decode`."""
        return self.network.decode(codes, n_tokens)


class TableEngine(ScoringEngine):
    """`ScoringEngine` over an outcome table: the same calls, the same numbers, no network.

    Scenes come from `scene`, by the clips' positions; `encode` is refused.

    Args:
        table: the table.
        split: one of its splits.
        bits: see `ScoringEngine`.
        tokenizer: see `TableWorld`.

    Attributes:
        table: the split.
        source: its clips.
        quantiles: ``float32 [N, 2]``, the complexities as the environment shows them.

    Raises:
        ValueError: the table has no such split, is damaged, or lacks the bits.
        FileNotFoundError: a shard is missing.
    """

    def __init__(
        self, table: OutcomeTable, split: str = "train", *, bits: bool = False, tokenizer: str | None = None
    ) -> None:
        # The parent's constructor checks what is asked of a network.
        self.world = cast(VaporTok, TableWorld(table, tokenizer))
        self.max_batch_tokens = MAX_BATCH_TOKENS
        self.bits = bits
        self.distances = {}
        self.source = TableClips(table, split)
        self.table = table[split]
        self.quantiles = self.world.complexity_scale.quantiles(self.table.complexity)
        if bits and self.table.bits is None:
            raise ValueError(
                f"Expected an outcome table with the prior's bits, got {table.folder} without; build it with `--bits`."
            )

    def encode(self, clips: Tensor, labels: Tensor | None = None, ids: Tensor | None = None) -> Scene:
        """Refused: a table knows its own clips only.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "Expected clips of the outcome table, by their positions, got new ones to encode; call scene(rows), or use "
            "an environment without table=."
        )

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
        return TableScene(self.table, rows.to(self.table.device), self._read_clips)

    def _read_clips(self, rows: Tensor) -> Tensor:
        return self.source.batch(rows.cpu()).clips

    def score(self, scene: Scene, n_tokens: Tensor) -> Outcome:
        """Looks lengths up; see `ScoringEngine.score`.

        Raises:
            ValueError: wrong shape or type, a length outside 1 … K, or a scene of no table.
        """
        if n_tokens.dim() != 3 or tuple(n_tokens.shape[1:]) != scene.shape or n_tokens.dtype != torch.int64:
            raise ValueError(
                f"Expected n_tokens int64 [G, {scene.shape[0]}, {scene.shape[1]}], got {n_tokens.dtype} "
                f"{tuple(n_tokens.shape)}; one length for each path and clip."
            )
        tokens, rows = self.table.tokens, self._rows(scene)
        low, high = torch.stack(torch.aminmax(n_tokens)).tolist()  # the one copy to the host
        if low < 1 or high > tokens:
            raise ValueError(f"Expected n_tokens in 1…{tokens}, got {low}…{high}; n_tokens = action + 1.")
        places = rows * tokens + (n_tokens - 1)
        return self._outcome(scene, n_tokens, lambda stored: stored.take(places))

    def score_all(self, scene: Scene) -> Outcome:
        """Every length of every clip, in one indexing: G = K, row g holds n = g + 1 (see `Outcome.take`)."""
        rows = self._rows(scene)
        lengths = torch.arange(1, self.table.tokens + 1, device=rows.device)
        every = lengths[:, None, None].expand(-1, *scene.shape).contiguous()
        return self._outcome(scene, every, lambda stored: stored[rows].permute(2, 0, 1).contiguous())

    def every_clip(self) -> Outcome:
        """Every length of every clip of the split, as N scenes of one clip: ``[K, N, 1]``."""
        return self.score_all(self.scene(torch.arange(len(self.table))[:, None]))

    def reconstruct(self, scene: Scene, n_tokens: Tensor) -> Tensor:
        """Decoded video for one path, by the network; see `ScoringEngine.reconstruct`."""
        return torch.unflatten(self.world.decode(scene.codes.flatten(0, 1), n_tokens.flatten()), 0, scene.shape)

    def _outcome(self, scene: Scene, n_tokens: Tensor, lookup: Any) -> Outcome:
        bits = {"bits": lookup(self.table.bits)} if self.bits else {}
        return Outcome(
            n_tokens=n_tokens,
            mse=lookup(self.table.mse),
            accuracy=lookup(self.table.accuracy),
            complexity=scene.complexity,
            tokens=self.table.tokens,
            codes=lambda: scene.codes,
            measures=bits,
        )

    def _rows(self, scene: Scene) -> Tensor:
        if not (isinstance(scene, TableScene) and scene.table is self.table):
            raise ValueError("Expected a scene of this outcome table, got another one; make it with scene(rows).")
        return scene.rows
