"""The generator's network: transformers' LLaMA decoder between code embeddings and a head over codes and [stop]."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vaportok_rl.generation.config import GeneratorConfig
from vaportok_rl.runtime.messages import install_extra, no_such_path
from vaportok_rl.runtime.whole_writes import order_metadata, whole_write

GENERATOR_FILE = "generator.safetensors"
# LLaMA's inner width is 8/3 of the width, rounded up to a multiple of this.
_INNER_STEP = 32


def truncated_causal_mask(n_tokens: Tensor, length: int) -> Tensor:
    """Attention mask of truncated clips (supplement A.3, Figure 2(b)): causal over [cls] and the kept tokens.

    A dropped token attends only to itself, because attention needs one key per row; no other position attends to it.

    Args:
        n_tokens: ``int64 [B]`` in 1 … K; position 0 is [cls], positions 1 … n hold the kept tokens.
        length: N, positions.

    Returns:
        ``bool [B, N, N]``; entry ``[b, i, j]`` says whether position i attends to position j.
    """
    place = torch.arange(length, device=n_tokens.device)
    causal = place <= place[:, None]
    kept = place <= n_tokens[:, None]
    return (causal & kept[:, :, None]) | torch.eye(length, dtype=torch.bool, device=n_tokens.device)


def check_transformers() -> None:
    """Raises ModuleNotFoundError if transformers is not installed."""
    try:
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Expected the package transformers for a generator, got none; {install_extra('generation')}."
        ) from error


class ClipGenerator(nn.Module):
    """Predicts each token of a clip from its class and the tokens before it.

    Inputs are the V codes, a [cls] per class and one for no class; outputs are the V codes and [stop].

    Args:
        config: sizes, tokenizer and classes.

    Raises:
        ModuleNotFoundError: transformers is not installed.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        check_transformers()
        from transformers import LlamaConfig, LlamaModel

        self.config = config
        inner = -(-8 * config.width // (3 * _INNER_STEP)) * _INNER_STEP
        self.decoder: Any = LlamaModel(
            LlamaConfig(
                vocab_size=config.codebook_size + len(config.label_names) + 1,
                hidden_size=config.width,
                intermediate_size=inner,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.tokens + 1,
                bos_token_id=None,
                eos_token_id=None,
                attn_implementation="sdpa",
            )
        )
        self.head = nn.Linear(config.width, config.codebook_size + 1, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.head.weight.device

    def class_tokens(self, labels: Tensor) -> Tensor:
        """[cls] tokens of labels, ``int64 [...]`` in 0 … classes; the last means no class."""
        return labels + self.config.codebook_size

    @torch.no_grad()
    def place_codes(self, unit_codes: Tensor) -> None:
        """Initialises the codes' embeddings from the tokenizer's code vectors, by a random rotation into this width.

        Codes that decode alike then start alike, as inputs and as outputs, so what is learnt of one holds for others.

        Args:
            unit_codes: ``float [V, d]``, unit code vectors.
        """
        turn = torch.randn(unit_codes.shape[1], self.config.width).to(unit_codes)
        codes = self.config.codebook_size
        self.decoder.embed_tokens.weight[:codes] = 0.02 * unit_codes @ turn
        self.head.weight[:codes] = 0.02 * unit_codes @ turn

    def forward(self, codes: Tensor, labels: Tensor, n_tokens: Tensor | None = None) -> Tensor:
        """Logits of whole sequences.

        Args:
            codes: ``int64 [B, N]`` with N ≤ K.
            labels: ``int64 [B]`` in 0 … classes; the last means no class.
            n_tokens: ``int64 [B]`` in 1 … N cuts each clip by `truncated_causal_mask`; None keeps all.

        Returns:
            ``float32 [B, N + 1, V + 1]``; row j scores token j, or [stop] in the last column.
        """
        inputs = torch.cat([self.class_tokens(labels)[:, None], codes], dim=1)
        mask = None if n_tokens is None else truncated_causal_mask(n_tokens, inputs.shape[1])[:, None]
        hidden = self.decoder(inputs, attention_mask=mask, use_cache=False).last_hidden_state
        out: Tensor = self.head(hidden).float()
        return out

    def loss(self, codes: Tensor, labels: Tensor, n_tokens: Tensor) -> Tensor:
        """Cross-entropy of the kept tokens and [stop] in nats.

        Args:
            codes: ``int64 [B, K]``.
            labels: see `forward`.
            n_tokens: ``int64 [B]`` in 1 … K.

        Returns:
            ``float32 [B, K + 1]``; 0 past [stop].
        """
        batch, tokens = codes.shape
        place = torch.arange(tokens + 1, device=codes.device)
        wanted = F.pad(codes, (0, 1)).masked_fill(place == n_tokens[:, None], self.config.stop)
        wanted = wanted.masked_fill(place > n_tokens[:, None], -100)
        # A dropped code may be anything: it is embedded, but no position attends to it.
        inputs = codes.masked_fill(place[:-1] >= n_tokens[:, None], 0)
        logits = self(inputs, labels, n_tokens)
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none", ignore_index=-100)
        return losses.view(batch, tokens + 1)

    def fingerprint(self) -> str:
        """A hash of configuration and weights: 64 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> Path:
        """Writes ``generator.safetensors``, the configuration in its metadata; returns the file."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / GENERATOR_FILE
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with whole_write(file) as scratch:
            save_file(state, scratch, metadata={"generator": json.dumps(self.config.to_dict())})
            order_metadata(scratch)
        return file

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> ClipGenerator:
        """A frozen generator from a run folder or a file of `save`.

        Raises:
            FileNotFoundError: there is none.
            ModuleNotFoundError: transformers is not installed.
            ValueError: the file is damaged, holds NaN, or is not a generator.
        """
        given = Path(path).expanduser()
        places = (given / GENERATOR_FILE, given / "model" / GENERATOR_FILE) if given.is_dir() else (given,)
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise no_such_path("a generator (a run folder of `vaportok-rl generator train`)", str(path), "holds none")
        try:
            with safe_open(file, "pt") as opened:
                facts = json.loads((opened.metadata() or {})["generator"])
                state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(
                f"Expected a generator at {file}, got another file ({error}); name a run folder of "
                "`vaportok-rl generator train`, or copy a damaged one again."
            ) from error
        odd = next((name for name, value in state.items() if not bool(value.isfinite().all())), None)
        if odd is not None:
            raise ValueError(f"Expected finite weights in {file}, got NaN or infinity in {odd}; train it again.")
        config = GeneratorConfig.from_dict(facts)
        sizes: dict[str, torch.Size] = {}
        # A damaged configuration may ask for any size, even one that overflows.
        with contextlib.suppress(RuntimeError), torch.device("meta"):
            sizes = {name: value.shape for name, value in cls(config).state_dict().items()}
        if sizes != {name: value.shape for name, value in state.items()}:
            raise ValueError(f"Expected weights of the sizes that {file} states, got others; copy it again.")
        with torch.random.fork_rng(devices=[]):
            model = cls(config)
        model.load_state_dict(state)
        return model.to(device).eval().requires_grad_(False)
