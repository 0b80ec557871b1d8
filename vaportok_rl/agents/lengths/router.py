"""The supervised router: the taildrop network trained on the oracle's lengths, as in EVATok."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.agents.comparison import HeldOut
from vaportok_rl.agents.lengths.calibration import Calibration
from vaportok_rl.agents.lengths.scripted import LengthPolicy, most_probable
from vaportok_rl.agents.policy import TaildropPolicy
from vaportok_rl.envs import TaildropProcess
from vaportok_rl.envs.process import observation_box

# Training scenes; a fifth of them is for model selection.
ROUTER_SCENES, VALIDATION_SHARE = 48, 0.2
EPOCHS, BATCH_CLIPS, LEARNING_RATE = 15, 64, 5e-4


def train_router(
    training: HeldOut,
    *,
    epochs: int = EPOCHS,
    batch_clips: int = BATCH_CLIPS,
    learning_rate: float = LEARNING_RATE,
    pretrained: bool = True,
    seed: int = 0,
) -> TaildropPolicy:
    """Trains the taildrop network, by cross-entropy, to predict the oracle's lengths on training clips.

    EVATok (arXiv 2603.12267) searches the best assignment of each training video and trains a small network to predict
    it. Here the search is `HeldOut.bounds` and the network is GRPO's, so only the training differs. The oracle sees the
    whole path, the router one clip.

    Args:
        training: scenes of the training split.
        epochs: passes over the clips.
        batch_clips: clips per gradient step.
        learning_rate: Adam's.
        pretrained: start from the tokenizer's own taildrop module rather than from a fresh policy.
        seed: of the initial weights and the order of the clips.

    Returns:
        The policy of the epoch whose most probable lengths have the highest reward on the last fifth of the scenes,
        which are not trained on (with fewer than five scenes: on all of them).
    """
    process, scene = training.process, training.scene
    settings, engine = process.settings, process.engine
    held_back = int(VALIDATION_SHARE * scene.shape[0])
    taught = scene.shape[0] - held_back
    latents = scene.latents[:taught].flatten(0, 1)
    labels = (training.bounds.oracle.n_tokens[:taught] - 1).flatten()
    judged = slice(taught, None) if held_back else slice(None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = TaildropPolicy(
            observation_box(engine.config, "latents", flatten=False),
            process.single_action_space,
            lambda _: learning_rate,
            tokenizer=settings.tokenizer,
            pretrained=pretrained,
        ).to(engine.device)
    optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    best_reward, best_weights = -float("inf"), policy.state_dict()
    for epoch in range(epochs + 1):
        if epoch:
            policy.set_training_mode(True)
            for rows in torch.randperm(len(labels), generator=generator).to(labels.device).split(batch_clips):
                loss = F.nll_loss(policy.length_log_probs(latents[rows][None])[0], labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        policy.set_training_mode(False)
        chosen = most_probable(policy.length_log_probs)(scene, generator).n_tokens
        reward = training.evaluate(chosen).rewards.total[0, judged].mean().item()
        if reward > best_reward:
            best_reward, best_weights = reward, copy.deepcopy(policy.state_dict())
    policy.load_state_dict(best_weights)
    return policy


def router_lengths(process: TaildropProcess, calibration: Calibration) -> LengthPolicy:
    """The most probable lengths of a router trained on `ROUTER_SCENES` training scenes; see `train_router`."""
    policy = train_router(calibration.scored(ROUTER_SCENES))
    log_probs: Callable[[Tensor], Tensor] = policy.length_log_probs
    return most_probable(log_probs)
