"""The scalar Gymnasium face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from vaportok_rl.envs.actions import checked_actions
from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.rewards import VaporReward
from vaportok_rl.envs.walk import GroupWalk
from vaportok_rl.tokenizer import Precision


class TaildropEnv(gymnasium.Env[Any, Any]):
    """Choose how many tokens each clip of a scene deserves.

    ## Description
    A frozen video tokenizer turns each clip into K ordered tokens, most important first. The agent walks through a
    scene of L clips; for each clip it picks how many of its tokens to keep, the rest is dropped, the clip is decoded
    from what is left, and five reward terms say how good the choice was. Source: the VaporTok supplement.

    ## Action Space
    `Discrete(K)`. Action `a` keeps `n_tokens = a + 1` tokens (tokens `0 … a`); K = 64 for `nano`.

    ## Observation Space
    The clip to decide about next, by the `obs` argument:

    | `obs` | space | meaning |
    |---|---|---|
    | `"latents"` (default) | `Box(-1e6, 1e6, (K, D), float32)` | the encoder's latents, read by the taildrop module |
    | `"complexity"` | `Box(0, 1, (2,), float32)` | spatial and temporal complexity as quantiles of the training clips |
    | `"codes"` | `Box(0, V-1, (K,), int64)` | codebook indices |
    | `"clip"` | `Box(0, 255, (C, T, H, W), uint8)` | the video itself |

    A sequence of names gives a `Dict` space. After the last decision the last clip is shown once more.

    ## Rewards
    The weighted sum of the terms below; weights are 1 by default. A clip term is paid at its step, divided by L; a
    path term is paid at the last step. The undiscounted return is the path reward.

    | term | kind | value |
    |---|---|---|
    | `efficiency` | clip | `1 - n/K` |
    | `penalty` | clip | `-((n_threshold - n)/n_threshold)^p` below `n_threshold`, else 0 (Eq. 10) |
    | `diversity` | path | standard deviation of `n/K` over the path, doubled |
    | `reconstruction` | clip | `-mse * scale` |
    | `generation` | clip | top-5 accuracy of the autoregressive prior on the kept tokens |

    ## Starting State
    A scene of L different clips, drawn with the environment's seed.

    ## Episode End
    The episode terminates after L decisions; it is never truncated.

    ## Information
    `step` returns `n_tokens`, `mse`, `psnr` (dB), `accuracy`, `clip_id`, `label` of the clip that was decided about,
    and `reward_terms`, a dictionary of the unweighted terms (a path term is 0 before the last step).

    ## Arguments
    - `tokenizer` (`"nano"`): a shipped checkpoint, a folder, or a hub id. Loaded once a process.
    - `clips` (`"procedural"`): or a video file, a folder, a glob pattern.
    - `path_length` (`8`): L.
    - `reward` (`None`): `VaporReward` or its keyword arguments, such as `{"weights": {"diversity": 0}, "scale": 10}`.
    - `obs` (`"latents"`): see above.
    - `split` (`"train"`): or `"test"`, the held-out clips.
    - `clip_seed` (`0`): which procedural world.
    - `device` (`"cpu"`), `precision` (`"float32"`, or `"bfloat16"`): of the frozen world.

    ## Vectorized environment
    `gymnasium.make_vec("vaportok/Taildrop-v0", num_envs=64, vectorization_mode="vector_entry_point", group_size=8)`:
    see `TaildropVectorEnv`.

    ## Version History
    - v0: first release.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium declares it this way)

    def __init__(
        self,
        *,
        tokenizer: str = "nano",
        clips: str = "procedural",
        path_length: int = 8,
        reward: VaporReward | Mapping[str, Any] | None = None,
        obs: str | Sequence[str] = "latents",
        split: str = "train",
        clip_seed: int = 0,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.settings: dict[str, Any] = {
            "tokenizer": tokenizer,
            "clips": clips,
            "path_length": path_length,
            "reward": reward,
            "obs": obs,
            "split": split,
            "clip_seed": clip_seed,
            "device": device,
            "precision": precision,
        }
        self.process = TaildropProcess(**self.settings)
        self.observation_space = self.process.single_observation_space
        self.action_space = self.process.single_action_space
        self._walk = GroupWalk(self.process, group_size=1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins a new scene; see `gymnasium.Env.reset`."""
        super().reset(seed=seed, options=options)
        self._walk.begin([self.np_random])
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Keeps ``action + 1`` tokens of the current clip; see the class documentation.

        Raises:
            TypeError: the action is not an integer.
            ValueError: the action is outside 0 … K - 1.
            RuntimeError: there was no `reset`, or the episode is over.
        """
        lengths = checked_actions(action, None, self.process.tokens).reshape(1, 1) + 1
        outcome = self._walk.step(lengths)
        info: dict[str, Any] = {name: values[0, 0] for name, values in outcome.info.items()}
        info["reward_terms"] = {name: values[0, 0] for name, values in outcome.terms.items()}
        return self._observation(), float(outcome.rewards[0, 0]), bool(outcome.finished[0]), False, info

    def _observation(self) -> Any:
        shown = {name: np.array(values[0]) for name, values in self._walk.observe().items()}
        return self.process.present(shown)
