"""Experiments: training runs, rollouts, reports, and the studies behind `docs/`."""
