"""Length policies by name, as the command line and scripts write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

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
    threshold_lengths,
)
from vaportok_rl.agents.lengths.trained import agent_lengths, run_lengths
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.runtime.messages import did_you_mean
from vaportok_rl.tokenizer.error_threshold import Search

_BY_NAME: dict[str, Callable[[TaildropProcess, Calibration], LengthPolicy]] = {
    "random": lambda process, _: random_lengths,
    "best-fixed": best_fixed_lengths,
    "argmax": lambda process, _: pretrained_lengths(process),
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
    """Every policy that needs no reinforcement learning, but for the oracle; see `build_length_policy`.

    Those that take a number get it from the best fixed length n on training scenes: budgets of n tokens a clip on
    average, and the mean error at n as the threshold.
    """
    training, n_tokens = calibration.scored(), calibration.best_fixed()
    threshold = f"threshold:{training.every.mse[n_tokens - 1].mean().item():.3g}"
    by_number = (f"budget:{n_tokens}", f"lagrangian:{n_tokens}", threshold, f"{threshold}:binary")
    return (*(name for name in _BY_NAME if name != "oracle"), *by_number)


def build_length_policy(
    spec: str, process: TaildropProcess, calibration: Calibration | None = None, *, trust_archives: bool = False
) -> LengthPolicy:
    """A policy by name.

    | spec | lengths |
    |---|---|
    | ``random`` | uniform over 1 … K |
    | ``fixed:N`` | N for every clip |
    | ``best-fixed`` | the fixed length that earns the most on training scenes |
    | ``argmax`` | what the pretrained taildrop module keeps (all K where its strategy is ``naive``) |
    | ``complexity`` | the mean of the Gaussian prior for the clip's complexity score |
    | ``complexity-affine`` | ``round(a + b · score)``, fitted on training scenes |
    | ``loss-proportional`` | in proportion to the error with all K, fitted on training scenes (InfoTok) |
    | ``router`` | of a network that was taught the oracle's lengths on training scenes (EVATok) |
    | ``threshold:X``, ``threshold:X:binary`` | the fewest with a mean squared error of at most X (ElasticTok) |
    | ``budget:N`` | the least summed error with N a clip on average over a path, by integer programme (AdapTok) |
    | ``lagrangian:N`` | the same by the equal-slope rule |
    | ``oracle`` | those that earn the most, found by scoring all |
    | a path | of the agent that `vaportok-rl train` or GRPO saved in a run folder or a file |
    | ``ppo:PATH`` | of an agent that another algorithm saved; the names are those of `ALGORITHMS` |
    | ``module:name`` | of an importable function; see `ScriptedPolicy` |

    Args:
        spec: see above; the first that fits.
        process: the decision process it will be used on.
        calibration: training scenes of that process, to share between policies that are fitted; made if not given.
        trust_archives: read Stable-Baselines3's archives of agents, which can run any code on this machine; an
            ``agent.safetensors`` holds data alone.

    Raises:
        ValueError: there is no such policy, or its number or agent does not fit the process.
        FileNotFoundError: a path without an agent.
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


def _threshold(spec: str, value: str) -> tuple[float, Search]:
    number, _, search = value.partition(":")
    try:
        threshold = float(number)
    except ValueError as error:
        raise ValueError(
            f"Expected threshold:X with a mean squared error X, got {spec!r}; for example threshold:0.004."
        ) from error
    if search not in ("", *get_args(Search)):
        raise ValueError(
            f"Expected threshold:X, threshold:X:linear or threshold:X:binary, got {spec!r}; choose one of them."
        )
    return threshold, cast(Search, search or "linear")
