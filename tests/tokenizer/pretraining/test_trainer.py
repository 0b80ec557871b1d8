"""The pretraining loop: it resumes bit-exactly, stops at a non-finite loss, and learns."""

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vaportok_rl.clips import ProceduralClips
from vaportok_rl.tokenizer import VaporTok, VaporTokConfig, load_checkpoint
from vaportok_rl.tokenizer.complexity import clip_complexity
from vaportok_rl.tokenizer.pretraining import (
    LossWeights,
    NonFiniteLossError,
    PretrainConfig,
    Pretrainer,
    adversarial,
    loss,
)
from vaportok_rl.tokenizer.pretraining.codebook import initialize_codes
from vaportok_rl.tokenizer.pretraining.optimizers import split_parameters
from vaportok_rl.tokenizer.pretraining.resuming import STATE_FILE

# Every phase within twelve steps: continuous, mixed from 4, quantised from 7, random lengths from 8; revivals too.
RUN = PretrainConfig(
    steps=12,
    batch_size=4,
    precision="float32",
    continuous_until=0.3,
    quantized_from=0.5,
    random_lengths_from=0.6,
    decay_from=0.9,
    codebook_clips=8,
    calibration_clips=16,
    revive_every=3,
    save_every=1000,
    validate_every=1000,
)


def trainer(
    config: VaporTokConfig, run: PretrainConfig, folder: Path, resume: bool = False, **source: Any
) -> Pretrainer:
    clips = ProceduralClips(frames=config.frames, size=config.size, **{"length": 40, **source})
    return Pretrainer(config, run, clips, folder, resume=resume)


def step(one: Pretrainer) -> dict[str, Tensor]:
    """One step on the clips whose turn it is."""
    return one.train_step(one.loader.clips_at(one.step * one.config.batch_size, one.config.batch_size))


def snapshot(one: Pretrainer) -> dict[str, Tensor]:
    """The whole training state, by name."""
    state = {f"model.{name}": value.clone() for name, value in one.model.state_dict().items()}
    for name, optimizer in one.optimizers.items():
        for index, entries in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{index}.{key}": torch.as_tensor(value).clone() for key, value in entries.items()}
    if one.average is not None:
        state |= {f"average.{name}": value.clone() for name, value in one.average.state_dict().items()}
    if one.critic is not None:
        state |= {f"critic.{name}": value.clone() for name, value in one.critic.discriminator.state_dict().items()}
        state |= {f"lecam.{name}": value.clone() for name, value in one.critic.regularizer.state_dict().items()}
    return state | {"counts": one.care.counts.clone()}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


class KilledError(Exception):
    """Stands for a kill between two steps."""


@pytest.mark.parametrize(
    ("killed_at", "settings"),
    [
        (2, {}),
        (5, {"accumulate": 2}),
        (11, {"precision": "bfloat16", "ema_decay": 0.5, "weights": LossWeights(adversarial=0.1)}),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny_config: VaporTokConfig, tmp_path: Path, killed_at: int, settings: dict[str, Any]
) -> None:
    run = replace(RUN, **settings)
    whole = trainer(tiny_config, run, tmp_path / "whole")
    losses: list[float] = []
    whole.run(lambda step, terms: losses.append(terms["loss"].item()))
    expected = snapshot(whole)

    # Saved every second step, so a kill at an odd step loses one.
    saving = replace(run, save_every=2)
    first = trainer(tiny_config, saving, tmp_path / "parts")

    def kill(step: int, terms: Mapping[str, Tensor]) -> None:
        if step == killed_at + 1:
            raise KilledError

    with pytest.raises(KilledError):
        first.run(kill)
    torch.manual_seed(123)  # another process has another random state
    second = trainer(tiny_config, saving, tmp_path / "parts", resume=True)
    assert second.step == killed_at // 2 * 2
    resumed: list[float] = []
    second.run(lambda step, terms: resumed.append(terms["loss"].item()))
    assert resumed == losses[second.step - len(resumed) :]
    assert_same(snapshot(second), expected)


def test_precision_is_the_devices_choice_but_stays_what_a_run_began_with(
    tiny_config: VaporTokConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(RUN, precision="auto", steps=4, save_every=2)
    multiplies = "vaportok_rl.tokenizer.pretraining.config.multiplies_bfloat16"
    monkeypatch.setattr(multiplies, lambda device: True)
    first = trainer(tiny_config, run, tmp_path / "run")
    assert first.model.precision == first.config.precision == "bfloat16"
    first.run()
    monkeypatch.setattr(multiplies, lambda device: False)
    assert trainer(tiny_config, run, tmp_path / "run", resume=True).config.precision == "bfloat16"
    assert trainer(tiny_config, run, tmp_path / "other").config.precision == "float32"
    with pytest.raises(ValueError, match=r"precision: 'bfloat16' then, 'float32' now"):
        trainer(tiny_config, replace(run, precision="float32"), tmp_path / "run", resume=True)


def test_validation_and_checkpoints_do_not_change_the_run(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    plain = trainer(tiny_config, RUN, tmp_path / "plain")
    plain.run()
    expected = snapshot(plain)
    watched = trainer(tiny_config, replace(RUN, save_every=1, validate_every=5), tmp_path / "watched")
    seen: list[int] = []

    def validate(model: VaporTok, step: int) -> None:
        assert not model.training
        assert step == watched.step
        model.encode(torch.zeros(1, *model.config.clip_shape))
        torch.rand(7)
        seen.append(step)

    watched.run(validate=validate)
    assert seen == [5, 10, 12]
    assert watched.model.training
    assert_same(snapshot(watched), expected)


def test_another_seed_is_another_run(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    one, two = (trainer(tiny_config, replace(RUN, seed=seed), tmp_path) for seed in (0, 1))
    assert not torch.equal(one.model.encoder_latent_query_embed, two.model.encoder_latent_query_embed)
    assert not torch.equal(one.loader.clips_at(0, 4), two.loader.clips_at(0, 4))


def test_a_non_finite_loss_stops_with_the_last_checkpoint_intact(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    one = trainer(tiny_config, replace(RUN, save_every=4), tmp_path)
    poisoned: dict[str, Tensor] = {}

    def poison(step: int, terms: Mapping[str, Tensor]) -> None:
        if step == 6:
            one.model.final_layer.linear.bias.data[0] = float("nan")
            poisoned.update({name: value.clone() for name, value in one.model.named_parameters()})

    with pytest.raises(
        NonFiniteLossError, match=r"got loss nan.*at step 6; the last good checkpoint is .*training_state"
    ):
        one.run(poison)
    for name, value in one.model.named_parameters():
        assert torch.equal(value.nan_to_num(7.0), poisoned[name].nan_to_num(7.0)), name
    again = trainer(tiny_config, replace(RUN, save_every=4), tmp_path, resume=True)
    assert again.step == 4
    assert all(bool(torch.isfinite(value).all()) for value in again.model.state_dict().values())
    again.run()
    assert again.step == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", STATE_FILE]


def test_a_discriminator_that_is_not_finite_never_reaches_a_checkpoint(
    tiny_config: VaporTokConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(RUN, weights=LossWeights(adversarial=0.1), adversarial_from=0.0, save_every=1)
    one = trainer(tiny_config, run, tmp_path)
    step(one)
    one.save()
    before = snapshot(one)
    right = adversarial.discriminator_loss
    # The tokenizer's own loss and gradient stay finite.
    monkeypatch.setattr(adversarial, "discriminator_loss", lambda *logits: right(*logits) * float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"discriminator_gradient_norm nan at step 1; .*training_state"):
        one.run()
    monkeypatch.undo()
    kept = snapshot(trainer(tiny_config, run, tmp_path, resume=True))
    assert_same(kept, before)
    assert all(bool(value.isfinite().all()) for value in kept.values())
    one.run()  # the failed step left nothing behind
    assert one.step == run.steps


def test_weights_that_are_not_finite_are_not_saved(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    one = trainer(tiny_config, RUN, tmp_path)
    before = one.save().read_bytes()
    one.optimizers["adamw"].state[one.model.final_layer.linear.bias]["exp_avg"] = torch.tensor([float("inf")])
    with pytest.raises(NonFiniteLossError, match=r"infinity in optimizers\.adamw\.state\..*exp_avg at step 0"):
        one.save()
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_after_ctrl_c_the_same_trainer_goes_on(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    whole, one = (trainer(tiny_config, RUN, tmp_path / name) for name in ("whole", "parts"))
    whole.run()
    for stop in (5, 8):
        with pytest.raises(KeyboardInterrupt):
            one.run(lambda step, terms, stop=stop: signal.raise_signal(signal.SIGINT) if step == stop - 1 else None)
        assert one.step == torch.load(tmp_path / "parts" / STATE_FILE, weights_only=True)["step"] == stop
    one.run()
    assert_same(snapshot(one), snapshot(whole))


@pytest.mark.parametrize("option", ["GRADIENT_ACCUMULATION_STEPS=4", "MIXED_PRECISION=fp16", "USE_FSDP=true"])
def test_what_accelerate_launch_would_do_to_the_gradients_is_refused(
    tiny_config: VaporTokConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    name, _, value = option.partition("=")
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(ValueError, match=rf"{name.lower()}.*got {value}; "):
        trainer(tiny_config, RUN, tmp_path)


def test_another_machine_is_said(tiny_config: VaporTokConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trainer(tiny_config, RUN, tmp_path).save()
    assert torch.load(path, weights_only=True)["machine"]["threads"] == torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with pytest.warns(UserWarning, match="threads: 1 then, 3 now"):
        trainer(tiny_config, RUN, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("run", "model", "source", "changed"),
    [
        ({"adam_learning_rate": 1e-4}, {}, {}, "adam_learning_rate"),
        ({"steps": 24, "seed": 1}, {}, {}, "seed, steps"),
        ({"weights": LossWeights(l1=0.5)}, {}, {}, "weights"),
        ({}, {"codebook_size": 64}, {}, "codebook_size"),
        ({}, {}, {"seed": 5}, "clips"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    tiny_config: VaporTokConfig,
    tmp_path: Path,
    run: dict[str, Any],
    model: dict[str, Any],
    source: dict[str, Any],
    changed: str,
) -> None:
    trainer(tiny_config, RUN, tmp_path).save()
    with pytest.raises(ValueError, match=rf"got other values for {changed} \(.* then, .* now.*\); resume with the"):
        trainer(replace(tiny_config, **model), replace(RUN, **run), tmp_path, resume=True, **source)


def test_nothing_to_resume_from(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="start the run without --resume"):
        trainer(tiny_config, RUN, tmp_path / "empty", resume=True)


def test_clips_of_another_geometry_are_refused(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clips of 4 frames and 16 pixels, got 4 and 32"):
        Pretrainer(tiny_config, RUN, ProceduralClips(frames=4, size=32), tmp_path)


def test_complexity_is_calibrated_on_the_training_clips(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    one = trainer(tiny_config, replace(RUN, calibration_clips=1000), tmp_path)  # more than there are
    complexity = clip_complexity(one.source.batch(range(40)).clips)
    tables = one.model.config.complexity
    for axis, table in enumerate((tables.spatial_quantiles, tables.temporal_quantiles)):
        expected = torch.quantile(complexity[:, axis].double(), torch.linspace(0, 1, 21).double())
        assert table == pytest.approx(expected.tolist(), abs=1e-3)


def test_the_end_of_a_run_is_a_loadable_world(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    one = trainer(tiny_config, RUN, tmp_path)
    one.run()
    assert one.step == 12
    assert one.seconds > 0
    world = load_checkpoint(tmp_path / "model")
    assert world.config == one.model.config
    clips = one.source.batch([0, 1]).clips
    one.model.eval()
    assert torch.equal(world.encode(clips).codes, one.model.encode(clips).codes)


def test_the_codebook_starts_once_on_the_clips_of_its_own_step(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    one = trainer(replace(tiny_config, code_norm="none"), replace(RUN, revive_every=1000), tmp_path)
    for optimizer in one.optimizers.values():
        optimizer.step = lambda: None  # type: ignore[assignment]  # without training
    given = one.model.bottleneck.regularizer.embedding.weight.clone()
    while one.step < 7:
        assert torch.equal(one.model.bottleneck.regularizer.embedding.weight, given) == (one.step < 5)
        terms = step(one)
    clips = one.loader.clips_at(4 * 4, 8).float() / 255
    with torch.no_grad():
        units = one.model.bottleneck.to_unit(one.model.encoder_latents(clips)).flatten(0, 1)
    expected = torch.nn.Embedding.from_pretrained(torch.empty(32, 4))
    initialize_codes(expected, units, torch.Generator().manual_seed(one.config.seed))
    torch.testing.assert_close(one.model.bottleneck.regularizer.embedding.weight, expected.weight)
    assert terms["codes_used"] > 0.5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_codes_of_all_accumulated_parts_count(tiny_config: VaporTokConfig, tmp_path: Path, accumulate: int) -> None:
    one = trainer(tiny_config, replace(RUN, accumulate=accumulate, revive_every=7), tmp_path)
    while one.step < 10:
        step(one)
    # Counted after step 7: three steps of four clips of eight tokens.
    assert one.care.counts.sum() == 3 * 4 * 8


def test_the_schedule_reaches_optimisers_and_loss(
    tiny_config: VaporTokConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates, clipped gradients and scheduled sampling at the time of use."""
    run = replace(
        RUN,
        warmup=0.3,
        decay_from=0.6,
        muon_learning_rate=3e-3,
        adam_learning_rate=1e-3,
        discriminator_learning_rate=2e-4,
        max_grad_norm=1e-3,
        sampling_ramp=0.5,
        sampling_rounds=3,
        weights=LossWeights(adversarial=0.1),
        adversarial_from=0.5,
    )
    one = trainer(tiny_config, run, tmp_path)
    assert one.critic is not None
    rates: dict[str, list[float]] = {"muon": [], "adamw": [], "discriminator": []}
    norms: dict[str, list[float]] = {"tokenizer": [], "discriminator": []}
    sampling: list[tuple[float, int]] = []

    def watch(name: str, optimizer: torch.optim.Optimizer, of: str, model: torch.nn.Module) -> None:
        update = optimizer.step

        def step() -> None:
            rates[name].append(optimizer.param_groups[0]["lr"])
            gradients = [value.grad for value in model.parameters() if value.grad is not None]
            norms[of].append(torch.nn.utils.get_total_norm(gradients).item())
            update()

        monkeypatch.setattr(optimizer, "step", step)

    watch("muon", one.optimizers["muon"], "tokenizer", one.model)
    watch("adamw", one.optimizers["adamw"], "tokenizer", one.model)
    watch("discriminator", one.critic.optimizer, "discriminator", one.critic.discriminator)
    right = loss.scheduled_sampling_logits

    def scheduled(*given: Any, rounds: int, **rest: Any) -> list[Tensor]:
        sampling.append((given[3], rounds))
        return right(*given, rounds=rounds, **rest)

    monkeypatch.setattr(loss, "scheduled_sampling_logits", scheduled)
    seen: list[float] = []
    one.run(lambda step, terms: seen.append(terms["gradient_norm"].item()))
    factors = [one.schedule.learning_rate_factor(step) for step in range(12)]
    assert len(set(factors)) > 6
    assert rates["muon"] == [3e-3 * factor for factor in factors]
    assert rates["adamw"] == [1e-3 * factor for factor in factors]
    assert rates["discriminator"] == [2e-4 * factor for factor in factors[6:]]
    assert min(seen) > 0.01  # before clipping
    assert norms["tokenizer"] == pytest.approx([1e-3] * 24, rel=1e-2)
    assert max(norms["discriminator"]) == pytest.approx(1e-3, rel=1e-2)
    assert sampling == [(one.schedule.sampling_ratio(step), 3) for step in range(4, 12)]
    assert sampling[-1][0] > 0


def test_every_parameter_has_one_optimiser(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    one = trainer(tiny_config, RUN, tmp_path)
    held = [id(p) for optimizer in one.optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in one.model.parameters())
    matrices, others = split_parameters(one.model)
    assert all(matrix.dim() == 2 for matrix in matrices)
    assert any(parameter is one.model.bottleneck.regularizer.embedding.weight for parameter in others)
    assert any(parameter is one.model.taildrop_module.head.weight for parameter in others)


def test_a_handful_of_clips_is_learnt(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    run = replace(RUN, steps=120, batch_size=8, muon_learning_rate=1e-2, adam_learning_rate=3e-3, revive_every=20)
    one = trainer(tiny_config, run, tmp_path, length=8, families=["gradients"])
    history: list[dict[str, float]] = []
    one.run(lambda step, terms: history.append({name: value.item() for name, value in terms.items()}))
    assert history[30]["l1"] < 0.6 * history[0]["l1"]
    assert history[-1]["squared_error"] < 0.3 * history[0]["squared_error"]
    assert history[-1]["representation"] < history[40]["representation"]
    assert history[-1]["probability"] < 0.7 * history[0]["probability"]


def test_the_moving_average_is_what_its_formula_says(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    one = trainer(tiny_config, replace(RUN, ema_decay=0.75), tmp_path)
    name = "encoder_latent_query_embed"
    expected = None
    for _ in range(5):
        step(one)
        now = one.model.get_parameter(name).detach().double()
        expected = now if expected is None else 0.75 * expected + 0.25 * now
    assert expected is not None
    torch.testing.assert_close(one.weights.get_parameter(name).double(), expected, rtol=1e-5, atol=1e-6)
    one.save()
    assert torch.equal(load_checkpoint(tmp_path / "model").get_parameter(name), one.weights.get_parameter(name))


def test_accumulated_parts_give_the_gradients_of_the_whole(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    # Without batch statistics, and at full length, where every part holds as many tokens.
    plain = replace(tiny_config, code_norm="none")
    run = replace(RUN, weights=LossWeights(adversarial=0.1), adversarial_from=0.0)
    found = []
    for parts in (1, 2, 4):
        one = trainer(plain, replace(run, accumulate=parts), tmp_path / str(parts))
        phase = replace(one.schedule.phase(7), random_lengths=False)
        results = one.compute_gradients(one.loader.clips_at(0, 4), phase)
        assert len(results) == parts
        assert one.critic is not None
        both = [*one.model.named_parameters(), *one.critic.discriminator.named_parameters(prefix="discriminator")]
        found.append({name: value.grad for name, value in both if value.grad is not None})
    assert any(name.startswith("discriminator") for name in found[0])
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-6)


def test_the_discriminator_is_trained_by_its_own_loss_only(tiny_config: VaporTokConfig, tmp_path: Path) -> None:
    one = trainer(tiny_config, replace(RUN, weights=LossWeights(adversarial=0.1), adversarial_from=0.5), tmp_path)
    assert one.critic is not None
    start = one.critic.discriminator.head.linear.weight.detach().clone()
    seen: dict[int, Mapping[str, Tensor]] = {}
    one.run(lambda number, terms: seen.update({number: terms}))
    assert "adversarial" not in seen[6]
    assert {"adversarial", "discriminator", "lecam", "logits_real", "logits_fake"} <= seen[7].keys()
    assert not torch.equal(one.critic.discriminator.head.linear.weight, start)
    assert all(value.grad is None for value in one.critic.discriminator.parameters())
    held = {id(p) for optimizer in one.optimizers.values() for group in optimizer.param_groups for p in group["params"]}
    assert not held & {id(value) for value in one.critic.discriminator.parameters()}


def test_lpips_without_its_backbone_says_what_is_missing(
    tiny_config: VaporTokConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth.*perceptual=0"):
        trainer(tiny_config, replace(RUN, weights=LossWeights(perceptual=1.0)), tmp_path / "run")
