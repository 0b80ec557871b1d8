"""The ``vaportok-rl`` command: one file per sub-command."""
