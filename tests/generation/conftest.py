"""A generator small enough to enumerate what it may write."""

import pytest
import torch

from vaportok_rl.generation import ClipGenerator, GeneratorConfig

TINY = GeneratorConfig(width=16, layers=2, heads=2, tokens=5, codebook_size=7, label_names=("a", "b", "c"))


@pytest.fixture(scope="session")
def tiny_generator() -> ClipGenerator:
    """Random weights, far from uniform predictions."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = ClipGenerator(TINY)
        torch.nn.init.normal_(model.head.weight, std=0.4)
        torch.nn.init.normal_(model.decoder.embed_tokens.weight)
    return model.eval().requires_grad_(False)
