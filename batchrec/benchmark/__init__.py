"""The bench job: how long each stage of a night takes on this machine, next to what the machine could do."""

from batchrec.system.machine import avoid_spinning

# Must run before any module of this package loads torch, as in batchrec.training.
avoid_spinning()
