"""The methods that the leaderboard compares, and the oracle above them."""
