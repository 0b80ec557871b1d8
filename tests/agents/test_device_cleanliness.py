"""Encode → policy → score → reward → advantage → loss stays on the device, but for one copy of the lengths.

Checked twice: on a fake CUDA device, which fails on every host value and mixed device, and on the CPU
by counting what would make an accelerator wait.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vaportok_rl.agents import GRPO
from vaportok_rl.agents.grpo.rollout import SceneRollout, draw_actions
from vaportok_rl.envs import ScoringEngine, TaildropVecEnv, VaporReward
from vaportok_rl.tokenizer import VaporTok

GROUP, PATHS, LENGTH = 4, 2, 3
REWARD = {"weights": {"log_mse": 1.0, "prior_bits": 1.0, "codebook_usage": 1.0, "budget_overrun": 1.0}}


def update(engine: ScoringEngine, reward: VaporReward, model: GRPO, clips: Tensor, uniform: Tensor) -> Tensor:
    """One group update's loss, from its clips."""
    scene = engine.encode(clips)
    with torch.no_grad():
        log_p = model.policy.length_log_probs(scene.latents)
        actions = draw_actions(log_p, uniform).permute(2, 0, 1).contiguous()
        old_log_prob = log_p.expand(GROUP, -1, -1, -1).gather(-1, actions[..., None]).squeeze(-1)
    lengths = model.vector_env.process.token_range.clip_paths(actions + 1)
    every = engine.score_all(scene) if model.scores_every_length else None
    outcome = engine.score(scene, lengths) if every is None else every.take(lengths)
    alive = torch.ones_like(actions, dtype=torch.bool)
    rollout = SceneRollout(actions, old_log_prob, alive, reward(outcome), scene, outcome, log_p[None], every)
    scenes = torch.arange(PATHS, device=clips.device)
    loss, _ = model.loss(rollout, model.advantages(rollout), scenes)
    return loss


@pytest.fixture
def model(tiny_world: str) -> GRPO:
    env = TaildropVecEnv(
        GROUP * PATHS, group_size=GROUP, tokenizer=tiny_world, path_length=LENGTH, token_budget=30, reward=REWARD
    )
    return GRPO(env=env, seed=0)


def on_cuda(module: nn.Module, mode: FakeTensorMode) -> Any:
    """A copy whose tensors are fake ones on a CUDA device."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            with mode:
                fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                part.register_parameter(name, nn.Parameter(fake, requires_grad=value.requires_grad))
        for name, value in list(part.named_buffers(recurse=False)):
            with mode:
                setattr(part, name, torch.empty(value.shape, dtype=value.dtype, device="cuda"))
    return twin


class NoHostTensors(TorchDispatchMode):
    """Fails on host tensors other than lists on their way to the device: a scoring's plan, a reward's weights."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, out)):
            if isinstance(value, Tensor) and value.device.type == "cpu":
                passing = func in (
                    torch.ops.aten.lift_fresh.default,
                    torch.ops.aten._to_copy.default,
                    torch.ops.prim.device.default,
                )
                assert passing, f"{func} on a tensor of the host, {tuple(value.shape)}"
                assert value.dim() == 1, f"{func} on a tensor of the host, {tuple(value.shape)}"
        return out


@pytest.mark.skipif(
    torch.__version__.startswith("2.9.") and not torch.cuda.is_available(),
    reason="torch 2.9's attention asks the CUDA driver even about tensors that are only shapes",
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_update_on_a_device_of_shapes(model: GRPO, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    read: list[torch.device] = []

    def lengths(n_tokens: Tensor) -> np.ndarray:
        # The one value that scoring reads; a tensor of shapes has none.
        read.append(n_tokens.device)
        return np.random.default_rng(0).integers(1, 17, tuple(n_tokens.shape))

    monkeypatch.setattr(ScoringEngine, "_lengths_on_host", staticmethod(lengths))
    process = model.vector_env.process
    # Autocast asks for a real device before it casts.
    monkeypatch.setattr("torch.amp.autocast_mode.torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: True)
    mode = FakeTensorMode()
    world: VaporTok = on_cuda(process.engine.world, mode)
    world.precision = precision  # type: ignore[assignment]
    model.policy, model.reference_policy = on_cuda(model.policy, mode), on_cuda(model.reference_policy, mode)
    engine = ScoringEngine(world, bits=True)
    with mode:
        clips = torch.zeros(PATHS, LENGTH, *world.config.clip_shape, dtype=torch.uint8, device="cuda")
        uniform = torch.rand(PATHS, LENGTH, GROUP, device="cuda")
        with NoHostTensors():
            loss = update(engine, process.reward, model, clips, uniform)
    assert loss.device.type == "cuda"
    assert loss.requires_grad
    assert [device.type for device in read] == ["cuda"]


class _Reads(TorchDispatchMode):
    """Counts operations whose result, or its size, must be known on the host."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        waits = name in (
            "_local_scalar_dense",
            "is_nonzero",
            "nonzero",
            "equal",
            "masked_select",
            "_unique2",
            "unique_dim",
        )
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(part, Tensor) and part.dtype == torch.bool for part in args[1]
        )
        if waits or by_mask:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class _Exports(TorchFunctionMode):
    """Counts calls that hand a tensor's values to Python."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if func in (Tensor.numpy, Tensor.tolist, Tensor.__array__):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_reads() -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()
    with _Reads(counts), _Exports(counts):
        yield counts


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda values: values.sum().item(), "_local_scalar_dense"),
        (lambda values: bool((values > 0).all()), "_local_scalar_dense"),
        (lambda values: values[values > 0], "index"),
        (lambda values: values.nonzero(), "nonzero"),
        (lambda values: values.unique(), "_unique2"),
        (lambda values: values.cpu().numpy(), "numpy"),
        (lambda values: values.tolist(), "tolist"),
    ],
    ids=["item", "if", "mask", "nonzero", "unique", "numpy", "tolist"],
)
def test_the_count_sees_a_read(read: Any, name: str) -> None:
    with counted_reads() as counts:
        read(torch.ones(3))
    assert counts[name] >= 1


@pytest.mark.parametrize("gradient", ["sampled", "enumerated"])
@pytest.mark.parametrize("credit", ["path", "clip"])
@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_an_update_reads_the_lengths_and_nothing_else(
    model: GRPO, gradient: str, credit: str, aggregation: str
) -> None:
    options = {"gradient": gradient, "credit": credit, "reward_aggregation": aggregation}
    vars(model).update(options, drop_zero_std_groups=True, delta=4.0)
    process = model.vector_env.process
    clips = process.source.batch(range(PATHS * LENGTH)).clips.unflatten(0, (PATHS, LENGTH))
    uniform = torch.rand(PATHS, LENGTH, GROUP, generator=torch.Generator().manual_seed(0))
    with counted_reads() as counts:
        update(process.engine, process.reward, model, clips, uniform).backward()
    assert counts == {"numpy": 1}
    assert any(parameter.grad is not None for parameter in model.policy.parameters())
