"""What a run saves: its checkpoints, which of them stay, and what is damaged among them."""
