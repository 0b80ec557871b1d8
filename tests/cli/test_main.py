"""The command line end to end, on settings small enough for seconds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import av
import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

from vaportok_rl.cli.main import main
from vaportok_rl.runtime.compute import Compute

_TINY = ["--path-length", "3", "--scenes", "2", "--group-size", "4", "--decisions", "48", "--held-out-scenes", "2"]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three small videos and a file that is none."""
    folder = tmp_path / "videos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        frames = np.repeat(np.repeat(rng.integers(0, 255, (24, 6, 8, 3), dtype=np.uint8), 8, 1), 8, 2)
        imageio.imwrite(folder / f"{name}.mp4", frames, plugin="FFMPEG", fps=8, ffmpeg_log_level="error")
    (folder / "broken.mp4").write_text("not a video")
    return folder


def test_train_then_evaluate_and_roll_out_the_agent(
    tiny_world: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    main(["train", "--tokenizer", tiny_world, *_TINY, "--out", str(run)])
    printed = capsys.readouterr().out
    for word in ("Headroom", "random", "complexity", "best fixed", "pretrained", "trained", "oracle", "saved", "Wh if"):
        assert word in printed
    assert 0 < Compute.read(run).processor_seconds < 600
    world = ["--tokenizer", tiny_world, "--path-length", "3"]
    main(["evaluate", "--agent", str(run), *world, "--scenes", "2", "--out", str(tmp_path / "eval")])
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert {"run", "argmax", "random", "best_fixed", "oracle"} <= set(results)
    main(["rollout", "--policy", str(run), *world, "--episodes", "2", "--out", str(tmp_path / "roll")])
    assert len(pd.read_parquet(tmp_path / "roll" / "decisions.parquet")) == 6


def test_train_on_a_folder_names_the_broken_file(
    tiny_world: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main(["train", "--clips", str(videos), "--tokenizer", tiny_world, *_TINY, "--out", str(tmp_path / "run")])
    errors = capsys.readouterr().err
    assert str(videos / "broken.mp4") in errors
    assert errors.count("Skipped the unreadable video") == 1
    assert "a.mp4" not in errors
    assert (tmp_path / "run" / "reconstructions.mp4").is_file()


@pytest.mark.parametrize("policy", ["fixed:16", "random", "argmax", "complexity", "threshold:0.1"])
def test_rollout_writes_the_same_bytes_twice(tiny_world: str, tmp_path: Path, policy: str) -> None:
    for name in ("first", "second"):
        out = str(tmp_path / name)
        main(["rollout", "--policy", policy, "--tokenizer", tiny_world, "--episodes", "3", "--out", out])
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")]
    assert files[0] == files[1]


def test_rollout_with_video_and_dataset(
    tiny_world: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fails: Callable[..., str],
) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    options = ["--video", "--minari", "vaportok/tiny", "--obs", "complexity", "--token-budget", "20"]
    world = ["--tokenizer", tiny_world, "--path-length", "3"]
    main(["rollout", *world, "--episodes", "2", "--paths", "2", *options, "--out", str(tmp_path / "out")])
    printed = "".join(capsys.readouterr().out.split())
    for name in ("config.yaml", "decisions.parquet", "summary.json", "decisions.mp4"):
        assert (tmp_path / "out" / name).is_file()
        assert name in printed
    rows = pd.read_parquet(tmp_path / "out" / "decisions.parquet")
    assert len(rows) == 12
    assert rows.groupby(["scene", "path"])["n_tokens"].sum().max() <= 20
    with av.open(str(tmp_path / "out" / "decisions.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 2 * 3 * 4
    dataset = minari.load_dataset("vaportok/tiny-v0")
    assert [len(episode) for episode in dataset.iterate_episodes()] == [3] * 4
    again = ["rollout", *world, *options, "--out", str(tmp_path / "more")]
    assert "which exists in" in fails(*again)
    assert not (tmp_path / "more").exists()


def test_an_interrupted_rollout_says_so(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    (tmp_path / "until_ctrl_c.py").write_text(
        "import torch\n"
        "calls = []\n"
        "def policy(scene, generator):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        "        raise KeyboardInterrupt\n"
        "    return torch.ones_like(scene.ids)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out, world = tmp_path / "out", ["--tokenizer", tiny_world, "--path-length", "3"]
    with pytest.raises(SystemExit) as stopped:
        main(["rollout", "--policy", "until_ctrl_c:policy", *world, "--video", "--minari", "half", "--out", str(out)])
    assert stopped.value.code == 130
    assert "interrupted after 2 of 20 scenes" in " ".join(capsys.readouterr().out.split())
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["complete"], summary["episodes"], summary["episodes_asked"]) == (False, 2, 20)
    assert len(pd.read_parquet(out / "decisions.parquet")) == 6
    assert {path.name for path in out.glob("[!.]*")} == {"config.yaml", "summary.json", "decisions.parquet"}
    assert not list((tmp_path / "datasets").glob("half*"))


def test_pretrain_runs_resumes_and_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
) -> None:
    out = str(tmp_path / "pre")
    settings = ["--steps", "4", "--batch-size", "2", "--calibration-clips", "4", "--codebook-clips", "2"]
    settings += ["--validation-clips", "2", "--validate-every", "4", "--save-every", "2", "--precision", "float32"]
    main(["pretrain", "--out", out, *settings])
    cost = Compute.read(Path(out)).processor_seconds
    assert cost > 0
    assert "Expected a new run folder" in fails("pretrain", "--out", out, *settings)
    main(["pretrain", "--out", out, "--resume", *settings])
    assert "resuming" in capsys.readouterr().out
    assert Compute.read(Path(out)).processor_seconds > cost
    clips = tmp_path / "clips.mp4"
    imageio.imwrite(clips, np.zeros((80, 48, 64, 3), np.uint8), plugin="FFMPEG", fps=8)
    measured = tmp_path / "measured.md"
    options = ["--measure", "procedural", "--count", "2", "--every-length", "--out", str(measured)]
    main(["info", f"{out}/model", "--clips", str(clips), *options])
    printed = capsys.readouterr().out
    assert f"{clips}: 4 clips" in printed
    assert f"{clips}: 1 clips" in printed
    assert "explained variance" in printed
    assert measured.read_text().strip() in printed
    assert "640 bits" in printed


def test_mistakes_are_answered_with_one_clear_message(
    tiny_world: str, tmp_path: Path, fails: Callable[..., str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    world = ["--tokenizer", tiny_world]
    cases = [
        (["train", "--clips", str(tmp_path / "nowhere"), *world], "nowhere"),
        (["train", "--tokenizer", str(empty)], "config.json"),
        (["train", *world, "--reward.weights", "efficency", "1"], "did you mean 'efficiency'"),
        (["train", *world, "--out", str(tmp_path / "full")], "nothing was overwritten"),
        (["rollout", *world, "--policy", "fixed:0"], "fixed length in 1"),
        (["rollout", *world, "--policy", "nowhere.to_be:found"], "PYTHONPATH"),
        (["evaluate", *world, "--baselines", "all", "random"], "all, none, or names"),
        (["evaluate", *world, "--agent", str(tmp_path / "nowhere")], "nowhere"),
        (["rollout", *world, "--episodes", "0"], "episodes ≥ 1"),
        (["pretrain", "--preset", "nanno", "--out", str(tmp_path / "p")], "preset among"),
        (["pretrain", "--resume"], "--out with --resume"),
        (["pretrain", "--resume", "--out", str(empty)], "neither training_state.pt nor config.yaml"),
        # Before the clips are looked for.
        (["pretrain", "--clips", str(tmp_path / "nowhere"), "--frozen-encoder"], "0.3056"),
        (["pretrain", "--length-mixture", "0", "0.9", "0.2"], "0.9, 0.2"),
    ]
    for number, (arguments, expected) in enumerate(cases):
        if "--out" not in arguments and arguments[0] != "pretrain":
            arguments = [*arguments, "--out", str(tmp_path / f"out{number}")]
        assert expected in fails(*arguments), arguments
