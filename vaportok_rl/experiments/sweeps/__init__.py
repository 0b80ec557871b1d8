"""Sweeps: any settings of ``vaportok-rl train`` varied over variants, a grid or by Optuna, over seeds and workers."""
