"""Sequences by policies, and the figures of reconstructions and generated clips, on a tiny world."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics.image import StructuralSimilarityIndexMeasure

from vaportok_rl.agents import build_length_policy
from vaportok_rl.cli.main import main
from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.table.shards import weights_digest
from vaportok_rl.evaluation import mean_squared_error, psnr
from vaportok_rl.evaluation.feature_distances import FeatureStatistics, TooFewClipsError, frechet_distance
from vaportok_rl.evaluation.feature_networks import FeatureNetwork
from vaportok_rl.experiments.generation.distances import measure_generation
from vaportok_rl.experiments.generation.sequences import encode_sequences
from vaportok_rl.generation import ClipGenerator, GeneratorConfig, generate_codes
from vaportok_rl.runtime.ranks import Processes


def colours(clips: torch.Tensor) -> torch.Tensor:
    video = clips.float() / 255 if clips.dtype == torch.uint8 else clips
    return video.mean((2, 3, 4))


NETWORK = FeatureNetwork("colours", "0" * 64, torch.device("cpu"), colours)


@pytest.fixture(scope="module")
def process(tiny_world: str) -> TaildropProcess:
    return TaildropProcess(tokenizer=tiny_world, split="test", path_length=4)


@pytest.fixture(scope="module")
def generator(process: TaildropProcess, tiny_world: str) -> ClipGenerator:
    names = tuple(process.source.label_names)
    config = GeneratorConfig(width=16, layers=1, heads=2, tokens=16, codebook_size=32, label_names=names)
    return ClipGenerator(replace(config, tokenizer=tiny_world)).eval()


@pytest.mark.parametrize(("spec", "count"), [("fixed:3", 24), ("argmax", 10)])
def test_sequences_are_the_encoders_codes_at_the_policys_lengths(
    process: TaildropProcess, spec: str, count: int
) -> None:
    found = encode_sequences(process, build_length_policy(spec, process), count, seed=4)
    batch = process.source.batch(ClipOrder(len(process.source), 4).take(0, count))
    encoded = process.engine.world.encode(batch.clips)
    assert found.codes.shape == (count, 16)
    assert torch.equal(found.labels, batch.labels)
    assert (found.codes == encoded.codes).float().mean() > 0.99
    wanted = process.engine.world.taildrop(encoded.latents).probs.argmax(-1) + 1
    assert torch.equal(found.n_tokens, torch.full((count,), 3) if spec == "fixed:3" else wanted)


def test_processes_encode_what_one_does(process: TaildropProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, sent = build_length_policy("fixed:3", process), {}

    def gather(self: Processes, values: torch.Tensor, axis: int) -> torch.Tensor:
        sent[self.rank] = values
        return torch.stack([sent.get(0, values), sent.get(1, values)], 1).flatten(0, 1)

    whole = encode_sequences(process, policy, 16, seed=1)
    monkeypatch.setattr(Processes, "gather", gather)
    for rank in (0, 1):
        found = encode_sequences(process, policy, 16, seed=1, processes=Processes(rank, 2))
    assert found.identity == whole.identity


def test_the_figures_are_those_of_the_clips_one_by_one(process: TaildropProcess, generator: ClipGenerator) -> None:
    policy = build_length_policy("argmax", process)
    seen: dict[str, list[torch.Tensor]] = {}
    shift: Any = lambda one, other: (one - other).mean((1, 2, 3, 4))  # noqa: E731  # takes the place of LPIPS
    found = measure_generation(
        process,
        policy,
        NETWORK,
        16,
        seed=4,
        model=generator,
        lpips=shift,
        on_features=lambda name, features: seen.setdefault(name, []).append(features),
    )
    world = process.engine.world
    batch = process.source.batch(ClipOrder(len(process.source), 4).take(0, 16))
    sequences = encode_sequences(process, policy, 16, seed=4)
    decoded = world.decode(sequences.codes, sequences.n_tokens)
    errors = mean_squared_error(decoded, batch.clips)
    assert found.tokens == pytest.approx(float(sequences.n_tokens.double().mean()))
    assert found.mse == pytest.approx(float(errors.mean()), rel=1e-4)
    assert found.psnr == pytest.approx(float(psnr(errors).mean()), rel=1e-4)
    original = batch.clips.float() / 255
    frames = [StructuralSimilarityIndexMeasure(data_range=1.0) for _ in range(16)]
    pairs = zip(frames, decoded.transpose(1, 2), original.transpose(1, 2), strict=True)
    likeness = [float(metric(one, other)) for metric, one, other in pairs]
    assert found.ssim == pytest.approx(sum(likeness) / 16, rel=1e-4)
    assert found.lpips == pytest.approx(float((decoded - original).mean()), rel=1e-3)
    real = FeatureStatistics.of(colours(batch.clips))
    assert found.rfvd.frechet == pytest.approx(frechet_distance(real, FeatureStatistics.of(colours(decoded))), rel=1e-3)
    written = generate_codes(generator, batch.labels, seed=4)
    video = (world.decode(written.codes, written.n_tokens) * 255).round().to(torch.uint8)
    assert found.gfvd is not None
    assert found.gfvd.frechet == pytest.approx(frechet_distance(real, FeatureStatistics.of(colours(video))), rel=1e-3)
    for name, clips in (("real", batch.clips), ("reconstructed", decoded), ("generated", video)):
        torch.testing.assert_close(torch.cat(seen[name]), colours(clips), atol=1e-4, rtol=1e-3)
    assert found.generated_tokens == pytest.approx(float(written.n_tokens.double().mean()))
    assert set(found.named) == {"real", "reconstructed", "generated"}
    assert "Kolmogorov" in found.markdown()
    alike = measure_generation(process, policy, NETWORK, 16, seed=4, model=generator, same_lengths=True)
    assert (alike.generated_tokens, alike.lengths_ks, alike.lpips) == (found.tokens, 0, None)
    cut = generate_codes(generator, batch.labels, n_tokens=sequences.n_tokens, seed=4)
    video = (world.decode(cut.codes, cut.n_tokens) * 255).round().to(torch.uint8)
    assert alike.gfvd is not None
    assert alike.gfvd.frechet == pytest.approx(frechet_distance(real, FeatureStatistics.of(colours(video))), rel=1e-3)


def test_what_does_not_fit_is_refused(process: TaildropProcess, generator: ClipGenerator) -> None:
    policy = build_length_policy("fixed:2", process)
    other = ClipGenerator(replace(generator.config, label_names=("a", "b")))
    with pytest.raises(ValueError, match="2 classes, got 18"):
        measure_generation(process, policy, NETWORK, 8, model=other)
    with pytest.raises(ValueError, match=r"at least 4,?000"):
        measure_generation(process, policy, NETWORK, 8, processes=Processes(0, 10**9))
    measured: list[int] = []
    wide = replace(NETWORK, compute=lambda clips: clips[:, 0, 0, 0, :8].float())
    with pytest.raises(TooFewClipsError):
        measure_generation(process, policy, wide, 8, on_clips=measured.append)
    assert not measured  # said before all clips are


def test_the_command_measures_and_says_on_what(
    tiny_world: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
) -> None:
    command = ["distance", "--tokenizer", tiny_world, "--lengths", "fixed:4", "--count", "16"]
    assert "64 features" in fails(*command, "--out", str(tmp_path / "refused"))
    assert not (tmp_path / "refused").exists()
    main([*command, "--few", "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert "nothing published" in told
    assert "Too few clips" in told
    figures = json.loads((tmp_path / "out" / "distances.json").read_text())
    assert figures["rfvd"]["clips"] == 16
    assert len(figures["rfvd"]["network_sha256"]) == 64
    assert figures["gfvd"] is None
    assert 0 < figures["ssim"] < 1
    assert figures["lpips"] is None  # the frames are too small
    assert "no LPIPS" in told


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tiny_world: str, generator: ClipGenerator, tmp_path: Path) -> None:
    config = replace(generator.config, weights=weights_digest(tiny_world)[:16])
    model = ClipGenerator(config)
    model.save(tmp_path / "generator")
    found = []
    for launcher in ((), ("torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m")):
        out = tmp_path / f"out{len(found)}"
        command = [sys.executable, "-m", *launcher, "vaportok_rl", "distance", "--tokenizer", tiny_world, "--few"]
        command += ["--generator", str(tmp_path / "generator"), "--count", "80", "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((out / "distances.json").read_text()))
    for name in ("tokens", "mse", "psnr", "ssim", "accuracy", "generated_tokens", "lengths_ks"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-5), name
    for name in ("rfvd", "gfvd"):
        for part in ("frechet", "mmd"):
            assert found[0][name][part] == pytest.approx(found[1][name][part], rel=1e-3), (name, part)
    assert found[0]["named"] == found[1]["named"]
