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

from vaportok_rl.tokenizer import ComplexityConfig, VaporTok, load_checkpoint, save_checkpoint
from vaportok_rl.tokenizer.files import checkpoints

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
    monkeypatch.setattr(checkpoints, "_SHIPPED", tmp_path / "pretrained")
    return tmp_path / "pretrained"


def rewrite(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | entries))


def forget_configuration(folder: Path) -> None:
    """Makes the weights those of an earlier version, which kept no configuration of their own."""
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, {"format": "pt"})


def test_round_trip_is_bitwise(tiny: VaporTok, clips: Tensor, tmp_path: Path) -> None:
    tiny.config = replace(tiny.config, complexity=ComplexityConfig((0.1, 1 / 3, 7.9), (0.0, 3.3), 0.7))
    folder = tiny.save_pretrained(tmp_path / "new" / "folder")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", CONFIG, WEIGHTS]
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

    monkeypatch.setattr(checkpoints, "save_file", out_of_space)
    with torch.no_grad():
        tiny.encoder_latent_query_embed.add_(1)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tiny, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_shipped_names(shipped: Path) -> None:
    assert checkpoints.shipped_checkpoints() == ("nano", "vaportok-b")
    assert load_checkpoint("nano").config.tokens == 8


@pytest.mark.parametrize(("name", "hint"), [("nanno", "did you mean 'nano'?"), ("vaportok_b", "mean 'vaportok-b'?")])
def test_a_misspelt_name_is_answered_with_the_right_one(shipped: Path, name: str, hint: str) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(hint)) as raised:
        load_checkpoint(name)
    assert "(nano, vaportok-b)" in str(raised.value)
    assert repr(name) in str(raised.value)


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_folder_without_one_of_the_files(tiny: VaporTok, saved: Path, file: str) -> None:
    forget_configuration(saved)
    (saved / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"without {re.escape(file)}"):
        load_checkpoint(saved)


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_file_of_the_folder(saved: Path, file: str) -> None:
    with pytest.raises(ValueError, match=f"got the file .*{re.escape(file)}; pass {re.escape(str(saved))} if"):
        load_checkpoint(saved / file)


@pytest.mark.parametrize("source", ["nano", "someone/something"])
def test_an_option_that_is_none(source: str) -> None:
    with pytest.raises(TypeError, match=r"Expected options among revision, .*got 'precison'"):
        VaporTok.from_pretrained(source, precison="bfloat16")


class TestTwoFilesOfDifferentSaves:
    """What a kill between the two writes would leave; their shapes agree."""

    def test_are_refused(self, tiny: VaporTok, saved: Path) -> None:
        old = (saved / CONFIG).read_bytes()
        tiny.config = replace(tiny.config, prior=replace(tiny.config.prior, temperature=0.5))
        save_checkpoint(tiny, saved)
        (saved / CONFIG).write_bytes(old)
        with pytest.raises(ValueError, match=r"was saved with, got prior\.temperature 0\.07 for 0\.5; restore it, or"):
            load_checkpoint(saved)
        # The advice given: the weights hold their own copy.
        (saved / CONFIG).unlink()
        assert load_checkpoint(saved).config == tiny.config

    def test_a_kill_between_the_writes(self, tiny: VaporTok, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tiny.config = replace(tiny.config, complexity=ComplexityConfig((1.0, 2.0), (3.0, 4.0)))
        move = Path.replace

        def killed_at_the_second(self: Path, target: Path) -> Path:
            if Path(target).name == CONFIG:
                raise KeyboardInterrupt
            return move(self, target)

        monkeypatch.setattr(Path, "replace", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tiny, saved)
        with pytest.raises(ValueError, match=r"got complexity\.spatial_quantiles \(0\.0, 8\.0\) for \(1\.0, 2\.0\)"):
            load_checkpoint(saved)

    def test_files_that_agree_in_meaning(self, tiny: VaporTok, saved: Path) -> None:
        settings = json.loads((saved / CONFIG).read_text())
        (saved / CONFIG).write_text(json.dumps({name: settings[name] for name in reversed(settings)}))
        assert load_checkpoint(saved).config == tiny.config


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    before = torch.get_rng_state()
    load_checkpoint(saved)
    assert torch.equal(torch.get_rng_state(), before)


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


def test_weights_of_another_geometry(saved: Path) -> None:
    rewrite(saved, codebook_size=64)
    with pytest.raises(ValueError, match="got codebook_size 64 for 32"):
        load_checkpoint(saved)
    forget_configuration(saved)
    with pytest.raises(
        ValueError,
        match=r"1 of another shape \(first: bottleneck.regularizer.embedding.weight, \(32, 4\) for \(64, 4\)\)",
    ):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "entries",
    [
        {"encoder_depth": 10**9},
        {"decoder_depth": 10**9},
        {"prior": {"layers": 10**9}},
        {"taildrop": {"blocks": 10**9}},
        {"width": 2**40},
        {"codebook_size": 2**62},
    ],
    ids=str,
)
def test_a_geometry_beyond_the_weights_is_refused_before_it_is_built(saved: Path, entries: dict[str, Any]) -> None:
    forget_configuration(saved)
    config = json.loads((saved / CONFIG).read_text())
    rewrite(
        saved, **{name: config[name] | value if isinstance(value, dict) else value for name, value in entries.items()}
    )
    with pytest.raises(ValueError, match=re.escape(f"in config.json beside {saved / WEIGHTS}")):
        load_checkpoint(saved)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(tiny: VaporTok, tmp_path: Path, value: float) -> None:
    with torch.no_grad():
        tiny.final_layer.linear.bias[3] = value
    save_checkpoint(tiny, tmp_path)
    with pytest.raises(ValueError, match=r"NaN or infinity in final_layer\.linear\.bias"):
        load_checkpoint(tmp_path)


def test_weights_that_changed_since_they_were_saved_are_refused(tiny: VaporTok, saved: Path) -> None:
    content = bytearray((saved / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (saved / WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=r"got others in .* \(by its checksum\); copy the file again"):
        load_checkpoint(saved)


def test_weights_of_another_type(saved: Path) -> None:
    state = load_file(saved / WEIGHTS)
    state["final_layer.linear.bias"] = state["final_layer.linear.bias"].to(torch.int32)
    save_file(state, saved / WEIGHTS)
    with pytest.raises(
        ValueError, match=r"1 of another type \(first: final_layer.linear.bias, torch.int32 for torch.float32\)"
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


def test_a_damaged_copy_of_the_configuration(saved: Path) -> None:
    save_file(load_file(saved / WEIGHTS), saved / WEIGHTS, {"config": "{"})
    with pytest.raises(ValueError, match=r"Expected JSON in the metadata of .*model\.safetensors"):
        load_checkpoint(saved)
