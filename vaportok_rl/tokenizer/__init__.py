"""The frozen world: patches → encoder → quantiser → decoder, the AR prior and the taildrop query module."""

from vaportok_rl.tokenizer import checkpoint as _checkpoint
from vaportok_rl.tokenizer.checkpoint import shipped_checkpoints
from vaportok_rl.tokenizer.complexity import clip_complexity
from vaportok_rl.tokenizer.config import (
    PRESETS,
    ComplexityConfig,
    PriorConfig,
    Strategy,
    TaildropConfig,
    VaporTokConfig,
)
from vaportok_rl.tokenizer.error_threshold import lengths_under_error
from vaportok_rl.tokenizer.lengths import inference_lengths, training_lengths
from vaportok_rl.tokenizer.model import Encoded, VaporTok, load_checkpoint, save_checkpoint
from vaportok_rl.tokenizer.precision import Precision, PrecisionChoice

for _function in (load_checkpoint, save_checkpoint):  # scripts import them from there, and it cannot import a model
    setattr(_checkpoint, _function.__name__, _function)

__all__ = [
    "PRESETS",
    "ComplexityConfig",
    "Encoded",
    "Precision",
    "PrecisionChoice",
    "PriorConfig",
    "Strategy",
    "TaildropConfig",
    "VaporTok",
    "VaporTokConfig",
    "clip_complexity",
    "inference_lengths",
    "lengths_under_error",
    "load_checkpoint",
    "save_checkpoint",
    "shipped_checkpoints",
    "training_lengths",
]
