"""rFVD, gFVD and the other metrics of Table 1, of a tokenizer, a length policy and a generator on held-out clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from vaportok_rl.agents.lengths import LengthPolicy
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.rewards.pixels import ssim
from vaportok_rl.evaluation import mean_squared_error, psnr
from vaportok_rl.evaluation.feature_distances import FeatureStatistics, check_enough
from vaportok_rl.evaluation.feature_networks import FeatureNetwork
from vaportok_rl.evaluation.stand_in import StandIn
from vaportok_rl.evaluation.video_distances import VideoDistance, compare
from vaportok_rl.experiments.generation.sequences import policy_scenes
from vaportok_rl.experiments.generation.writing import decode_clips
from vaportok_rl.generation.generating import generate_codes
from vaportok_rl.generation.model import ClipGenerator
from vaportok_rl.generation.sampling import SamplingOptions
from vaportok_rl.runtime.markdown import markdown_table
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.tokenizer.perceptual import PerceptualDistance
from vaportok_rl.tokenizer.prior import top_k_accuracy

# Clips generated and evaluated per batch.
_AT_ONCE = 64


@dataclass(frozen=True)
class GenerationFigures:
    """Metrics of a policy's reconstructions and of a generator's clips, on held-out clips.

    Attributes:
        tokens: mean length of the policy.
        mse: mean over clips, pixels in [0, 1].
        psnr: mean over clips, dB.
        ssim: mean over clips; see `ssim`.
        lpips: mean over clips; None if it was not measured.
        accuracy: the prior's top-5 accuracy, mean over clips.
        rfvd: reconstructions against the clips.
        gfvd: generated clips of the same classes against the clips; None without a generator.
        generated_tokens: mean length of the generated sequences; NaN without a generator.
        lengths_ks: Kolmogorov–Smirnov statistic of generated and kept lengths; NaN without a generator.
        named: accuracy of the stand-in classifier on ``real``, ``reconstructed`` and ``generated`` clips; empty if it
            does not know the classes.
    """

    tokens: float
    mse: float
    psnr: float
    ssim: float
    lpips: float | None
    accuracy: float
    rfvd: VideoDistance
    gfvd: VideoDistance | None
    generated_tokens: float
    lengths_ks: float
    named: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def markdown(self) -> str:
        """A table of two rows, and the notes under it."""
        rows = [("reconstructed", self.rfvd, self.tokens)]
        rows += [] if self.gfvd is None else [("generated", self.gfvd, self.generated_tokens)]
        table = markdown_table(
            ("clips", "tokens", "Fréchet", "MMD·10³", "class named"),
            (
                (name, f"{tokens:.1f}", f"{found.frechet:.3f}", f"{1000 * found.mmd:.3f}", self._share(name))
                for name, found, tokens in rows
            ),
        )
        lines = [self.rfvd.note()]
        if self.named:
            lines.append(f"The stand-in classifier names the class of {self._share('real')} of the real clips.")
        if self.gfvd is not None:
            lines.append(f"Generated and kept lengths differ by {self.lengths_ks:.3f} (Kolmogorov–Smirnov).")
        lpips = "not measured" if self.lpips is None else f"{self.lpips:.4f}"
        lines.append(
            f"PSNR {self.psnr:.2f} dB, MSE {self.mse:.2e}, SSIM {self.ssim:.4f}, LPIPS {lpips}, prior top-5 "
            f"{100 * self.accuracy:.1f} %."
        )
        return "\n\n".join([table, *lines])

    def _share(self, name: str) -> str:
        return f"{100 * self.named[name]:.1f} %" if name in self.named else "–"


def check_classes(model: ClipGenerator, names: tuple[str, ...]) -> None:
    """Checks that clips have a generator's classes.

    Raises:
        ValueError: they have others.
    """
    if model.config.label_names != names:
        raise ValueError(
            f"Expected clips of the generator's {len(model.config.label_names)} classes, got {len(names)} "
            f"({', '.join(names[:5])}, …); name the --clips that it was trained on."
        )


class _Set:
    """Feature statistics and correctly named classes over batches of clips."""

    def __init__(
        self, network: FeatureNetwork, judge: StandIn | None, classes: int, keep: Callable[[Tensor], None]
    ) -> None:
        self.network, self.judge, self.classes, self.keep = network, judge, classes, keep
        self.statistics: FeatureStatistics | None = None
        self.named = 0

    def add(self, clips: Tensor, labels: Tensor) -> None:
        features = self.network(clips)
        self.keep(features)
        new = FeatureStatistics.of(features)
        self.statistics = new if self.statistics is None else self.statistics.merged(new)
        if self.judge is not None:
            self.named += int((self.judge(clips.cpu())[:, : self.classes].argmax(-1) == labels.cpu()).sum())

    def result(self, processes: Processes) -> FeatureStatistics:
        assert self.statistics is not None
        return self.statistics.over_processes(processes)

    def share_named(self, processes: Processes, total: int) -> float:
        return float(processes.sum(torch.tensor(self.named, device=self.network.device))) / total


@torch.no_grad()
def measure_generation(
    process: TaildropProcess,
    policy: LengthPolicy,
    network: FeatureNetwork,
    count: int = 512,
    seed: int = 0,
    *,
    model: ClipGenerator | None = None,
    options: SamplingOptions | None = None,
    same_lengths: bool = False,
    lpips: PerceptualDistance | None = None,
    allow_few: bool = False,
    processes: Processes | None = None,
    on_clips: Callable[[int], None] = lambda clips: None,
    on_features: Callable[[str, Tensor], None] = lambda name, features: None,
) -> GenerationFigures:
    """Measures reconstructions and, with a generator, generated clips against the same held-out clips.

    Args:
        process: tokenizer and held-out clips (split ``test``).
        policy: of the reconstructions' lengths.
        network: of the features.
        count: maximum number of clips, rounded up to whole paths.
        seed: of the clips and of the generator's samples.
        model: a generator of this tokenizer's codes.
        options: of its sampling.
        same_lengths: give each generated clip the length that the policy chose for the held-out clip of its class,
            instead of the generator's own.
        lpips: measured on the reconstructions if given.
        allow_few: see `frechet_distance`.
        processes: share the clips; each returns the metrics of all.
        on_clips: called with the number of clips after each batch that was reconstructed or generated.
        on_features: called with the features of each batch of the sets ``real``, ``reconstructed`` and ``generated``,
            whose clips have the same order.

    Raises:
        TooFewClipsError: see `frechet_distance`.
        ValueError: generator and clips have different classes, or there are fewer clips than a path has.
    """
    world, names = process.engine.world, tuple(process.source.label_names)
    if model is not None:
        check_classes(model, names)
    classifier = StandIn.load()
    # The same label must mean the same class.
    judge = classifier if classifier.label_names[: len(names)] == names else None
    real, again, generated = (
        _Set(network, judge, len(names), partial(on_features, name)) for name in ("real", "reconstructed", "generated")
    )
    errors, likenesses, perceived, accuracies, kept, labels = [], [], [], [], [], []
    share = processes or Processes()
    paths = process.path_length * share.count
    asked = min(count, len(process.source) // paths * paths)
    if not asked:
        raise ValueError(
            f"Expected at least {paths} held-out clips, a path for each process, got {len(process.source)}; name more "
            "--clips."
        )
    for scene, n_tokens in policy_scenes(process, policy, asked, seed, share):
        clips, codes, own = scene.clips.flatten(0, 1), scene.codes.flatten(0, 1), scene.labels.flatten()
        decoded = world.decode(codes, n_tokens.flatten())
        real.add(clips, own)
        if real.statistics is not None:  # refused now, not after all clips
            check_enough(-(-asked // paths) * paths, real.statistics.width, allow_few)
        again.add(decoded, own)
        errors.append(mean_squared_error(decoded, clips).view_as(n_tokens))
        original = clips.float() / 255
        likenesses.append(ssim(decoded, original).view_as(n_tokens))
        perceived.append(torch.zeros_like(errors[-1]) if lpips is None else lpips(decoded, original).view_as(n_tokens))
        accuracies.append(top_k_accuracy(scene.hits, n_tokens))
        kept.append(n_tokens)
        labels.append(scene.labels)
        on_clips(n_tokens.numel())
    mse, likeness, perception, accuracy, lengths, classes = (
        share.gather(torch.cat(parts), 0).flatten().cpu()
        for parts in (errors, likenesses, perceived, accuracies, kept, labels)
    )
    total = len(lengths)
    new_lengths = None
    if model is not None:
        first, end = (rank * total // share.count for rank in (share.rank, share.rank + 1))
        written: list[Tensor] = []
        for clips, n_tokens, own in _generated(
            model, process, classes[first:end], lengths[first:end] if same_lengths else None, options, seed, first
        ):
            generated.add(clips, own)
            written.append(n_tokens)
            on_clips(len(n_tokens))
        new_lengths = share.gather(torch.cat(written).to(world.device), 0).cpu()
    sets = {"real": real, "reconstructed": again} | ({"generated": generated} if model is not None else {})
    statistics = {name: part.result(share) for name, part in sets.items()}
    return GenerationFigures(
        tokens=float(lengths.double().mean()),
        mse=float(mse.double().mean()),
        psnr=float(psnr(mse).double().mean()),
        ssim=float(likeness.double().mean()),
        lpips=None if lpips is None else float(perception.double().mean()),
        accuracy=float(accuracy.double().mean()),
        rfvd=compare(network, statistics["real"], statistics["reconstructed"], allow_few=allow_few),
        gfvd=None
        if model is None
        else compare(network, statistics["real"], statistics["generated"], allow_few=allow_few),
        generated_tokens=float("nan") if new_lengths is None else float(new_lengths.double().mean()),
        lengths_ks=float("nan") if new_lengths is None else float(stats.ks_2samp(lengths, new_lengths).statistic),
        named={} if judge is None else {name: part.share_named(share, total) for name, part in sets.items()},
    )


def _generated(
    model: ClipGenerator,
    process: TaildropProcess,
    labels: Tensor,
    lengths: Tensor | None,
    options: SamplingOptions | None,
    seed: int,
    first: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Generated clips (``uint8``), their lengths and labels, batch by batch."""
    for start in range(0, len(labels), _AT_ONCE):
        own, wanted = (part if part is None else part[start : start + _AT_ONCE] for part in (labels, lengths))
        assert own is not None
        sequences = generate_codes(model, own, options, n_tokens=wanted, seed=seed, first=first + start)
        yield decode_clips(process.engine.world, sequences), sequences.n_tokens, own
