"""The command `vaportok-rl benchmark`."""
