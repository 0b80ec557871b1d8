"""The frozen world: patches → encoder → quantiser → decoder, the AR prior and the taildrop query module."""

from vaportok_rl.tokenizer.checkpoint import load_checkpoint, save_checkpoint
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
from vaportok_rl.tokenizer.files.checkpoints import shipped_checkpoints
from vaportok_rl.tokenizer.lengths import inference_lengths, training_lengths
from vaportok_rl.tokenizer.model import Encoded, VaporTok
from vaportok_rl.tokenizer.precision import Precision, PrecisionChoice

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
