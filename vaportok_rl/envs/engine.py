"""The scoring engine: encode a clip once, run the prior once, decode only what is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from vaportok_rl.envs.decoding_plan import plan_decoding
from vaportok_rl.envs.scene import Outcome, Scene
from vaportok_rl.tokenizer import VaporTok, clip_complexity
from vaportok_rl.tokenizer.prior import cumulative_hits, top_k_accuracy

MAX_BATCH_TOKENS = 32_768
# Matrix products over fewer rows than this may use another kernel, which rounds differently.
FEWEST_ROWS = 16


class ScoringEngine:
    """Turns clips into scenes and lengths into outcomes, on the world's device.

    Everything stays on the device but for one copy of the lengths a call of `score`, made in `_lengths_on_host`.

    Args:
        world: a frozen tokenizer.
        max_batch_tokens: most sequence positions in one transformer call; bounds the memory in use.

    Raises:
        ValueError: ``max_batch_tokens`` does not hold a single clip.
    """

    def __init__(self, world: VaporTok, max_batch_tokens: int = MAX_BATCH_TOKENS) -> None:
        longest = world.config.patches + world.config.tokens
        if max_batch_tokens < longest:
            raise ValueError(
                f"Expected max_batch_tokens of at least one clip's sequence ({longest}), got {max_batch_tokens}; "
                "raise it."
            )
        self.world = world
        self.max_batch_tokens = max_batch_tokens

    @torch.no_grad()
    def encode(self, clips: Tensor, labels: Tensor | None = None, ids: Tensor | None = None) -> Scene:
        """Encodes scenes: one encoder pass and one prior pass a clip.

        Args:
            clips: ``[P, L, C, T, H, W]``, uint8 or float in [0, 1] (kept as uint8).
            labels: ``int64 [P, L]``; zeros by default.
            ids: ``int64 [P, L]``; counted up by default.

        Raises:
            ValueError: the clips are not of this world's geometry or range.
        """
        if clips.dim() != 6:
            raise ValueError(
                f"Expected clips [P, L, C, T, H, W], got shape {tuple(clips.shape)}; add the scene axes with "
                "clips[None] or reshape."
            )
        device = self.world.device
        shape = clips.shape[:2]
        flat = clips.flatten(0, 1).to(device)
        size = max(1, self.max_batch_tokens // (self.world.config.patches + self.world.config.tokens))
        parts = [self._encode_batch(flat[start : start + size]) for start in range(0, flat.shape[0], size)]
        latents, codes, hits, complexity = (
            torch.unflatten(torch.cat(values), 0, shape) for values in zip(*parts, strict=True)
        )
        stored = flat if flat.dtype == torch.uint8 else (flat * 255).round().to(torch.uint8)
        counted = torch.arange(shape[0] * shape[1], device=device).view(shape)
        return Scene(
            latents=latents,
            codes=codes,
            hits=hits,
            complexity=complexity,
            clips=torch.unflatten(stored, 0, shape),
            labels=torch.zeros_like(counted) if labels is None else labels.to(device),
            ids=counted if ids is None else ids.to(device),
        )

    def _encode_batch(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        encoded = self.world.encode(clips)
        hits = cumulative_hits(self.world.prior_logits(encoded.codes), encoded.codes)
        return encoded.latents, encoded.codes, hits, clip_complexity(clips)

    @torch.no_grad()
    def score(self, scene: Scene, n_tokens: Tensor) -> Outcome:
        """Scores lengths; each distinct (clip, length) pair is decoded once, with the dropped tokens removed.

        Args:
            scene: P scenes of L clips.
            n_tokens: ``int64 [G, P, L]`` in 1 … K.

        Raises:
            ValueError: wrong shape or type, or a length outside 1 … K.
        """
        if n_tokens.dim() != 3 or tuple(n_tokens.shape[1:]) != scene.shape or n_tokens.dtype != torch.int64:
            raise ValueError(
                f"Expected n_tokens int64 [G, {scene.shape[0]}, {scene.shape[1]}], got {n_tokens.dtype} "
                f"{tuple(n_tokens.shape)}; one length for each path and clip."
            )
        tokens, config = scene.tokens, self.world.config
        lengths = self._lengths_on_host(n_tokens)
        if lengths.min() < 1 or lengths.max() > tokens:
            raise ValueError(
                f"Expected n_tokens in 1…{tokens}, got {lengths.min()}…{lengths.max()}; n_tokens = action + 1."
            )
        plan = plan_decoding(lengths.reshape(len(lengths), -1), tokens, config.patches, self.max_batch_tokens)
        device = self.world.device
        codes, clips = scene.codes.flatten(0, 1), scene.clips.flatten(0, 1)
        errors = torch.empty(plan.pairs, device=device)
        for batch in plan.batches:
            rows = torch.from_numpy(batch.clips).to(device)
            kept = torch.from_numpy(batch.n_tokens).to(device)
            errors[batch.start : batch.start + len(rows)] = self._errors(codes[rows, : batch.padded], kept, clips[rows])
        mse = errors[torch.from_numpy(plan.inverse).to(device)].view(n_tokens.shape)
        hits = scene.hits.expand(len(n_tokens), -1, -1, -1)
        return Outcome(n_tokens, mse, top_k_accuracy(hits, n_tokens), scene.complexity, tokens)

    @staticmethod
    def _lengths_on_host(n_tokens: Tensor):  # type: ignore[no-untyped-def]
        """The one device-to-host copy of scoring: batching by length needs the lengths' values."""
        return n_tokens.cpu().numpy()

    def _errors(self, codes: Tensor, kept: Tensor, clips: Tensor) -> Tensor:
        """Mean squared error of each pair: ``int64 [M, N]``, ``int64 [M]``, ``uint8 [M, C, T, H, W]`` to ``[M]``."""
        # With enough rows in every product, a pair's error does not depend on what it is scored with.
        copies = -(-FEWEST_ROWS // codes.numel())
        decoded = self.world.decode(codes.repeat(copies, 1), kept.repeat(copies))[: len(clips)]
        squares = (decoded - clips.float() / 255).square()
        # Two short sums instead of one long one: a single row is then added up in the same order as many.
        return squares.flatten(3).mean(-1).flatten(1).mean(-1)

    def reconstruct(self, scene: Scene, n_tokens: Tensor) -> Tensor:
        """Decoded video for one path: ``int64 [P, L]`` lengths to ``float32 [P, L, C, T, H, W]``."""
        video = self.world.decode(scene.codes.flatten(0, 1), n_tokens.flatten())
        return torch.unflatten(video, 0, scene.shape)

    def score_all(self, scene: Scene) -> Outcome:
        """Scores every length: an outcome with G = K whose row g holds n = g + 1 (see `Outcome.take`)."""
        lengths = torch.arange(1, scene.tokens + 1, device=scene.codes.device)
        return self.score(scene, lengths[:, None, None].expand(-1, *scene.shape).contiguous())
