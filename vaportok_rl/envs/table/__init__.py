"""Outcome tables: stored outcomes of every length, and the engine that reads them."""
