"""The processes that torchrun started to train together; without torchrun, a group of one."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """The rank of this process, from 0, among the processes that train together."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Return whether this is the process that measures and writes."""
        return self.rank == 0

    def data_parallel(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that its gradients are averaged over the processes."""
        return module if self.size == 1 else DistributedDataParallel(module)

    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum a tensor over the processes, in place."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def broadcast(self, value: Value | None) -> Value:
        """Return the first process's value in every process; the values that the others pass are ignored."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values)
        return cast(Value, values[0])


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the process group that torchrun started, until the block ends; without torchrun, a group of one."""
    if not distributed.is_torchelastic_launched():
        yield ProcessGroup()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
        # torchrun ends all processes if one fails: none leaves before the first has published the model.
        distributed.barrier()
    finally:
        # Objects that still refer to the group, such as a module of data_parallel(), would destroy it at exit.
        gc.collect()
        distributed.destroy_process_group()
