"""Hints at mistyped names."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaportok_rl.runtime.messages import closest_name, did_you_mean, no_such_path

KNOWN = ("latents", "complexity", "codes", "clip")


@pytest.mark.parametrize(("given", "meant"), [("latent", "latents"), ("complexty", "complexity"), ("cilp", "clip")])
def test_a_slip_of_the_finger_is_recognised(given: str, meant: str) -> None:
    assert closest_name(given, KNOWN) == meant
    assert did_you_mean(given, iter(KNOWN), "choose one.") == f"did you mean '{meant}'?"


@pytest.mark.parametrize("given", ["", "velocity", "xyz"])
def test_a_name_that_resembles_none_gets_the_other_advice(given: str) -> None:
    assert closest_name(given, KNOWN) is None
    assert did_you_mean(given, KNOWN, "choose one.") == "choose one."


def test_where_nothing_is_known_nothing_is_suggested() -> None:
    assert did_you_mean("nano", (), "train one.") == "train one."


def test_of_several_alike_the_closest_is_suggested() -> None:
    assert closest_name("min_token", ["max_tokens", "min_tokens", "token_budget"]) == "min_tokens"


def test_a_path_that_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = no_such_path("a video file", "clps/a.mp4", "does not exist")
    assert isinstance(error, FileNotFoundError)
    assert str(error) == (
        f"Expected a video file, got 'clps/a.mp4', which does not exist (working directory {tmp_path}); check the "
        "spelling or pass an absolute path."
    )
