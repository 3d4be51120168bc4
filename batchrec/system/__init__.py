"""The machine below the jobs: atomic writing, locks, signals, checkpoints, logs, the terminal."""
