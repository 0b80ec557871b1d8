"""Training the tokenizer, its prior and its taildrop module jointly on clips."""

from vaportok_rl.tokenizer.pretraining.config import LossWeights, PretrainConfig
from vaportok_rl.tokenizer.pretraining.resuming import NonFiniteLossError
from vaportok_rl.tokenizer.pretraining.trainer import Pretrainer

__all__ = ["LossWeights", "NonFiniteLossError", "PretrainConfig", "Pretrainer"]
