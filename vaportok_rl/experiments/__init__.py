"""Whole experiments: training runs, scripted rollouts, figures and tables."""
