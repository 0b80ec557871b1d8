"""Clustering on the sphere, counting codes and moving the dead ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vaportok_rl.tokenizer.pretraining.codebook import CodebookCare, spherical_kmeans


def blobs(spread: float = 0.05) -> tuple[Tensor, Tensor]:
    """Five tight bundles of 40 unit vectors around orthogonal directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.eye(8)[:5]
    points = directions.repeat_interleave(40, 0) + spread * torch.randn(200, 8, generator=generator)
    return F.normalize(points, dim=1), directions


def test_kmeans_finds_bundles() -> None:
    unit, directions = blobs()
    centres = spherical_kmeans(unit, 12, 10, torch.Generator().manual_seed(1))
    assert centres.shape == (12, 8)
    torch.testing.assert_close(centres.square().sum(1), torch.ones(12))
    assert (centres @ directions.T).amax(0).min() > 0.99
    assert (unit @ centres.T).amax(1).min() > 0.97


def test_kmeans_in_parts_is_kmeans(monkeypatch: pytest.MonkeyPatch) -> None:
    unit, _ = blobs()
    whole = spherical_kmeans(unit, 12, 10, torch.Generator().manual_seed(1))
    monkeypatch.setattr("vaportok_rl.tokenizer.pretraining.codebook.MAX_COSINES", 12 * 7)
    torch.testing.assert_close(spherical_kmeans(unit, 12, 10, torch.Generator().manual_seed(1)), whole)


def test_kmeans_of_as_many_clusters_as_points_is_the_points() -> None:
    unit = F.normalize(torch.randn(6, 3, generator=torch.Generator().manual_seed(2)), dim=1)
    centres = spherical_kmeans(unit, 6, 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close((centres @ unit.T).amax(0), torch.ones(6))


def test_one_cluster_is_the_mean_direction() -> None:
    unit, _ = blobs()
    centre = spherical_kmeans(unit, 1, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(centre, F.normalize(unit.sum(0, keepdim=True), dim=1))


def test_more_rounds_fit_better() -> None:
    unit = F.normalize(torch.randn(500, 4, generator=torch.Generator().manual_seed(3)), dim=1)
    fits = [
        (unit @ spherical_kmeans(unit, 16, rounds, torch.Generator().manual_seed(4)).T).amax(1).mean().item()
        for rounds in (0, 1, 10)
    ]
    assert fits[0] < fits[1] < fits[2]


def test_duplicates_leave_no_empty_cluster_undefined() -> None:
    unit = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat_interleave(10, 0), dim=1)
    centres = spherical_kmeans(unit, 8, 5, torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(centres).all())
    torch.testing.assert_close((unit @ centres.T).amax(1), torch.ones(20))


def test_used_share_counts_every_code_seen() -> None:
    care = CodebookCare(8)
    assert care.used_share() == 0
    care.record(torch.tensor([[0, 0], [3, 3]]))
    care.record(torch.tensor([7]))
    assert care.counts.tolist() == [2, 0, 0, 2, 0, 0, 0, 1]
    assert care.used_share() == 3 / 8


def test_revival_moves_the_dead_and_only_them() -> None:
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(6, 3)
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=0.0)
    embedding.weight.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    before = embedding.weight.detach().clone()
    moments = {name: optimizer.state[embedding.weight][name].clone() for name in ("exp_avg", "exp_avg_sq")}
    assert all(moment.abs().min() > 0 for moment in moments.values())

    care = CodebookCare(6)
    care.record(torch.tensor([0, 2, 5, 5]))
    unit = F.normalize(torch.randn(2, 4, 3), dim=-1)
    assert care.revive(embedding, unit, optimizer, torch.Generator().manual_seed(0)) == 3

    alive, dead = [0, 2, 5], [1, 3, 4]
    assert torch.equal(embedding.weight[alive], before[alive])
    pool = unit.reshape(-1, 3).tolist()
    assert all(row in pool for row in embedding.weight[dead].tolist())
    for name, moment in moments.items():
        current = optimizer.state[embedding.weight][name]
        assert torch.equal(current[alive], moment[alive])
        assert current[dead].eq(0).all()
    assert optimizer.state[embedding.weight]["step"] == 1
    assert care.counts.eq(0).all()


def test_nothing_dead_nothing_moved() -> None:
    embedding = torch.nn.Embedding(3, 2)
    before = embedding.weight.detach().clone()
    care = CodebookCare(3)
    care.record(torch.arange(3))
    assert care.revive(embedding, torch.randn(4, 2), torch.optim.AdamW(embedding.parameters()), torch.Generator()) == 0
    assert torch.equal(embedding.weight, before)
