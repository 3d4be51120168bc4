"""The evaluate job: compare the model with simple methods on a split log. Start at evaluate.evaluate."""
