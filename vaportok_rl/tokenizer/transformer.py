"""Transformer blocks, attention, patches and positions; parameter names follow the LARP checkpoint format."""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vaportok_rl.runtime.machine import processor_name, user_cache
from vaportok_rl.runtime.whole_writes import whole_write
from vaportok_rl.tokenizer.config import VaporTokConfig

Kernel = Literal["fused", "threaded"]

# Minimum number of keys for which choosing a bfloat16 kernel on a CPU may pay off.
MANY_KEYS = 512
# Queries per piece of `threaded_attention`: its scores fit a core's cache.
PIECE = 512
# Another choice must be faster by this factor, so that noise does not decide between equals.
MARGIN = 1.2


class Fastest(NamedTuple):
    """The fastest implementations on this processor for wide tokenizers.

    Attributes:
        precision: number format of a transformer block.
        attention: kernel for bfloat16.
    """

    precision: Literal["float32", "bfloat16"]
    attention: Kernel


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention, by PyTorch's fused kernel but for bfloat16 on a CPU.

    There the fused kernel's backward pass takes three to four times as long as the explicit products (128 tokens, two
    cores), so training uses the latter; long sequences without gradients use the kernel of `fastest_on_cpu`.

    Args:
        q: ``[B, heads, M, e]``.
        k: ``[B, heads, N, e]``.
        v: ``[B, heads, N, e]``.
        visible: ``bool``, broadcastable to ``[B, heads, M, N]``; keys that may be attended to.
        causal: no position attends to a later one; not together with ``visible``, and only with M = N.

    Returns:
        ``[B, heads, M, e]``.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        if torch.is_grad_enabled():
            return explicit_attention(q, k, v, visible, causal)
        if visible is None and not causal and k.shape[2] >= MANY_KEYS and fastest_on_cpu().attention == "threaded":
            return threaded_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, causal: bool) -> Tensor:
    """The textbook computation; see `attend`."""
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if visible is not None:
        scores = scores + torch.zeros(visible.shape, dtype=q.dtype, device=q.device).masked_fill(~visible, -math.inf)
    return scores.softmax(-1) @ v


def threaded_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in pieces of one head and `PIECE` queries, without gradients; each piece is one thread's work.

    A product split evenly over threads waits for the slowest thread, which takes long while other programs use the
    cores. Here each thread takes the next piece until none is left. A piece is computed by one thread, so the result
    does not depend on the number of threads.

    Args:
        q: ``[B, heads, M, e]`` on a CPU.
        k: ``[B, heads, N, e]``.
        v: ``[B, heads, N, e]``.

    Returns:
        ``[B, heads, M, e]``.
    """
    batch, heads, queries, width = q.shape
    q, k, v = (q * (1 / math.sqrt(width))).contiguous(), k.contiguous(), v.contiguous()
    # The layout of the projection that follows, as the fused kernel has it.
    out = q.new_empty(batch, queries, heads, width).transpose(1, 2)
    pieces = list(itertools.product(range(batch), range(heads), range(0, queries, PIECE)))
    inference = torch.is_inference_mode_enabled()

    def work() -> None:
        # Gradient and inference modes are per thread.
        with torch.inference_mode(inference), torch.no_grad():
            # Scores overwrite those of the previous piece: allocating memory costs more than computing them.
            scratch = q.new_empty(min(PIECE, queries) * k.shape[2])
            while pieces:
                try:
                    clip, head, start = pieces.pop()
                except IndexError:  # another thread was faster
                    return
                rows = slice(start, min(start + PIECE, queries))
                some = q[clip, head, rows]
                scores = scratch[: len(some) * k.shape[2]].view(len(some), -1)
                torch.mm(some, k[clip, head].T, out=scores)
                torch.softmax(scores, -1, out=scores)
                out[clip, head, rows] = scores @ v[clip, head]

    threads = torch.get_num_threads()
    if threads == 1:
        work()
    else:
        for done in [_pool(os.getpid(), threads).submit(work) for _ in range(threads)]:
            done.result()
    return out


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that each use torch with one thread; per process, because a fork inherits no running threads."""
    started = threading.Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread takes the common number when it first asks, and keeps its own from then on
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, "attention", initializer=start)
    for _ in range(threads):
        pool.submit(lambda: None)
    started.wait()
    # `start` changed the number that threads of the user's would begin with.
    torch.set_num_threads(threads)
    return pool


@cache
def fastest_on_cpu() -> Fastest:
    """The fastest implementations on this processor, measured once per machine.

    Kernels differ in the last bits, so a choice that changed between two runs would change their results. The first
    process that needs it measures and saves the choice in the `user_cache`; later ones read it. Delete the file to
    measure again. If the folder cannot be written, every process measures; `MARGIN` and the use of one thread's
    processor time keep the choice stable.
    """
    machine = f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    folder = user_cache()
    file = folder / f"fastest-{sha256(machine.encode()).hexdigest()[:12]}.json"
    kept = _read(file)
    if kept is not None:
        return kept
    found = measure_fastest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_write(file) as scratch:
            scratch.write_text(json.dumps({"machine": machine, **found._asdict()}) + "\n")
    except OSError:
        return found
    # If two processes measured at the same time, the later one's file is used from then on.
    return _read(file) or found


def _read(file: Path) -> Fastest | None:
    try:
        kept = json.loads(file.read_text())
        found = Fastest(kept["precision"], kept["attention"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    known = found.precision in ("float32", "bfloat16") and found.attention in ("fused", "threaded")
    return found if known else None


def measure_fastest(width: int = 768, heads: int = 12, positions: int = 1024, repeats: int = 3) -> Fastest:
    """Measures the matrix products and the attention of a block; about two seconds on one thread.

    Args:
        width: of the block.
        heads: of its attention.
        positions: in its sequence.
        repeats: measurements after a warm-up; the shortest counts.
    """
    seconds = block_seconds(width, heads, positions, repeats)
    attention: Kernel = "threaded" if seconds["fused"] > MARGIN * seconds["threaded"] else "fused"
    half = seconds["bfloat16"] + seconds[attention]
    return Fastest("bfloat16" if seconds["float32"] > MARGIN * half else "float32", attention)


def block_seconds(width: int = 768, heads: int = 12, positions: int = 1024, repeats: int = 3) -> dict[str, float]:
    """Processor time of one thread for parts of a block; arguments as for `measure_fastest`.

    Returns:
        Seconds: ``float32`` (products and fused attention), ``bfloat16`` (products alone), and ``fused`` and
        ``threaded`` (attention in bfloat16).
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(positions, width, generator=generator)
    # As many multiplications as in the four products of a block.
    weight = torch.randn(12 * width, width, generator=generator)
    q = torch.randn(1, heads, positions, width // heads, generator=generator)
    x_half, weight_half, q_half = x.bfloat16(), weight.bfloat16(), q.bfloat16()
    runs: dict[str, Callable[[], object]] = {
        "float32": lambda: (F.linear(x, weight), F.scaled_dot_product_attention(q, q, q)),
        "bfloat16": lambda: F.linear(x_half, weight_half),
        "fused": lambda: F.scaled_dot_product_attention(q_half, q_half, q_half),
        "threaded": lambda: threaded_attention(q_half, q_half, q_half),
    }
    taken = dict.fromkeys(runs, math.inf)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for turn, (name, run) in itertools.product(range(repeats + 1), runs.items()):
                began = time.thread_time()
                run()
                if turn:
                    taken[name] = min(taken[name], time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return taken


class Attention(nn.Module):
    """Multi-head self-attention with a fused, bias-free qkv projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, visible: Tensor | None = None, wanted: slice | None = None) -> Tensor:
        """Attends over a sequence.

        Args:
            x: ``[B, N, D]``.
            visible: ``bool [B, N]``, keys that may be attended to; None for all.
            wanted: which M positions are queries; all by default. All positions are keys.

        Returns:
            ``[B, M, D]``.
        """
        if wanted is None:
            q, k, v = rearrange(self.qkv(x), "b n (three h e) -> three b h n e", three=3, h=self.heads)
        else:
            width = x.shape[-1]
            query_weight, key_value_weight = self.qkv.weight.split([width, 2 * width])
            q = rearrange(F.linear(x[:, wanted], query_weight), "b n (h e) -> b h n e", h=self.heads)
            k, v = rearrange(F.linear(x, key_value_weight), "b n (two h e) -> two b h n e", two=2, h=self.heads)
        attended = attend(q, k, v, None if visible is None else visible[:, None, None, :])
        out: Tensor = self.proj(rearrange(attended, "b h n e -> b n (h e)"))
        return out


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` to ``[..., D]``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """One pre-norm block: attention, then MLP, each with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, visible: Tensor | None = None, wanted: slice | None = None) -> Tensor:
        """``[B, N, D]`` to ``[B, M, D]``; see `Attention.forward` for the arguments."""
        x = (x if wanted is None else x[:, wanted]) + self.attn(self.norm1(x), visible, wanted)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """A stack of blocks without a final norm."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, visible: Tensor | None = None, wanted: slice | None = None) -> Tensor:
        """Runs the stack.

        Args:
            x: ``[B, N, D]``.
            visible: see `Attention.forward`.
            wanted: the M positions whose outputs are wanted, all by default; the last block computes no others.

        Returns:
            ``[B, M, D]``.
        """
        last = len(self.blocks) - 1
        for place, block in enumerate(self.blocks):
            x = block(x, visible, wanted if place == last else None)
        return x


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
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


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


def join_patches(patches: Tensor, grid: int, within: int, overlap: int) -> Tensor:
    """Adds what patches predict beyond their borders to the neighbours that these pixels belong to, along one axis.

    The same as `torch.nn.functional.fold` along this axis, which takes three times as long on a CPU.

    Args:
        patches: pixels of every patch, with ``overlap`` more of them on both sides.
        grid: which axis counts the patches.
        within: which axis counts a patch's pixels.
        overlap: pixels.

    Returns:
        Patches without the pixels beyond their borders; those beyond the frame's are dropped.
    """
    count, size = patches.shape[grid] - 1, patches.shape[within] - 2 * overlap
    joined = patches.narrow(within, overlap, size).clone()
    after, before = joined.narrow(grid, 1, count), joined.narrow(grid, 0, count)
    after.narrow(within, 0, overlap).add_(patches.narrow(grid, 0, count).narrow(within, size + overlap, overlap))
    before.narrow(within, size - overlap, overlap).add_(patches.narrow(grid, 1, count).narrow(within, 0, overlap))
    return joined


def line_table(channels: int, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Sin-cos embedding of positions on a line.

    Args:
        channels: even number of channels.
        positions: ``[N]``, raw positions.
        base: the longest wavelength is ``2π·base``.

    Returns:
        ``float64 [N, channels]``.
    """
    half = channels // 2
    rates = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions.to(torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def latent_table(channels: int, tokens: int, base: float) -> Tensor:
    """Positions of the K latents in the decoder: ``float32 [1, K, channels]``."""
    return line_table(channels, torch.arange(tokens), base)[None].float()


def patch_table(channels: int, grid: tuple[int, int, int]) -> Tensor:
    """Positions of the patches, row-major over (time, height, width).

    The first half of the channels holds the column, the second half the row; the full-width temporal table is added.

    Args:
        channels: divisible by 4.
        grid: patches along time, height and width.

    Returns:
        ``float32 [1, P, channels]``.
    """
    times, rows, columns = (
        index.reshape(-1) for index in torch.meshgrid(*(torch.arange(count) for count in grid), indexing="ij")
    )
    space = torch.cat([line_table(channels // 2, columns), line_table(channels // 2, rows)], dim=1)
    return (space + line_table(channels, times))[None].float()
