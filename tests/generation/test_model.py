"""The generator's network: what sees what, what is learnt, and its file."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vaportok_rl.generation import ClipGenerator, GeneratorConfig, GeneratorSizes
from vaportok_rl.generation.model import truncated_causal_mask


def drawn(model: ClipGenerator, seed: int = 0, clips: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens, codes = model.config.tokens, model.config.codebook_size
    return (
        torch.randint(codes, (clips, tokens), generator=generator),
        torch.randint(4, (clips,), generator=generator),
        torch.tensor([1, 3, 4, tokens][:clips]),
    )


def test_the_mask_is_figure_2b() -> None:
    mask = truncated_causal_mask(torch.tensor([1, 3]), 5)
    for clip, n in enumerate((1, 3)):
        for i in range(5):
            for j in range(5):
                assert mask[clip, i, j] == ((j <= i and i <= n) or i == j), (n, i, j)


def test_kept_tokens_see_nothing_behind_the_cut_and_behind_it_nothing_is_seen(tiny_generator: ClipGenerator) -> None:
    codes, labels, n_tokens = drawn(tiny_generator)
    logits = tiny_generator(codes, labels, n_tokens)
    for clip, n in enumerate(n_tokens.tolist()):
        alone = tiny_generator(codes[clip : clip + 1, :n], labels[clip : clip + 1])
        torch.testing.assert_close(logits[clip, : n + 1], alone[0])
        others = codes.clone()
        others[clip, n:] = (others[clip, n:] + 1) % 7
        torch.testing.assert_close(tiny_generator(others, labels, n_tokens)[clip, : n + 1], alone[0])
        if n > 1:
            others[clip, 0] = (others[clip, 0] + 1) % 7
            moved = tiny_generator(others, labels, n_tokens)[clip]
            assert not torch.allclose(moved[1 : n + 1], alone[0][1:])
            others[clip, n:] = codes[clip, n:]
            behind = tiny_generator(others, labels, n_tokens)[clip, n + 1 :]
            torch.testing.assert_close(behind, logits[clip, n + 1 :])


def test_the_loss_is_that_of_kept_tokens_and_stop_alone(tiny_generator: ClipGenerator) -> None:
    codes, labels, n_tokens = drawn(tiny_generator, 1)
    losses = tiny_generator.loss(codes, labels, n_tokens)
    assert losses.shape == (4, 6)
    for clip, n in enumerate(n_tokens.tolist()):
        wanted = [*codes[clip, :n].tolist(), tiny_generator.config.stop]
        scores = tiny_generator(codes[clip : clip + 1, :n], labels[clip : clip + 1])[0].log_softmax(-1)
        expected = [-float(scores[row, token]) for row, token in enumerate(wanted)] + [0.0] * (5 - n)
        assert losses[clip].tolist() == pytest.approx(expected, abs=1e-5)
    impossible = codes.clone()
    impossible[0, 1:] = 999  # what is dropped may be anything
    torch.testing.assert_close(tiny_generator.loss(impossible, labels, n_tokens), losses)


def test_codes_that_are_alike_start_alike() -> None:
    model = ClipGenerator(GeneratorConfig(width=64, layers=1, heads=2, tokens=3, codebook_size=5, label_names=("a",)))
    units = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0], [0.99, 0.1, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]]))
    before = model.head.weight[5].clone()
    model.place_codes(units)
    for table in (model.decoder.embed_tokens.weight[:5], model.head.weight[:5]):
        apart = torch.cdist(table, table)
        assert apart[0, 1] < 0.3 * apart[0, 2:].min()
    assert torch.equal(model.head.weight[5], before)


def test_a_saved_generator_is_the_same(tiny_generator: ClipGenerator, tmp_path: Path) -> None:
    file = tiny_generator.save(tmp_path / "model")
    for place in (tmp_path, tmp_path / "model", file):
        again = ClipGenerator.load(place)
        assert again.config == tiny_generator.config
        assert again.fingerprint() == tiny_generator.fingerprint()
    assert tiny_generator.save(tmp_path / "twice").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("damage", ["missing", "short", "other", "nan", "shape", "huge"])
def test_files_that_are_no_generator_are_refused(
    tiny_generator: ClipGenerator, tmp_path: Path, damage: str, tiny_world: str
) -> None:
    file = tiny_generator.save(tmp_path)
    if damage == "missing":
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ClipGenerator.load(tmp_path / "nowhere")
        return
    if damage == "short":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "other":
        file.write_bytes((Path(tiny_world) / "model.safetensors").read_bytes())
    else:
        model = ClipGenerator(tiny_generator.config)
        with torch.no_grad():
            if damage == "nan":
                model.head.weight[0, 0] = torch.nan
            elif damage == "huge":
                model.config = replace(model.config, width=2 * 10**9)
            else:
                model.head = torch.nn.Linear(16, 9, bias=False)
        model.save(tmp_path)
    with pytest.raises(ValueError, match=r"Expected .*"):
        ClipGenerator.load(tmp_path)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[generation\]'"):
        ClipGenerator(GeneratorConfig(label_names=("a",)))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"heads": 5}, "heads"),
        ({"layers": 0}, "layers"),
        ({"width": 2.5}, "width"),
        ({"width": 9, "heads": 3}, "width"),
    ],
)
def test_impossible_sizes_are_refused(options: dict[str, int], word: str) -> None:
    with pytest.raises((ValueError, TypeError), match=word):
        GeneratorSizes(**options)


def test_a_configuration_with_other_fields_is_refused(tiny_generator: ClipGenerator) -> None:
    values = tiny_generator.config.to_dict()
    with pytest.raises(ValueError, match="colour"):
        GeneratorConfig.from_dict({**values, "colour": 1})
    with pytest.raises(ValueError, match="at least one class"):
        GeneratorConfig.from_dict({**values, "label_names": []})
    with pytest.raises(ValueError, match="label_names as a list"):
        GeneratorConfig.from_dict({**values, "label_names": 5})
    with pytest.raises(ValueError, match="by name"):
        GeneratorConfig.from_dict([values])  # type: ignore[arg-type]  # as a damaged file may hold
