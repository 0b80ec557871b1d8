"""Tests of the tests: each of these changes to the code must turn a named test red.

The quick test sees that every change still applies. ``pytest -m slow tests/test_mutations.py`` applies one after the
other to a copy of the tree and runs the test that it names, a few seconds a change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

_ROOT = Path(__file__).resolve().parents[1]


class Change(NamedTuple):
    """A wrong edit: what it does, text that occurs once in the file, what replaces it, and the test that must fail."""

    file: str
    what: str
    right: str
    wrong: str
    test: str


_STEPS = "test_the_schedule_reaches_optimisers_and_loss"
_DECAY = "test_without_a_gradient_every_parameter_decays"
_CRITIC = "test_the_critic_descends_both_losses_with_the_weights_of_its_settings"
_AVERAGE = "test_the_moving_average_is_what_its_formula_says"
_PHASE = "test_the_loss_is_told_the_settings_and_the_phase"
_LENGTHS = "test_lengths_are_drawn_from_the_policy_but_for_the_phases_shares"

_LOADED = "        if value.is_floating_point() and not bool(value.isfinite().all()):"
_NOISE = (
    '        if name.startswith("{}"):\n            value.copy_(torch.randn_like(value) * value.std(correction=0))\n'
)

_EDITS = {
    "vaportok_rl/tokenizer/checkpoint.py": [
        (
            f"noise for {part}",
            _LOADED,
            _NOISE.format(part) + _LOADED,
            "test_the_shipped_weights_are_as_good_as_released",
        )
        for part in ("encoder.", "decoder.", "prior_model.")
    ],
    "vaportok_rl/clips/procedural/source.py": [
        ("contrast changed", "0.16 * spatial)", "0.18 * spatial)", "test_the_clips_are_those_of_the_shipped_weights"),
    ],
    "vaportok_rl/tokenizer/pretraining/trainer.py": [
        ("learning-rate schedule not applied", "peaks[name] * factor", "peaks[name]", _STEPS),
        (
            "Muon's and AdamW's rates swapped",
            '"muon": self.config.muon_learning_rate, "adamw": self.config.adam_learning_rate',
            '"adamw": self.config.muon_learning_rate, "muon": self.config.adam_learning_rate',
            _STEPS,
        ),
        (
            "gradients not clipped",
            "(self.model.parameters(), self.config.max_grad_norm)",
            "(self.model.parameters(), 1e9)",
            _STEPS,
        ),
        (
            "codebook initialised from other clips",
            "(self.step + index) * size",
            "index * size",
            "test_the_codebook_starts_once_on_the_clips_of_its_own_step",
        ),
        (
            "complexities of other clips",
            "(self.config.calibration_clips)",
            "(4)",
            "test_complexity_is_calibrated_on_the_training_clips",
        ),
        (
            "accumulated parts added up",
            "result.loss / self.config.accumulate",
            "result.loss",
            "test_accumulated_parts_give_the_gradients_of_the_whole",
        ),
        ("average of weights stands still", "self.average.update_parameters(self.model)", "pass", _AVERAGE),
        ("average of weights decays otherwise", "avg_fn(config.ema_decay)", "avg_fn(0.5)", _AVERAGE),
    ],
    "vaportok_rl/tokenizer/pretraining/adversarial.py": [
        (
            "discriminator's gradients not clipped",
            "parameters(), self.config.max_grad_norm)",
            "parameters(), 1e9)",
            _STEPS,
        ),
        (
            "discriminator's schedule off",
            "discriminator_learning_rate * learning_rate_factor",
            "discriminator_learning_rate",
            _STEPS,
        ),
        ("labels not smoothed", "fake, self.config.label_smoothing)", "fake, 0.0)", _CRITIC),
        ("LeCam regularisation dropped", "self.config.lecam * lecam", "0 * lecam", _CRITIC),
        ("mean logits not followed", "self.regularizer.update(*torch.stack(self._means).mean(0))", "pass", _CRITIC),
    ],
    "vaportok_rl/tokenizer/pretraining/schedule.py": [
        (
            "sampling ratio 0",
            "config.sampling_peak * min(1.0,",
            "0.0 * min(1.0,",
            "test_own_samples_come_in_over_the_ramp",
        ),
        ("lengths never drawn", "step >= config.random_lengths_from * config.steps", "False", _PHASE),
        ("uniform lengths forgotten", "uniform_lengths=config.uniform_lengths", "uniform_lengths=0.0", _PHASE),
        ("unused codes left", "step % config.revive_every == 0", "False", "test_codes_are_revived_until_the_decay"),
    ],
    "vaportok_rl/tokenizer/pretraining/loss.py": [
        ("no scheduled sampling", "phase.sampling_ratio,", "0.0,", _STEPS),
        (
            "prior's loss on the last round only",
            "for logits in rounds])",
            "for logits in rounds[-1:]])",
            "test_the_prior_learns_from_every_round_of_sampling",
        ),
        (
            "commitment weights swapped",
            "0.25 * F.mse_loss(unit, own.detach()) + F.mse_loss(own, unit.detach())",
            "F.mse_loss(unit, own.detach()) + 0.25 * F.mse_loss(own, unit.detach())",
            "test_commitment_pulls_the_codes_four_times_as_hard_as_the_latents",
        ),
        ("uniform lengths not drawn", "uniform_share=phase.uniform_lengths", "uniform_share=0.0", _LENGTHS),
        ("full lengths not drawn", "full_share=phase.full_lengths", "full_share=0.0", _LENGTHS),
        (
            "latents never quantised",
            "torch.where(take[..., None], quantized.vectors, unit)",
            "unit",
            "test_quantised_terms",
        ),
        (
            "taildrop module's gradient reaches the encoder",
            "latents.detach() if config.taildrop.stop_gradient else latents",
            "latents",
            "test_probability_prior_reaches_the_encoder_only_if_asked",
        ),
        (
            "codes always the nearest",
            "uniform if self._sampled_codes else None",
            "None",
            "test_codes_are_drawn_or_the_nearest",
        ),
    ],
    "vaportok_rl/tokenizer/pretraining/optimizers.py": [
        (
            "Muon's weight decay dropped",
            "            weight_decay=config.weight_decay,\n",
            "            weight_decay=0.0,\n",
            _DECAY,
        ),
        (
            "AdamW's weight decay dropped",
            "adam_learning_rate, weight_decay=config.weight_decay",
            "adam_learning_rate, weight_decay=0.0",
            _DECAY,
        ),
        ("float32 Muon does not decay", 'matrix.mul_(1 - group["lr"] * group["weight_decay"])', "matrix", _DECAY),
    ],
    "vaportok_rl/tokenizer/pretraining/codebook.py": [
        ("revived codes keep their moments", "value[dead] = 0", "pass", "test_revival_moves_the_dead_and_only_them"),
    ],
}
CHANGES = [Change(file, *edit) for file, edits in _EDITS.items() for edit in edits]


@cache
def _place(test: str) -> str:
    """A test's address, from its name."""
    files = [file for file in (_ROOT / "tests").rglob("test_*.py") if f"\ndef {test}(" in file.read_text("utf-8")]
    assert len(files) == 1, f"{test}: {files}"
    return f"{files[0].relative_to(_ROOT).as_posix()}::{test}"


@pytest.mark.parametrize("change", CHANGES, ids=[change.what for change in CHANGES])
def test_a_change_still_applies(change: Change) -> None:
    assert (_ROOT / change.file).read_text("utf-8").count(change.right) == 1
    assert _place(change.test)


def _ends(tree: Path, *tests: str) -> tuple[int, str]:
    """Exit status and the end of the output of pytest in a tree."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-o",
            "addopts=--import-mode=importlib",
            "-p",
            "no:cacheprovider",
            *tests,
        ],
        cwd=tree,
        # Compiled files are told apart by the second and the size, which a change may leave as they are.
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout[-2000:] + done.stderr[-1000:]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the named tests pass."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("vaportok_rl", "tests"):
        shutil.copytree(_ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_ROOT / "pyproject.toml", copy)
    code, shown = _ends(copy, *sorted({_place(change.test) for change in CHANGES}))
    assert code == 0, shown
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=[change.what for change in CHANGES])
def test_a_wrong_change_turns_its_test_red(tree: Path, change: Change) -> None:
    file = tree / change.file
    right = file.read_text("utf-8")
    file.write_text(right.replace(change.right, change.wrong), "utf-8")
    try:
        code, shown = _ends(tree, _place(change.test))
    finally:
        file.write_text(right, "utf-8")
    assert code == 1, f"{change.what}: {shown}"
