"""Output formats of the leaderboard, one module each."""
