"""Scenes split over two processes: the rounds and gradients of one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vaportok_rl.agents import GRPO
from vaportok_rl.envs import TaildropVecEnv
from vaportok_rl.runtime.ranks import Processes

SCRIPT = """
import json
import os
import sys

import torch

from vaportok_rl.agents import GRPO
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.envs import TaildropVecEnv

torch.set_num_threads(1)
processes = Processes.start("cpu")
options = json.loads(sys.argv[3])
env = TaildropVecEnv(16, group_size=4, path_length=2, tokenizer=sys.argv[1], token_budget=20)
model = GRPO(env=env, seed=3, **options)
with torch.no_grad():  # away from the reference, so that the KL has a gradient too
    model.policy.action_net.bias.add_(torch.linspace(-1, 1, 16))

rollout = model.collect()
loss, figures = model.loss(rollout, model.advantages(rollout), next(model._minibatches()))
loss.backward()
model.processes.sum_gradients(model.policy.parameters())
gradients = {name: value.grad.clone() for name, value in model.policy.named_parameters() if value.grad is not None}
calls = []


def stop(local_variables, global_variables):
    if local_variables["rollout"] is None:  # shown with a path's last decision
        return True
    calls.append(local_variables["rollout"].rewards.total)
    return not (processes.is_main and len(calls) == 4)  # one process stops all


model.learn(16 * 2 * 9, callback=stop)
if processes.is_main:
    torch.save(
        {
            "count": processes.count,
            "gradients": gradients,
            "figures": figures,
            "rewards": torch.stack(calls),
            "steps": model.num_timesteps,
            "weights": model.policy.state_dict(),
        },
        sys.argv[2],
    )
# What is tested is done. An interpreter that is taken down after torch.distributed was in use aborts now and then.
os._exit(0)
"""


def run(tmp_path: Path, world: str, options: str, count: int) -> dict[str, Any]:
    script, found = tmp_path / "script.py", tmp_path / f"found-{count}.pt"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), "--standalone"] if count > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, str(script), world, str(found), options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = torch.load(found, weights_only=True)
    return content


@pytest.mark.parametrize(
    "options",
    [
        '{"batch_size": 1, "drop_zero_std_groups": true, "scale_rewards": "batch"}',
        '{"gradient": "enumerated", "reward_aggregation": "normalize_then_sum", "target_kl": 1.0}',
    ],
)
def test_two_processes_reproduce_one(tmp_path: Path, tiny_world: str, options: str) -> None:
    one, two = (run(tmp_path, tiny_world, options, count) for count in (1, 2))
    assert (one["count"], two["count"]) == (1, 2)
    assert one["gradients"].keys() == two["gradients"].keys()
    assert max(value.abs().max().item() for value in one["gradients"].values()) > 1e-3
    for part, tolerance in (("gradients", 1e-6), ("figures", 1e-6), ("weights", 1e-5)):
        for name, value in one[part].items():
            torch.testing.assert_close(
                two[part][name], value, rtol=0, atol=tolerance, msg=lambda text, n=name: n + text
            )
    torch.testing.assert_close(two["rewards"], one["rewards"], rtol=0, atol=1e-5)
    assert one["steps"] == two["steps"] == 4 * 32


def test_alone_nothing_is_exchanged() -> None:
    alone = Processes.start("cpu")
    assert alone == Processes(0, 1)
    values = torch.arange(6.0, requires_grad=True).view(2, 3)
    assert torch.equal(alone.gather(values, 1), values)
    assert not alone.sum(values).requires_grad
    assert alone.all_agree(True)
    assert not alone.all_agree(False)
    assert list(alone.share(3)) == [0, 1, 2]


def test_scenes_are_shared_equally_or_not_at_all() -> None:
    assert list(Processes(1, 3).share(6)) == [1, 4]
    with pytest.raises(ValueError, match="Expected a number of scenes that 4 processes can share equally, got 6"):
        Processes(1, 4).share(6)


def test_several_processes_need_one_seed(tiny_world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "current", classmethod(lambda cls: Processes(0, 2)))
    env = TaildropVecEnv(8, group_size=4, path_length=2, tokenizer=tiny_world)
    with pytest.raises(ValueError, match=r"Expected a seed and a TaildropVecEnv .* got seed=None"):
        GRPO(env=env).learn(8)
    with pytest.raises(ValueError, match="got seed=0 and EpisodeVecEnv"):
        GRPO("MlpPolicy", "CartPole-v1", group_size=2, scenes=2, seed=0, device="cpu").learn(8)
