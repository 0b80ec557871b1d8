"""All methods, by name; and those of submissions, from their folders."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from vaportok_rl.benchmark.arena import Act, as_act
from vaportok_rl.benchmark.methods import bandits, gradients, scripted
from vaportok_rl.benchmark.methods.method import Method, Run
from vaportok_rl.runtime.messages import did_you_mean

METHOD_FILE = "method.py"
_SEQUENTIAL = ("budget-v1", "stream-v1")
_BANDITS = ("procedural-v1", "pareto-v1")


def _sb3(name: str) -> Callable[[Run], Act]:
    """A method of `stable_baselines`, which is imported when it runs."""

    def learn(run: Run) -> Act:
        from vaportok_rl.benchmark.methods import stable_baselines

        act: Act = getattr(stable_baselines, name)(run)
        return act

    return learn


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("random", "uniform over all lengths", scripted.random, "nothing"),
            Method("best-fixed", "the best length on training scenes", scripted.best_fixed, "nothing", learns=False),
            Method(
                "complexity-affine",
                "affine in the clip's complexity, fitted on training scenes",
                scripted.complexity_affine,
                learns=False,
            ),
            Method("router", "a network taught the oracle's lengths (EVATok)", scripted.router),
            Method("linucb", "LinUCB with one linear model a length", bandits.linucb, "purse"),
            Method("cem", "the cross-entropy method over eight weights", bandits.cross_entropy, "purse"),
            Method("reinforce", "REINFORCE, moving-average baseline", _sb3("reinforce"), "window"),
            Method("a2c", "A2C of Stable-Baselines3", _sb3("a2c"), "window"),
            Method("ppo", "PPO of Stable-Baselines3", _sb3("ppo"), "window"),
            Method("maskable-ppo", "MaskablePPO of sb3-contrib", _sb3("maskable_ppo"), "window"),
            Method("dqn", "DQN of Stable-Baselines3", _sb3("dqn"), "window"),
            Method("grpo-source", "GRPO with the supplement's settings", gradients.grpo_source, "window"),
            Method("grpo", "GRPO with this package's settings", gradients.grpo, "window"),
            Method("enumerated", "the exact gradient over all lengths", gradients.enumerated, "window", tasks=_BANDITS),
            Method(
                "value",
                "predicts each length's reward, spends by dynamic programming",
                scripted.value,
                "purse",
                _SEQUENTIAL,
                learns=False,
            ),
            Method(
                "planner",
                "the same, planning over the clips in view",
                scripted.planner,
                "window",
                ("stream-v1",),
                learns=False,
            ),
            Method("oracle", "knows all outcomes: the ceiling", scripted.oracle, "all outcomes", learns=False),
        )
    }
)


def open_method(name: str) -> Method:
    """A method by name, or that of a submission's folder: the function ``learn`` in its ``method.py``.

    It takes a `Run` and returns a policy from observations ``float32 [B, F]`` to logits ``[B, K]`` or actions ``[B]``,
    a torch module for instance.

    Raises:
        ValueError: there is no such method, or no such function.
    """
    if name in METHODS:
        return METHODS[name]
    file = Path(name).expanduser() / METHOD_FILE
    if file.is_file():
        learn = runpy.run_path(str(file)).get("learn")
        if not callable(learn):
            raise ValueError(f"Expected a function learn(run) in {file}, found none; see docs/benchmark.md.")
        made: Callable[[Run], Act] = lambda run: as_act(learn(run))  # noqa: E731
        return Method(file.parent.resolve().name, (learn.__doc__ or "").strip().partition("\n")[0], made, "window")
    hint = did_you_mean(name, METHODS, f"or name a folder with a {METHOD_FILE}.")
    raise ValueError(f"Expected a method among {', '.join(METHODS)}, or a folder, got {name!r}; {hint}")
