"""How fast it is, on one machine in one run: ``python -m benchmarks`` writes ``docs/benchmarks.md``."""
