"""``generator train``, ``generate`` and ``detect`` end to end on a tiny world, and their bad input."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from vaportok_rl.cli.main import main
from vaportok_rl.clips import ProceduralClips
from vaportok_rl.clips.order import ClipOrder
from vaportok_rl.clips.procedural.families import FAMILIES
from vaportok_rl.experiments.generation.clip_files import read_clip, write_clip
from vaportok_rl.generation import ClipGenerator, CodeSequences, GeneratorTrainer
from vaportok_rl.generation.watermark import mark_clips
from vaportok_rl.runtime.compute import Compute
from vaportok_rl.tokenizer import VaporTok

pytest.importorskip("transformers")  # the extra [generation]

_SMALL = ["--sequences", "20", "--held-out", "10", "--steps", "4", "--batch-size", "4", "--save-every", "2"]
_SIZES = ["--width", "16", "--layers", "1", "--heads", "2"]


def train(tiny_world: str, out: Path, *more: str) -> list[str]:
    return ["generator", "train", "--tokenizer", tiny_world, *_SMALL, *_SIZES, "--out", str(out), *more]


@pytest.fixture(scope="module")
def run(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    main(train(tiny_world, folder))
    return folder


def test_what_was_trained_generates(
    run: Path, tiny_world: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(["generate", str(run), "--classes", "zooms", "cloud pans", "--count", "3", "--out", str(out)])
    told = capsys.readouterr().out
    assert "6 clips in" in told
    assert "zooms/, zooms.png" in told
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *("zooms", "zooms.png", "cloud-pans", "cloud-pans.png", "overview.png", "codes.safetensors", "config.yaml")
    }
    clip = read_clip(out / "zooms" / "002.mp4")
    assert clip.shape == (3, 4, 16, 16)
    with Image.open(out / "zooms.png") as sheet:
        assert sheet.size == (4 * 96, 3 * 96)
    codes = CodeSequences.load(out / "codes.safetensors")
    names = [codes.label_names[label] for label in codes.labels]
    assert names == ["zooms"] * 3 + ["cloud pans"] * 3
    main(
        ["generate", str(run), "--classes", "zooms", "--count", "3", "--no-watermark", "--out", str(tmp_path / "bare")]
    )
    bare = read_clip(tmp_path / "bare" / "zooms" / "002.mp4")
    assert 0 < (clip.float() - bare.float()).abs().mean() < 6


def test_detect_tells_marked_files_from_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = ProceduralClips(split="test").batch([3]).clips
    files = [
        write_clip(tmp_path / f"{name}.mp4", clips[0])
        for name, clips in (("bare", clip), ("mark", mark_clips(clip, 91)))
    ]
    main(["detect", *map(str, files)])
    told = capsys.readouterr().out.splitlines()
    assert "no mark found" in told[0]
    assert "payload 91 " in told[1]


def test_the_generator_knows_what_it_was_trained_on(run: Path, tiny_world: str) -> None:
    config = ClipGenerator.load(run).config
    assert config.label_names == tuple(family.name for family in FAMILIES)
    assert (config.tokens, config.codebook_size, config.tokenizer, config.lengths) == (16, 32, tiny_world, "argmax")
    found = CodeSequences.load(run / "sequences.safetensors")
    assert found.codes.shape == (20, 16)
    world = VaporTok.from_pretrained(tiny_world)
    batch = ProceduralClips(frames=4, size=16).batch(ClipOrder(1_000_000, 0).take(0, 20))
    encoded = world.encode(batch.clips)
    assert torch.equal(found.labels, batch.labels)
    assert (found.codes == encoded.codes).float().mean() > 0.99
    assert torch.equal(found.n_tokens, world.taildrop(encoded.latents).probs.argmax(-1) + 1)


@pytest.mark.parametrize(("lengths", "kept"), [("naive", {16}), ("fixed:5", {5})])
def test_lengths_come_from_any_policy(tiny_world: str, tmp_path: Path, lengths: str, kept: set[int]) -> None:
    main(train(tiny_world, tmp_path / "run", "--lengths", lengths, "--steps", "1"))
    assert set(CodeSequences.load(tmp_path / "run" / "sequences.safetensors").n_tokens.tolist()) == kept


def test_an_interrupted_run_goes_on_to_the_bit(
    run: Path,
    tiny_world: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = GeneratorTrainer.train_step

    def interrupted(self: GeneratorTrainer) -> dict[str, float]:
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return before(self)

    monkeypatch.setattr(GeneratorTrainer, "train_step", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(train(tiny_world, tmp_path / "run"))
    assert stopped.value.code == 130
    cost = Compute.read(tmp_path / "run").processor_seconds
    assert cost > 0
    monkeypatch.undo()
    main(train(tiny_world, tmp_path / "run", "--resume"))
    assert Compute.read(tmp_path / "run").processor_seconds > cost
    file = Path("model") / "generator.safetensors"
    assert (tmp_path / "run" / file).read_bytes() == (run / file).read_bytes()
    capsys.readouterr()
    main(train(tiny_world, tmp_path / "run", "--resume"))  # a finished run
    assert (tmp_path / "run" / file).read_bytes() == (run / file).read_bytes()
    assert "nan" not in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_train_what_one_does(run: Path, tiny_world: str, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*launcher, "-m", "vaportok_rl", *train(tiny_world, tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = (CodeSequences.load(folder / "sequences.safetensors") for folder in (run, tmp_path / "run"))
    # Batches of other sizes round differently: a code may flip.
    assert (one.codes == two.codes).float().mean() > 0.99
    assert torch.equal(one.labels, two.labels)
    weights = [ClipGenerator.load(folder).state_dict() for folder in (run, tmp_path / "run")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-3, rtol=0, msg=lambda text, n=name: n + text)


def test_a_policy_that_keeps_no_token_is_an_error(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    (tmp_path / "keeps_none.py").write_text("def policy(scene, generator):\n    return scene.ids * 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "1…16, got 0…0" in fails(*train(tiny_world, tmp_path / "run", "--lengths", "keeps_none:policy"))


def test_bad_input_is_named(run: Path, tiny_world: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    generate = ["generate", str(run), "--out", str(tmp_path / "out")]
    assert "did you mean 'zooms'" in fails(*generate, "--classes", "zoom")
    assert "weights" in fails(*generate, "--tokenizer", "nano")
    assert "top_p" in fails(*generate, "--top-p", "2")
    assert "nowhere" in fails("generate", str(tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()
    assert "batch_size" in fails(*train(tiny_world, tmp_path / "new", "--batch-size", "0"))
    assert "fixed length in 1…16, got 99" in fails(*train(tiny_world, tmp_path / "long", "--lengths", "fixed:99"))
    assert not (tmp_path / "long").exists()  # the corrected command is not told that the folder exists
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(".run.lock"))
    assert "steps: 4 then, 5 now" in fails(*train(tiny_world, copy, "--steps", "5", "--resume"))
    state = copy / "training_state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    assert "training_state.pt" in fails(*train(tiny_world, copy, "--resume"))
    state.unlink()  # killed before the first checkpoint: the sequences are those of argmax
    assert "'argmax' then, 'fixed:3' now" in fails(*train(tiny_world, copy, "--lengths", "fixed:3", "--resume"))
    (tmp_path / "text.mp4").write_text("no video")
    assert "text.mp4" in fails("detect", str(tmp_path / "text.mp4"))
    assert "gone.mp4" in fails("detect", str(tmp_path / "gone.mp4"))
    assert "got the folder" in fails("detect", str(tmp_path))
    assert "name a run folder" in fails("generate", str(tmp_path / "text.mp4"))
    for options in (["--same-lengths"], ["--guidance", "3"]):
        assert "Expected --generator" in fails("distance", *options, "--out", str(tmp_path / "distance"))


def test_without_transformers_nothing_is_encoded(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install '.[generation]'" in fails(*train(tiny_world, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
