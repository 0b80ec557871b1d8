"""A tiny world for all tests of the layers above the tokenizer."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from hypothesis import settings
from torch import nn

from tests.hub_stand_in import StandIn, stand_in
from vaportok_rl.tokenizer import PriorConfig, VaporTok, VaporTokConfig

# The same examples in every run; no time limit per example, which a busy machine would exceed.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# The tests' tensors are tiny: on a busy machine, threads that wait for each other cost far more than they save.
torch.set_num_threads(1)

TINY_CONFIG = VaporTokConfig(
    frames=4,
    size=16,
    patch_size=4,
    tokens=16,
    width=32,
    heads=2,
    encoder_depth=2,
    decoder_depth=2,
    codebook_size=32,
    code_width=4,
    prior=PriorConfig(layers=1, heads=2, width=16, positions=16),
)


@pytest.fixture(scope="session")
def tiny_config() -> VaporTokConfig:
    """A geometry for tests that train: half the tokens and the width of `tiny_world`'s."""
    return VaporTokConfig(
        frames=4,
        size=16,
        tokens=8,
        width=16,
        encoder_depth=2,
        decoder_depth=2,
        heads=2,
        codebook_size=32,
        code_width=4,
        prior=PriorConfig(layers=1, heads=2, width=16, positions=8),
    )


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint folder with random weights, in which every kept token changes the decoded video."""
    folder = tmp_path_factory.mktemp("worlds") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(20260607)
        model = VaporTok(TINY_CONFIG)
        # As initialised, the two last layers are zero and the codes of all tokens alike: every length would decode to
        # the same video and be equally likely.
        nn.init.normal_(model.x_embedder.proj.weight, std=0.3)
        nn.init.normal_(model.encoder_latent_query_embed, std=1.0)
        nn.init.normal_(model.prior_model.pos_emb, std=1.0)
        nn.init.normal_(model.final_layer.linear.weight, std=0.3)
        nn.init.normal_(model.taildrop_module.head.weight, std=0.5)
        nn.init.normal_(model.taildrop_module.head.bias, std=0.5)
    return str(model.save_pretrained(folder))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """A stand-in of the Hugging Face hub, which huggingface_hub uses with an empty cache."""
    with stand_in() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield server


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that must fail; returns its output, on one line."""
    from vaportok_rl.cli.main import main

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return run
