"""score on a Ray cluster: Ray Data, with one actor per GPU or core."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from batchrec.engines.scoring_workers import ScoringWorker, chunks_of, shared_by
from batchrec.engines.shipping import missing_package, result_of
from batchrec.errors import ConfigError, DeviceError, EngineError, one_line
from batchrec.scoring.engine import ScoredChunks
from batchrec.scoring.inputs import ScoringInputs
from batchrec.system.machine import n_cores

_CONNECT_S = 10
# Ray Data repeats without end. A chunk that kills its worker, as by too little memory, would never end the night.
_RETRIES = 3


@dataclass(frozen=True)
class RayEngine:
    """Scores on the cluster that RAY_ADDRESS names; without it, on a cluster in this machine that ends with the job."""

    def score(self, inputs: ScoringInputs) -> ScoredChunks:
        """Yield the chunks of the inputs, scored, in their order.

        Raises ConfigError if Ray is not installed, EngineError if the cluster cannot be reached or fails, and the
        errors of scoring.
        """
        try:
            import ray.data
        except ImportError as error:
            raise missing_package("ray", "ray", error) from error
        try:
            with _connected(ray):
                for row in _scored(ray, inputs).iter_rows():
                    yield result_of(row["scored"])
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.ActorDiedError) as error:
            raise EngineError(
                f"--engine ray: workers died {1 + _RETRIES} times at the same users, perhaps because memory ran out. "
                "Pass fewer --workers, or a smaller --chunk-size"
            ) from error
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise EngineError(f"--engine ray: the cluster failed: {one_line(error)}") from error


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Connect to the cluster, unless this process is connected already."""
    if ray.is_initialized():
        yield
        return
    # Ray would otherwise report to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_reachable(address)
    local = {} if address else {"num_cpus": n_cores(), "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level="ERROR", **local)
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise EngineError if nothing listens at an address like host:port: Ray would end this process."""
    if address.startswith("ray://"):
        raise ConfigError(f"RAY_ADDRESS {address}: is of Ray Client. Start the job on a node of the cluster")
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except OSError as error:
        raise EngineError(f"RAY_ADDRESS {address}: the cluster cannot be reached: {error}") from error


def _scored(ray: Any, inputs: ScoringInputs) -> Any:
    """Return the dataset of the scored chunks, one per row and block, in the order of the chunks."""
    n_workers, device = _workers(ray.cluster_resources(), inputs)
    shared = shared_by(inputs, n_workers, device)
    # Put into the object store once: each node fetches one copy for its actors.
    stored = ray.put(shared)

    def read(_: Any) -> Iterator[dict[str, bytes]]:
        for chunk in chunks_of(ray.get(stored), device):
            yield {"chunk": chunk}

    class ScoringActor:
        def __init__(self) -> None:
            self._worker = ScoringWorker(ray.get(stored).parts)

        def __call__(self, chunks: pa.Table) -> pa.Table:
            return pa.table({"scored": [self._worker.score(chunk.as_py()) for chunk in chunks["chunk"]]})

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # A block per chunk, or one actor would get all chunks of a small table.
    context.target_max_block_size = 1
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    resources: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if device == "cuda" else {"num_cpus": 1}
    return (
        ray.data.from_items([{"table": inputs.table.path.name}])
        # The sequences are a file of this machine.
        .flat_map(read, num_cpus=0, label_selector=here, max_retries=_RETRIES)
        .map_batches(
            ScoringActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=n_workers),
            max_task_retries=_RETRIES,
            **resources,
        )
    )


def _workers(resources: dict[str, float], inputs: ScoringInputs) -> tuple[int, Literal["cuda", "cpu"]]:
    """Return the number of actors, and their device: one per GPU of the cluster if they are wanted, else per core.

    Raises DeviceError if the device is cuda and the cluster has no GPU.
    """
    config = inputs.parts.config
    n_gpus = int(resources.get("GPU", 0))
    if config.device == "cuda" and not n_gpus:
        raise DeviceError("--device cuda: the Ray cluster has no GPU. Add a node with one, or pass --device cpu")
    if n_gpus and config.device != "cpu" and config.precision != "int8":
        return config.workers or n_gpus, "cuda"
    return config.workers or max(1, int(resources.get("CPU", 1))), "cpu"
