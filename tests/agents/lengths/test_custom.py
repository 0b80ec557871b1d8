"""Messages about a custom policy with invalid results."""

import numpy as np
import pytest
import torch

from vaportok_rl.agents import LengthChoice
from vaportok_rl.agents.lengths.custom import checked_policy
from vaportok_rl.envs import Scene, TaildropProcess


@pytest.fixture(scope="module")
def scene(tiny_world: str) -> Scene:
    process = TaildropProcess(tokenizer=tiny_world, path_length=3)
    return process.sample_scene([np.random.default_rng(seed) for seed in range(2)])


def test_lengths_alone_or_with_probabilities(scene: Scene) -> None:
    generator = torch.Generator()
    n_tokens = torch.tensor([[1, 2, 16], [4, 5, 6]])
    alone = checked_policy(lambda scene, generator: n_tokens)(scene, generator)
    assert torch.equal(alone.n_tokens, n_tokens)
    assert alone.log_prob.isnan().all()
    log_prob = torch.full((2, 3), -1.5, dtype=torch.float64, requires_grad=True)
    both = checked_policy(lambda scene, generator: LengthChoice(n_tokens, log_prob))(scene, generator)
    assert both.log_prob.dtype == torch.float32
    assert both.log_prob.unique().tolist() == [-1.5]
    assert not both.log_prob.requires_grad


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ([1, 2, 3], r"tensor int64 \[P, L\] = \(2, 3\) or a LengthChoice, got list"),
        (None, "got NoneType"),
        (torch.ones(2, 3), r"lengths int64 .* got torch.float32 \(2, 3\)"),
        (torch.ones(3, dtype=torch.int64), r"got torch.int64 \(3,\)"),
        (torch.zeros(2, 3, dtype=torch.int64), r"lengths in 1…16, got 0…0; n_tokens = action \+ 1"),
        (torch.full((2, 3), 17), r"lengths in 1…16, got 17…17"),
        (LengthChoice(torch.ones(2, 3, dtype=torch.int64), torch.zeros(2)), r"log-probabilities float .* \(2,\)"),
    ],
)
def test_a_wrong_choice_is_named(scene: Scene, choice: object, message: str) -> None:
    def mine(scene: Scene, generator: torch.Generator) -> object:
        return choice

    with pytest.raises(ValueError, match=f"Expected policy 'mine' to return .*{message}"):
        checked_policy(mine)(scene, torch.Generator())  # type: ignore[arg-type]


def test_what_cannot_be_called_is_no_policy() -> None:
    with pytest.raises(ValueError, match=r"Expected a function .* as policy 'int', got int"):
        checked_policy(5)  # type: ignore[arg-type]


class _ByFirstToken(torch.nn.Module):
    """Logits from the first token's latents."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, 0, :16]


def test_a_torch_module_or_a_function_of_observations_needs_no_wrapper(scene: Scene) -> None:
    expected = scene.latents[:, :, 0, :16].argmax(-1) + 1
    generator = torch.Generator()
    module, function = _ByFirstToken(), lambda latents: latents[:, 0, :16].argmax(-1)
    for policy in (module, function):
        assert torch.equal(checked_policy(policy)(scene, generator).n_tokens, expected)
    log_p = scene.latents[:, :, 0, :16].log_softmax(-1).max(-1).values
    assert torch.allclose(checked_policy(module)(scene, generator).log_prob, log_p)
    with pytest.raises(ValueError, match="logits"):
        checked_policy(lambda latents: latents)(scene, generator)
    with pytest.raises(ValueError, match="12…17"):
        checked_policy(lambda latents: torch.arange(6) + 11)(scene, generator)
