"""train: an encoder fitted to the histories, by train.train, and exported to a model directory."""
