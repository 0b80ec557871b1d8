"""Files of LARP's trainer are read without running anything in them; all else is refused."""

import collections
import io
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vaportok_rl.tokenizer import VaporTok, load_checkpoint
from vaportok_rl.tokenizer.files.larp import read_trainer_file

# Fixtures of tests/tokenizer/conftest.py; what is there cannot be imported by name.
Larp = Any
WriteFile = Callable[..., Path]


@pytest.fixture
def finished(larp: Larp, trainer_file: WriteFile, tmp_path: Path) -> Path:
    return trainer_file(tmp_path / "epoch-last.pth", larp.arguments, larp.state)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def change_pickle(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Rewrites the archive with another pickle inside."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, change(content) if name.endswith("/data.pkl") else content)
    return path


def same_weights(model: VaporTok, state: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items())


def test_a_finished_run(larp: Larp, finished: Path) -> None:
    arguments, state = read_trainer_file(finished)
    assert arguments == larp.arguments
    assert type(arguments) is type(arguments["bottleneck"]["args"]) is dict
    assert all(torch.equal(state[name], value) for name, value in larp.state.items())
    assert same_weights(load_checkpoint(str(finished)), larp.state)


def test_reading_needs_no_easydict(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "easydict", None)  # any import of it fails
    read_trainer_file(finished)


@pytest.mark.parametrize("numpy_package", ["numpy._core", "numpy.core"])
def test_an_unfinished_run(larp: Larp, trainer_file: WriteFile, tmp_path: Path, numpy_package: str) -> None:
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    path = trainer_file(
        tmp_path / "epoch-last.pth",
        larp.arguments,
        collections.OrderedDict(larp.state),
        loss={"name": "lpips_disc_loss", "args": {}, "sd": model.state_dict()},
        optimizer=[optimizer.state_dict(), optimizer.state_dict()],
        rng_states_per_rank={
            0: {
                "torch_rng_state": torch.get_rng_state(),
                "numpy_rng_state": ("MT19937", np.arange(624, dtype=np.uint32), 624, 0, 0.0),
                "python_rng_state": (3, tuple(range(625)), None),
            }
        },
        scaler_sd={"scale": 65536.0},
        learning_rate=np.float64(1e-4),
        epoch=75,
        wandb_run_id=None,
    )

    def rename(content: bytes) -> bytes:
        here = np.ndarray.__reduce__(np.zeros(1))[0].__module__.removesuffix(".multiarray")
        assert f"c{here}.multiarray\n".encode() in content
        return content.replace(f"c{here}.multiarray\n".encode(), f"c{numpy_package}.multiarray\n".encode())

    assert same_weights(load_checkpoint(change_pickle(path, rename)), larp.state)


def test_moving_averages(larp: Larp, trainer_file: WriteFile, tmp_path: Path) -> None:
    slow, fast = ({name: value + shift for name, value in larp.state.items()} for shift in (1, 2))
    one = trainer_file(tmp_path / "one.pth", larp.arguments, larp.state, {"ema_sd": {0.999: slow}})
    two = trainer_file(tmp_path / "two.pth", larp.arguments, larp.state, {"ema_sd": {0.999: slow, 0.99: fast}})
    assert same_weights(VaporTok.from_pretrained(one), larp.state)
    assert same_weights(VaporTok.from_pretrained(one, weights="ema"), slow)
    assert same_weights(VaporTok.from_pretrained(two, weights="ema_0.99"), fast)
    with pytest.raises(ValueError, match=r"among 'model', 'ema_0.999', 'ema_0.99' for .* got 'ema'"):
        VaporTok.from_pretrained(two, weights="ema")


def test_a_file_without_moving_averages(finished: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected weights among 'model' for .*, got 'ema'"):
        load_checkpoint(finished, weights="ema")


def test_a_folder_has_one_set_of_weights(tiny: VaporTok, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"weights='model' for .*, got 'ema'; only the \.pth files"):
        load_checkpoint(tmp_path, weights="ema")


@pytest.mark.parametrize("place", ["beside the model", "in its arguments", "among its weights"])
@pytest.mark.parametrize("function", ["exec", "eval", "system", "load"])
def test_a_request_for_code_is_refused(
    larp: Larp, trainer_file: WriteFile, tmp_path: Path, function: str, place: str
) -> None:
    import os

    mark = tmp_path / "mark"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    call = {
        "exec": Call(exec, code),
        "eval": Call(eval, code),
        "system": Call(os.system, f"touch {mark}"),
        "load": Call(torch.load, str(mark)),
    }[function]
    arguments, state, more = dict(larp.arguments), dict(larp.state), {}
    if place == "in its arguments":
        arguments["input_size"] = call
    elif place == "among its weights":
        state["encoder_patch_pe"] = call  # type: ignore[assignment]
    else:
        more["epoch"] = call
    path = trainer_file(tmp_path / "hostile.pth", arguments, state, **more)
    with pytest.raises(ValueError, match=f"tensors and plain values only, got a request for '.*{function}'") as raised:
        load_checkpoint(path)
    assert not mark.exists()
    # torch's own message explains how to switch the guard off.
    assert "weights_only" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_a_bare_hostile_pickle_is_not_opened(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "hostile.pth"
    path.write_bytes(pickle.dumps(Call(exec, f"open({str(mark)!r}, 'w')")))
    with pytest.raises(ValueError, match="got another kind of file or a part of one"):
        load_checkpoint(path)
    assert not mark.exists()


ABUSES = {
    "memory": lambda: Call(bytearray, 1 << 62),
    "storage": lambda: Call(
        torch._utils._rebuild_tensor_v2, torch.zeros(1).untyped_storage(), 0, (9,), (1,), False, {}
    ),
    "arguments": lambda: Call(torch._utils._rebuild_tensor_v2, 1, 2),
    "types": lambda: Call(collections.OrderedDict, 7),
}


@pytest.mark.parametrize("abuse", ABUSES)
def test_abuse_of_what_is_allowed(larp: Larp, trainer_file: WriteFile, tmp_path: Path, abuse: str) -> None:
    path = trainer_file(tmp_path / "hostile.pth", larp.arguments, larp.state, epoch=ABUSES[abuse]())
    with pytest.raises(ValueError, match="got one that cannot be read"):
        load_checkpoint(path)


@pytest.mark.parametrize("hidden", ["items", "keys", "get"])
def test_a_dictionary_that_hides_its_methods(larp: Larp, trainer_file: WriteFile, tmp_path: Path, hidden: str) -> None:
    state = Call(collections.OrderedDict, list(larp.state.items()), state={hidden: 1})
    path = trainer_file(tmp_path / "hostile.pth", larp.arguments, state)
    assert same_weights(load_checkpoint(path), larp.state)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_weights_that_are_no_tensors(larp: Larp, trainer_file: WriteFile, tmp_path: Path) -> None:
    name = "encoder_patch_pe"
    for value in (np.zeros((1, 8, 16)), 3, torch.zeros(1, 8, 16).to_sparse(), torch.zeros(1, 8, 16, device="meta")):
        path = trainer_file(tmp_path / "odd.pth", larp.arguments, {**larp.state, name: value})
        with pytest.raises(ValueError, match=rf"named dense tensors as weights in .* for '{name}'"):
            load_checkpoint(path)
    path = trainer_file(tmp_path / "odd.pth", larp.arguments, {**larp.state, name: torch.zeros(1, 8, 16).int()})
    with pytest.raises(ValueError, match=rf"1 of another type \(first: {name}, torch.int32 for torch.float32\)"):
        load_checkpoint(path)


def test_arguments_that_are_not_plain(larp: Larp, trainer_file: WriteFile, tmp_path: Path) -> None:
    cyclic: dict[str, Any] = {}
    cyclic["again"] = cyclic
    odd: Any
    for odd in (np.float64(3.0), torch.zeros(1), cyclic):
        path = trainer_file(tmp_path / "odd.pth", larp.arguments, larp.state, {"args": {"input_size": odd}})
        with pytest.raises(ValueError, match=r"arguments in .* to be numbers, texts, lists and objects"):
            load_checkpoint(path)
    for odd in (None, [1]):
        path = trainer_file(tmp_path / "odd.pth", larp.arguments, larp.state, {"args": odd})
        with pytest.raises(ValueError, match=r"arguments in .*, got none"):
            load_checkpoint(path)


def test_another_model_s_checkpoint(larp: Larp, trainer_file: WriteFile, tmp_path: Path) -> None:
    path = trainer_file(tmp_path / "generator.pth", larp.arguments, larp.state, {"name": "larp_ar"})
    with pytest.raises(ValueError, match=r"LARP's tokenizer .* got a model named 'larp_ar'"):
        load_checkpoint(path)
    for content in ({"state_dict": larp.state}, larp.state, [1], torch.zeros(3)):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"LARP's tokenizer .* got no named model"):
            load_checkpoint(path)
    path = trainer_file(tmp_path / "empty.pth", larp.arguments, None)
    with pytest.raises(ValueError, match=r"Expected a state dict in .*, got NoneType"):
        load_checkpoint(path)


def test_damaged_files(finished: Path, tmp_path: Path) -> None:
    whole = finished.read_bytes()
    noise = np.random.default_rng(0).bytes(5000)
    legacy = io.BytesIO()
    torch.save({"model": {}}, legacy, _use_new_zipfile_serialization=False)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    archive_of_text = io.BytesIO()
    with zipfile.ZipFile(archive_of_text, "w") as text:
        text.writestr("readme.txt", "no checkpoint")
    contents = [b"", noise, whole[:-1000], whole[: len(whole) // 2], legacy.getvalue(), tar.getvalue()]
    for content in [*contents, archive_of_text.getvalue(), whole[:500] + whole[-3000:], noise + whole[5000:]]:
        (tmp_path / "damaged.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected .*damaged\.pth.* download it again"):
            load_checkpoint(tmp_path / "damaged.pth")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a \.pth file of LARP's trainer, got '.*last\.pth'"):
        load_checkpoint(tmp_path / "last.pth")
    # Shaped like a hub id, but never asked of the hub.
    with pytest.raises(FileNotFoundError, match=r"got 'run/last\.pth'"):
        load_checkpoint("run/last.pth")


def test_the_guard_is_as_before(finished: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    read_trainer_file(finished)
    assert set(torch.serialization.get_safe_globals()) == before
