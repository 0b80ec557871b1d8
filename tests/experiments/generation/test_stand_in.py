"""Training of the built-in feature network, for a few steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.evaluation.stand_in import FEATURES, StandIn
from vaportok_rl.experiments.generation import stand_in
from vaportok_rl.experiments.generation.stand_in import accuracy, half_reconstructed, train_stand_in, turned
from vaportok_rl.runtime.seeds import derive_seed
from vaportok_rl.tokenizer import VaporTok

SOURCE = ProceduralClips(frames=4, size=16)


def test_the_same_seed_trains_the_same_network_and_its_file_gives_it_back(tmp_path: Path) -> None:
    losses: list[float] = []
    first, again = (
        train_stand_in(SOURCE, steps=4, batch_size=8, on_step=lambda step, loss, right: losses.append(loss))
        for _ in range(2)
    )
    assert losses[:4] == losses[4:]
    clips = SOURCE.batch(range(6)).clips
    assert torch.equal(first(clips), again(clips))
    file = first.save(tmp_path / "stand-in.safetensors", command="none")
    assert file.stat().st_size <= 2_000_000
    loaded = StandIn.load(file)
    torch.testing.assert_close(loaded(clips), first(clips), atol=0.02, rtol=0.02)
    assert loaded.embed(torch.zeros(1, 3, 5, 40, 24)).shape == (1, FEATURES)


def test_an_interrupted_run_continues_to_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaportok_rl.experiments.generation.stand_in.SAVE_EVERY", 2)
    whole, seen = train_stand_in(SOURCE, steps=5, batch_size=4), []

    def interrupt(step: int, loss: float, right: float) -> None:
        seen.append(step)
        if seen == [1, 2, 3]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stand_in(SOURCE, steps=5, batch_size=4, on_step=interrupt, folder=tmp_path)
    parts = train_stand_in(SOURCE, steps=5, batch_size=4, on_step=interrupt, folder=tmp_path)
    assert seen == [1, 2, 3, 3, 4, 5]
    clips = SOURCE.batch(range(6)).clips
    assert torch.equal(parts(clips), whole(clips))
    train_stand_in(SOURCE, steps=5, batch_size=4, on_step=interrupt, folder=tmp_path)
    assert len(seen) == 6  # nothing was left to do
    with pytest.raises(ValueError, match="batch_size: 4 then, 8 now"):
        train_stand_in(SOURCE, steps=5, batch_size=8, folder=tmp_path)


def test_motion_is_seen_where_pixels_are_alike() -> None:
    """The same frames in another order: what a mean over frames cannot tell apart."""
    network = train_stand_in(SOURCE, steps=1, batch_size=8)
    frames = torch.rand(1, 3, 6, 32, 32)
    inputs = []
    network.trunk.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    network.embed(frames)
    network.embed(frames[:, :, [0, 2, 1, 3, 4, 5]])
    pixels, steps, apart = inputs[0].split(3, 1)
    assert torch.equal(steps[:, :, 0], torch.zeros_like(steps[:, :, 0]))
    torch.testing.assert_close(steps[:, :, 3], 8 * (pixels[:, :, 3] - pixels[:, :, 2]))
    torch.testing.assert_close(apart.mean(2), torch.zeros(1, 3, 32, 32), atol=1e-5, rtol=0)
    assert not torch.allclose(inputs[0][:, 3:6].square().sum(), inputs[1][:, 3:6].square().sum())


def test_clips_are_turned_along_any_axis_by_halves() -> None:
    clips = torch.arange(3 * 2 * 2 * 2).view(1, 3, 2, 2, 2).repeat(400, 1, 1, 1, 1)
    found = turned(clips, torch.Generator().manual_seed(0))
    kinds = {tuple(clip.flatten().tolist()) for clip in found}
    wanted = [[axis for place, axis in enumerate((1, 2, 3)) if kind >> place & 1] for kind in range(8)]
    assert kinds == {tuple(clips[0].flip(axes).flatten().tolist()) for axes in wanted}
    assert (found == clips).flatten(1).all(1).sum().item() == pytest.approx(50, abs=35)


def test_accuracy_counts_the_sources_classes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network = StandIn([*SOURCE.label_names, "a game"])
    labels = SOURCE.batch(range(70)).labels

    def always(judge: StandIn, clips: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([18] * len(clips)), 19) * 2.0 + torch.eye(19)[3]

    monkeypatch.setattr(StandIn, "forward", always)
    assert accuracy(network, SOURCE, 70) == pytest.approx((labels == 3).float().mean().item())


def test_half_of_the_clips_are_reconstructed(tiny_world: str) -> None:
    world = VaporTok.from_pretrained(tiny_world)
    frames, size = world.config.frames, world.config.size
    clips = ProceduralClips(frames=frames, size=size).batch(range(5)).clips
    seen = half_reconstructed(clips, world, torch.Generator().manual_seed(3))
    length = int(torch.randint(1, world.config.tokens + 1, (), generator=torch.Generator().manual_seed(3)))
    assert torch.equal(seen[:2], world.decode(world.encode(clips[:2]).codes[:, :length]))
    assert torch.equal(seen[2:], clips[2:].float() / 255)
    network = train_stand_in(ProceduralClips(frames=frames, size=size), tiny_world, steps=1, batch_size=4)
    source = ProceduralClips(frames=frames, size=size, split="test")
    batch = source.batch(range(6))
    named = network(world.decode(world.encode(batch.clips).codes))[:, :18].argmax(-1) == batch.labels
    assert accuracy(network, source, 6, world, batch_size=6) == pytest.approx(named.float().mean().item())


def test_a_step_sees_turned_clips_of_which_half_are_reconstructed(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[torch.Tensor] = []
    forward = StandIn.forward
    monkeypatch.setattr(StandIn, "forward", lambda judge, clips: shown.append(clips) or forward(judge, clips))
    options = {"steps": 1, "batch_size": 8, "seed": 5, "folder": tmp_path / "run"}
    train_stand_in(SOURCE, tiny_world, **options)
    generator = torch.Generator().manual_seed(derive_seed("turned", 5, 0))
    clips = turned(SOURCE.batch(ClipOrder(len(SOURCE), 5).take(0, 8)).clips, generator)
    assert torch.equal(shown[0], half_reconstructed(clips, VaporTok.from_pretrained(tiny_world), generator))
    with pytest.raises(ValueError, match="other values for tokenizer"):
        train_stand_in(SOURCE, **options)
    train_stand_in(SOURCE, str(shutil.copytree(tiny_world, tmp_path / "elsewhere")), **options)  # by its weights
    assert len(shown) == 1


def test_the_command_tells_each_share_of_its_own_clips(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(spec: str | tuple[str, ...], **_: str) -> SimpleNamespace:
        return SimpleNamespace(label_names=["a"] * (1 if spec == "some" else 3))

    def share(_: StandIn, source: SimpleNamespace, count: int, world: VaporTok | None = None) -> float:
        return (len(source.label_names) + 0.5 * (world is not None)) / 10

    monkeypatch.setattr(stand_in, "open_clips", opened)
    monkeypatch.setattr(stand_in, "train_stand_in", lambda *_, **__: StandIn(["a"] * 3))
    monkeypatch.setattr(stand_in, "accuracy", share)
    stand_in.main(tmp_path / "weights.safetensors", clips=("some", "more"), tokenizer=tiny_world, held_out=7)
    told = capsys.readouterr().out
    assert "of 7: 10.0 % of some, 15.0 % of some, reconstructed, 30.0 % of all, 35.0 % of all, reconstructed;" in told
