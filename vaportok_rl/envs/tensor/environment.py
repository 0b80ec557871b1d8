"""The environment as pure functions on tensors of one device: no Gymnasium in the loop, millions of decisions a second.

``reset`` and ``step`` take a state and return another one; nothing is copied to the host. Rewards equal those of
`TaildropVectorEnv` on the same clips, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vaportok_rl.envs.process import TaildropProcess
from vaportok_rl.envs.scene import Outcome
from vaportok_rl.envs.table.engine import TableEngine
from vaportok_rl.envs.token_range import Purse

Features = Literal["complexity", "summary"]
# Scenes whose rewards at all lengths are computed at once.
_CHUNK = 32


class State(NamedTuple):
    """B paths after ``step`` decisions each. A tuple of tensors: `torch.compile` and `torch.func` take it as it is.

    Attributes:
        rows: ``int64 [B, L]``, the clips' rows in the table.
        n_tokens: ``int64 [B, L]``, tokens kept so far; 1 where nothing is decided yet.
        purse: ``int64 [B]``, tokens beyond the minimum that may be spent on the current clip.
        step: decisions taken, 0 … L; the same for all paths.
    """

    rows: Tensor
    n_tokens: Tensor
    purse: Tensor
    step: int


class TensorEnv:
    """`TaildropVectorEnv` on an outcome table, as pure functions.

    For example::

        env = TensorEnv(TaildropProcess(table="my-table"))
        state = env.reset(key=0, scenes=1024, group_size=8)
        for _ in range(env.path_length):
            logits = policy(env.observe(state))
            actions = torch.distributions.Categorical(logits=logits).sample()
            state, reward = env.step(state, actions)

    All paths begin and end together: an episode is L calls of `step`, and γ = 1. Weights that change in training have
    the values of the moment at which it was made.

    Args:
        process: the MDP, on an outcome table.
        features: what is observed of a clip: its two complexity quantiles (``complexity``), or these and the mean and
            standard deviation over the tokens of its latents (``summary``), standardised over the training split.
        window: how many of the following clips are observed as well.
        rows: the table's rows to draw clips from; all by default.
        purse: what may be spent beyond the minimum; the process's budget by default.

    Attributes:
        process: the MDP.
        path_length: L.
        tokens: K; action a keeps a + 1 tokens.
        width: F, length of an observation.
        features: ``float32 [N, F']`` of each row.
        purse: what may be spent.
        terms: names of the reward terms, in order.
        path_terms: places of the path terms among them.

    Raises:
        ValueError: the process has no table, its reward compares paths or has a constraint, or the table lacks latents.
    """

    def __init__(
        self,
        process: TaildropProcess,
        *,
        features: Features = "complexity",
        window: int = 0,
        rows: Sequence[int] | None = None,
        purse: Purse | None = None,
    ) -> None:
        if not isinstance(process.engine, TableEngine):
            raise ValueError("Expected a process on an outcome table, got one without; pass table= to TaildropProcess.")
        reward = process.reward
        if reward.looks_across_groups or reward.held is not None or reward.scalarise is not None:
            raise ValueError(
                "Expected a weighted sum of clip terms and path terms, got a reward with a group term, a constraint or "
                "a scalarisation; leave it out, or use TaildropVectorEnv."
            )
        self.process, self.engine = process, process.engine
        self.path_length, self.tokens = process.path_length, process.tokens
        self.minimum, self.longest = process.token_range.minimum, process.token_range.longest
        self.purse = purse or process.token_range.purse
        self.window = window
        self.terms = reward.names
        self.weights = tuple(reward.weights_now().values())
        self._starts = self._first_rows(rows)
        self.features = self._features(features)
        self.width = self.features.shape[1] * (1 + window) + 2
        self._paid, self.path_terms = self._payments()

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.engine.device

    def _first_rows(self, rows: Sequence[int] | None) -> Tensor:
        """Rows at which a scene may begin (ordering ``video``), or of which it consists."""
        allowed = torch.arange(len(self.engine.table)) if rows is None else torch.as_tensor(rows, dtype=torch.int64)
        if self.process.settings.ordering == "video":
            starts = self.process.source.consecutive_starts(self.path_length)
            assert starts is not None  # the process checked it
            ends = torch.isin(starts + self.path_length - 1, allowed)
            allowed = starts[torch.isin(starts, allowed) & ends]
        if not len(allowed) or (self.process.settings.ordering == "independent" and len(allowed) < self.path_length):
            raise ValueError(f"Expected rows for scenes of {self.path_length} clips, got {len(allowed)}; pass more.")
        return allowed.to(self.device)

    def _features(self, kind: Features) -> Tensor:
        table = self.engine.table
        quantiles = self.engine.complexity_scale.quantiles(table.complexity)
        if kind == "complexity":
            return quantiles
        if table.summary is None:
            raise ValueError(
                "Expected an outcome table with latents for features='summary', got one without; build it with "
                "`--latents summary`."
            )
        # All splits are scaled alike.
        scale = self.engine.whole[self.engine.whole.splits[0]].summary
        assert scale is not None
        usual = scale.float().flatten(1)
        summary = table.summary.float().flatten(1)
        return torch.cat([quantiles, (summary - usual.mean(0)) / usual.std(0).clamp(min=1e-6)], 1)

    def _payments(self) -> tuple[Tensor, tuple[int, ...]]:
        """Weighted payments of the clip terms, ``float32 [N · K, terms]``, and the places of the path terms."""
        table, length = self.engine.table, self.path_length
        rows = torch.arange(-(-len(table) // length) * length, device=self.device).clamp(max=len(table) - 1)
        parts: list[Tensor] = []
        path_terms: tuple[int, ...] = ()
        for some in rows.view(-1, length).split(_CHUNK):
            result = self.process.reward(self.engine.score_all(self.engine.scene(some)), grouped=False)
            path_terms = tuple(place for place, value in enumerate(result.raw.values()) if value.dim() == 2)
            paid = [
                torch.zeros(self.tokens, *some.shape, device=self.device)
                if value.dim() == 2
                else weight * (value / length)
                for value, weight in zip(result.raw.values(), self.weights, strict=True)
            ]
            parts.append(torch.stack(paid, -1).permute(1, 2, 0, 3).flatten(0, 1))
        return torch.cat(parts)[: len(table)].flatten(0, 1).contiguous(), path_terms

    def draw(self, key: int, scenes: int) -> Tensor:
        """Random scenes: L different clips in random order, or consecutive ones with ordering ``video``.

        Args:
            key: equal keys draw equal scenes on one kind of device.
            scenes: P.

        Returns:
            ``int64 [P, L]`` rows.
        """
        generator = torch.Generator(self.device).manual_seed(key)

        def below(bound: int) -> Tensor:
            return torch.randint(bound, (scenes,), generator=generator, device=self.device)

        count, length = len(self._starts), self.path_length
        if self.process.settings.ordering == "video":
            return self._starts[below(count)][:, None] + torch.arange(length, device=self.device)
        # Floyd's algorithm draws a set of L rows, whose order is then shuffled.
        chosen: list[Tensor] = []
        for last in range(count - length, count):
            drawn = below(last + 1)
            taken = torch.zeros_like(drawn, dtype=torch.bool)
            for earlier in chosen:
                taken |= earlier == drawn
            chosen.append(torch.where(taken, last, drawn))
        order = torch.rand(scenes, length, generator=generator, device=self.device).argsort(1)
        return self._starts[torch.stack(chosen, 1).gather(1, order)]

    def reset(self, key: int, scenes: int, group_size: int = 1) -> State:
        """Begins new episodes of random scenes; see `draw`. Path b walks through scene ``b // group_size``."""
        return self.start(self.draw(key, scenes).repeat_interleave(group_size, 0))

    def start(self, rows: Tensor) -> State:
        """Begins the episodes of given clips, ``int64 [B, L]`` rows on the device."""
        held = torch.full_like(rows[:, 0], self.purse.start)
        return State(rows, torch.ones_like(rows), held, 0)

    def observe(self, state: State) -> Tensor:
        """Observations, ``float32 [B, F]``.

        The features of the current clip and of the ``window`` next ones (0 past the end), the share of the path that
        is done, and the purse as a share of its capacity. After the last decision, the last clip again.
        """
        at = min(state.step, self.path_length - 1)
        seen = [self.features[state.rows[:, at]]]
        for place in range(at + 1, at + 1 + self.window):
            inside = place < self.path_length
            seen.append(self.features[state.rows[:, place]] if inside else torch.zeros_like(seen[0]))
        done = torch.full_like(seen[0][:, :1], state.step / self.path_length)
        return torch.cat([*seen, done, state.purse[:, None] / max(1, self.purse.capacity)], 1)

    def action_masks(self, state: State) -> Tensor:
        """Which actions are allowed: ``bool [B, K]``."""
        lengths = torch.arange(1, self.tokens + 1, device=self.device)
        highest = (self.minimum + state.purse).clamp(max=self.longest)
        return (lengths >= self.minimum) & (lengths <= highest[:, None])

    def step(self, state: State, actions: Tensor) -> tuple[State, Tensor]:
        """Keeps ``actions + 1`` tokens of each path's current clip, clipped to the allowed lengths.

        Args:
            state: before the decision; ``state.step < L``.
            actions: ``int64 [B]`` in 0 … K - 1; other values are clipped too.

        Returns:
            The next state, and rewards ``float32 [B]``; the episodes are over once ``state.step == L``.
        """
        state, payments = self.step_terms(state, actions)
        reward = payments[:, 0]
        for term in range(1, payments.shape[1]):  # in the order of the environments, for equal rounding
            reward = reward + payments[:, term]
        return state, reward

    def step_terms(self, state: State, actions: Tensor) -> tuple[State, Tensor]:
        """`step` with the weighted payment of each term, ``float32 [B, terms]``, whose sum is the reward."""
        if state.step >= self.path_length:
            raise RuntimeError(f"Expected reset() after the last of {self.path_length} clips, got another step().")
        at = state.step
        spent = torch.minimum((actions + 1).clamp(self.minimum, self.longest) - self.minimum, state.purse)
        kept = state.n_tokens.clone()
        kept[:, at] = self.minimum + spent
        payments = self._paid[state.rows[:, at] * self.tokens + kept[:, at] - 1]
        if at == self.path_length - 1 and self.path_terms:
            outcome = self.outcome(state.rows, kept)
            for place in self.path_terms:
                payments[:, place] = self._path_payment(place, outcome)
        return State(state.rows, kept, self.purse.after(state.purse, spent), at + 1), payments

    def _path_payment(self, place: int, outcome: Outcome) -> Tensor:
        """The weighted value of one path term: ``float32 [B]``."""
        value: Tensor = self.process.reward.functions[self.terms[place]](outcome)[0]
        return self.weights[place] * value

    def path_reward(self, outcome: Outcome) -> Tensor:
        """The sum of the weighted path terms of whole paths: ``float32 [B]``; see `outcome`."""
        return torch.stack([self._path_payment(place, outcome) for place in self.path_terms]).sum(0)

    def outcome(self, rows: Tensor, n_tokens: Tensor) -> Outcome:
        """The outcome of whole paths, both ``int64 [B, L]``, with G = 1; lengths are not checked."""
        places, table = (rows * self.tokens + n_tokens - 1)[None], self.engine.table
        bits = {} if table.bits is None else {"bits": table.bits.take(places)}
        scene = self.engine.scene_of(rows)
        return Outcome(scene, n_tokens[None], table.mse.take(places), table.accuracy.take(places), bits)

    def values(self, rows: Tensor) -> Tensor:
        """Sum of the clip terms of each clip at each length of the range: ``float32 [N, *rows.shape]``."""
        paid = self._paid.sum(1).view(-1, self.tokens)[rows]
        return paid.movedim(-1, 0)[self.minimum - 1 : self.longest]

    def play(self, rows: Tensor, act: Any) -> tuple[State, Tensor]:
        """Plays the paths of given clips.

        Args:
            rows: ``int64 [B, L]``.
            act: from this environment and a state to actions ``int64 [B]``.

        Returns:
            The last state, and the rewards ``float32 [B, L]``.
        """
        state, rewards = self.start(rows), []
        for _ in range(self.path_length):
            state, reward = self.step(state, act(self, state))
            rewards.append(reward)
        return state, torch.stack(rewards, 1)
