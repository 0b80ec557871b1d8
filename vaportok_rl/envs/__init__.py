"""The MDP: scenes, scoring, rewards, and its Gymnasium, vector and Stable-Baselines3 environments."""

from vaportok_rl.envs.multi_objective import MOTaildropEnv, MOTaildropVectorEnv
from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.reward_wrappers import (
    CurriculumWeights,
    LearnedScalarisation,
    VectorCurriculumWeights,
    VectorLearnedScalarisation,
)
from vaportok_rl.envs.rewards import DEFAULT_WEIGHTS, RewardResult, RewardTerm, VaporReward
from vaportok_rl.envs.rewards.expected import clip_rewards, expected_reward
from vaportok_rl.envs.sb3 import TaildropVecEnv, make_sb3_env
from vaportok_rl.envs.scene import Outcome, OutcomeOfAllLengths, Scene
from vaportok_rl.envs.scoring.engine import Engine, ScoringEngine
from vaportok_rl.envs.scoring.worlds import shared_world
from vaportok_rl.envs.settings import TaildropArguments, TaildropSettings
from vaportok_rl.envs.table.engine import TableEngine
from vaportok_rl.envs.table.table import OutcomeTable
from vaportok_rl.envs.taildrop_env import TaildropEnv
from vaportok_rl.envs.tensor.environment import State, TensorEnv
from vaportok_rl.envs.token_range import Purse, TokenRange
from vaportok_rl.envs.vector_checker.checker import check_vector_env
from vaportok_rl.envs.vector_checker.rollouts import VectorEnvError
from vaportok_rl.envs.vector_env import TaildropVectorEnv

__all__ = [
    "DEFAULT_WEIGHTS",
    "CurriculumWeights",
    "Engine",
    "LearnedScalarisation",
    "MOTaildropEnv",
    "MOTaildropVectorEnv",
    "Outcome",
    "OutcomeOfAllLengths",
    "OutcomeTable",
    "Purse",
    "RewardResult",
    "RewardTerm",
    "Scene",
    "ScoringEngine",
    "State",
    "TableEngine",
    "TaildropArguments",
    "TaildropEnv",
    "TaildropProcess",
    "TaildropSettings",
    "TaildropVecEnv",
    "TaildropVectorEnv",
    "TensorEnv",
    "TokenRange",
    "VaporReward",
    "VectorCurriculumWeights",
    "VectorEnvError",
    "VectorLearnedScalarisation",
    "check_vector_env",
    "clip_rewards",
    "expected_reward",
    "make_sb3_env",
    "shared_world",
]
