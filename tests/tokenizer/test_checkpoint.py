"""Checkpoint folders: what is saved comes back, and damage is explained."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vaportok_rl.tokenizer import ComplexityConfig, VaporTok, checkpoint, load_checkpoint, save_checkpoint

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


@pytest.fixture
def saved(tiny: VaporTok, tmp_path: Path) -> Path:
    return save_checkpoint(tiny, tmp_path / "saved")


@pytest.fixture
def shipped(tiny: VaporTok, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships two checkpoints."""
    for name in ("nano", "vaportok-b"):
        save_checkpoint(tiny, tmp_path / "pretrained" / name)
    monkeypatch.setattr(checkpoint, "_SHIPPED", tmp_path / "pretrained")
    return tmp_path / "pretrained"


def rewrite(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | entries))


def test_round_trip_is_bitwise(tiny: VaporTok, clips: Tensor, tmp_path: Path) -> None:
    tiny.config = replace(tiny.config, complexity=ComplexityConfig((0.1, 1 / 3, 7.9), (0.0, 3.3), 0.7))
    folder = tiny.save_pretrained(tmp_path / "new" / "folder")
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    loaded = VaporTok.from_pretrained(folder)
    assert loaded.config == tiny.config
    state = loaded.state_dict()
    assert state.keys() == tiny.state_dict().keys()
    for name, value in tiny.state_dict().items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value), name
    assert torch.equal(loaded.encode(clips).latents, tiny.encode(clips).latents)
    assert loaded.complexity_scale.get_buffer("spatial_knots").tolist() == pytest.approx([0.1, 1 / 3, 7.9], abs=1e-5)


def test_a_loaded_world_is_frozen(saved: Path) -> None:
    loaded = load_checkpoint(str(saved), precision="bfloat16")
    assert loaded.precision == "bfloat16"
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_loading_leaves_the_caller_s_model_alone(tiny: VaporTok, tmp_path: Path) -> None:
    tiny.train().requires_grad_(True)
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    save_checkpoint(tiny, tmp_path, half=True)
    assert tiny.training
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())


def test_half_precision_halves_the_file(tiny: VaporTok, saved: Path, tmp_path: Path) -> None:
    folder = save_checkpoint(tiny, tmp_path / "half", half=True)
    stored = load_file(folder / WEIGHTS)
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}
    sizes = [(path / WEIGHTS).stat().st_size for path in (folder, saved)]
    assert sizes[0] < 0.65 * sizes[1]
    loaded = load_checkpoint(folder)
    for name, value in tiny.state_dict().items():
        assert loaded.state_dict()[name].dtype == value.dtype
        assert torch.equal(loaded.state_dict()[name], value.half().to(value.dtype)), name


def test_saving_replaces_a_checkpoint(tiny: VaporTok, saved: Path) -> None:
    with torch.no_grad():
        tiny.encoder_latent_query_embed.add_(1)
    save_checkpoint(tiny, saved)
    assert torch.equal(load_checkpoint(saved).encoder_latent_query_embed, tiny.encoder_latent_query_embed)
    assert sorted(path.name for path in saved.iterdir()) == [CONFIG, WEIGHTS]


def test_a_failed_save_leaves_the_old_checkpoint(tiny: VaporTok, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def out_of_space(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        Path(path).write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", out_of_space)
    with torch.no_grad():
        tiny.encoder_latent_query_embed.add_(1)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tiny, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_shipped_names(shipped: Path) -> None:
    assert checkpoint.shipped_checkpoints() == ("nano", "vaportok-b")
    assert load_checkpoint("nano").config.tokens == 8


@pytest.mark.parametrize(("name", "hint"), [("nanno", "did you mean 'nano'?"), ("vaportok_b", "mean 'vaportok-b'?")])
def test_a_misspelt_name_is_answered_with_the_right_one(shipped: Path, name: str, hint: str) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(hint)) as raised:
        load_checkpoint(name)
    assert "(nano, vaportok-b)" in str(raised.value)
    assert repr(name) in str(raised.value)


def test_an_unknown_name_is_answered_with_what_there_is(shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'llama'; train one with `vaportok-rl pretrain`"):
        load_checkpoint("llama")
    with pytest.raises(FileNotFoundError, match="missing"):
        load_checkpoint(tmp_path / "missing")


def test_an_unreachable_hub_id_is_one_readable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match=r"got 'someone/something', which is neither.*check the name"):
        load_checkpoint("someone/something")


def test_a_hub_id_brings_two_files_only(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, list[str]]] = []

    def download(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append((hub_id, allow_patterns))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_checkpoint("someone/something").config.tokens == 8
    assert asked == [("someone/something", [CONFIG, WEIGHTS])]


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_folder_without_one_of_the_files(saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"without {re.escape(file)}"):
        load_checkpoint(saved)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_weights(saved: Path, length: int) -> None:
    whole = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(whole[:length])
    with pytest.raises(ValueError, match=r"whole safetensors file at .*model\.safetensors, got a damaged one"):
        load_checkpoint(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"{'frames': 16}"])
def test_a_configuration_that_is_no_json(saved: Path, content: bytes) -> None:
    (saved / CONFIG).write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected JSON in .*config\.json"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"bottleneck_token_num": 1024}, "got 'bottleneck_token_num'. Is this config.json from another version"),
        ({"prior": {"layer": 3}}, "got 'prior.layer'"),
        ({"width": 17}, "width divisible by heads=2, got 17"),
        ({"tokens": "8"}, "tokens to be like"),
    ],
)
def test_a_configuration_of_something_else(saved: Path, entries: dict[str, Any], message: str) -> None:
    rewrite(saved, **entries)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_checkpoint(saved)


def test_a_configuration_that_is_a_list(saved: Path) -> None:
    (saved / CONFIG).write_text("[]")
    with pytest.raises(ValueError, match="JSON object"):
        load_checkpoint(saved)


def test_weights_of_another_geometry(saved: Path) -> None:
    rewrite(saved, codebook_size=64)
    with pytest.raises(
        ValueError,
        match=r"1 of another shape \(first: bottleneck.regularizer.embedding.weight, \(32, 4\) for \(64, 4\)\)",
    ):
        load_checkpoint(saved)


def test_missing_and_unknown_tensors(saved: Path) -> None:
    state = load_file(saved / WEIGHTS)
    state["surplus"] = state.pop("final_layer.linear.bias")
    save_file(state, saved / WEIGHTS)
    with pytest.raises(ValueError, match="different models") as raised:
        load_checkpoint(saved)
    assert "1 tensors missing (first: final_layer.linear.bias)" in str(raised.value)
    assert "1 unknown (first: surplus)" in str(raised.value)
