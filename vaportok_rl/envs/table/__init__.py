"""Outcome tables: stored outcomes of all lengths, and the engine that looks them up."""
