"""Generation with a cache against whole passes, and its distribution against an enumeration of all sequences."""

import copy
import itertools
import math

import pytest
import torch
from scipy import stats

from vaportok_rl.generation import ClipGenerator, CodeSequences, SamplingOptions, generate_codes
from vaportok_rl.generation.sampling import draw_tokens, guided, token_probabilities
from vaportok_rl.runtime.seeds import derive_seed


def written_without_cache(
    model: ClipGenerator, label: int, options: SamplingOptions, seed: int, place: int
) -> list[int]:
    """One sequence by a whole pass for every token."""
    noise = torch.rand(
        model.config.tokens, generator=torch.Generator().manual_seed(derive_seed("generate", seed, place))
    )
    codes: list[int] = []
    for step in range(model.config.tokens):
        so_far = torch.tensor([codes], dtype=torch.int64)
        logits, without = (model(so_far, torch.tensor([given]))[:, -1] for given in (label, model.config.no_class))
        logits = guided(logits, without, options.guidance)
        if not codes:
            logits[:, model.config.stop] = -torch.inf
        token = int(draw_tokens(token_probabilities(logits, options), noise[step : step + 1]))
        if token == model.config.stop:
            break
        codes.append(token)
    return codes


def listed(found: CodeSequences) -> list[list[int]]:
    return [codes[:n].tolist() for codes, n in zip(found.codes, found.n_tokens.tolist(), strict=True)]


@pytest.mark.parametrize(
    "options", [SamplingOptions(), SamplingOptions(guidance=2.5), SamplingOptions(guidance=1.0001, top_k=4, top_p=0.9)]
)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_cache_and_the_batch_change_nothing(
    tiny_generator: ClipGenerator, options: SamplingOptions, batch_size: int
) -> None:
    labels = torch.arange(12) % 3
    found = generate_codes(tiny_generator, labels, options, seed=3, batch_size=batch_size)
    expected = [written_without_cache(tiny_generator, label, options, 3, i) for i, label in enumerate(labels.tolist())]
    assert listed(found) == expected
    assert len({len(codes) for codes in expected}) > 1
    later = generate_codes(tiny_generator, labels[8:], options, seed=3, first=8)
    assert listed(later) == expected[8:]


def test_guidance_one_is_unguided_and_needs_no_class_free_training(tiny_generator: ClipGenerator) -> None:
    plain = copy.copy(tiny_generator)
    plain.config = type(plain.config).from_dict({**plain.config.to_dict(), "unconditional": 0.0})
    labels = torch.tensor([0, 1, 2])
    assert listed(generate_codes(plain, labels)) == listed(generate_codes(tiny_generator, labels))
    with pytest.raises(ValueError, match="--unconditional 0"):
        generate_codes(plain, labels, SamplingOptions(guidance=2))


def test_sequences_come_as_often_as_the_model_says() -> None:
    """All sequences of at most two of two codes, by the product of their tokens' probabilities."""
    from vaportok_rl.generation import GeneratorConfig

    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = ClipGenerator(
            GeneratorConfig(width=8, layers=1, heads=2, tokens=2, codebook_size=2, label_names=("a",))
        )
        torch.nn.init.normal_(model.head.weight, std=0.5)
    model.eval().requires_grad_(False)
    label, count = torch.tensor([0]), 3000
    first = model(torch.zeros(1, 0, dtype=torch.int64), label)[0, 0, :2].softmax(-1)  # [stop] cannot come first
    expected = {}
    for code in range(2):
        second = model(torch.tensor([[code]]), label)[0, 1].softmax(-1)
        expected |= {(code, other): float(first[code] * second[other]) for other in range(2)}
        expected[code,] = float(first[code] * second[2])
    assert sum(expected.values()) == pytest.approx(1)
    found = [tuple(codes) for codes in listed(generate_codes(model, label.expand(count), seed=9, batch_size=1000))]
    counts = [found.count(sequence) for sequence in expected]
    assert sum(counts) == count
    assert (
        stats.chisquare(counts, [count * share / sum(expected.values()) for share in expected.values()]).pvalue > 0.001
    )


@pytest.mark.parametrize(("bias", "length"), [(50.0, 1), (-50.0, 5)], ids=["stop-at-once", "stop-never"])
def test_at_least_one_token_and_at_most_all(tiny_generator: ClipGenerator, bias: float, length: int) -> None:
    model = copy.deepcopy(tiny_generator)
    model.head = torch.nn.Linear(16, 8)
    with torch.no_grad():
        model.head.bias.zero_()
        model.head.bias[model.config.stop] = bias
    found = generate_codes(model, torch.tensor([0, 1, 2, 0]), SamplingOptions(guidance=1.5))
    assert found.n_tokens.tolist() == [length] * 4


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_given_lengths_are_kept_and_a_shorter_clip_begins_the_longer_one(
    tiny_generator: ClipGenerator, guidance: float
) -> None:
    model = copy.deepcopy(tiny_generator)
    with torch.no_grad():
        model.head.weight[model.config.stop] = -1e3 * torch.eye(16)[0]  # [stop] is drawn never or at once
    labels, lengths = torch.arange(12) % 3, torch.arange(12) % 5 + 1
    options = SamplingOptions(guidance=guidance)
    found = generate_codes(model, labels, options, n_tokens=lengths, seed=3, batch_size=7)
    whole = generate_codes(model, labels, options, n_tokens=torch.full((12,), 5), seed=3)
    assert torch.equal(found.n_tokens, lengths)
    assert listed(found) == [codes[:n] for codes, n in zip(listed(whole), lengths.tolist(), strict=True)]
    # The distribution of the codes is the model's, given that it does not stop.
    row = whole.codes[0]
    logits = model(row[None, :1], labels[:1])[:, -1]
    without = model(row[None, :1], torch.tensor([model.config.no_class]))[:, -1]
    logits = guided(logits, without, guidance)
    logits[:, model.config.stop] = -torch.inf
    noise = torch.rand(5, generator=torch.Generator().manual_seed(derive_seed("generate", 3, 0)))
    assert int(draw_tokens(token_probabilities(logits, options), noise[1:2])) == int(row[1])
    for wrong in (torch.zeros(12, dtype=torch.int64), torch.full((12,), 6), torch.ones(3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"1…5 for each of 12 labels"):
            generate_codes(model, labels, n_tokens=wrong)


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (torch.tensor([3]), r"0…2, got 3…3"),
        (torch.tensor([-1, 1]), "a, b, c"),
        (torch.zeros(0, dtype=torch.int64), "N ≥ 1"),
    ],
)
def test_labels_that_are_no_class_are_refused(tiny_generator: ClipGenerator, labels: torch.Tensor, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        generate_codes(tiny_generator, labels)


def test_logits_that_are_not_finite_are_an_error(tiny_generator: ClipGenerator) -> None:
    model = copy.deepcopy(tiny_generator)
    with torch.no_grad():
        model.head.weight[0] = math.nan
    with pytest.raises(ValueError, match="finite logits at token 0"):
        generate_codes(model, torch.tensor([0]))


def test_every_place_has_numbers_of_its_own(tiny_generator: ClipGenerator) -> None:
    found = listed(generate_codes(tiny_generator, torch.zeros(40, dtype=torch.int64), seed=0))
    other = listed(generate_codes(tiny_generator, torch.zeros(40, dtype=torch.int64), seed=1))
    assert len(set(map(tuple, found))) > 20
    assert sum(one == two for one, two in itertools.zip_longest(found, other)) < 20
