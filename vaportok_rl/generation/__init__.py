"""The downstream generator: a LLaMA-style decoder that writes a class's codes from [cls] to [stop]."""

from vaportok_rl.generation.config import GeneratorConfig, GeneratorSizes
from vaportok_rl.generation.generating import generate_codes
from vaportok_rl.generation.model import ClipGenerator
from vaportok_rl.generation.sampling import SamplingOptions
from vaportok_rl.generation.sequences import CodeSequences
from vaportok_rl.generation.training import GeneratorTrainer, GeneratorTraining

__all__ = [
    "ClipGenerator",
    "CodeSequences",
    "GeneratorConfig",
    "GeneratorSizes",
    "GeneratorTrainer",
    "GeneratorTraining",
    "SamplingOptions",
    "generate_codes",
]
