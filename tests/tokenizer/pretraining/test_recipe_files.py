"""Recipes: every setting is written in the file, and mistakes in one are named."""

import dataclasses
from pathlib import Path

import pytest

from vaportok_rl.cli.pretrain import Pretrain
from vaportok_rl.tokenizer import PRESETS
from vaportok_rl.tokenizer.pretraining import LossWeights, PretrainConfig
from vaportok_rl.tokenizer.pretraining.recipe_files import read_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_holds_every_setting(name: str) -> None:
    written = read_recipe(name)
    settings = {entry.name for entry in dataclasses.fields(PretrainConfig)}
    # A path of the user's machine.
    assert settings - written.keys() == {"perceptual_backbone"}
    assert {"preset", "clips", "strategy", "workers", "validation_clips"} == written.keys() - settings
    assert written["weights"].keys() == {entry.name for entry in dataclasses.fields(LossWeights)}
    command = Pretrain.from_recipe(name)
    assert command.preset in PRESETS
    assert (command.config.steps, command.clips) == (written["steps"], written["clips"])
    assert command.config.weights.squared_error == written["weights"]["squared_error"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("steps = 3\nstepz = 4", "got 'stepz'; did you mean 'steps'"),
        ("[weights]\nsquared_eror = 1.0", "got 'squared_eror'; did you mean 'squared_error'"),
        ("steps = 0", "steps ≥ 1, got 0"),
        ("steps =", "TOML in .*mine.toml"),
        ("weights = 3", "table .*got 3; write"),
        ("weights = [1, 2]", "table .*got .1, 2.; write"),
        ("[weights]\nl1 = 'much'", "l1 .*got 'much'; "),
        ("workers = 'many'", "workers .*got 'many'; "),
        ("steps = '9'", "steps .*got '9'; "),
        ("clips = 'procedural'", "clips .*got 'procedural'; "),
        ("preset = 7", "preset .*got 7; "),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises((ValueError, TypeError), match=rf"Expected .*{named}"):
        Pretrain.from_recipe(str(tmp_path / "mine.toml"))


def test_a_recipe_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"a recipe among nano.*, got 'nanno'"):
        read_recipe("nanno")
