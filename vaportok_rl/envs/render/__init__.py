"""Draws one decision as a picture."""
