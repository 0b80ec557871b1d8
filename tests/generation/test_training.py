"""The training loop: it learns, goes on to the bit, and refuses what does not belong together."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vaportok_rl.generation import (
    ClipGenerator,
    CodeSequences,
    GeneratorConfig,
    GeneratorTrainer,
    GeneratorTraining,
    SamplingOptions,
    generate_codes,
)
from vaportok_rl.generation.training import held_out_loss
from vaportok_rl.runtime.ranks import Processes
from vaportok_rl.tokenizer.pretraining import NonFiniteLossError

CONFIG = GeneratorConfig(width=32, layers=2, heads=2, tokens=6, codebook_size=9, label_names=("a", "b", "c"))
TRAINING = GeneratorTraining(steps=6, batch_size=8, save_every=2, validate_every=3)
SONGS = ([1, 2, 3, 4, 5, 6], [8], [7, 7, 0])


def songs(count: int = 30) -> CodeSequences:
    """Each class has one sequence."""
    rows = [SONGS[index % 3] for index in range(count)]
    codes = torch.tensor([row + [0] * (6 - len(row)) for row in rows])
    labels = torch.arange(count) % 3
    return CodeSequences(codes, torch.tensor([len(row) for row in rows]), labels, CONFIG.label_names, 9)


def weights(trainer: GeneratorTrainer) -> list[torch.Tensor]:
    return [value.clone() for value in trainer.model.state_dict().values()]


def test_it_learns_each_class_and_its_length(tmp_path: Path) -> None:
    trainer = GeneratorTrainer(CONFIG, replace(TRAINING, steps=60), songs(), tmp_path)
    before = held_out_loss(trainer.model, songs(6))
    trainer.run()
    found = generate_codes(ClipGenerator.load(tmp_path), torch.tensor([0, 1, 2]), SamplingOptions(top_k=1))
    assert [codes[:n].tolist() for codes, n in zip(found.codes, found.n_tokens.tolist(), strict=True)] == list(SONGS)
    assert held_out_loss(trainer.model.eval(), songs(6)) < 0.4 * before


def test_the_rate_rises_in_the_warmup_and_falls_by_half_a_cosine() -> None:
    training = replace(TRAINING, steps=100, warmup=0.2)
    assert [training.rate(step) for step in (0, 9, 19)] == pytest.approx([0.05, 0.5, 1])
    assert [training.rate(step) for step in (39, 59, 99)] == pytest.approx([0.5 + 0.125**0.5, 0.5, 0], abs=1e-12)
    assert replace(training, warmup=0.0).rate(49) == pytest.approx(0.5)


def test_a_step_is_clipped_and_has_the_rates_and_the_loss_per_token(tmp_path: Path) -> None:
    training = replace(TRAINING, steps=100, warmup=0.2, max_grad_norm=1e-3, unconditional=0.5)
    trainer = GeneratorTrainer(CONFIG, training, songs(), tmp_path)
    taken, labels = trainer.batch(0)
    assert taken.n_tokens.tolist() == sorted(taken.n_tokens.tolist())
    assert 0 < int((labels == CONFIG.no_class).sum()) < 8
    kept = int((taken.n_tokens + 1).sum())  # [stop] counts
    with torch.no_grad():
        wanted = float(trainer.model.loss(taken.codes, labels, taken.n_tokens).sum()) / kept
    found = trainer.train_step()
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)
    assert found["gradient_norm"] > 1e-3  # before clipping
    left = torch.stack([value.grad.norm() for value in trainer.model.parameters() if value.grad is not None]).norm()
    assert float(left) == pytest.approx(1e-3, rel=1e-3)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in trainer.optimizers.items()}
    peaks = {"muon": training.muon_learning_rate, "adamw": training.adam_learning_rate}
    assert rates == pytest.approx({name: peak * 0.05 for name, peak in peaks.items()})


def test_the_held_out_loss_is_the_mean_over_tokens_and_stops(tmp_path: Path) -> None:
    model, some = GeneratorTrainer(CONFIG, TRAINING, songs(), tmp_path).model.eval(), songs(7)
    with torch.no_grad():
        total = float(model.loss(some.codes, some.labels, some.n_tokens).sum())
    wanted = total / int((some.n_tokens + 1).sum())
    assert [held_out_loss(model, some, size) for size in (2, 64)] == pytest.approx([wanted] * 2, rel=1e-5)


@pytest.mark.parametrize("stopped_at", [2, 3])
def test_a_resumed_run_is_the_same_to_the_bit(tmp_path: Path, stopped_at: int) -> None:
    whole = GeneratorTrainer(CONFIG, TRAINING, songs(), tmp_path / "whole")
    seen: list[int] = []
    whole.run(validate=lambda model, step: seen.append(step))
    assert seen == [3, 6]
    first = GeneratorTrainer(CONFIG, TRAINING, songs(), tmp_path / "parts")

    def stop(step: int, found: object) -> None:
        if step == stopped_at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        first.run(stop)
    second = GeneratorTrainer(CONFIG, TRAINING, songs(), tmp_path / "parts", resume=True)
    assert second.step == stopped_at
    second.run()
    for one, other in zip(weights(whole), weights(second), strict=True):
        assert torch.equal(one, other)
    files = [next((tmp_path / run / "model").iterdir()).read_bytes() for run in ("whole", "parts")]
    assert files[0] == files[1]


def test_other_settings_and_sequences_are_refused(tmp_path: Path) -> None:
    GeneratorTrainer(CONFIG, replace(TRAINING, steps=2), songs(), tmp_path).run()
    for training, sequences, word in (
        (replace(TRAINING, steps=2, batch_size=4), songs(), "batch_size: 8 then, 4 now"),
        (replace(TRAINING, steps=2), songs(27), "sequences"),
    ):
        with pytest.raises(ValueError, match=word):
            GeneratorTrainer(CONFIG, training, sequences, tmp_path, resume=True)
    with pytest.raises(ValueError, match="K = 5"):
        GeneratorTrainer(replace(CONFIG, tokens=5), TRAINING, songs(), tmp_path)
    with pytest.raises(FileNotFoundError, match="without --resume"):
        GeneratorTrainer(CONFIG, TRAINING, songs(), tmp_path / "empty", resume=True)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    trainer = GeneratorTrainer(CONFIG, TRAINING, songs(), tmp_path)
    with torch.no_grad():
        trainer.model.head.weight[0] = torch.nan
    before = weights(trainer)
    with pytest.raises(NonFiniteLossError, match="at step 0"):
        trainer.run()
    for one, other in zip(before, weights(trainer), strict=True):
        assert torch.equal(one, other) or bool(one.isnan().any())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    trainer = GeneratorTrainer(CONFIG, TRAINING, songs(), tmp_path)
    before = trainer.save().read_bytes()
    with torch.no_grad():
        trainer.model.head.weight[0, 0] = torch.inf
    with pytest.raises(NonFiniteLossError, match=r"infinity in model\.head\.weight at step 0; .*training_state"):
        trainer.save()
    assert (tmp_path / "training_state.pt").read_bytes() == before


def test_processes_share_the_batch(tmp_path: Path) -> None:
    one = GeneratorTrainer(CONFIG, TRAINING, songs(), tmp_path)
    parts = [GeneratorTrainer(CONFIG, TRAINING, songs(), tmp_path, processes=Processes(rank, 2)) for rank in (0, 1)]
    whole, labels = one.batch(3)
    assert int((labels == CONFIG.no_class).sum()) < 8
    for rank, part in enumerate(parts):
        taken, given = part.batch(3)
        assert torch.equal(taken.codes, whole.codes[rank::2])
        assert torch.equal(given, labels[rank::2])
    with pytest.raises(ValueError, match="share equally"):
        GeneratorTrainer(CONFIG, replace(TRAINING, batch_size=9), songs(), tmp_path, processes=Processes(0, 2))


def test_some_sequences_are_shown_without_their_class(tmp_path: Path) -> None:
    trainer = GeneratorTrainer(CONFIG, replace(TRAINING, unconditional=0.25), songs(), tmp_path)
    hidden = torch.cat([trainer.batch(step)[1] for step in range(100)]) == CONFIG.no_class
    assert hidden.float().mean() == pytest.approx(0.25, abs=0.06)
    never = GeneratorTrainer(CONFIG, replace(TRAINING, unconditional=0.0), songs(), tmp_path)
    assert int(torch.cat([never.batch(step)[1] for step in range(20)]).max()) < CONFIG.no_class
