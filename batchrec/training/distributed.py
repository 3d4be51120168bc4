"""The processes that train together, as torchrun starts them; one that was not started so is alone."""

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
    """A process, by its rank from 0, among all that train together."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that measures and writes."""
        return self.rank == 0

    def data_parallel(self, module: nn.Module) -> nn.Module:
        """Give a module whose gradients are the mean over the processes."""
        return module if self.size == 1 else DistributedDataParallel(module)

    def all_reduce(self, value: Tensor) -> Tensor:
        """Add a tensor up over the processes, in place."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def broadcast(self, value: Value | None) -> Value:
        """Give every process the first one's value; what the others pass is not looked at."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values)
        return cast(Value, values[0])


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun has started, if it has, until the block ends."""
    if not distributed.is_torchelastic_launched():
        yield ProcessGroup()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
        # torchrun ends all when one ends badly: none leaves before the first has put the model in its place.
        distributed.barrier()
    finally:
        # What still holds the group, like a module of data_parallel(), would take it apart while Python ends.
        gc.collect()
        distributed.destroy_process_group()
