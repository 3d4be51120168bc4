"""train: an encoder fitted to the histories, by train.train, and exported to a model directory."""

from batchrec.system.machine import avoid_spinning

# Before any module of the package loads torch.
avoid_spinning()
