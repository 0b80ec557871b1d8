"""The outcome table: error and prior accuracy of every clip at every length, measured once and stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from vaportok_rl.clips import ClipSource, open_clips
from vaportok_rl.envs.table.grid import interpolate
from vaportok_rl.envs.table.hub import fetch_table, push_table
from vaportok_rl.envs.table.manifest import SplitRecord, TableManifest, read_manifest
from vaportok_rl.envs.table.shards import is_local, read_shard, weights_digest
from vaportok_rl.runtime.html import ShownAsTable, TableParts
from vaportok_rl.runtime.hub import HubOptions, PushOptions
from vaportok_rl.runtime.machine import usable_device
from vaportok_rl.tokenizer.complexity import ComplexityScale


@dataclass(frozen=True)
class TableSplit:
    """One split of a table: row i is clip i of the source.

    Attributes:
        mse: ``float32 [N, K]``, entry n - 1 for n kept tokens; interpolated linearly between the grid's lengths.
        accuracy: ``float32 [N, K]``, the prior's top-5 accuracy over the kept, predicted tokens; 0 where n = 1.
        hits: ``int16 [N, K]``, the prior's hits among the tokens 1 … n - 1.
        codes: ``int16`` or ``int32 [N, K]``.
        complexity: ``float32 [N, 2]``, SC and TC.
        labels: ``int64 [N]``.
        ids: ``int64 [N]``; the row, except where an unreadable clip was replaced.
        clip_sha256: ``uint8 [N, 32]``, of the clips' pixels.
        followed: ``bool [N]``, whether the next row is the next clip of the same video.
        latents: ``float16 [N, K, D]``, or None.
        summary: ``float16 [N, 2, D]``, mean and standard deviation of the latents over the tokens, or None.
        prior_mean: ``float32 [N]``, mean of the clip's Gaussian length prior, in tokens.
        bits: ``float32 [N, K]``, the prior's negative log-likelihood of the tokens 1 … n - 1, or None.
    """

    mse: Tensor
    accuracy: Tensor
    hits: Tensor
    codes: Tensor
    complexity: Tensor
    labels: Tensor
    ids: Tensor
    clip_sha256: Tensor
    followed: Tensor
    prior_mean: Tensor
    latents: Tensor | None = None
    summary: Tensor | None = None
    bits: Tensor | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """K."""
        return self.mse.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.mse.device


def latent_summary(latents: Tensor) -> Tensor:
    """Mean and standard deviation over the tokens: ``[N, K, D]`` to ``float16 [N, 2, D]``."""
    whole = latents.float()
    return torch.stack([whole.mean(1), whole.std(1, correction=0)], 1).half()


class OutcomeTable(ShownAsTable):
    """A read-only table that ``vaportok-rl table build`` wrote to a folder.

    Each split is read on first use, and its hashes are checked. Copies share the tensors; a pickle holds the path.

    Args:
        folder: the table.
        manifest: of that folder.
        device: where the tensors go.
    """

    def __init__(self, folder: Path, manifest: TableManifest, device: str | torch.device = "cpu") -> None:
        self.folder = folder
        self.manifest = manifest
        self.device = usable_device(device)
        self._loaded: dict[str, TableSplit] = {}

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> OutcomeTable:
        """Opens a table.

        Raises:
            FileNotFoundError: there is no table.
            ValueError: the manifest is damaged, of another format, or of an unfinished build.
        """
        path = Path(folder).expanduser()
        return cls(path, read_manifest(path), device)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: str | torch.device = "cpu", **hub: Unpack[HubOptions]
    ) -> OutcomeTable:
        """Opens a table on the hub, or a folder.

        Args:
            source: ``owner/name`` of a data set on the hub, or a folder.
            device: where the tensors go.
            hub: huggingface_hub's ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only``.

        Raises:
            FileNotFoundError: it is neither here nor on the hub.
            ValueError: as for `load`; a damaged shard is found when it is read.
        """
        folder = Path(source).expanduser()
        return cls.load(folder if folder.exists() else fetch_table(str(source), **hub), device)

    def push_to_hub(self, repo_id: str, **push: Unpack[PushOptions]) -> str:
        """Uploads the table with a card, as a data set.

        Args:
            repo_id: ``owner/name``; created if missing.
            push: huggingface_hub's ``private``, ``token``, ``revision`` and ``commit_message``.

        Returns:
            The commit's address.
        """
        return push_table(self.folder, self.manifest, repo_id, **push)

    def __deepcopy__(self, memo: dict[int, Any]) -> OutcomeTable:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_table, (str(self.folder), str(self.device))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits in the folder, ``train`` first."""
        return tuple(sorted(self.manifest.splits, reverse=True))

    @property
    def grid(self) -> tuple[int, ...]:
        """The measured lengths."""
        return self.manifest.build.grid

    @property
    def tokens(self) -> int:
        """K."""
        return self.manifest.build.config.tokens

    def _shown(self) -> TableParts:
        build = self.manifest.build
        clips = build.clips if isinstance(build.clips, str) else ", ".join(build.clips)
        title = f"{self.folder}: {build.tokenizer}, {clips}; {len(self.grid)} of K = {self.tokens} lengths measured"
        rows = ((split, f"{self.record(split).clips:,}", f"{self.record(split).available:,}") for split in self.splits)
        return title, ("split", "clips", "in the source"), rows

    def record(self, split: str) -> SplitRecord:
        """The manifest's entry for a split.

        Raises:
            ValueError: the table has no such split.
        """
        if split not in self.splits:
            raise ValueError(
                f"Expected a split of the outcome table {self.folder} ({', '.join(self.splits)}), got {split!r}; "
                "choose one of them, or build a table with both."
            )
        return self.manifest.splits[split]

    def __getitem__(self, split: str) -> TableSplit:
        """The tensors of a split.

        Raises:
            ValueError: there is no such split, or a shard is damaged; the message names it.
            FileNotFoundError: a shard is missing.
        """
        if split not in self._loaded:
            record = self.record(split)
            parts = [read_shard(self.folder, shard) for shard in record.shards]
            held = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            held["mse"] = interpolate(held["mse"], self.grid, self.tokens)
            predicted = torch.arange(self.tokens).clamp(min=1)
            held["accuracy"] = held["hits"].float() / predicted
            scale = ComplexityScale(self.manifest.build.config.complexity, self.tokens)
            held["prior_mean"] = scale.prior_mean(held["complexity"])
            if "latents" in held:
                held["summary"] = latent_summary(held["latents"])
            self._loaded[split] = TableSplit(**{name: value.to(self.device) for name, value in held.items()})
        return self._loaded[split]

    def verify(self) -> None:
        """Checks every shard of every split against its hash.

        Raises:
            ValueError: a shard is damaged; the message names it.
            FileNotFoundError: a shard is missing.
        """
        for record in self.manifest.splits.values():
            for shard in record.shards:
                read_shard(self.folder, shard)

    def check_tokenizer(self, tokenizer: str) -> None:
        """Checks that a tokenizer has the weights that the table was built with.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: it has other weights.
        """
        build = self.manifest.build
        found = weights_digest(tokenizer)
        if found != build.weights:
            raise ValueError(
                f"Expected the tokenizer that the outcome table {self.folder} was built with ({build.tokenizer!r}, "
                f"SHA-256 {build.weights[:12]}…), got {tokenizer!r} with {found[:12]}…; rebuild the table with "
                "these weights, or name the others with tokenizer=."
            )

    def check_own_tokenizer(self) -> bool:
        """Whether the table's own tokenizer is on this machine; if it is, checks its weights.

        Raises:
            ValueError: its weights have changed.
        """
        name = self.manifest.build.tokenizer
        here = is_local(name)
        if here:
            self.check_tokenizer(name)
        return here

    def check_clips(self, clips: str | Sequence[str], clip_seed: int) -> None:
        """Checks the name and seed of a clip source against the table's.

        Raises:
            ValueError: the table was built from other clips.
        """
        build = self.manifest.build
        pairs = {
            "clips": (_places(clips), _places(build.clips)),
            "clip_seed": ([str(clip_seed)], [str(build.clip_seed)]),
        }
        for name, (asked, own) in pairs.items():
            if asked != own:
                raise ValueError(
                    f"Expected {name}={', '.join(own)}, of which the outcome table {self.folder} was built, got "
                    f"{', '.join(asked)}; leave {name} out, or build a table of these."
                )

    def open_source(self, split: str) -> ClipSource:
        """Opens the clips that the table was built from.

        Raises:
            FileNotFoundError: they are not on this machine.
            ValueError: their number has changed.
        """
        build, record = self.manifest.build, self.record(split)
        source = open_clips(
            build.clips, split=split, frames=build.config.frames, size=build.config.size, seed=build.clip_seed
        )
        if len(source) != record.available:
            raise ValueError(
                f"Expected the {record.available} clips of which the outcome table {self.folder} was built, got "
                f"{len(source)} ({source.describe()}); restore them, or rebuild the table."
            )
        return source


def _places(clips: str | Sequence[str]) -> list[str]:
    names = [clips] if isinstance(clips, str) else list(clips)
    return [str(Path(name).resolve()) if Path(name).exists() else name for name in names]


_TABLES: dict[tuple[Path, str, str], OutcomeTable] = {}


def shared_table(folder: str, device: str = "cpu") -> OutcomeTable:
    """The table in that folder, loaded once per process, and again after it is rebuilt.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: it is damaged or unfinished.
    """
    table = OutcomeTable.load(folder, device)
    key = (table.folder.resolve(), table.manifest.build.identity, device)
    if key not in _TABLES or _TABLES[key].manifest != table.manifest:
        _TABLES[key] = table
    return _TABLES[key]
