"""The arguments that every face of the environment takes, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict, cast

from vaportok_rl.envs.actions import check_whole
from vaportok_rl.envs.rewards.reward import VaporReward
from vaportok_rl.envs.table.fit import with_table_defaults
from vaportok_rl.runtime.messages import closest_name, did_you_mean
from vaportok_rl.tokenizer import PrecisionChoice

OBSERVATIONS = ("latents", "complexity", "codes", "clip")
ORDERINGS = ("independent", "video")
RENDER_MODES = ("human", "rgb_array", "rgb_array_list")
VECTOR_ARGUMENTS = ("num_envs", "group_size", "autoreset_mode")


class TaildropArguments(TypedDict, total=False):
    """Keyword arguments of the faces; `TaildropSettings` says what each means and what it is by default."""

    tokenizer: str
    clips: str | Sequence[str]
    path_length: int
    min_tokens: int
    max_tokens: int | None
    token_budget: int | None
    reward: VaporReward | Mapping[str, Any] | None
    obs: str | Sequence[str]
    flatten_obs: bool
    ordering: str
    split: str
    clip_seed: int
    device: str
    precision: PrecisionChoice
    render_mode: str | None
    table: str | None


@dataclass(frozen=True)
class TaildropSettings:
    """What an environment is made of: plain data, but for a reward that was given as an object.

    Attributes:
        tokenizer: a shipped checkpoint, a folder, or a hub id.
        clips: where clips come from; see `open_clips`.
        path_length: L, clips a path visits.
        min_tokens: fewest tokens that may be kept of a clip.
        max_tokens: most tokens that may be kept of a clip; K by default.
        token_budget: most tokens that a path may keep in all; no limit by default.
        reward: `VaporReward`, its keyword arguments, or None for the default reward.
        obs: what is observed, one of `OBSERVATIONS` or a sequence of several.
        flatten_obs: whether each observed array is a vector.
        ordering: how a scene's clips belong together, one of `ORDERINGS`.
        split: ``"train"`` or ``"test"``.
        clip_seed: which procedural world.
        device: torch device of the frozen world.
        precision: of the frozen world; ``"auto"`` is bfloat16 where that is faster (see `resolve_precision`).
        render_mode: one of `RENDER_MODES`, or None.
        table: folder of an `OutcomeTable` that replaces the network; `of` takes what is not given of `tokenizer`,
            `clips`, `clip_seed` and `precision` from it.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a choice is not among those offered, or a number is out of the range known without the world.
    """

    tokenizer: str = "nano"
    clips: str | Sequence[str] = "procedural"
    path_length: int = 8
    min_tokens: int = 1
    max_tokens: int | None = None
    token_budget: int | None = None
    reward: VaporReward | Mapping[str, Any] | None = None
    obs: str | Sequence[str] = "latents"
    flatten_obs: bool = False
    ordering: str = "independent"
    split: str = "train"
    clip_seed: int = 0
    device: str = "cpu"
    precision: PrecisionChoice = "auto"
    render_mode: str | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        check_whole("path_length", self.path_length)
        check_whole("clip_seed", self.clip_seed)
        if self.path_length < 1:
            raise ValueError(f"Expected path_length ≥ 1, got {self.path_length}; a path needs at least one clip.")
        if not self.observed:
            raise ValueError(f"Expected obs to name at least one of {', '.join(OBSERVATIONS)}, got none; name one.")
        for name in self.observed:
            _check_choice("obs", name, OBSERVATIONS, "name one, or a sequence of several.")
        if len(set(self.observed)) < len(self.observed):
            raise ValueError(f"Expected obs to name each kind once, got {list(self.observed)}; drop the repetition.")
        _check_choice("ordering", self.ordering, ORDERINGS, "choose one.")
        if self.render_mode is not None:
            _check_choice("render_mode", self.render_mode, RENDER_MODES, "choose one, or None.")

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> TaildropSettings:
        """Settings from a face's keyword arguments.

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

    def as_arguments(self) -> TaildropArguments:
        """All settings as keyword arguments of a face, so that ``TaildropEnv(**settings)`` is the same environment."""
        return cast(TaildropArguments, {field.name: getattr(self, field.name) for field in fields(self)})

    @property
    def observed(self) -> tuple[str, ...]:
        """The kinds of observation, in order."""
        return (self.obs,) if isinstance(self.obs, str) else tuple(self.obs)


def _check_choice(argument: str, choice: object, offered: Sequence[str], advice: str) -> None:
    if choice not in offered:
        hint = did_you_mean(str(choice), offered, advice)
        raise ValueError(f"Expected {argument} among {', '.join(offered)}; got {choice!r}; {hint}")
