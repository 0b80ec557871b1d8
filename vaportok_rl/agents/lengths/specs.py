"""Length policies by name, for the command line and scripts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vaportok_rl.agents.agent_file import ALGORITHMS
from vaportok_rl.agents.lengths.budget import budget_lengths, equal_slopes, least_errors
from vaportok_rl.agents.lengths.calibration import Calibration
from vaportok_rl.agents.lengths.custom import load_callable
from vaportok_rl.agents.lengths.fitted import affine_lengths, best_fixed_lengths, loss_proportional_lengths
from vaportok_rl.agents.lengths.router import router_lengths
from vaportok_rl.agents.lengths.scripted import (
    LengthPolicy,
    best_for_each_clip,
    complexity_lengths,
    fixed_lengths,
    pretrained_lengths,
    random_lengths,
    sampled_lengths,
    threshold_lengths,
)
from vaportok_rl.agents.lengths.trained import agent_lengths, run_lengths
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.runtime.messages import did_you_mean

_BY_NAME: dict[str, Callable[[TaildropProcess, Calibration], LengthPolicy]] = {
    "random": lambda process, _: random_lengths,
    "best-fixed": best_fixed_lengths,
    "argmax": lambda process, _: pretrained_lengths(process),
    "sample": lambda process, _: sampled_lengths(process),
    "naive": lambda process, _: fixed_lengths(process.tokens, process.tokens),
    "complexity": lambda process, _: complexity_lengths(process),
    "complexity-affine": affine_lengths,
    "loss-proportional": loss_proportional_lengths,
    "router": router_lengths,
    "oracle": lambda process, _: best_for_each_clip(process),
}
_BY_LENGTH: dict[str, Callable[[TaildropProcess, int], LengthPolicy]] = {
    "fixed": lambda process, n_tokens: fixed_lengths(n_tokens, process.tokens),
    "budget": lambda process, n_tokens: budget_lengths(process, n_tokens, least_errors),
    "lagrangian": lambda process, n_tokens: budget_lengths(process, n_tokens, equal_slopes),
}


def baseline_specs(calibration: Calibration) -> tuple[str, ...]:
    """All policies without reinforcement learning except the oracle, naive and sample; see `build_length_policy`.

    Their numbers come from the best fixed length n on training scenes: budgets of n tokens per clip on average, and the
    mean error at n as the threshold.
    """
    training, n_tokens = calibration.scored(), calibration.best_fixed()
    threshold = f"threshold:{training.every.mse[n_tokens - 1].mean().item():.3g}"
    by_number = (f"budget:{n_tokens}", f"lagrangian:{n_tokens}", threshold, f"{threshold}:binary")
    return (*(name for name in _BY_NAME if name not in ("oracle", "naive", "sample")), *by_number)


def build_length_policy(
    spec: str, process: TaildropProcess, calibration: Calibration | None = None, *, trust_archives: bool = False
) -> LengthPolicy:
    """A policy by name.

    | spec | lengths |
    |---|---|
    | ``random`` | uniform over 1 … K |
    | ``fixed:N`` | N for every clip |
    | ``best-fixed`` | the fixed length with the highest reward on training scenes |
    | ``argmax`` | argmax of the pretrained taildrop module (all K if its strategy is ``naive``) |
    | ``sample`` | drawn from the pretrained taildrop module's distribution |
    | ``naive`` | all K, as naive taildrop decodes |
    | ``complexity`` | mean of the Gaussian prior for the clip's complexity score |
    | ``complexity-affine`` | ``round(a + b · score)``, fitted on training scenes |
    | ``loss-proportional`` | proportional to the error with all K tokens, fitted on training scenes (InfoTok) |
    | ``router`` | a network trained on the oracle's lengths of training scenes (EVATok) |
    | ``threshold:X``, ``threshold:X:binary`` | minimum length with a mean squared error of at most X (ElasticTok) |
    | ``budget:N`` | minimum summed error at mean length N over a path, by integer programme (AdapTok) |
    | ``lagrangian:N`` | the same by the equal-slope rule |
    | ``oracle`` | highest reward, by scoring all lengths |
    | a path | an agent of `vaportok-rl train` or GRPO, in a run folder or a file |
    | ``ppo:PATH`` | an agent of another algorithm; for the names see `ALGORITHMS` |
    | ``module:name`` | an importable function; see `ScriptedPolicy` |

    Args:
        spec: see above.
        process: the MDP it will be used on.
        calibration: training scenes of that MDP, shared by fitted policies; made if not given.
        trust_archives: read Stable-Baselines3's agent archives, which can run arbitrary code; an ``agent.safetensors``
            holds only data.

    Raises:
        ValueError: there is no such policy, or its number or agent does not fit the MDP.
        FileNotFoundError: there is no agent at the path.
        ModuleNotFoundError: the package of an agent's algorithm is not installed.
    """
    if spec in _BY_NAME:
        return _BY_NAME[spec](process, calibration or Calibration(process))
    name, _, value = spec.partition(":")
    if ":" in spec and name in _BY_LENGTH:
        if not value.isdecimal():
            raise ValueError(f"Expected {name}:N with a whole number N, got {spec!r}; for example {name}:16.")
        return _BY_LENGTH[name](process, int(value))
    if ":" in spec and name == "threshold":
        return threshold_lengths(process, *_threshold(spec, value))
    path = Path(spec).expanduser()
    if path.exists():
        return run_lengths(path, process, trust_archives=trust_archives)
    if ":" in spec and name in ALGORITHMS:
        return agent_lengths(name, Path(value).expanduser(), process, trust_archives=trust_archives)
    if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", spec):
        return load_callable(spec)
    hint = did_you_mean(name, (*_BY_NAME, *_BY_LENGTH, "threshold", *ALGORITHMS), "check the path.")
    offered = ", ".join((*_BY_NAME, *(f"{option}:N" for option in _BY_LENGTH)))
    raise ValueError(
        f"Expected a policy {offered}, threshold:X, the path of a trained agent, ppo:PATH or module:name, "
        f"got {spec!r}; {hint}"
    )


def _threshold(spec: str, value: str) -> tuple[float, bool]:
    """The error, and whether to search by bisection."""
    number, _, search = value.partition(":")
    try:
        threshold = float(number)
    except ValueError as error:
        raise ValueError(
            f"Expected threshold:X with a mean squared error X, got {spec!r}; for example threshold:0.004."
        ) from error
    if search not in ("", "linear", "binary"):
        raise ValueError(
            f"Expected threshold:X, threshold:X:linear or threshold:X:binary, got {spec!r}; choose one of them."
        )
    return threshold, search == "binary"
