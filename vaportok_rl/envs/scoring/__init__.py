"""Scoring with the tokenizer: each clip is encoded once, each (clip, length) pair decoded once."""
