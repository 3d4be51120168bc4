"""A trained model in memory, for notebooks: `batchrec.Model`."""
