"""The run job: the other jobs in order, checked by gates and published. Start at run.run."""
