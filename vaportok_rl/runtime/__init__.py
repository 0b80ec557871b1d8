"""Shared by every folder: seeds, ranks, whole-file writes, user functions and messages."""
