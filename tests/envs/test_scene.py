"""Picking, replacing and joining scenes; reading lengths out of an outcome that holds every length."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from vaportok_rl.envs import Outcome, OutcomeOfAllLengths, Scene


def make_scene(paths: int, length: int, seed: int = 0) -> Scene:
    """A scene of random numbers; no world is needed to move it about."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(paths, length, *shape, generator=rng)

    return Scene(
        latents=draw(6, 4),
        codes=(draw(6) * 32).long(),
        hits=draw(6),
        complexity=draw(2),
        clips=(draw(3, 2, 4, 4) * 255).to(torch.uint8),
        labels=(draw() * 5).long(),
        ids=(draw() * 1000).long(),
        bits=draw(6),
        prior_mean=draw() * 6,
    )


def make_outcome(paths: int = 3, length: int = 4, tokens: int = 6) -> OutcomeOfAllLengths:
    rng = torch.Generator().manual_seed(7)
    shape = (tokens, paths, length)
    lengths = torch.arange(1, tokens + 1)[:, None, None].expand(shape)
    mse, accuracy = torch.rand(shape, generator=rng), torch.rand(shape, generator=rng)
    return OutcomeOfAllLengths(make_scene(paths, length), lengths, mse, accuracy)


def test_at_picks_one_clip_of_each_path() -> None:
    scene = make_scene(4, 5)
    paths, steps = [2, 0, 2], [4, 1, 0]
    picked = scene.at(torch.tensor(paths), torch.tensor(steps))
    assert picked.shape == (3, 1)
    for field in fields(Scene):
        for row, (path, step) in enumerate(zip(paths, steps, strict=True)):
            assert torch.equal(getattr(picked, field.name)[row, 0], getattr(scene, field.name)[path, step])


def test_replace_paths_copies() -> None:
    scene, new = make_scene(4, 2), make_scene(2, 2, seed=1)
    before = {field.name: getattr(scene, field.name).clone() for field in fields(Scene)}
    replaced = scene.replace_paths(torch.tensor([3, 1]), new)
    for field in fields(Scene):
        value, old, fresh = (getattr(which, field.name) for which in (replaced, scene, new))
        assert torch.equal(old, before[field.name])
        assert torch.equal(value[[0, 2]], old[[0, 2]])
        assert torch.equal(value[3], fresh[0])
        assert torch.equal(value[1], fresh[1])


def test_join_is_the_inverse_of_taking_apart() -> None:
    scene = make_scene(3, 2)
    parts = [Scene(*(getattr(scene, field.name)[p : p + 1] for field in fields(Scene))) for p in range(3)]
    joined = parts[0].joined(parts[1:])
    for field in fields(Scene):
        assert torch.equal(getattr(joined, field.name), getattr(scene, field.name))


def test_take_looks_every_length_up() -> None:
    every = make_outcome()
    n_tokens = torch.randint(1, 7, (5, 3, 4), generator=torch.Generator().manual_seed(1))
    taken = every.take(n_tokens)
    assert torch.equal(taken.n_tokens, n_tokens)
    assert taken.tokens == every.tokens
    for g, p, j in np.ndindex(5, 3, 4):
        row = int(n_tokens[g, p, j]) - 1
        assert taken.mse[g, p, j] == every.mse[row, p, j]
        assert taken.accuracy[g, p, j] == every.accuracy[row, p, j]


def test_psnr_has_a_floor() -> None:
    mse = torch.tensor([[[0.0, 1e-12, 0.01, 1.0]]])
    outcome = Outcome(make_scene(1, 4), torch.ones(1, 1, 4, dtype=torch.int64), mse, mse)
    assert outcome.psnr[0, 0].tolist() == pytest.approx([100.0, 100.0, 20.0, 0.0], abs=1e-4)


def test_a_bare_scene_has_what_terms_look_at_and_the_form_of_a_scene() -> None:
    scene = make_scene(2, 3)
    bare = Scene.bare(scene.codes, scene.complexity)
    assert (bare.shape, bare.tokens) == (scene.shape, scene.tokens)
    assert all(getattr(bare, field.name).shape[:2] == (2, 3) for field in fields(Scene))
