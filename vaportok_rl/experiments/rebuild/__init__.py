"""Everything in README and ``docs/`` that is computed, made again by one command."""
