"""The explorer's page: its data, measured here, and its HTML, style and scripts, which lie beside this file."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaportok_rl.agents.lengths import LengthPolicy
from vaportok_rl.envs import Scene, TaildropProcess
from vaportok_rl.envs.render.drawing import ERROR_GAIN, Frames, tile_frames, to_frames
from vaportok_rl.experiments.reports.pictures import legible_rows
from vaportok_rl.runtime.whole_writes import whole_write
from vaportok_rl.version import __version__

RATE = 8
"""Frames per second."""
MOST_LENGTHS = 64
"""Worlds of more tokens are shown at this many lengths, evenly spread."""
DIVERSITY = "diversity"
# Clips to choose from, for each clip shown.
_POOL = 16
_QUALITIES = (None, 98, 95, 92, 88, 80, 65, 50, 30)


@dataclass(frozen=True)
class ShownPolicy:
    """A policy on the page.

    Attributes:
        name: as shown.
        lengths: chooses.
        log_probs: gives the log-probabilities of all lengths, latents ``[..., K, D]`` to ``[..., K]``; None for a
            policy without a distribution.
    """

    name: str
    lengths: LengthPolicy
    log_probs: Callable[[Tensor], Tensor] | None


def shown_lengths(tokens: int) -> Tensor:
    """The lengths that the page shows, ``int64 [N]``, among them 1 and K."""
    return torch.linspace(1, tokens, min(tokens, MOST_LENGTHS)).round().long()


def shown_scene(process: TaildropProcess, seed: int) -> Scene:
    """One path of ``path_length`` clips from simple to complex, each of strong contrast: shape ``(1, L)``."""
    available = len(process.source)
    pool = np.random.default_rng(seed).choice(available, min(available, _POOL * process.path_length), replace=False)
    scene = process.engine.open(pool[None])
    score = process.engine.complexity_scale.score(scene.complexity).flatten()
    return process.engine.open(pool[legible_rows(score, scene.clips[0], process.path_length)][None])


@torch.no_grad()
def page_data(
    process: TaildropProcess, policies: Sequence[ShownPolicy], seed: int, on_length: Callable[[], object] = lambda: None
) -> tuple[dict[str, Any], list[Frames]]:
    """Everything on the page.

    Args:
        process: its path is what the page shows; ``path_length`` clips.
        policies: at least one.
        seed: of the clips and the policies' samples.
        on_length: called after each length of all clips.

    Returns:
        Plain data: ``lengths`` [N]; ``mse`` and each of ``terms`` (unweighted) [L][N]; ``weights`` by term;
        ``diversity``, its constants; ``policies`` with their lengths [L] and probabilities [L][N]. And a picture
        of each clip: the original's frames, then those decoded at each length, row by row, ``columns`` in a row.

    Raises:
        ValueError: a path term other than diversity has a weight: the page could not follow it.
    """
    scene = shown_scene(process, seed)
    lengths = shown_lengths(process.tokens).to(scene.device)
    outcomes, videos = [], [scene.clips[0]]
    for n in lengths:
        n_tokens = n.expand(1, *scene.shape).contiguous()
        outcomes.append(process.engine.score(scene, n_tokens))
        videos.append((process.engine.reconstruct(scene, n_tokens[0])[0].clamp(0, 1) * 255).round().byte())
        on_length()
    results = [process.reward(outcome, grouped=False) for outcome in outcomes]
    weights = process.reward.weights_now()
    of_clips = [name for name, value in results[0].raw.items() if value.dim() == 3]
    others = [name for name in weights if name not in (*of_clips, DIVERSITY) and weights[name] != 0]
    if others:
        raise ValueError(
            f"Expected a reward of clip terms and diversity, got the path term {others[0]!r}; give it the weight 0: "
            f"--reward.weights {others[0]} 0."
        )
    constants = process.reward.describe()
    generator = torch.Generator().manual_seed(seed)
    frames = [[frame for video in videos for frame in to_frames(video[clip])] for clip in range(scene.shape[1])]
    columns = math.ceil(math.sqrt(len(frames[0])))
    data = {
        "tokens": process.tokens,
        "lengths": lengths.tolist(),
        "frames": scene.clips.shape[3],
        "size": scene.clips.shape[-1],
        "columns": columns,
        "rate": RATE,
        "gain": ERROR_GAIN,
        "mse": _by_clip([outcome.mse for outcome in outcomes]),
        "terms": {name: _by_clip([result.raw[name] for result in results]) for name in of_clips},
        "weights": {name: weights[name] for name in weights if name in (*of_clips, DIVERSITY)},
        "diversity": {"cap": constants["diversity_cap"], "scale": constants["diversity_scale"]},
        "policies": [_chosen(policy, scene, lengths, generator) for policy in policies],
        "about": (
            f"{process.tokenizer} codes {scene.shape[1]} clips of {process.source.describe()} as up to "
            f"{process.tokens} tokens each. Move the slider: fewer tokens, more error, another reward."
        ),
        "made": f"Made by vaportok-rl explore, version {__version__}.",
        "clips": [{"title": _title(process, int(index))} for index in scene.ids[0]],
    }
    return data, [tile_frames(pictures, columns) for pictures in frames]


def _by_clip(values: Sequence[Tensor]) -> list[list[float]]:
    """``[1, 1, L]`` for each length to plain numbers [L][N], each the shortest text of its float32."""
    return [[float(str(value)) for value in row] for row in torch.stack(list(values))[:, 0, 0].T.cpu().numpy()]


def _title(process: TaildropProcess, index: int) -> str:
    origin = process.source.origin(index)
    place = f"{Path(origin.file).name}, frame {origin.start_frame}" if origin.file else f"clip {index}"
    return f"{origin.label}, {place}" if origin.label else place


def _chosen(policy: ShownPolicy, scene: Scene, lengths: Tensor, generator: torch.Generator) -> dict[str, Any]:
    probabilities = None
    if policy.log_probs is not None:
        probabilities = _by_clip(policy.log_probs(scene.latents).exp()[None, ..., lengths - 1].unbind(-1))
    return {
        "name": policy.name,
        "lengths": policy.lengths(scene, generator).n_tokens[0].tolist(),
        "probabilities": probabilities,
    }


def encoded(sheets: Sequence[Frames], room: int) -> tuple[list[str], int | None]:
    """The pictures as data addresses: WebP without loss if they fit, else JPEG at the best quality that does.

    Args:
        sheets: ``uint8 [H, W, 3]`` each.
        room: maximum characters of all.

    Returns:
        The addresses, and the quality in per cent, or None without loss.

    Raises:
        ValueError: they do not fit at any quality.
    """
    for quality in _QUALITIES:
        made = [_address(picture, quality) for picture in sheets]
        if sum(map(len, made)) <= room:
            return made, quality
    raise ValueError(
        f"Expected pictures of at most {room / 1e6:.1f} MB, got {sum(map(len, made)) / 1e6:.1f} MB; show fewer clips "
        "(--count), or allow more (--megabytes)."
    )


def _address(picture: Frames, quality: int | None) -> str:
    buffer = io.BytesIO()
    if quality is None:
        Image.fromarray(picture).save(buffer, "WEBP", lossless=True, method=4)
    else:
        # Full colour resolution: at these sizes a coarser one is seen in the error.
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    kind = "webp" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def html(data: Mapping[str, Any]) -> str:
    """The page with its data, style and scripts in it."""
    # In a script, "</" could end it.
    parts = {"data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")}
    folder = resources.files(__package__)
    parts |= {name: _text(folder, name) for name in ("explorer.css", "reward.js", "explorer.js")}
    page = _text(folder, "explorer.html")
    for name, text in parts.items():
        before, after = page.split("{{" + name + "}}")
        page = before + text + after
    return page


def _text(folder: Any, name: str) -> str:
    text: str = folder.joinpath(name).read_text(encoding="utf-8")
    return text.rstrip("\n")


def is_page(file: Path) -> bool:
    """Whether a file is a page of `write_page`."""
    title = _text(resources.files(__package__), "explorer.html").partition("</title>")[0].encode()
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(title)) == title


def write_page(data: Mapping[str, Any], sheets: Sequence[Frames], out: Path, most: int) -> int:
    """Writes the page, whole or not at all.

    Args:
        data: see `page_data`; so ``sheets``.
        sheets: a picture a clip.
        out: the file.
        most: maximum bytes.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: the page does not fit.
    """
    pictures, quality = encoded(sheets, most - len(html(data).encode()) - 200 * len(sheets))
    clips = [clip | {"sheet": picture} for clip, picture in zip(data["clips"], pictures, strict=True)]
    loss = "without loss" if quality is None else f"with some loss (JPEG, quality {quality} %)"
    text = html({**data, "clips": clips, "made": f"{data['made']} Pictures are compressed {loss}."}).encode()
    with whole_write(out) as scratch:
        scratch.write_bytes(text)
    return len(text)
