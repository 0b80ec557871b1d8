"""The arguments of every environment class, declared once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypedDict

from vaportok_rl.envs.rewards.reward import VaporReward
from vaportok_rl.envs.table.fit import with_table_defaults
from vaportok_rl.runtime.declared import AT_LEAST_1, check_fields
from vaportok_rl.runtime.messages import closest_name, did_you_mean
from vaportok_rl.tokenizer import PrecisionChoice

OBSERVATIONS = ("latents", "complexity", "codes", "clip")
RENDER_MODES = ("rgb_array",)
Ordering = Literal["independent", "video"]
VECTOR_ARGUMENTS = ("num_envs", "group_size", "autoreset_mode")


class TaildropArguments(TypedDict, total=False):
    """Keyword arguments of the environment classes; `TaildropSettings` has their meanings and defaults."""

    tokenizer: str
    clips: str | Sequence[str]
    path_length: int
    min_tokens: int
    max_tokens: int | None
    token_budget: int | None
    reward: VaporReward | Mapping[str, Any] | None
    obs: str | Sequence[str]
    flatten_obs: bool
    ordering: Ordering
    split: str
    clip_seed: int
    device: str
    precision: PrecisionChoice
    render_mode: str | None
    table: str | None


@dataclass(frozen=True)
class FrozenOptions:
    """The clips and the frozen tokenizer of an environment or an outcome table."""

    tokenizer: str = "nano"
    """The frozen tokenizer: a shipped name, a checkpoint folder, or a hub id."""
    clips: str | Sequence[str] = "procedural"
    """Source of clips: `procedural`, `gym:ID`, `ucf101:FOLDER`, `kinetics:CSV`, a video file, a folder, a glob pattern,
    or a sequence of these."""
    device: str = "cpu"
    """torch device of the tokenizer (and, on the command line, of the policy)."""
    precision: PrecisionChoice = "auto"
    """Precision of the tokenizer: `float32`, `bfloat16`, or `auto`: `bfloat16` where that is faster."""


@dataclass(frozen=True)
class WorldOptions(FrozenOptions):
    """The MDP without its reward and observations: clips, frozen tokenizer, paths and allowed lengths."""

    path_length: Annotated[int, AT_LEAST_1] = 8
    """L, clips per path."""
    min_tokens: Annotated[int, AT_LEAST_1] = 1
    """Minimum tokens per clip."""
    max_tokens: Annotated[int | None, AT_LEAST_1] = None
    """Maximum tokens per clip; K if not given."""
    token_budget: Annotated[int | None, AT_LEAST_1] = None
    """Maximum tokens per path, enforced by masks; no limit if not given."""
    ordering: Ordering = "independent"
    """Clips of a path: `independent` (drawn one by one) or `video` (consecutive clips of one long video)."""
    table: str | None = None
    """Folder of an outcome table (`vaportok-rl table build`) that replaces the network. It supplies `tokenizer`,
    `clips`, `clip_seed` and `precision` unless they are given, and cannot serve `obs="clip"`. Rendering opens the clips
    and the network on first use."""


@dataclass(frozen=True)
class TaildropSettings(WorldOptions):
    """All arguments of an environment: plain data, unless ``reward`` is an object.

    Raises:
        TypeError: a number is not an integer.
        ValueError: an unknown choice, or a number out of range.
    """

    reward: VaporReward | Mapping[str, Any] | None = None
    """The keyword arguments of `VaporReward` as a dictionary, such as
    `{"weights": {"diversity": 0}, "terms": ["my_module:my_term"]}`, or a `VaporReward`; the default reward if `None`.
    """
    obs: str | Sequence[str] = "latents"
    """Observation: `latents`, `complexity`, `codes`, `clip`, or a sequence of several."""
    flatten_obs: bool = False
    """Whether to flatten each observed array to a vector."""
    split: str = "train"
    """`train`, or `test` for the held-out clips."""
    clip_seed: int = 0
    """Seed of the procedural clips."""
    render_mode: str | None = None
    """`rgb_array`. `gymnasium.make` also accepts `human` (a pygame window) and `rgb_array_list`, by its own wrappers;
    `gymnasium.wrappers.vector.HumanRendering` works on the vector environment. A picture shows the middle frame of the
    last decided clip: original, reconstruction and absolute error, with the tokens kept and the reward terms. After a
    reset it shows the first clip."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.observed:
            raise ValueError(f"Expected obs to name at least one of {', '.join(OBSERVATIONS)}, got none; name one.")
        for name in self.observed:
            _check_choice("obs", name, OBSERVATIONS, "name one, or a sequence of several.")
        if len(set(self.observed)) < len(self.observed):
            raise ValueError(f"Expected obs to name each kind once, got {list(self.observed)}; drop the repetition.")
        if self.render_mode is not None:
            _check_choice("render_mode", self.render_mode, RENDER_MODES, "gymnasium.make adds the others by wrappers.")

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> TaildropSettings:
        """Settings from an environment's keyword arguments.

        Raises:
            TypeError: there is no such argument.
            ValueError: as for the constructor, or an argument contradicts the outcome table.
            FileNotFoundError: there is no such outcome table.
        """
        known = [field.name for field in fields(cls)]
        for name in arguments:
            if name not in known:
                close = closest_name(name, [*known, *VECTOR_ARGUMENTS])
                hint = did_you_mean(name, known, "see TaildropEnv.")
                if close in VECTOR_ARGUMENTS:
                    hint = f"did you mean {close!r}, which TaildropVectorEnv takes?"
                # The words in brackets are Python's own: TorchRL looks for them to drop what it passes to every env.
                raise TypeError(
                    f"Expected arguments among {', '.join(known)}; got {name!r}; {hint} "
                    f"(unexpected keyword argument {name!r})"
                )
        if arguments.get("table") is not None:
            arguments = with_table_defaults(arguments)
        return cls(**arguments)

    def as_arguments(self) -> dict[str, Any]:
        """All settings as keyword arguments: ``TaildropEnv(**settings)`` is the same environment."""
        return dict(vars(self))

    @property
    def observed(self) -> tuple[str, ...]:
        """The kinds of observation, in order."""
        return (self.obs,) if isinstance(self.obs, str) else tuple(self.obs)


def _check_choice(argument: str, choice: object, offered: Sequence[str], advice: str) -> None:
    if choice not in offered:
        hint = did_you_mean(str(choice), offered, advice)
        raise ValueError(f"Expected {argument} among {', '.join(offered)}; got {choice!r}; {hint}")
