"""Training runs: their settings, their folders' contents, and what they were made on."""
