"""Masks written out as loops, and the supplement's Figure 2(b) against "causal mask + loss mask"."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vaportok_rl.tokenizer import VaporTok
from vaportok_rl.tokenizer.lengths import decoder_visible, kept_tokens, prior_supervised
from vaportok_rl.tokenizer.prior import prior_loss


def prior_attention(n_tokens: Tensor, tokens: int) -> Tensor:
    """The explicit attention mask of Figure 2(b): ``bool [B, tokens, tokens]``, True where row may attend to column.

    Both tokens are kept and the column is not later. A dropped one sees only itself, so that its row is a distribution.
    """
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    kept = kept_tokens(n_tokens, tokens)
    return (causal & kept[:, :, None] & kept[:, None, :]) | torch.eye(tokens, dtype=torch.bool)


@st.composite
def lengths(draw: st.DrawFn) -> tuple[list[int], int]:
    tokens = draw(st.integers(1, 12))
    return draw(st.lists(st.integers(1, tokens), min_size=1, max_size=5)), tokens


@given(lengths())
def test_kept_tokens(case: tuple[list[int], int]) -> None:
    n_tokens, tokens = case
    expected = [[index < n for index in range(tokens)] for n in n_tokens]
    assert kept_tokens(torch.tensor(n_tokens), tokens).tolist() == expected
    batched = kept_tokens(torch.tensor(n_tokens)[:, None, None].expand(-1, 2, 3), tokens)
    assert batched.shape == (len(n_tokens), 2, 3, tokens)
    assert batched[:, 1, 2].tolist() == expected


@given(lengths(), st.integers(1, 5))
def test_decoder_sees_kept_latents_and_all_patches(case: tuple[list[int], int], patches: int) -> None:
    n_tokens, tokens = case
    visible = decoder_visible(torch.tensor(n_tokens), tokens, patches)
    for row, n in enumerate(n_tokens):
        for key in range(tokens + patches):
            is_patch = key >= tokens
            assert visible[row, key].item() == (is_patch or key + 1 <= n)


@given(lengths())
def test_prior_is_supervised_where_the_label_is_kept(case: tuple[list[int], int]) -> None:
    n_tokens, tokens = case
    supervised = prior_supervised(torch.tensor(n_tokens), tokens)
    assert supervised.shape == (len(n_tokens), tokens - 1)
    for row, n in enumerate(n_tokens):
        kept_labels = [label for label in range(1, tokens) if label in range(n)]
        assert (supervised[row].nonzero().flatten() + 1).tolist() == kept_labels
        assert supervised[row].sum() == n - 1


@given(lengths())
def test_figure_2b(case: tuple[list[int], int]) -> None:
    n_tokens, tokens = case
    mask = prior_attention(torch.tensor(n_tokens), tokens)
    for item, n in enumerate(n_tokens):
        for query in range(tokens):
            for key in range(tokens):
                both_kept = query < n and key < n
                assert mask[item, query, key].item() == ((both_kept and key <= query) or key == query)


def test_figure_2b_equals_causal_mask_on_kept_positions(tiny: VaporTok) -> None:
    torch.manual_seed(3)
    tokens = tiny.config.tokens
    n_tokens = torch.arange(1, tokens + 1)
    codes = torch.randint(tiny.config.codebook_size, (tokens, tokens))
    vectors = tiny.bottleneck.regularizer.lookup(codes)
    masked = tiny.prior_model.predict(vectors[:, :-1], prior_attention(n_tokens, tokens - 1))
    causal = tiny.prior_model.predict(vectors[:, :-1])
    supervised = prior_supervised(n_tokens, tokens)
    torch.testing.assert_close(masked[supervised], causal[supervised], rtol=0, atol=1e-6)
    # The comparison has teeth: elsewhere the two differ.
    assert (masked - causal).abs().amax(-1)[~supervised].max() > 1e-2


def test_figure_2b_equals_causal_mask_in_loss_and_gradient(tiny: VaporTok) -> None:
    torch.manual_seed(4)
    tiny.requires_grad_(True)
    tokens = tiny.config.tokens
    n_tokens = torch.tensor([1, 2, 5, tokens])
    codes = torch.randint(tiny.config.codebook_size, (4, tokens))
    vectors = tiny.bottleneck.regularizer.lookup(codes).detach()
    book = tiny.bottleneck.regularizer.unit_codes()
    gradients = []
    for mask in (None, prior_attention(n_tokens, tokens - 1)):
        inputs = vectors.clone().requires_grad_(True)
        loss = prior_loss(tiny.prior_model.logits(inputs, book, mask), codes, n_tokens)
        parameters = [inputs, *tiny.prior_model.parameters()]
        gradients.append((loss.item(), torch.autograd.grad(loss, parameters)))
    (causal_loss, causal), (masked_loss, masked) = gradients
    assert masked_loss == pytest.approx(causal_loss, abs=1e-6)
    for one, two in zip(causal, masked, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    # Token n - 1 is a kept label but no input of a supervised prediction; nothing past it matters either.
    for row, n in enumerate(n_tokens.tolist()):
        assert causal[0][row, n - 1 :].eq(0).all()
