"""The hub: calls of huggingface_hub and its mixin; no test needs a network."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hub_mixin
from huggingface_hub.errors import LocalEntryNotFoundError

from vaportok_rl.tokenizer import VaporTok, load_checkpoint, save_checkpoint

FILES = ["README.md", "config.json", "model.safetensors"]


class Hub:
    """A fake hub: one commit per push."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[dict[str, Any]] = []

    def __call__(self, token: str | None = None) -> "Hub":
        self.calls.append({"token": token})
        return self

    def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
        self.calls.append(options)
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, repo_id: str, folder_path: Path, **options: Any) -> str:
        self.calls.append(options)
        for file in folder_path.iterdir():
            target = self.folder / repo_id / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
        return f"commit of {repo_id}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path / "hub")
    monkeypatch.setattr(hub_mixin, "HfApi", fake)
    return fake


def test_a_push_can_be_loaded(tiny: VaporTok, hub: Hub) -> None:
    assert isinstance(tiny, PyTorchModelHubMixin)
    address = tiny.push_to_hub("someone/tiny", token="secret", private=True, branch="draft", commit_message="First")
    assert address == "commit of someone/tiny"
    opened, created, uploaded = hub.calls
    assert opened == {"token": "secret"}
    assert created == {"private": True, "exist_ok": True}
    assert (uploaded["revision"], uploaded["commit_message"]) == ("draft", "First")
    pushed = hub.folder / "someone" / "tiny"
    assert sorted(file.name for file in pushed.iterdir()) == FILES
    loaded = load_checkpoint(pushed)
    assert loaded.config == tiny.config
    assert all(torch.equal(value, tiny.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_the_model_card(tiny: VaporTok, hub: Hub) -> None:
    tiny.push_to_hub("someone/tiny", model_card_kwargs={"training": "On clips of a lamp."})
    card = ModelCard((hub.folder / "someone" / "tiny" / "README.md").read_text())
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "vaportok-rl"
    assert {"video-tokenization", "reinforcement-learning", "model_hub_mixin"} <= set(card.data.tags)
    assert 'VaporTok.from_pretrained("someone/tiny")' in card.text
    assert "4 frames of 16 × 16 pixels into 8 ordered tokens" in " ".join(card.text.split())
    assert "On clips of a lamp." in card.text
    assert "{{" not in card.text
    code = card.text.partition("```python")[2].partition("```")[0]
    compile(code, "card", "exec")


def test_saving_writes_a_card_once(tiny: VaporTok, tmp_path: Path) -> None:
    assert tiny.save_pretrained(tmp_path / "saved") == tmp_path / "saved"
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == FILES
    (tmp_path / "saved" / "README.md").write_text("Mine.")
    tiny.save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "README.md").read_text() == "Mine."


def test_saving_can_push(tiny: VaporTok, hub: Hub, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "lamp", push_to_hub=True, private=True)
    tiny.save_pretrained(tmp_path / "lamp", push_to_hub=True, repo_id="someone/lamp")
    for name in ("lamp", "someone/lamp"):
        assert load_checkpoint(hub.folder / name).config == tiny.config


def test_a_failed_save_leaves_the_old_checkpoint(
    tiny: VaporTok, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()

    def out_of_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vaportok_rl.tokenizer.files.checkpoints.save_file", out_of_space)
    with pytest.raises(OSError, match="No space left"):
        tiny.save_pretrained(tmp_path)
    # The mixin takes config.json away before it saves; the weights hold a copy.
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert load_checkpoint(tmp_path).config == tiny.config


@pytest.mark.parametrize("load", [load_checkpoint, VaporTok.from_pretrained])
def test_a_hub_id_brings_two_files_only(
    tiny: VaporTok, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[..., VaporTok]
) -> None:
    asked: list[dict[str, Any]] = []

    def download(hub_id: str, **options: Any) -> str:
        asked.append({"hub_id": hub_id, **options})
        return str(save_checkpoint(tiny, tmp_path))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    options = {"revision": "v2", "token": "secret", "cache_dir": tmp_path, "local_files_only": True}
    assert load("someone/something", **options, force_download=False).config == tiny.config
    files = ["config.json", "model.safetensors"]
    assert asked == [{"hub_id": "someone/something", "allow_patterns": files, **options, "force_download": False}]


def test_an_unreachable_hub_id_is_one_readable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match=r"got 'someone/something', which is neither.*check the name"):
        load_checkpoint("someone/something")


def test_a_hub_repository_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"without model\.safetensors"):
        load_checkpoint("someone/something")
