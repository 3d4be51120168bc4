"""bench: how long the night is on this machine, stage by stage, beside what the machine could do."""
