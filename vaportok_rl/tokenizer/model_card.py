"""What the model card of a saved tokenizer says; huggingface_hub fills in the marked places."""

MODEL_CARD = """---
{{ card_data }}
---

# {{ title | default("A VaporTok tokenizer", true) }}

A holistic video tokenizer with taildrop, for the reinforcement-learning environment `vaportok/Taildrop-v0`. It turns
{{ config.frames }} frames of {{ config.size }} × {{ config.size }} pixels into {{ config.tokens }} ordered tokens from
a codebook of {{ config.codebook_size }}; the first n of them decode to a video for every n. With it come an
autoregressive prior over the tokens and the taildrop query module, which proposes n for each clip.

## Use

```python
from vaportok_rl.tokenizer import VaporTok

world = VaporTok.from_pretrained("{{ repo_id | default("owner/name", true) }}")
encoded = world.encode(clips)  # [B, {{ config.channels }}, {{ config.frames }}, {{ config.size }}, {{ config.size }}]
video = world.decode(encoded.codes, {{ [config.tokens // 4, 1] | max }})  # from the first tokens only
n_tokens = world.taildrop(encoded.latents).probs.argmax(-1) + 1
```

Install the library with `pip install vaportok-rl`.{% if repo_url %} Code: {{ repo_url }}.{% endif %}

## Training

{{ training | default("Not stated. Whoever publishes these weights should say here which clips they were trained on, \
with which command and settings, and under which licence the clips are.", true) }}

## Figures

{{ figures | default("Not stated. `vaportok-rl info` measures error, codes in use and the prior's accuracy at every \
length.", true) }}

## Limits

It reconstructs video of this one geometry; detail beyond its tokens' bits is lost, most of it at small n. It generates
nothing by itself.
"""
