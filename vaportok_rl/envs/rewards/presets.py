"""Named weightings of the five reward terms."""

from __future__ import annotations

from collections.abc import Mapping

from vaportok_rl.runtime.messages import did_you_mean

PRESETS: Mapping[str, Mapping[str, float]] = {
    "paper": {"efficiency": 1.0, "penalty": 1.0, "diversity": 1.0, "reconstruction": 1.0, "generation": 1.0},
    "quality": {"efficiency": 1.0, "penalty": 1.0, "diversity": 0.0, "reconstruction": 1.0, "generation": 1.0},
}
"""- ``paper``, the default: the supplement's equal weights. Spreading lengths out is paid for by itself, so an oracle
  uses both ends of the range, and a policy that draws lengths blindly earns a part of the headroom.
- ``quality``: the same without diversity. A length is paid for by what it does to its own clip alone, so the best
  lengths of a clip do not depend on its path, and an oracle is found exactly."""


def preset_weights(name: str) -> dict[str, float]:
    """The weights of a preset.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS, "choose one of them.")
        raise ValueError(f"Expected a reward preset among {', '.join(PRESETS)}; got {name!r}; {hint}")
    return dict(PRESETS[name])
