"""`VaporTok`: encoder, bottleneck, decoder, prior and taildrop module."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from einops import rearrange
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from torch.distributions import Categorical

from vaportok_rl.runtime.hub import HubOptions
from vaportok_rl.runtime.machine import usable_device
from vaportok_rl.tokenizer.complexity import ComplexityScale
from vaportok_rl.tokenizer.config import VaporTokConfig
from vaportok_rl.tokenizer.files.checkpoints import (
    MODEL_CARD,
    build_stored,
    read_checkpoint,
    write_checkpoint,
)
from vaportok_rl.tokenizer.inputs import clips_to_float
from vaportok_rl.tokenizer.lengths import TaildropQueryModule, decoder_visible
from vaportok_rl.tokenizer.precision import Precision, PrecisionChoice, resolve_precision
from vaportok_rl.tokenizer.prior import AutoregressivePrior
from vaportok_rl.tokenizer.quantizer import Bottleneck
from vaportok_rl.tokenizer.transformer import (
    OutputLayer,
    PatchEmbedding,
    Transformer,
    join_patches,
    latent_table,
    patch_table,
)


@dataclass(frozen=True)
class Encoded:
    """Encoder outputs of B clips.

    Attributes:
        latents: ``float32 [B, K, D]``, the query outputs before the bottleneck.
        codes: ``int64 [B, K]``, nearest codebook indices.
    """

    latents: Tensor
    codes: Tensor


class VaporTok(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="vaportok-rl",
    license="apache-2.0",
    tags=["video-tokenization", "reinforcement-learning", "taildrop"],
    model_card_template=MODEL_CARD,
):
    """A holistic video tokenizer with taildrop: K ordered tokens per clip, of which the first n are kept.

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
        """Xavier-uniform linears, small normal positions, an output head of zeros (as LARP); large encoder queries."""
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
            self.decoder_patch_query_token_type_embed,
            self.prior_model.pos_emb,
            self.taildrop_module.trunk.query,
        ):
            nn.init.normal_(table, std=0.02)
        # LARP's are small too, thus nearly equal, and tokens come to repeat one another.
        nn.init.normal_(self.encoder_latent_query_embed)
        nn.init.kaiming_uniform_(self.bottleneck.regularizer.embedding.weight)
        nn.init.zeros_(self.final_layer.linear.weight)
        nn.init.zeros_(self.taildrop_module.head.weight)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.encoder_latent_query_embed.device

    def autocast(self) -> AbstractContextManager[None]:
        """The precision's autocast context; does nothing at float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def freeze(self) -> VaporTok:
        """Freezes it: evaluation mode, no gradients. Returns itself."""
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
        config, overlap = self.config, self.config.output_overlap
        (time, height, width), side = config.grid, config.patch_size + 2 * overlap
        sizes = {"t": time, "h": height, "w": width, "dt": config.patch_frames, "dy": side, "dx": side}
        patches = rearrange(pixels, "b (t h w) (dt dy dx c) -> b t h w dt dy dx c", **sizes)
        if overlap:
            patches = join_patches(join_patches(patches, 3, 6, overlap), 2, 5, overlap)
        video: Tensor = rearrange(patches, "b t h w dt dy dx c -> b c (t dt) (h dy) (w dx)")
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
        """The prior's predictions of the next code vectors: ``int64 [B, N]`` to unit ``float32 [B, N - 1, d]``."""
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
        write_checkpoint(self.config, self.state_dict(), save_directory)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> Path:  # type: ignore[override]
        """Writes ``config.json`` and ``model.safetensors``, and a model card where there is none.

        Args:
            save_directory: created if missing; an existing checkpoint in it is replaced.
            options: of huggingface_hub's mixin. ``model_card_kwargs`` fill places of the card (``title``,
                ``training``, ``figures``, ``repo_url``); ``push_to_hub=True`` pushes as well.

        Returns:
            The folder.
        """
        super().save_pretrained(save_directory, **options)
        return Path(save_directory)

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **options: Any) -> str:
        """Uploads what `save_pretrained` writes, in one commit; ``options`` as in huggingface_hub's mixin.

        Returns:
            The commit's address.
        """
        card = {"repo_id": repo_id, **(model_card_kwargs or {})}
        return super().push_to_hub(repo_id, model_card_kwargs=card, **options)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model card, with this tokenizer's sizes; ``kwargs`` fill the places of `checkpoints.MODEL_CARD`."""
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
        """Loads a frozen world.

        Only tensors and plain values are ever unpickled; see `larp.read_trainer_file`.

        A LARP tokenizer has no taildrop query module and no complexity tables. It gets a new module, equal in every
        process and uniform over lengths, and the uncalibrated tables of ``ComplexityConfig()``; calibrate them on clips
        before using scores or the Gaussian prior over lengths.

        Args:
            source: a shipped name (``"nano"``), a checkpoint folder, a hub id (either may hold ours or a LARP
                tokenizer), or a ``.pth`` file of LARP's trainer.
            device: of the weights.
            precision: ``"float32"``, ``"bfloat16"`` or ``"auto"``; see `resolve_precision`.
            weights: ``"model"``; for a LARP trainer's file also ``"ema"`` or, where it holds several,
                ``"ema_<decay>"``.
            hub: how to fetch a hub id: huggingface_hub's ``revision``, ``token``, ``cache_dir``, ``force_download`` and
                ``local_files_only``.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: the files are damaged, do not fit each other, hold NaN, or ask for code to be run.
        """
        device = usable_device(device)
        stored = read_checkpoint(source, weights, **hub)
        resolved = resolve_precision(precision, stored.config, device)
        return build_stored(stored, lambda: cls(stored.config, resolved)).to(device).freeze()


def round_weights(world: VaporTok) -> VaporTok:
    """Rounds a bfloat16 world's transformer weights once; autocast would round them in every call.

    All results stay the same. It is for inference only: rounded weights cannot be trained or saved without loss. The
    bottleneck and the taildrop query module are not rounded.

    Returns:
        The world itself.
    """
    if world.precision == "bfloat16":
        for part in (world.encoder, world.decoder, world.prior_model.blocks):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    layer.to(torch.bfloat16)
    return world
