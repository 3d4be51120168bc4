"""bench: how long the night is on this machine, stage by stage, beside what the machine could do."""

from batchrec.system.machine import avoid_spinning

# Before any module of the package loads torch, as in batchrec.training.
avoid_spinning()
