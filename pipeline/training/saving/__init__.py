"""What a run saves: its checkpoints, which stay, what is damaged, and how a run goes back to one."""
