"""Rebuilds all computed content of README and ``docs/`` with one command."""
