"""rFVD and gFVD of any lengths of the same held-out clips: what a sweep measures for each of its runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from vaportok_rl.envs import Scene, TaildropProcess
from vaportok_rl.evaluation.feature_distances import FeatureStatistics
from vaportok_rl.evaluation.feature_networks import STAND_IN, FeatureNetwork, open_feature_network
from vaportok_rl.evaluation.video_distances import VideoDistance, compare
from vaportok_rl.experiments.generation.distances import check_classes
from vaportok_rl.experiments.generation.writing import check_tokenizer, decode_clips
from vaportok_rl.generation.generating import generate_codes
from vaportok_rl.generation.model import ClipGenerator
from vaportok_rl.generation.sequences import CodeSequences

# Clips decoded at once.
_AT_ONCE = 64


@dataclass(frozen=True)
class DistanceSettings:
    """Which distances a sweep measures."""

    network: str = STAND_IN
    """Feature network, as `distance --network` takes it."""
    generator: str | None = None
    """Run folder of `generator train`, for gFVD: best trained with `--lengths fixed:K`, on all tokens of every clip."""

    def identity(self) -> list[str | None]:
        """Hashes of both, which are opened: to be asked before hours of training.

        Raises:
            FileNotFoundError: there is no such network or generator.
            ValueError: a file is of another kind.
        """
        network = open_feature_network(self.network).sha256
        return [network, None if self.generator is None else ClipGenerator.load(self.generator).fingerprint()]


class LengthDistances:
    """Measures the distance of held-out clips to their reconstructions, and to generated clips, at given lengths.

    One generator serves all policies: its clips, one of the class of each held-out clip, are generated once with all K
    tokens, and a length keeps the beginning; see `generate_codes`.

    Args:
        settings: feature network and generator.
        process: of the held-out clips.
        scene: their P scenes.
        seed: of the generator's samples.

    Raises:
        FileNotFoundError: there is no such network or generator.
        ValueError: the generator belongs to another tokenizer or other classes.
    """

    def __init__(self, settings: DistanceSettings, process: TaildropProcess, scene: Scene, seed: int = 0) -> None:
        device, names = process.engine.device, tuple(process.source.label_names)
        self.world = process.engine.world
        self.network: FeatureNetwork = open_feature_network(settings.network, device)
        labels = scene.labels.flatten().cpu()
        written = None
        if settings.generator is not None:
            model = ClipGenerator.load(settings.generator, str(device))
            check_tokenizer(model, process.tokenizer, self.world)
            check_classes(model, names)
            whole = torch.full_like(labels, scene.tokens)
            written = generate_codes(model, labels, n_tokens=whole, seed=seed)
        own = scene.codes.flatten(0, 1).cpu()
        encoded = CodeSequences(own, torch.ones_like(labels), labels, names, self.world.config.codebook_size)
        self._sequences = {"rfvd": encoded} | ({} if written is None else {"gfvd": written})
        self._real = self._features(scene.clips.flatten(0, 1))

    def __call__(self, n_tokens: Tensor) -> dict[str, VideoDistance]:
        """The distances at lengths ``int64 [P, L]``: ``rfvd``, and with a generator ``gfvd``."""
        kept = n_tokens.flatten().cpu()
        return {
            name: compare(
                self.network,
                self._real,
                self._features(decode_clips(self.world, replace(sequences, n_tokens=kept))),
                allow_few=True,
            )
            for name, sequences in self._sequences.items()
        }

    def _features(self, clips: Tensor) -> FeatureStatistics:
        parts = (FeatureStatistics.of(self.network(some)) for some in clips.split(_AT_ONCE))
        return reduce(FeatureStatistics.merged, parts)
