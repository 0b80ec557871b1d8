"""Muon for the matrices inside transformer blocks, AdamW for everything else.

AdamW alone stays on the plateau of the clip's mean colour for tens of thousands of clips at this size.
"""

from __future__ import annotations

import torch
from torch import nn

from vaportok_rl.tokenizer.pretraining.config import PretrainConfig
from vaportok_rl.tokenizer.pretraining.muon import SinglePrecisionMuon


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns (matrices inside blocks, everything else), each parameter that is trained once."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        inside = ".blocks." in name and parameter.dim() == 2
        (matrices if inside else others).append(parameter)
    return matrices, others


def build_optimizers(model: nn.Module, config: PretrainConfig) -> dict[str, torch.optim.Optimizer]:
    """The two optimisers by name; their learning rates are set each step by the trainer."""
    matrices, others = split_parameters(model)
    # torch's own works in bfloat16 whatever the matrices are.
    muon = torch.optim.Muon if config.precision == "bfloat16" else SinglePrecisionMuon
    return {
        "muon": muon(
            matrices,
            lr=config.muon_learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        "adamw": torch.optim.AdamW(
            others, lr=config.adam_learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)
        ),
    }
