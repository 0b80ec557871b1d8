"""Scoring engines: the interface `Engine`, and `ScoringEngine`, which runs the tokenizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vaportok_rl.clips import ClipSource
from vaportok_rl.envs.scene import Outcome, OutcomeOfAllLengths, Scene
from vaportok_rl.envs.scoring.decoding_plan import PADDING, DecodingBatch, Indices, plan_decoding
from vaportok_rl.tokenizer import VaporTok, VaporTokConfig, clip_complexity
from vaportok_rl.tokenizer.complexity import ComplexityScale
from vaportok_rl.tokenizer.prior import cumulative_hits, top_k_accuracy

MAX_BATCH_TOKENS = 32_768
# The same for short sequences on a CPU: activations then fit its cache (nano decodes a fifth faster).
CPU_BATCH_TOKENS = 2048
# Maximum number of prior logits in memory at once; `vaportok-b` has 8 million per clip.
MAX_LOGITS = 1 << 24
# From this many patches on, one sequence fills a CPU's cores, and batching is not worth any padding.
FILLING_PATCHES = 512
# Matrix products with fewer rows may use another kernel, which rounds differently.
FEWEST_ROWS = 16

Distance = Callable[[Tensor, Tensor], Tensor]


def cumulative_bits(logits: Tensor, codes: Tensor) -> Tensor:
    """The prior's negative log-likelihood of the first n tokens, for all n.

    Args:
        logits: ``[B, K - 1, V]``; row j scores token j + 1.
        codes: ``int64 [B, K]``.

    Returns:
        ``float32 [B, K]`` in bits: entry ``n - 1`` sums the predicted tokens 1 … n - 1.
    """
    nats = F.cross_entropy(logits.float().flatten(0, 1), codes[:, 1:].flatten(), reduction="none")
    return F.pad(nats.view(len(codes), -1).cumsum(1) / math.log(2), (1, 0))


class Engine(Protocol):
    """Opens scenes and scores lengths, by the tokenizer (`ScoringEngine`) or an outcome table (`TableEngine`)."""

    @property
    def world(self) -> VaporTok:
        """The frozen tokenizer; a table opens it on first use."""

    @property
    def config(self) -> VaporTokConfig:
        """The tokenizer's configuration."""

    @property
    def device(self) -> torch.device:
        """Device of scenes and outcomes."""

    @property
    def complexity_scale(self) -> ComplexityScale:
        """The tokenizer's map from SC and TC to quantiles, score and length prior."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names in `Outcome.measures`."""

    @property
    def max_batch_tokens(self) -> int:
        """Maximum sequence positions per call of the tokenizer."""

    def open(self, indices: NDArray[np.int64], apart: bool = False) -> Scene:
        """Scenes of the clips at ``int64 [P, L]`` indices of the engine's source.

        Args:
            indices: clip indices.
            apart: encode one scene at a time, so that a scene is bitwise the same however many are opened.
        """

    def quantiles(self, scene: Scene, paths: Tensor, steps: Tensor) -> Tensor:
        """Complexities as quantiles of the training clips, ``float32 [P', 2]``; arguments as for `Scene.at`."""

    def score(self, scene: Scene, n_tokens: Tensor) -> Outcome:
        """The outcome of lengths ``int64 [G, P, L]``."""

    def score_all(self, scene: Scene) -> OutcomeOfAllLengths:
        """The outcome of all K lengths of every clip."""

    def remember(self, every: OutcomeOfAllLengths) -> None:
        """Caches one scene's outcomes: `score` and `score_all` look that scene up from now on."""

    def reconstruct(self, scene: Scene, n_tokens: Tensor) -> Tensor:
        """Decodes one path: ``int64 [P, L]`` lengths to video ``float32 [P, L, C, T, H, W]``."""


def check_shape(scene: Scene, n_tokens: Tensor) -> None:
    """Raises a `ValueError` unless there is one ``int64`` length per path and clip."""
    if n_tokens.dim() != 3 or tuple(n_tokens.shape[1:]) != scene.shape or n_tokens.dtype != torch.int64:
        raise ValueError(
            f"Expected n_tokens int64 [G, {scene.shape[0]}, {scene.shape[1]}], got {n_tokens.dtype} "
            f"{tuple(n_tokens.shape)}; pass one length per path and clip."
        )


def all_lengths(scene: Scene) -> Tensor:
    """All lengths of every clip: ``int64 [K, P, L]``."""
    lengths = torch.arange(1, scene.tokens + 1, device=scene.device)
    return lengths[:, None, None].expand(-1, *scene.shape).contiguous()


class ScoringEngine:
    """Encodes clips and scores lengths with the tokenizer, on its device; see `Engine`.

    Nothing is copied to the host except the lengths, once per call of `score` (`_lengths_on_host`).

    Args:
        world: a frozen tokenizer.
        source: where `open` reads clips; `encode` needs none.
        max_batch_tokens: maximum sequence positions per transformer call, which bounds memory (see `clips_at_once`);
            chosen by device if not given.
        bits: also measure the prior's negative log-likelihood, as ``scene.bits`` and ``outcome.measures["bits"]``.
        distances: further errors by name, ``(decoded, clip) -> [B]`` on two ``float32 [B, C, T, H, W]`` videos in
            [0, 1]; measured on every decoded pair, as ``outcome.measures[name]``. See `VaporReward.needs`.

    Attributes:
        config: of the tokenizer.
        device: of the tokenizer.
        complexity_scale: of the tokenizer.

    Raises:
        ValueError: ``max_batch_tokens`` does not hold a single clip.
    """

    def __init__(
        self,
        world: VaporTok,
        max_batch_tokens: int | None = None,
        *,
        source: ClipSource | None = None,
        bits: bool = False,
        distances: Mapping[str, Distance] | None = None,
    ) -> None:
        longest = world.config.patches + world.config.tokens
        if max_batch_tokens is None:
            short = world.device.type == "cpu" and world.config.patches < FILLING_PATCHES
            max_batch_tokens = max(longest, CPU_BATCH_TOKENS) if short else MAX_BATCH_TOKENS
        if max_batch_tokens < longest:
            raise ValueError(
                f"Expected max_batch_tokens of at least one clip's sequence ({longest}), got {max_batch_tokens}; "
                "raise it."
            )
        self.world = world
        self.config, self.device, self.complexity_scale = world.config, world.device, world.complexity_scale
        self.source = source
        self.max_batch_tokens = max_batch_tokens
        self.bits = bits
        self.distances = dict(distances or {})
        self._known: OutcomeOfAllLengths | None = None

    @property
    def clips_at_once(self) -> int:
        """Clips that are encoded, or decoded at full length, per call."""
        return max(1, self.max_batch_tokens // (self.config.patches + self.config.tokens))

    @property
    def measures(self) -> tuple[str, ...]:
        """Names in `Outcome.measures`."""
        return ("bits", *self.distances) if self.bits else tuple(self.distances)

    def open(self, indices: NDArray[np.int64], apart: bool = False) -> Scene:
        """See `Engine.open`.

        Raises:
            ValueError: the engine has no source.
        """
        if self.source is None:
            raise ValueError("Expected an engine with a clip source, got none; pass source=, or call encode.")
        # One large read is 1.5 times as fast as many small ones.
        batch = self.source.batch(torch.from_numpy(indices.reshape(-1)))
        read = [torch.unflatten(values, 0, indices.shape) for values in (batch.clips, batch.labels, batch.ids)]
        if not apart:
            return self.encode(*read)
        first, *others = (self.encode(*part) for part in zip(*(values.split(1) for values in read), strict=True))
        return first.joined(others)

    @torch.no_grad()
    def encode(self, clips: Tensor, labels: Tensor | None = None, ids: Tensor | None = None) -> Scene:
        """Encodes scenes: one encoder pass and one prior pass per clip.

        Args:
            clips: ``[P, L, C, T, H, W]``, uint8 or float in [0, 1] (kept as uint8).
            labels: ``int64 [P, L]``; zeros by default.
            ids: ``int64 [P, L]``; 0, 1, 2, … by default.

        Raises:
            ValueError: the clips do not have this tokenizer's shape, or are out of range.
        """
        if clips.dim() != 6:
            raise ValueError(
                f"Expected clips [P, L, C, T, H, W], got shape {tuple(clips.shape)}; add the scene axes with "
                "clips[None] or reshape."
            )
        device = self.device
        shape = clips.shape[:2]
        flat = clips.flatten(0, 1).to(device)
        parts = [self._encode_batch(batch) for batch in flat.split(self.clips_at_once)]
        latents, codes, hits, bits, complexity = (
            torch.unflatten(torch.cat(values), 0, shape) for values in zip(*parts, strict=True)
        )
        stored = flat if flat.dtype == torch.uint8 else (flat * 255).round().to(torch.uint8)
        counted = torch.arange(shape[0] * shape[1], device=device).view(shape)
        return Scene(
            latents=latents,
            codes=codes,
            hits=hits,
            bits=bits,
            complexity=complexity,
            prior_mean=self.complexity_scale.prior_mean(complexity),
            clips=torch.unflatten(stored, 0, shape),
            labels=torch.zeros_like(counted) if labels is None else labels.to(device),
            ids=counted if ids is None else ids.to(device),
        )

    def _encode_batch(self, clips: Tensor) -> tuple[Tensor, ...]:
        encoded = self.world.encode(clips)
        predicted, codes = self.world.prior_predictions(encoded.codes), encoded.codes
        unit_codes = self.world.bottleneck.regularizer.unit_codes()
        hits = predicted.new_empty(codes.shape)
        bits = predicted.new_empty(codes.shape if self.bits else (len(codes), 0))
        size = max(1, MAX_LOGITS // (codes.shape[1] * len(unit_codes)))
        for start in range(0, len(codes), size):
            some = slice(start, start + size)
            logits = self.world.prior_model.compare(predicted[some], unit_codes)
            hits[some] = cumulative_hits(logits, codes[some])
            if self.bits:
                bits[some] = cumulative_bits(logits, codes[some])
        return encoded.latents, codes, hits, bits, clip_complexity(clips)

    def quantiles(self, scene: Scene, paths: Tensor, steps: Tensor) -> Tensor:
        """See `Engine.quantiles`."""
        return self.complexity_scale.quantiles(scene.part("complexity", paths, steps))

    @torch.no_grad()
    def score(self, scene: Scene, n_tokens: Tensor) -> Outcome:
        """Scores lengths. Each distinct (clip, length) pair is decoded once, without the dropped tokens.

        Args:
            scene: P scenes of L clips.
            n_tokens: ``int64 [G, P, L]`` in 1 … K.

        Raises:
            ValueError: wrong shape or type, a length outside 1 … K, or a scene without the prior's bits.
        """
        check_shape(scene, n_tokens)
        if self._known is not None and scene is self._known.scene:
            return self._known.take(n_tokens)
        tokens = scene.tokens
        lengths = self._lengths_on_host(n_tokens)
        if lengths.min() < 1 or lengths.max() > tokens:
            raise ValueError(
                f"Expected n_tokens in 1…{tokens}, got {lengths.min()}…{lengths.max()}; n_tokens = action + 1."
            )
        if self.bits and scene.bits.shape[-1] != tokens:
            raise ValueError(
                "Expected a scene with the prior's bits, got one encoded without; encode it with this engine."
            )
        patches = self.config.patches
        padding = 0 if self.device.type == "cpu" and patches >= FILLING_PATCHES else PADDING
        plan = plan_decoding(lengths.reshape(len(lengths), -1), tokens, patches, self.max_batch_tokens, padding)
        pairs = len(plan.clips)
        codes, clips = scene.codes.flatten(0, 1), scene.clips.flatten(0, 1)
        # One copy to the device serves all batches.
        host = np.concatenate([plan.clips, plan.n_tokens, plan.inverse.ravel()])
        rows, kept, inverse = torch.tensor(host, device=self.device).split([pairs, pairs, lengths.size])
        errors = torch.empty(1 + len(self.distances), pairs, device=self.device)
        for batch in plan.batches:
            some = slice(batch.start, batch.stop)
            decoded = self._decode_batch(codes[rows[some], : batch.padded], kept[some], batch)
            errors[:, some] = self._errors(decoded, clips[rows[some]])
        mse, *others = errors[:, inverse].view(-1, *n_tokens.shape)
        hits = scene.hits.expand(len(n_tokens), -1, -1, -1)
        measures = dict(zip(self.distances, others, strict=True))
        if self.bits:
            bits = scene.bits.expand(len(n_tokens), -1, -1, -1)
            measures["bits"] = bits.gather(-1, (n_tokens - 1)[..., None]).squeeze(-1)
        return Outcome(scene, n_tokens, mse, top_k_accuracy(hits, n_tokens), measures)

    @staticmethod
    def _lengths_on_host(n_tokens: Tensor) -> Indices:
        """The one device-to-host copy of scoring: batching by length needs the lengths' values."""
        lengths: Indices = n_tokens.cpu().numpy()
        return lengths

    def _decode_batch(self, codes: Tensor, kept: Tensor, batch: DecodingBatch) -> Tensor:
        """Codes ``int64 [M, N]`` and lengths ``int64 [M]`` to ``float32 [M, C, T, H, W]``."""
        # With enough rows in every product, a pair's error does not depend on the rest of its batch.
        copies = -(-FEWEST_ROWS // (len(codes) * min(batch.padded, self.config.patches)))
        if copies > 1:
            codes, kept = codes.repeat(copies, 1), kept.repeat(copies)
        return self.world.decode_unchecked(codes, None if batch.exact else kept)[: batch.stop - batch.start]

    def _errors(self, decoded: Tensor, clips: Tensor) -> Tensor:
        """Mean squared error of each pair, then the further distances.

        Args:
            decoded: ``float32 [M, C, T, H, W]``.
            clips: ``uint8 [M, C, T, H, W]``.

        Returns:
            ``float32 [1 + distances, M]``.
        """
        target = clips.float() / 255
        squares = (decoded - target).square()
        # Two short sums instead of one long one: the order of additions then does not depend on the batch size.
        rows = [squares.flatten(3).mean(-1).flatten(1).mean(-1)]
        for distance in self.distances.values():
            # One clip at a time, for the same reason: convolutions may round differently in a larger batch.
            pairs = zip(decoded.split(1), target.split(1), strict=True)
            rows.append(torch.cat([distance(*pair).float().view(1) for pair in pairs]))
        return torch.stack(rows)

    def reconstruct(self, scene: Scene, n_tokens: Tensor) -> Tensor:
        """See `Engine.reconstruct`."""
        return reconstructed(self.world, scene, n_tokens)

    def score_all(self, scene: Scene) -> OutcomeOfAllLengths:
        """See `Engine.score_all`."""
        if self._known is not None and scene is self._known.scene:
            return self._known
        return OutcomeOfAllLengths(**vars(self.score(scene, all_lengths(scene))))

    def remember(self, every: OutcomeOfAllLengths) -> None:
        """See `Engine.remember`."""
        self._known = every


def reconstructed(world: VaporTok, scene: Scene, n_tokens: Tensor) -> Tensor:
    """Decodes one path with a tokenizer; see `Engine.reconstruct`."""
    return torch.unflatten(world.decode(scene.codes.flatten(0, 1), n_tokens.flatten()), 0, scene.shape)
