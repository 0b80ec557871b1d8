"""The explorer: one HTML page, without a server, of clips at every length, their rewards and what policies choose."""
