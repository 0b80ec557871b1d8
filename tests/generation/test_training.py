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
