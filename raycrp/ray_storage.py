"""Whether every node of a cluster can write to a run's storage, and sees what the others wrote.

``python -m raycrp.ray_storage STORAGE`` inside a job says so before anything is started.
"""

import logging
import socket
import sys
import uuid
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raycrp.errors import ClusterError, RaycrpError
from raycrp.ray_session import connected_ray
from raycrp.run import RunFolder

logger = logging.getLogger(__name__)

TIMEOUT_S = 120.0


def check_storage(
    storage: str, *, what: str = "run.storage", is_remote_possible: bool = True
) -> int:
    """Write a file from the driver, read it on each node, and read back what each node wrote.

    Args:
        storage: Absolute path or ``pyarrow.fs`` URI that holds the run folders.
        what: Name of the setting or option that says so, for messages.
        is_remote_possible: Whether object storage would do.

    Returns:
        Number of nodes that were tried.

    Raises:
        ClusterError: Naming the nodes that cannot use the storage.
    """
    remedy = "a folder that they share"
    if is_remote_possible:
        remedy = f"object storage that they have rights on (s3://, gs://) or {remedy}"
    probe = RunFolder(storage, f".storage-check-{uuid.uuid4().hex[:12]}")
    try:
        probe.write_bytes("driver", b"driver")
    except OSError as error:
        problems = [f"{socket.gethostname()}: {error}"]
        raise ClusterError(f"{_describe(what, storage, problems)}; give {remedy}") from error
    try:
        with connected_ray():
            problems, num_nodes = _try_nodes(probe)
    finally:
        probe.delete("")
    if problems:
        raise ClusterError(f"{_describe(what, storage, problems)}; give {remedy}")
    return num_nodes


def _try_nodes(probe: RunFolder) -> tuple[list[str], int]:
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    task = ray.remote(num_cpus=0, max_retries=1)(_try_node)
    references = {
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote(probe, node_id): node_id
        for node_id in nodes
    }
    ray.wait(list(references), num_returns=len(references), timeout=TIMEOUT_S)
    answers = {node_id: _answer(reference) for reference, node_id in references.items()}
    # A node that has gone meanwhile writes nowhere, and is missed by nobody.
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]} & nodes.keys()
    problems = []
    for node_id in alive:
        problem = answers[node_id]
        if not problem and not probe.exists(node_id):
            problem = "what it wrote is not seen by the driver"
        if problem:
            problems.append(f"{nodes[node_id]}: {problem}")
    return problems, len(alive)


def _answer(reference: Any) -> str:
    try:
        problem: str = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"no answer in {TIMEOUT_S:.0f} s"
    except ray.exceptions.RayError as error:
        return str(error).splitlines()[0]
    return problem


def _try_node(probe: RunFolder, node_id: str) -> str:
    try:
        if not probe.exists("driver"):
            return "what the driver wrote is not seen there"
        probe.write_bytes(node_id, b"node")
    except OSError as error:
        return str(error)
    return ""


def _describe(what: str, storage: str, problems: list[str]) -> str:
    return f"{what} '{storage}' cannot be used from all nodes ({'; '.join(problems)})"


def main() -> int:
    """Check the storage named on the command line; 2 if it cannot be used."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        num_nodes = check_storage(sys.argv[1])
    except RaycrpError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.write(f"storage can be used from {num_nodes} node(s)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
