"""What a run saves: its checkpoints, which stay, what is damaged, and the way back to one."""
