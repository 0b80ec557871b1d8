"""The tokenizer: encoder, bottleneck, decoder, prior and taildrop module under one roof."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from einops import rearrange
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from torch.distributions import Categorical

from vaportok_rl.tokenizer.blocks import Transformer
from vaportok_rl.tokenizer.complexity import ComplexityScale
from vaportok_rl.tokenizer.config import VaporTokConfig
from vaportok_rl.tokenizer.inputs import clips_to_float
from vaportok_rl.tokenizer.lengths import TaildropQueryModule
from vaportok_rl.tokenizer.masks import decoder_visible
from vaportok_rl.tokenizer.model_card import MODEL_CARD
from vaportok_rl.tokenizer.positions import latent_table, patch_table
from vaportok_rl.tokenizer.precision import Precision, PrecisionChoice, resolve_precision
from vaportok_rl.tokenizer.prior import AutoregressivePrior
from vaportok_rl.tokenizer.quantizer import Bottleneck

if TYPE_CHECKING:
    from vaportok_rl.tokenizer.checkpoint import HubOptions


@dataclass(frozen=True)
class Encoded:
    """What the encoder makes of B clips.

    Attributes:
        latents: ``float32 [B, K, D]``, the query outputs before the bottleneck.
        codes: ``int64 [B, K]``, nearest codebook indices.
    """

    latents: Tensor
    codes: Tensor


class PatchEmbedding(nn.Module):
    """Non-overlapping space-time patches to tokens, row-major over (time, height, width)."""

    def __init__(self, config: VaporTokConfig) -> None:
        super().__init__()
        patch = (config.patch_frames, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.channels, config.width, patch, stride=patch)

    def forward(self, clips: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` to ``[B, P, D]``.

        The convolution is written as one matrix product over patches: kernel and stride are equal.
        """
        frames, height, width = self.proj.kernel_size
        patches = rearrange(clips, "b c (t dt) (h dy) (w dx) -> b (t h w) (c dt dy dx)", dt=frames, dy=height, dx=width)
        return nn.functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class OutputLayer(nn.Module):
    """Normalises decoded patch tokens and projects them to pixel values."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, values)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, P, D]`` to ``[B, P, values]``."""
        out: Tensor = self.linear(self.norm_final(x))
        return out


class VaporTok(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="vaportok-rl",
    license="apache-2.0",
    tags=["video-tokenization", "reinforcement-learning", "taildrop"],
    model_card_template=MODEL_CARD,
):
    """A holistic video tokenizer with taildrop: K ordered tokens a clip, of which the first n are kept.

    Geometry, parameter names and numerics follow the LARP checkpoint format; the taildrop query module is added
    beside it. `from_pretrained` gives a frozen world; `VaporTok(config)` a trainable one.

    Args:
        config: sizes and geometry.
        precision: ``"bfloat16"`` runs the transformers under autocast; quantisation and outputs stay float32.

    Raises:
        ValueError: the precision is unknown.
    """

    def __init__(self, config: VaporTokConfig, precision: Precision = "float32") -> None:
        super().__init__()
        self.config = config
        self.precision: Precision = resolve_precision(precision, config, "cpu")
        width, tokens = config.width, config.tokens
        self.x_embedder = PatchEmbedding(config)
        self.encoder_latent_query_embed = nn.Parameter(torch.empty(tokens, width))
        self.decoder_patch_query_token_type_embed = nn.Parameter(torch.empty(1, 1, width))
        self.register_buffer("encoder_patch_pe", patch_table(width, config.grid))
        self.register_buffer("decoder_patch_query_embed", patch_table(width, config.grid))
        self.register_buffer("decoder_latent_pe", latent_table(width, tokens, config.latent_position_base))
        self.encoder = Transformer(width, config.heads, config.encoder_depth)
        self.decoder = Transformer(width, config.heads, config.decoder_depth)
        self.bottleneck = Bottleneck(
            width, config.codebook_size, config.code_width, config.code_norm, config.quantizer_temperature
        )
        self.final_layer = OutputLayer(width, config.patch_values)
        self.prior_model = AutoregressivePrior(config.prior, config.code_width)
        self.taildrop_module = TaildropQueryModule(config)
        self.complexity_scale = ComplexityScale(config.complexity, tokens)
        self._initialize()

    def _initialize(self) -> None:
        """Xavier-uniform linears, small normal queries and positions, an output head of zeros (as LARP)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.config.width, -1))
        bias = self.x_embedder.proj.bias
        if bias is not None:
            nn.init.zeros_(bias)
        for table in (
            self.encoder_latent_query_embed,
            self.decoder_patch_query_token_type_embed,
            self.prior_model.pos_emb,
            self.taildrop_module.trunk.query,
        ):
            nn.init.normal_(table, std=0.02)
        nn.init.kaiming_uniform_(self.bottleneck.regularizer.embedding.weight)
        nn.init.zeros_(self.final_layer.linear.weight)
        nn.init.zeros_(self.taildrop_module.head.weight)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder_latent_query_embed.device

    def autocast(self) -> AbstractContextManager[None]:
        """The precision's autocast context; does nothing at float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def freeze(self) -> VaporTok:
        """Makes this a frozen world: evaluation mode, no gradients. Returns itself."""
        return self.eval().requires_grad_(False)

    def encoder_latents(self, clips: Tensor) -> Tensor:
        """Latents of float clips in [0, 1], with gradients: ``[B, C, T, H, W]`` to ``[B, K, D]``."""
        scaled = clips * 2 - 1 if self.config.pixel_range == "symmetric" else clips
        patches = self.x_embedder(scaled) + self.get_buffer("encoder_patch_pe")
        queries = self.encoder_latent_query_embed.expand(clips.shape[0], -1, -1)
        out: Tensor = self.encoder(torch.cat([patches, queries], dim=1), wanted=slice(patches.shape[1], None))
        return out

    def reconstruct(self, vectors: Tensor, n_tokens: Tensor | None = None) -> Tensor:
        """Decodes unit code vectors, with gradients and without clamping.

        Args:
            vectors: ``[B, N, d]``, the first N ≤ K code vectors of each clip.
            n_tokens: ``int64 [B]`` in 1 … N hides the vectors past it; None shows all N.

        Returns:
            ``float32 [B, C, T, H, W]``, nominally in [0, 1].
        """
        batch, tokens = vectors.shape[:2]
        latents = self.bottleneck.from_vectors(vectors) + self.get_buffer("decoder_latent_pe")[:, :tokens]
        queries = self.get_buffer("decoder_patch_query_embed") + self.decoder_patch_query_token_type_embed
        visible = None if n_tokens is None else decoder_visible(n_tokens, tokens, self.config.patches)
        sequence = torch.cat([latents, queries.expand(batch, -1, -1).to(latents.dtype)], dim=1)
        return self.assemble(self.final_layer(self.decoder(sequence, visible, wanted=slice(tokens, None))).float())

    def assemble(self, pixels: Tensor) -> Tensor:
        """Patches to video: ``float32 [B, P, values]`` to ``[B, C, T, H, W]``, nominally in [0, 1]."""
        time, height, width = self.config.grid
        video: Tensor = rearrange(
            pixels,
            "b (t h w) (dt dy dx c) -> b c (t dt) (h dy) (w dx)",
            t=time,
            h=height,
            w=width,
            dt=self.config.patch_frames,
            dy=self.config.patch_size,
            dx=self.config.patch_size,
        )
        return (video + 1) / 2 if self.config.pixel_range == "symmetric" else video

    @torch.no_grad()
    def encode(self, clips: Tensor) -> Encoded:
        """Encodes and quantises clips.

        Args:
            clips: ``[B, C, T, H, W]``, uint8 or float in [0, 1].

        Raises:
            ValueError: wrong shape, dtype or range, or NaN.
        """
        video = clips_to_float(clips, self.config.clip_shape)
        with self.autocast():
            latents = self.encoder_latents(video).float()
        return Encoded(latents, self.bottleneck.quantize(latents).codes)

    def _check_codes(self, codes: Tensor) -> None:
        if codes.dim() != 2 or not 1 <= codes.shape[1] <= self.config.tokens or codes.dtype != torch.int64:
            raise ValueError(
                f"Expected int64 codes [B, N] with 1 ≤ N ≤ {self.config.tokens}, got {codes.dtype} of shape "
                f"{tuple(codes.shape)}; pass the codes that encode() returned."
            )
        if codes.device.type == "cpu" and not bool(((codes >= 0) & (codes < self.config.codebook_size)).all()):
            raise ValueError(
                f"Expected codes in 0…{self.config.codebook_size - 1}, got {codes.min()}…{codes.max()}; "
                "pass the codes that encode() returned."
            )

    @torch.no_grad()
    def decode(self, codes: Tensor, n_tokens: int | Tensor | None = None) -> Tensor:
        """Decodes the first ``n_tokens`` of each clip's codes.

        Args:
            codes: ``int64 [B, N]`` with N ≤ K.
            n_tokens: one length for all (dropped tokens are removed), ``int64 [B]`` (dropped tokens are masked), or
                None for all N.

        Returns:
            ``float32 [B, C, T, H, W]``, clamped to [0, 1].

        Raises:
            ValueError: shapes do not fit, or a length is outside 1 … N or a code outside 0 … V - 1 (neither can be
                checked for tensors on an accelerator, where reading them would stall the stream).
        """
        self._check_codes(codes)
        lengths: Tensor | None = None
        if isinstance(n_tokens, Tensor):
            if n_tokens.shape != codes.shape[:1]:
                raise ValueError(
                    f"Expected n_tokens of shape ({codes.shape[0]},), one length a clip, got {tuple(n_tokens.shape)}."
                )
            if n_tokens.device.type == "cpu" and not bool(((n_tokens >= 1) & (n_tokens <= codes.shape[1])).all()):
                raise ValueError(
                    f"Expected n_tokens in 1…{codes.shape[1]}, got {n_tokens.min()}…{n_tokens.max()}; "
                    "at least one token stays."
                )
            lengths = n_tokens
        elif n_tokens is not None:
            if not 1 <= n_tokens <= codes.shape[1]:
                raise ValueError(f"Expected n_tokens in 1…{codes.shape[1]}, got {n_tokens}; at least one token stays.")
            codes = codes[:, :n_tokens]
        return self.decode_unchecked(codes, lengths)

    @torch.no_grad()
    def decode_unchecked(self, codes: Tensor, n_tokens: Tensor | None = None) -> Tensor:
        """`decode` for codes and lengths known to be right: no value is read on the host."""
        with self.autocast():
            video = self.reconstruct(self.bottleneck.regularizer.lookup(codes), n_tokens)
        return video.clamp(0, 1)

    @torch.no_grad()
    def prior_predictions(self, codes: Tensor) -> Tensor:
        """The prior's guesses of the next code vectors: ``int64 [B, N]`` to unit ``float32 [B, N - 1, d]``."""
        with self.autocast():
            return self.prior_model.predict(self.bottleneck.regularizer.lookup(codes)[:, :-1])

    @torch.no_grad()
    def prior_logits(self, codes: Tensor) -> Tensor:
        """Next-token scores of the prior: ``int64 [B, N]`` to ``float32 [B, N - 1, V]``; row j scores token j + 1."""
        self._check_codes(codes)
        return self.prior_model.compare(self.prior_predictions(codes), self.bottleneck.regularizer.unit_codes())

    @torch.no_grad()
    def taildrop(self, latents: Tensor) -> Categorical:
        """The pretrained policy: ``[B, K, D]`` to a distribution over actions; action a keeps n = a + 1 tokens."""
        with self.autocast():
            return self.taildrop_module.distribution(latents)

    def _save_pretrained(self, save_directory: Path) -> None:
        from vaportok_rl.tokenizer.checkpoint import save_checkpoint

        save_checkpoint(self, save_directory)

    # The mixin's own method deletes the old config.json before it writes, which a kill would turn into a loss.
    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        config: object = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> Path:
        """Writes ``config.json`` and ``model.safetensors``, and a model card where there is none.

        Args:
            save_directory: created if missing; an existing checkpoint in it is replaced file by file, each whole or
                not at all; see `checkpoint.save_checkpoint`.
            config: taken for the mixin's sake; the model's own configuration is what is written.
            repo_id: hub id to push to; the folder's name by default.
            push_to_hub: push as well.
            model_card_kwargs: places to fill in the card (``title``, ``training``, ``figures``, ``repo_url``).
            push_to_hub_kwargs: further arguments of ``push_to_hub``.

        Returns:
            The folder.
        """
        folder = Path(save_directory)
        self._save_pretrained(folder)
        if not (folder / "README.md").exists():
            self.generate_model_card(**(model_card_kwargs or {})).save(folder / "README.md")
        if push_to_hub:
            self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)
        return folder

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **options: Any) -> str:
        """Uploads what `save_pretrained` writes, in one commit; ``options`` as in huggingface_hub's mixin.

        Returns:
            The commit's address.
        """
        card = {"repo_id": repo_id, **(model_card_kwargs or {})}
        return super().push_to_hub(repo_id, model_card_kwargs=card, **options)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model card, with this tokenizer's sizes; ``kwargs`` fill the places of `model_card.MODEL_CARD`."""
        return super().generate_model_card(*args, **{"config": self.config, **kwargs})

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        precision: PrecisionChoice = "float32",
        weights: str = "model",
        **hub: Unpack[HubOptions],
    ) -> VaporTok:
        """Loads a frozen world by name (``"nano"``), folder, hub id, or file of LARP's trainer.

        See `checkpoint.load_checkpoint`; ``hub`` takes huggingface_hub's ``revision``, ``token``, ``cache_dir``,
        ``force_download`` and ``local_files_only``.
        """
        from vaportok_rl.tokenizer.checkpoint import load_checkpoint

        return load_checkpoint(source, device=device, precision=precision, weights=weights, **hub)
