"""The number format of a frozen world's transformers."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from vaportok_rl.tokenizer.config import VaporTokConfig
from vaportok_rl.tokenizer.transformer import fastest_on_cpu

Precision = Literal["float32", "bfloat16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]

# In narrower matrix products, converting the inputs costs as much as bfloat16 saves.
BFLOAT16_WIDTH = 512


def multiplies_bfloat16(device: str | torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products: AVX-512 BF16 or AMX, or a CUDA device since Ampere."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)


def resolve_precision(precision: str, config: VaporTokConfig, device: str | torch.device) -> Precision:
    """Resolves a choice of precision for a world.

    ``"auto"`` is float32 for worlds narrower than `BFLOAT16_WIDTH`, such as the shipped `nano`. A wide one gets what
    `fastest_on_cpu` measured, or on a CUDA device bfloat16 where it has the instructions.

    Args:
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        config: of the world.
        device: of the world.

    Raises:
        ValueError: the precision is unknown.
    """
    if precision == "auto":
        if config.width < BFLOAT16_WIDTH:
            return "float32"
        if torch.device(device).type == "cpu":
            return fastest_on_cpu().precision
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    if precision not in get_args(Precision):
        raise ValueError(
            f"Expected precision 'float32' or 'bfloat16', got {precision!r}; pass one of the two, or 'auto' for the "
            "fastest on this machine."
        )
    return precision  # type: ignore[return-value]
