"""The scoring engine without a network: everything is looked up in an outcome table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.envs.scene import Outcome, OutcomeOfAllLengths, Scene
from vaportok_rl.envs.scoring.engine import MAX_BATCH_TOKENS, all_lengths, check_shape, reconstructed
from vaportok_rl.envs.scoring.worlds import shared_world
from vaportok_rl.envs.table.clips import TableClips
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.complexity import ComplexityScale

_PARTS = frozenset(part.name for part in fields(Scene))


class TableScene(Scene):
    """P scenes of L clips of a table, with all fields of a `Scene`, each gathered when first read.

    Attributes:
        engine: over one split of the table.
        rows: ``int64 [P, L]``, on the table's device.
    """

    engine: TableEngine
    rows: Tensor

    def __init__(self, engine: TableEngine, rows: Tensor) -> None:
        # The parent is frozen and its fields stay unset: `__getattr__` gathers them.
        self.__dict__.update(engine=engine, rows=rows)

    def __repr__(self) -> str:  # the parent's would gather every field
        return f"TableScene(engine={self.engine!r}, rows={self.rows!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return TableScene, (self.engine, self.rows)

    if not TYPE_CHECKING:  # a scene has its fields and nothing else

        def __getattr__(self, name: str) -> Tensor:
            if name not in _PARTS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return self.__dict__.setdefault(name, self._gathered(name, self.rows))

    @property
    def shape(self) -> tuple[int, int]:
        """``(P, L)``."""
        return self.rows.shape[0], self.rows.shape[1]

    @property
    def tokens(self) -> int:
        """K."""
        return self.engine.table.tokens

    @property
    def indices(self) -> Tensor:
        """``int64 [P, L]``, positions in the source."""
        return self.rows

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.rows.device

    def _gathered(self, name: str, rows: Tensor) -> Tensor:
        """One field for some rows, in the type that a `Scene` has."""
        if name == "clips":
            return torch.unflatten(self.engine.source.batch(rows.flatten().cpu()).clips, 0, rows.shape).to(rows.device)
        if name == "bits" and self.engine.table.bits is None:
            return torch.empty(*rows.shape, 0, device=rows.device)
        if name == "latents" and self.engine.table.latents is None:
            raise ValueError("Expected an outcome table with latents, got one without; build it with `--latents full`.")
        value: Tensor = getattr(self.engine.table, name)[rows]
        kinds = {"latents": torch.float32, "hits": torch.float32, "codes": torch.int64}
        return value.to(kinds.get(name, value.dtype))

    def part(self, name: str, paths: Tensor, steps: Tensor) -> Tensor:
        """One field of one clip of each chosen scene: ``[P', ...]``."""
        return self._gathered(name, self.rows[paths, steps])

    def at(self, paths: Tensor, steps: Tensor) -> TableScene:
        """One clip of each chosen scene: a scene of shape ``(P', 1)``."""
        return TableScene(self.engine, self.rows[paths, steps][:, None])

    def replace_paths(self, paths: Tensor, new: Scene) -> TableScene:
        """See `Scene.replace_paths`; ``new`` is of the same table."""
        rows = self.rows.clone()
        rows[paths] = new.indices
        return TableScene(self.engine, rows)

    def joined(self, others: Sequence[Scene]) -> TableScene:
        """See `Scene.joined`; the others are of the same table."""
        return TableScene(self.engine, torch.cat([self.rows, *(scene.indices for scene in others)]))


class TableEngine:
    """`Engine` over an outcome table: the numbers of `ScoringEngine` without a network.

    Args:
        table: the table.
        split: one of its splits.
        bits: also look up the prior's negative log-likelihood; see `ScoringEngine`.
        tokenizer: opened for rendering and the pretrained length policy; the table's own by default.

    Attributes:
        table: the split.
        whole: the table with all its splits.
        source: its clips.
        config: of the tokenizer.
        device: of the table.
        complexity_scale: of the tokenizer.
        measures: names in `Outcome.measures`.
        max_batch_tokens: of the tokenizer, if it is opened.

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
        self.whole, self._tokenizer = table, tokenizer or build.tokenizer

    def __reduce__(self) -> tuple[Any, ...]:
        reopen = partial(TableEngine, bits=bool(self.measures), tokenizer=self._tokenizer)
        return reopen, (self.whole, self.source.split)

    @property
    def world(self) -> VaporTok:
        """The shared tokenizer.

        Raises:
            FileNotFoundError: it is missing.
            ValueError: its weights are not the table's.
        """
        self.whole.check_tokenizer(self._tokenizer)
        return shared_world(self._tokenizer, str(self.device), self.whole.manifest.build.precision)

    def open(self, indices: NDArray[np.int64], apart: bool = False) -> TableScene:
        """See `Engine.open`."""
        return self.scene(torch.from_numpy(indices))

    def scene(self, rows: Tensor) -> TableScene:
        """Scenes of the table's clips; only row numbers are stored until a field is read.

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
        return self.scene_of(rows.to(self.device))

    def scene_of(self, rows: Tensor) -> TableScene:
        """`scene` of rows on the device that are known to be right: no value is read on the host."""
        return TableScene(self, rows)

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

    def remember(self, every: OutcomeOfAllLengths) -> None:
        """Does nothing: a table already holds all outcomes."""

    def reconstruct(self, scene: Scene, n_tokens: Tensor) -> Tensor:
        """See `Engine.reconstruct`; opens the tokenizer."""
        return reconstructed(self.world, scene, n_tokens)

    def _looked_up(self, lookup: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        further = {"bits": lookup(self.table.bits)} if self.measures and self.table.bits is not None else {}
        return lookup(self.table.mse), lookup(self.table.accuracy), further

    def _rows(self, scene: Scene) -> Tensor:
        if not (isinstance(scene, TableScene) and scene.engine.table is self.table):
            raise ValueError("Expected a scene of this outcome table, got another; make it with scene(rows).")
        return scene.rows
