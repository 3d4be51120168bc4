"""evaluate: the model against simple methods on a log that was split, by evaluate.evaluate."""
