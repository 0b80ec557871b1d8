"""Values of wrong types in public constructors are named with their argument, not found deep inside."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from vaportok_rl.agents.grpo.options import GRPOOptions
from vaportok_rl.clips import UCF101, GameplayClips, KineticsCSV, MixedClips, ProceduralClips, VideoClips, open_clips
from vaportok_rl.envs import TaildropSettings, TokenRange, VaporReward
from vaportok_rl.tokenizer import ComplexityConfig, PriorConfig, TaildropConfig, VaporTokConfig
from vaportok_rl.tokenizer.pretraining import LossWeights, PretrainConfig

_WRONG = [None, "x", 1.5, -1, True, [1], {"a": 1}, object(), float("nan"), b"x", len, 10**30]
_MADE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "TokenRange": (TokenRange, {"tokens": 16, "path_length": 2}),
    "open_clips": (open_clips, {"clips": "procedural"}),
    "GRPOOptions": (lambda **options: GRPOOptions.of(options), {}),
    "GameplayClips": (GameplayClips, {"environments": "CartPole-v1"}),
    **{
        made.__name__: (made, {})
        for made in (
            *(VaporReward, TaildropSettings, VaporTokConfig, PriorConfig, TaildropConfig, ComplexityConfig),
            *(PretrainConfig, LossWeights, KineticsCSV, MixedClips, ProceduralClips, UCF101, VideoClips),
        )
    },
}
_ARGUMENTS = [
    (name, argument.name)
    for name, (made, _) in _MADE.items()
    for argument in inspect.signature(GRPOOptions if name == "GRPOOptions" else made).parameters.values()
    if argument.kind is not argument.VAR_KEYWORD
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "argument"), _ARGUMENTS)
def test_wrong_values_are_named(name: str, argument: str) -> None:
    make, usual = _MADE[name]
    unnamed = []
    for wrong in _WRONG:
        try:
            make(**{**usual, argument: wrong})
        except (TypeError, ValueError, OSError) as error:
            # Python itself names an argument that is missing.
            if not re.match("(?s)Expected .+got .+; .+|.* missing ", str(error)):
                unnamed.append((wrong, error))
    assert not unnamed
