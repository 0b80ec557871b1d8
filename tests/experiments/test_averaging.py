from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from vaportok_rl.experiments.averaging import average_weights, main
from vaportok_rl.tokenizer import VaporTok, VaporTokConfig, load_checkpoint, save_checkpoint


def two(config: VaporTokConfig) -> tuple[VaporTok, VaporTok]:
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(VaporTok(config))
    return models[0], models[1]


@pytest.mark.parametrize("kept", ["before", "after"])
def test_every_weight_lies_between_but_the_taildrop_modules(
    tiny_config: VaporTokConfig, kept: Literal["before", "after"]
) -> None:
    before, after = two(tiny_config)
    first = {name: value.clone() for name, value in before.state_dict().items()}
    last = {name: value.clone() for name, value in after.state_dict().items()}
    averaged = average_weights(before, after, 0.25, kept).state_dict()
    assert any(name.startswith("taildrop_module.") for name in averaged)
    for name, value in averaged.items():
        if name.startswith("taildrop_module.") or not value.is_floating_point():
            assert torch.equal(value, (first if kept == "before" else last)[name])
        else:
            torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * last[name])


def test_another_geometry_or_share_is_refused(tiny_config: VaporTokConfig) -> None:
    before, after = two(tiny_config)
    with pytest.raises(ValueError, match=r"Expected a share in \[0, 1\], got 1\.5"):
        average_weights(before, after, 1.5)
    with pytest.raises(ValueError, match="Expected two tokenizers of one geometry"):
        average_weights(VaporTok(replace(tiny_config, codebook_size=64)), after)


def test_the_command_writes_a_checkpoint_and_overwrites_none(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    before, after = two(tiny_config)
    save_checkpoint(before, tmp_path / "before")
    save_checkpoint(after, tmp_path / "after")
    main(str(tmp_path / "before"), str(tmp_path / "after"), tmp_path / "average")
    expected = average_weights(before, after).state_dict()
    for name, value in load_checkpoint(tmp_path / "average").state_dict().items():
        assert torch.equal(value, expected[name])
    with pytest.raises(FileExistsError, match="Expected a new folder"):
        main(str(tmp_path / "before"), str(tmp_path / "after"), tmp_path / "average")
