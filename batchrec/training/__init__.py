"""The train job: fit an encoder to the histories and export it to a model directory. Start at train.train."""

from batchrec.system.machine import avoid_spinning

# Must run before any module of this package loads torch.
avoid_spinning()
