"""The ``vaportok-rl`` command: one file a sub-command."""
