"""Squared error, PSNR and explained variance against NumPy."""

import numpy as np
import pytest
import torch

from vaportok_rl.evaluation import clip_variance, explained_variance, mean_squared_error, psnr


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randint(256, (3, 3, 4, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def decoded() -> torch.Tensor:
    return torch.rand(3, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def test_mean_squared_error(clips: torch.Tensor, decoded: torch.Tensor) -> None:
    expected = ((decoded.double().numpy() - clips.numpy() / 255.0) ** 2).mean(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(mean_squared_error(decoded, clips).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(mean_squared_error(decoded, clips.float() / 255).numpy(), expected, rtol=1e-5)


def test_psnr() -> None:
    mse = torch.tensor([1.0, 0.1, 0.01, 0.0])
    assert psnr(mse).tolist() == pytest.approx([0.0, 10.0, 20.0, 100.0], abs=1e-4)
    assert psnr(torch.tensor(0.0), floor=1e-4).item() == pytest.approx(40.0, abs=1e-4)


def test_clip_variance(clips: torch.Tensor) -> None:
    expected = (clips.numpy() / 255.0).reshape(3, -1).var(axis=1)
    np.testing.assert_allclose(clip_variance(clips).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(clip_variance(clips.float() / 255).numpy(), expected, rtol=1e-5)


def test_explained_variance(clips: torch.Tensor, decoded: torch.Tensor) -> None:
    mse = torch.stack([mean_squared_error(decoded, clips), torch.zeros(3)])
    variance = (clips.numpy() / 255.0).reshape(3, -1).var(axis=1)
    np.testing.assert_allclose(explained_variance(mse, clips).numpy(), 1 - mse.numpy() / variance, rtol=1e-4)


def test_a_constant_clip_has_a_floor_under_its_variance() -> None:
    grey = torch.full((1, 3, 2, 4, 4), 128, dtype=torch.uint8)
    assert explained_variance(torch.tensor([0.0]), grey).tolist() == [1.0]
    assert explained_variance(torch.tensor([1e-6]), grey).item() == pytest.approx(0.0, abs=1e-5)
