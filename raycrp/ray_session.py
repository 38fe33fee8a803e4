"""The connection to Ray: a cluster that is named, or one started here for the run."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

from raycrp.errors import ClusterError

logger = logging.getLogger(__name__)

LOCAL = "local"
CONNECT_TIMEOUT_S = 10.0
ONE_HEAP = ("MALLOC_ARENA_MAX", "1")
"""For workers: each trial and each training runs in a thread, and glibc keeps what a thread has
freed for that thread's heap alone, so that a worker of many trials grows by a GB."""


@contextmanager
def connected_ray(*, num_cpus: int | None = None) -> Iterator[None]:
    """Ray on the cluster of ``RAY_ADDRESS``, else one started on this machine and ended after.

    Args:
        num_cpus: CPUs of a Ray started here; all of the machine's if None.

    Raises:
        ClusterError: If no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    _check_reachable(address)
    if address == LOCAL:
        os.environ.setdefault(*ONE_HEAP)
    try:
        ray.init(
            address=address,
            num_cpus=num_cpus if address == LOCAL else None,
            logging_level=logging.WARNING,
        )
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise _unreachable(address, str(error).splitlines()[0]) from error
    try:
        logger.info("ray: %s, %s", address, describe_cluster())
        yield
    finally:
        ray.shutdown()


def describe_cluster() -> str:
    """Nodes, CPUs and GPUs of the connected cluster, in words."""
    resources = ray.cluster_resources()
    num_nodes = sum(node["Alive"] for node in ray.nodes())
    nodes = "1 node" if num_nodes == 1 else f"{num_nodes} nodes"
    return f"{nodes}, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"


def check_cluster_has(needed: Mapping[str, float], *, who: str, what: str, remedy: str) -> None:
    """Refuse to wait for what the connected cluster will never have, its autoscaler included.

    Args:
        needed: Amount by kind of resource, such as ``GPU``.
        who: Who asks, to name in the message.
        what: For what.
        remedy: What to change.

    Raises:
        ClusterError: If it has too little of a kind.
    """
    from ray._private.state import state

    now = ray.cluster_resources()
    # None where there is no autoscaler, or one that does not say what it may add.
    later = state.get_max_resources_from_cluster_config() or {}
    for kind, amount in needed.items():
        if amount > max(now.get(kind, 0), later.get(kind, 0)):
            scaled = f" and may grow to {later[kind]:g}" if later.get(kind) else ""
            raise ClusterError(
                f"{who} asks for {amount:g} {kind} ({what}), the cluster has "
                f"{now.get(kind, 0):g}{scaled}; {remedy}"
            )


def check_only_ray_here(*, who: str) -> None:
    """Refuse what hangs where several Rays run on this machine.

    Ray Train gives back what a killed training held through Ray's state API, which does not know
    which of several Rays is meant; what is held is then never free again.

    Args:
        who: Who asks, to name in the message.

    Raises:
        ClusterError: If there is another Ray.
    """
    from ray._private.services import find_gcs_addresses

    addresses = sorted(find_gcs_addresses())
    if len(addresses) > 1:
        raise ClusterError(
            f"{who} needs the only Ray of a machine, or CPUs of stopped trials are not given back; "
            f"found {len(addresses)} ({', '.join(addresses)}): wait for the other's end, or join "
            "it with RAY_ADDRESS"
        )


def _check_reachable(address: str) -> None:
    """Ray itself waits for minutes where nothing listens; a socket knows at once."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from error


def _unreachable(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"no Ray cluster answers at RAY_ADDRESS={address}: {reason}; start it, correct the "
        "address or the token (RAY_AUTH_MODE=token), or unset RAY_ADDRESS to run on this machine"
    )
