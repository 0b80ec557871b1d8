"""The prior: causality, its loss and accuracy against loops, and scheduled sampling."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from vaportok_rl.tokenizer import PriorConfig, VaporTok
from vaportok_rl.tokenizer.prior import (
    AutoregressivePrior,
    cumulative_hits,
    prior_loss,
    scheduled_sampling_logits,
    top_k_accuracy,
)


def random_case(seed: int, clips: int = 3, tokens: int = 7, codes: int = 20) -> tuple[Tensor, Tensor]:
    """Logits without ties and labels that are often among the best."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(clips, tokens - 1, codes, generator=generator)
    return logits, torch.randint(codes, (clips, tokens), generator=generator)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 9))
def test_accuracy_of_every_length_is_recounted_with_topk(seed: int, k: int, tokens: int) -> None:
    logits, codes = random_case(seed, tokens=tokens)
    assert logits.numel() == logits.unique().numel()  # topk breaks ties as it likes
    hits = cumulative_hits(logits, codes, k)
    assert hits.shape == (3, tokens)
    for n in range(1, tokens + 1):
        accuracy = top_k_accuracy(hits, torch.full((3,), n))
        for clip in range(3):
            best = [logits[clip, label - 1].topk(k).indices.tolist() for label in range(1, n)]
            counted = sum(codes[clip, label].item() in best[label - 1] for label in range(1, n))
            assert hits[clip, n - 1] == counted
            assert accuracy[clip].item() == pytest.approx(counted / (n - 1) if n > 1 else 0.0)


@pytest.mark.parametrize("logits", [torch.zeros(2, 6, 30), torch.full((2, 6, 30), torch.nan)], ids=["alike", "NaN"])
def test_logits_that_predict_nothing_hit_nothing(logits: torch.Tensor) -> None:
    assert not cumulative_hits(logits, torch.ones(2, 7, dtype=torch.int64)).any()


@pytest.mark.parametrize("lengths", [[1, 1, 1], [7, 7, 7], [1, 4, 7], [2, 2, 3]])
def test_loss_counts_labels_that_are_kept(lengths: list[int]) -> None:
    logits, codes = random_case(1)
    losses = []
    for clip, n in enumerate(lengths):
        for label in range(1, n):
            row = logits[clip, label - 1].double().tolist()
            total = math.log(sum(math.exp(value) for value in row))
            losses.append(total - row[codes[clip, label].item()])
    expected = sum(losses) / len(losses) if losses else 0.0
    assert prior_loss(logits, codes, torch.tensor(lengths)).item() == pytest.approx(expected, abs=1e-5)


def test_loss_has_no_gradient_from_dropped_labels() -> None:
    logits, codes = random_case(2)
    logits.requires_grad_(True)
    lengths = torch.tensor([1, 4, 7])
    (gradient,) = torch.autograd.grad(prior_loss(logits, codes, lengths), logits)
    supervised = gradient.abs().sum(-1) > 0
    assert supervised.sum(1).tolist() == [0, 3, 6]
    assert supervised[1].tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("token", range(8))
def test_a_token_changes_no_earlier_row(tiny: VaporTok, token: int) -> None:
    torch.manual_seed(token)
    codes = torch.randint(tiny.config.codebook_size, (2, 8))
    changed = codes.clone()
    changed[:, token] = (changed[:, token] + 1) % tiny.config.codebook_size
    before, after = tiny.prior_logits(codes), tiny.prior_logits(changed)
    assert before.shape == (2, 7, tiny.config.codebook_size)
    torch.testing.assert_close(after[:, :token], before[:, :token], rtol=0, atol=1e-6)
    rows = (after - before).abs().amax(-1)[:, token:]
    assert bool((rows > 1e-4).all())  # the last token (no rows left) is a label only


def test_logits_are_cosines_over_the_temperature(tiny: VaporTok) -> None:
    codes = torch.arange(8)[None]
    vectors = tiny.bottleneck.regularizer.lookup(codes)
    predicted = tiny.prior_model.predict(vectors[:, :-1])
    torch.testing.assert_close(predicted.square().sum(-1), torch.ones(1, 7))
    book = tiny.bottleneck.regularizer.embedding.weight
    cosine = torch.nn.functional.cosine_similarity(predicted[:, :, None], book[None, None], dim=-1)
    torch.testing.assert_close(tiny.prior_logits(codes), cosine / tiny.config.prior.temperature, rtol=1e-4, atol=1e-4)


def test_the_prior_never_moves_the_codebook(tiny: VaporTok) -> None:
    tiny.requires_grad_(True)
    book = tiny.bottleneck.regularizer
    vectors = torch.nn.functional.normalize(torch.randn(1, 8, 4), dim=-1)
    loss = tiny.prior_model.logits(vectors, book.unit_codes()).square().sum()
    assert torch.autograd.grad(loss, book.embedding.weight, allow_unused=True) == (None,)


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    prior = AutoregressivePrior(PriorConfig(layers=2, heads=2, width=16, positions=8, dropout=0.5), code_width=4)
    vectors = torch.nn.functional.normalize(torch.randn(2, 6, 4), dim=-1)
    prior.eval()
    assert torch.equal(prior.predict(vectors), prior.predict(vectors))
    prior.train()
    assert not torch.equal(prior.predict(vectors), prior.predict(vectors))


class RecordingPrior(AutoregressivePrior):
    """Writes down what it was fed and answers with logits that depend on it."""

    def __init__(self, codes: int) -> None:
        super().__init__(PriorConfig(layers=1, heads=1, width=4, positions=64), code_width=codes)
        self.fed: list[Tensor] = []
        self.table = torch.randn(64, codes)

    def logits(self, vectors: Tensor, unit_codes: Tensor, mask: Tensor | None = None) -> Tensor:
        self.fed.append(vectors)
        return (self.table[: vectors.shape[1] - 1] + len(self.fed)).expand(vectors.shape[0], -1, -1)


def one_hot_case(clips: int, tokens: int, codes: int) -> tuple[RecordingPrior, Tensor, Tensor]:
    torch.manual_seed(7)
    book = torch.eye(codes)
    return RecordingPrior(codes), book[torch.randint(codes, (clips, tokens))], book


@pytest.mark.parametrize(("ratio", "rounds"), [(0.0, 2), (0.7, 1)])
def test_one_round_where_nothing_is_replaced(ratio: float, rounds: int) -> None:
    prior, vectors, book = one_hot_case(2, 5, 3)
    results = scheduled_sampling_logits(prior, vectors, book, ratio, rounds)
    assert len(results) == 1
    assert len(prior.fed) == 1
    assert torch.equal(prior.fed[0], vectors)


def test_position_zero_is_always_true() -> None:
    prior, vectors, book = one_hot_case(50, 6, 5)
    results = scheduled_sampling_logits(prior, vectors, book, ratio=1.0, rounds=3)
    assert len(results) == 3
    for fed in prior.fed:
        assert torch.equal(fed[:, 0], vectors[:, 0])
        assert bool((fed.sum(-1) == 1).all())
        assert bool((fed.amax(-1) == 1).all())


def test_the_same_positions_are_replaced_in_every_round() -> None:
    prior, vectors, book = one_hot_case(400, 26, 200)
    scheduled_sampling_logits(prior, vectors, book, ratio=0.3, rounds=3)
    second, third = ((fed != vectors).any(-1) for fed in prior.fed[1:])
    # A replacement may be the true code by chance (1 in 200 or so).
    assert (second != third).float().mean() < 0.02
    replaced = (second | third)[:, 1:].sum().item()
    assert stats.binomtest(replaced, 400 * 25, 0.3).pvalue > 1e-3


def test_replacements_are_sampled_from_the_round_before() -> None:
    prior, vectors, book = one_hot_case(8000, 3, 4)
    scheduled_sampling_logits(prior, vectors, book, ratio=1.0, rounds=2)
    for position in (1, 2):
        counts = prior.fed[1][:, position].sum(0)
        expected = prior.table[position - 1].double().softmax(-1) * 8000
        assert stats.chisquare(counts.double().numpy(), expected.numpy()).pvalue > 1e-3


def test_scheduled_sampling_has_a_gradient_to_the_true_vectors(tiny: VaporTok) -> None:
    tiny.requires_grad_(True)
    vectors = torch.nn.functional.normalize(torch.randn(2, 8, 4), dim=-1).requires_grad_(True)
    book = tiny.bottleneck.regularizer.unit_codes()
    generator = torch.Generator().manual_seed(0)
    results = scheduled_sampling_logits(
        tiny.prior_model, vectors, book, 1.0, uniform=lambda shape: torch.rand(shape, generator=generator)
    )
    weights = torch.randn(results[1].shape)
    (gradient,) = torch.autograd.grad((results[1] * weights).sum(), vectors)
    assert gradient[:, 0].abs().min() > 0
    assert gradient[:, 1:].eq(0).all()  # all of them were replaced


def test_a_single_token_leaves_nothing_to_predict(tiny: VaporTok) -> None:
    logits = tiny.prior_logits(torch.zeros(2, 1, dtype=torch.int64))
    assert logits.shape == (2, 0, tiny.config.codebook_size)
    assert cumulative_hits(logits, torch.zeros(2, 1, dtype=torch.int64)).tolist() == [[0.0], [0.0]]


def test_prior_temperature_leaves_the_ranking_alone(tiny: VaporTok) -> None:
    codes = torch.randint(32, (2, 8), generator=torch.Generator().manual_seed(0))
    other = VaporTok(replace(tiny.config, prior=replace(tiny.config.prior, temperature=1.0))).freeze()
    other.load_state_dict(tiny.state_dict())
    hits, others = (cumulative_hits(model.prior_logits(codes), codes) for model in (tiny, other))
    assert torch.equal(hits, others)
