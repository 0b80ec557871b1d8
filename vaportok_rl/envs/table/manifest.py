"""The manifest of an outcome table: how it was built, and the hash of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from vaportok_rl.runtime.whole_writes import whole_write
from vaportok_rl.tokenizer import Precision, VaporTokConfig

MANIFEST_FILE = "manifest.json"
FORMAT = "vaportok-outcome-table"
VERSION = 1

Latents = Literal["full", "summary", "none"]


@dataclass(frozen=True)
class TableBuild:
    """Everything a table's contents depend on: equal builds give equal bytes.

    Attributes:
        tokenizer: a shipped checkpoint, a folder, or a hub id.
        weights: SHA-256 of the checkpoint; see `weights_digest`.
        precision: of the tokenizer.
        config: of the tokenizer, with its complexity scale.
        clips: clip source; see `open_clips`.
        clip_seed: of the clips.
        splits: number of clips per split (``"train"``, ``"test"``), from index 0 on.
        grid: increasing lengths n at which ``mse`` was measured, including 1 and K.
        latents: whether latents are stored (``"full"``), or their mean and standard deviation over the tokens
            (``"summary"``), or neither (``"none"``).
        bits: whether the prior's negative log-likelihood is stored.
        shard_clips: clips per shard.
    """

    tokenizer: str
    weights: str
    precision: Precision
    config: VaporTokConfig
    clips: str | tuple[str, ...]
    clip_seed: int
    splits: Mapping[str, int]
    grid: tuple[int, ...]
    latents: Latents = "full"
    bits: bool = False
    shard_clips: int = 64

    def __post_init__(self) -> None:
        if self.latents not in get_args(Latents):
            raise ValueError(
                f"Expected latents among {', '.join(get_args(Latents))}, got {self.latents!r}; choose one."
            )
        if self.shard_clips < 1:
            raise ValueError(f"Expected shard_clips ≥ 1, got {self.shard_clips}; choose 64, for example.")

    @property
    def identity(self) -> str:
        """SHA-256 of all of the above."""
        return _digest_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return plain | {"config": self.config.to_dict(), "splits": dict(self.splits)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableBuild:
        """The inverse of `to_dict`, also after a round trip through JSON."""
        clips = values["clips"]
        return cls(
            **{
                **values,
                "config": VaporTokConfig.from_dict(values["config"]),
                "clips": clips if isinstance(clips, str) else tuple(clips),
                "grid": tuple(values["grid"]),
            }
        )

    @property
    def grid_step(self) -> str:
        """The grid as `length_grid` takes it."""
        return "all" if len(self.grid) == self.config.tokens else str(self.grid[1])

    def shard_files(self) -> list[tuple[str, str, range]]:
        """Split, file name and clip indices of each shard, in order."""
        shards = []
        for split, count in self.splits.items():
            total = -(-count // self.shard_clips)
            for number in range(total):
                start = number * self.shard_clips
                name = f"{split}-{number:05d}-of-{total:05d}.safetensors"
                shards.append((split, name, range(start, min(count, start + self.shard_clips))))
        return shards

    def difference(self, other: TableBuild) -> str:
        """The first settings in which another build differs, for messages; empty if none does."""
        mine, theirs = self.to_dict(), other.to_dict()
        names = [name for name in mine if mine[name] != theirs[name]]
        return "; ".join(f"{name} {_short(theirs[name])} instead of {_short(mine[name])}" for name in names[:3])


@dataclass(frozen=True)
class ShardRecord:
    """One file of a table.

    Attributes:
        file: its name.
        clips: number of clips.
        size: in bytes.
        sha256: of the file.
    """

    file: str
    clips: int
    size: int
    sha256: str


@dataclass(frozen=True)
class SplitRecord:
    """One split of a table.

    Attributes:
        clips: number of clips.
        available: number of clips in the source.
        label_names: names of the classes.
        consecutive: whether the source knows which clips are consecutive in a video.
        sha256: of the clips' SHA-256 sums, in order.
        shards: the files, in order.
    """

    clips: int
    available: int
    label_names: tuple[str, ...]
    consecutive: bool
    sha256: str
    shards: tuple[ShardRecord, ...]


@dataclass(frozen=True)
class TableManifest:
    """The content of a table.

    Attributes:
        build: how it was built.
        splits: by name; empty until the build is finished.
        interpolation: the measured error between the grid's lengths (`interpolation_error`), or None with a full grid.
        complete: whether the build is finished.
    """

    build: TableBuild
    splits: Mapping[str, SplitRecord] = field(default_factory=dict)
    interpolation: Mapping[str, float] | None = None
    complete: bool = False

    def to_json(self) -> bytes:
        """The manifest as indented, sorted JSON with a hash of itself."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "complete": self.complete,
            "build": self.build.to_dict(),
            "splits": {name: asdict(record) for name, record in self.splits.items()},
            "interpolation": None if self.interpolation is None else dict(self.interpolation),
        }
        content["sha256"] = _digest_of(content)
        return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def write(self, folder: Path) -> Path:
        """Writes the manifest, whole or not at all."""
        path = folder / MANIFEST_FILE
        with whole_write(path) as scratch:
            scratch.write_bytes(self.to_json())
        return path


def read_manifest(folder: str | Path, *, unfinished: bool = False) -> TableManifest:
    """Reads and checks the manifest of a table.

    Args:
        folder: the table.
        unfinished: accept a table whose build was interrupted.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: the manifest is damaged, of another format, or of an unfinished build.
    """
    path = Path(folder).expanduser() / MANIFEST_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected an outcome table with a {MANIFEST_FILE} in {path.parent}, found none; build one with "
            "`vaportok-rl table build`."
        )
    try:
        content = json.loads(path.read_bytes())
        stated = content.pop("sha256")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected a table's manifest at {path}, got a damaged file ({error}); copy it again."
        ) from error
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise ValueError(
            f"Expected format {FORMAT!r} version {VERSION} in {path}, got {content.get('format')!r} version "
            f"{content.get('version')!r}; rebuild the table with this version."
        )
    if stated != _digest_of(content):
        raise ValueError(
            f"Expected {path} to have the hash it states, {str(stated)[:12]}…, got {_digest_of(content)[:12]}…: the "
            "file is damaged or was edited; copy it again, or rebuild the table."
        )
    if not (content["complete"] or unfinished):
        raise ValueError(
            f"Expected a finished table in {path.parent}, got one whose build was interrupted; run the same "
            "`vaportok-rl table build` again, which continues where it stopped."
        )
    return TableManifest(
        build=TableBuild.from_dict(content["build"]),
        splits={name: _split_record(record) for name, record in content["splits"].items()},
        interpolation=content["interpolation"],
        complete=content["complete"],
    )


def _split_record(values: Mapping[str, Any]) -> SplitRecord:
    shards = tuple(ShardRecord(**shard) for shard in values["shards"])
    return SplitRecord(**{**values, "label_names": tuple(values["label_names"]), "shards": shards})


def _digest_of(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"Expected plain data in a manifest, got {type(value).__name__}.")


def _short(value: object) -> str:
    text = repr(value if not isinstance(value, Sequence) or isinstance(value, str) else list(value))
    return text if len(text) <= 60 else text[:57] + "…"
