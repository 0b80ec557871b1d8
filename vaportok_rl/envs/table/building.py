"""Builds outcome tables shard by shard, resumable and distributed over ranks."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaportok_rl.clips import ClipBatch, open_clips
from vaportok_rl.envs.scene import Scene
from vaportok_rl.envs.scoring.engine import ScoringEngine
from vaportok_rl.envs.scoring.worlds import shared_world
from vaportok_rl.envs.settings import FrozenOptions
from vaportok_rl.envs.table.grid import interpolation_error, length_grid
from vaportok_rl.envs.table.manifest import (
    MANIFEST_FILE,
    Latents,
    SplitRecord,
    TableBuild,
    TableManifest,
    read_manifest,
)
from vaportok_rl.envs.table.shards import clip_digests, own_shard, record_shard, weights_digest, write_shard
from vaportok_rl.envs.table.table import OutcomeTable, latent_summary
from vaportok_rl.runtime.held_folders import LOCK_FILE, hold_run_folder, release_run_folder
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.runtime.whole_writes import scratch_path

# A source with more clips counts as endless; only some of its clips are stored.
ENDLESS = 100_000
ENDLESS_COUNTS: Mapping[str, int] = {"train": 1024, "test": 256}
# Clips on which every length is measured, for the interpolation error.
SAMPLE_CLIPS = 16
# Lengths scored per call: few enough for the progress bar to move.
_LENGTHS_AT_ONCE = 8

OnProgress = Callable[[int], None]


@dataclass(frozen=True)
class TableOptions(FrozenOptions):
    """Options of `vaportok-rl table build`."""

    count: int | None = None
    """Maximum number of training clips, 0 for none; all if not given (1,024 of an endless source)."""
    held_out: int | None = None
    """Maximum number of held-out clips, 0 for none; all if not given (256 of an endless source)."""
    grid: int | str = "4"
    """Measure at n = 1, the multiples of this and K, and interpolate linearly; `all` for every n."""
    latents: Latents = "full"
    """Whether to store latents, which `obs="latents"` and `TaildropPolicy` need; `summary` stores their mean and
    standard deviation over the tokens, for `TensorEnv`."""
    bits: bool = False
    """Also store the prior's bits, for the reward term `prior_bits`."""
    clip_seed: int = 0
    """Seed of the procedural clips."""
    shard_clips: int = 64
    """Clips per file; an interruption loses at most this many."""


def plan_table(**options: Any) -> TableBuild:
    """Decides what a table will store.

    Args:
        **options: see `TableOptions`.

    Raises:
        TypeError: there is no such option.
        FileNotFoundError: there is no such checkpoint, or no clips.
        ValueError: nothing would be stored, or an argument is out of range.
    """
    asked = TableOptions(**options)
    world = shared_world(asked.tokenizer, asked.device, asked.precision)
    config = world.config
    clips = asked.clips if isinstance(asked.clips, str) else tuple(asked.clips)
    splits: dict[str, int] = {}
    for split, wanted in (("train", asked.count), ("test", asked.held_out)):
        if wanted is not None and wanted < 0:
            raise ValueError(f"Expected 0 or more {split} clips, got {wanted}; leave the number out to store all.")
        if wanted == 0:
            continue
        found = len(open_clips(clips, split=split, frames=config.frames, size=config.size, seed=asked.clip_seed))
        some = ENDLESS_COUNTS[split] if found > ENDLESS else found
        splits[split] = min(found, some if wanted is None else wanted)
    if not splits:
        raise ValueError("Expected at least one split to store, got count=0 and held_out=0; raise one of them.")
    return TableBuild(
        tokenizer=asked.tokenizer,
        weights=weights_digest(asked.tokenizer),
        precision=world.precision,
        config=config,
        clips=clips,
        clip_seed=asked.clip_seed,
        splits=splits,
        grid=length_grid(asked.grid, config.tokens),
        latents=asked.latents,
        bits=asked.bits,
        shard_clips=asked.shard_clips,
    )


class TableBuilder:
    """Measures the clips of a build and writes the table to a folder.

    After an interruption at any point, running it again resumes and ends with the same bytes.

    Args:
        build: what to store.
        folder: new, empty, or of the same build.
        device: of the tokenizer.
        processes: rank and world size: rank ``i mod count`` builds shard i, and rank 0 also writes the manifest.
        max_batch_tokens: see `ScoringEngine`.
        measure_error: measure the interpolation error on a few clips.
    """

    def __init__(
        self,
        build: TableBuild,
        folder: str | Path,
        *,
        device: str = "cpu",
        processes: Processes = Processes(),  # noqa: B008 (it is frozen)
        max_batch_tokens: int | None = None,
        measure_error: bool = True,
    ) -> None:
        self.build = build
        self.folder = Path(folder).expanduser()
        self.processes = processes
        self.measure_error = measure_error
        world = shared_world(build.tokenizer, device, build.precision)
        self.engine = ScoringEngine(world, max_batch_tokens, bits=build.bits)
        self._sources = {
            split: open_clips(
                build.clips, split=split, frames=build.config.frames, size=build.config.size, seed=build.clip_seed
            )
            for split in build.splits
        }

    @property
    def decodes(self) -> int:
        """Number of (clip, length) pairs that this rank will decode."""
        mine = sum(len(indices) for _, _, indices in self._mine()) * len(self.build.grid)
        return mine + (len(self._sample()[1]) * self.build.config.tokens if self._measures_error else 0)

    @property
    def _measures_error(self) -> bool:
        coarse = len(self.build.grid) < self.build.config.tokens
        return self.measure_error and self.processes.is_main and coarse

    def _mine(self) -> list[tuple[str, str, range]]:
        return self.build.shard_files()[self.processes.rank :: self.processes.count]

    def run(self, on_decodes: OnProgress = lambda count: None) -> OutcomeTable:
        """Builds this rank's missing shards; rank 0 then waits for all shards and writes the manifest.

        Args:
            on_decodes: called with the number of further `decodes` that are done, for progress.

        Raises:
            ValueError: the folder holds another table or other files, or the clips have changed.
            FileExistsError: another process builds into it.
        """
        try:
            begun = self._begin()
            for split, name, indices in self._mine():
                self._make_shard(split, name, indices, on_decodes)
            if self.processes.is_main:
                self._finish(begun, on_decodes)
            else:
                self._wait_for(lambda: read_manifest(self.folder, unfinished=True).complete)
        finally:
            if self.processes.is_main:
                release_run_folder(self.folder)
        return OutcomeTable.load(self.folder)

    def _begin(self) -> TableManifest:
        """The manifest of an earlier run, or a new one that marks the folder as this build's."""
        refused: Exception | None = None
        if self.processes.is_main:
            try:
                self._take_folder()
            except (OSError, ValueError) as error:
                refused = error
        # The folder may be another build's, whose half-written files the other processes would take for their own.
        if not self.processes.all_agree(refused is None):
            raise refused or FileExistsError(
                f"Expected to build into {self.folder}, got a refusal by process 0; see its message."
            )
        found = read_manifest(self.folder, unfinished=True)
        if found.build.identity != self.build.identity:
            raise ValueError(
                f"Expected {self.folder} to hold a table of the same build, got one with "
                f"{self.build.difference(found.build)}; nothing was written. Choose another --out, or repeat the "
                "command that began it."
            )
        return found

    def _take_folder(self) -> None:
        """Takes the folder, made if need be and marked as this build's, for these processes alone."""
        manifest = self.folder / MANIFEST_FILE
        if not manifest.is_file():
            if self.folder.exists() and (not self.folder.is_dir() or not self._only_leftovers()):
                raise ValueError(
                    f"Expected a new or empty folder, or a table of the same build, got {self.folder} with other "
                    "files; nothing was written. Choose another --out."
                )
            self.folder.mkdir(parents=True, exist_ok=True)
        # Two builds at once would take each other's half-written files for their own.
        hold_run_folder(self.folder)
        if not manifest.is_file():
            TableManifest(self.build).write(self.folder)

    def _only_leftovers(self) -> bool:
        """Whether the folder holds at most what a build leaves that was killed at its first write, or begins with."""
        leftovers = (LOCK_FILE, scratch_path(Path(MANIFEST_FILE)).name, MANIFEST_FILE)
        return all(path.name in leftovers for path in self.folder.iterdir())

    @staticmethod
    def _wait_for(condition: Callable[[], bool]) -> None:
        while not condition():
            time.sleep(0.2)

    def _make_shard(self, split: str, name: str, indices: range, on_decodes: OnProgress) -> None:
        batch = self._sources[split].batch(indices)
        found = own_shard(self.folder / name, self.build.identity)
        if found is None:
            tensors = self._measure(batch, on_decodes) | {"followed": self._followed(split, indices)}
            write_shard(self.folder / name, tensors, self.build.identity)
            return
        if not torch.equal(found["clip_sha256"], clip_digests(batch.clips)):
            raise ValueError(
                f"Expected the clips that {self.folder / name} was measured on, got others at the same places of "
                f"{self._sources[split].describe()}; restore the clips, or build a new table of these."
            )
        on_decodes(len(indices) * len(self.build.grid))

    def _measure(self, batch: ClipBatch, on_decodes: OnProgress) -> dict[str, Tensor]:
        """A shard's tensors, on the host."""
        scene = self.engine.encode(batch.clips[None], batch.labels[None], batch.ids[None])
        tensors = {
            "mse": self._errors(scene, self.build.grid, on_decodes),
            "hits": scene.hits[0].to(torch.int16),
            "codes": scene.codes[0].to(torch.int16 if self.build.config.codebook_size <= 2**15 else torch.int32),
            "complexity": scene.complexity[0],
            "labels": batch.labels,
            "ids": batch.ids,
            "clip_sha256": clip_digests(batch.clips),
        }
        if self.build.latents == "full":
            tensors["latents"] = scene.latents[0].half()
        elif self.build.latents == "summary":
            tensors["summary"] = latent_summary(scene.latents[0].half())
        if self.build.bits:
            tensors["bits"] = scene.bits[0]
        return {name: value.cpu() for name, value in tensors.items()}

    def _errors(self, scene: Scene, lengths: Sequence[int], on_decodes: OnProgress) -> Tensor:
        """``float32 [N, lengths]`` mean squared errors of a scene ``[1, N]``, on the host."""
        parts = []
        for asked in torch.tensor(lengths, device=scene.device).split(_LENGTHS_AT_ONCE):
            outcome = self.engine.score(scene, asked[:, None, None].expand(-1, *scene.shape).contiguous())
            parts.append(outcome.mse[:, 0].T.cpu())
            on_decodes(outcome.mse.numel())
        return torch.cat(parts, 1)

    def _followed(self, split: str, indices: range) -> Tensor:
        """``bool [N]``: whether the next clip is the next one of the same video, and stored too."""
        begins = torch.zeros(indices.stop, dtype=torch.bool)
        starts = self._sources[split].consecutive_starts(2)
        if starts is not None:
            begins[starts[starts < indices.stop]] = True
        if indices.stop == self.build.splits[split]:
            begins[-1] = False
        return begins[indices.start :]

    def _sample(self) -> tuple[str, list[int]]:
        """The clips on which every length is measured: held-out ones if there are any."""
        split = "test" if "test" in self.build.splits else "train"
        count = self.build.splits[split]
        return split, torch.linspace(0, count - 1, min(SAMPLE_CLIPS, count)).long().tolist()

    def _finish(self, begun: TableManifest, on_decodes: OnProgress) -> None:
        """Waits for all shards and writes the final manifest."""
        files = self.build.shard_files()
        self._wait_for(lambda: all((self.folder / name).is_file() for _, name, _ in files))
        interpolation = begun.interpolation
        if self._measures_error:
            split, rows = self._sample()
            if interpolation is None:
                batch = self._sources[split].batch(rows)
                scene = self.engine.encode(batch.clips[None])
                measured = self._errors(scene, range(1, self.build.config.tokens + 1), on_decodes)
                interpolation = interpolation_error(measured, self.build.grid)
            else:
                on_decodes(len(rows) * self.build.config.tokens)
        splits = {split: self._split_record(split) for split in self.build.splits}
        TableManifest(self.build, splits, interpolation, complete=True).write(self.folder)

    def _split_record(self, split: str) -> SplitRecord:
        clips, shards = hashlib.sha256(), []
        for owner, name, indices in self.build.shard_files():
            if owner == split:
                held = own_shard(self.folder / name, self.build.identity)
                if held is None:
                    raise ValueError(
                        f"Expected the shard {self.folder / name} that was just written, got a damaged one; run the "
                        "same command again, and check the disk."
                    )
                clips.update(held["clip_sha256"].numpy().data)
                shards.append(record_shard(self.folder / name, len(indices)))
        source = self._sources[split]
        return SplitRecord(
            clips=self.build.splits[split],
            available=len(source),
            label_names=tuple(source.label_names),
            consecutive=source.consecutive_starts(2) is not None,
            sha256=clips.hexdigest(),
            shards=tuple(shards),
        )
