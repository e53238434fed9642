"""What a run logs while it trains: its speed, its points, and profiles."""
