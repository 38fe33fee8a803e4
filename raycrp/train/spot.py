"""Watches for a cloud's notice that this node is about to go, and drains it from Ray.

It runs on every worker of ``cluster/aws.yaml`` and ``cluster/gcp.yaml``, beside Ray:
``python -m raycrp.train.spot aws`` (or ``gcp``). Training hears of the drained node, saves a
checkpoint at once, and goes on without it. Another cloud needs one class with `seconds_left` and
one entry in ``SOURCES``.
"""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Protocol

logger = logging.getLogger(__name__)

_POLL_S = 5.0
_TIMEOUT_S = 2.0
_AWS_TOKEN_S = 21_600
_GCP_GRACE_S = 30.0
_DRAIN_S = 5.0


class NoticeSource(Protocol):
    """Where a cloud announces that it takes a node back."""

    def seconds_left(self) -> float | None:
        """Time until the node goes; None while there is no notice."""


@dataclass(frozen=True)
class AwsNotices:
    """Spot interruption notices of the EC2 metadata service, version 2; two minutes ahead.

    Args:
        host: Host and port of the service.
    """

    host: str = "169.254.169.254"

    def seconds_left(self) -> float | None:
        """Time until the node goes; None while there is no notice."""
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_AWS_TOKEN_S)}
        token = _ask(self.host, "PUT", "/latest/api/token", headers)
        if token is None:
            return None
        headers = {"X-aws-ec2-metadata-token": token}
        notice = _ask(self.host, "GET", "/latest/meta-data/spot/instance-action", headers)
        if notice is None:
            return None
        ends = datetime.fromisoformat(json.loads(notice)["time"])
        return max(0.0, (ends - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True)
class GcpNotices:
    """Preemption notices of the Compute Engine metadata service; half a minute ahead.

    Args:
        host: Host and port of the service.
    """

    host: str = "metadata.google.internal"

    def seconds_left(self) -> float | None:
        """Time until the node goes; None while there is no notice."""
        path = "/computeMetadata/v1/instance/preempted"
        answer = _ask(self.host, "GET", path, {"Metadata-Flavor": "Google"})
        # The notice names no time, and may have been there since the last look.
        return _GCP_GRACE_S - _POLL_S if answer == "TRUE" else None


SOURCES: Mapping[str, Callable[[], NoticeSource]] = {"aws": AwsNotices, "gcp": GcpNotices}
"""Clouds by name."""


def watch(source: NoticeSource, *, drain: Callable[[float], None], poll_s: float = _POLL_S) -> None:
    """Wait for a notice, then drain this node, again and again where Ray does not take it.

    Args:
        source: Where the notice comes from.
        drain: What to do with the seconds that are left.
        poll_s: Seconds between two looks.
    """
    while True:
        seconds = source.seconds_left()
        if seconds is not None:
            logger.warning("this node goes in %.0f s: draining it", seconds)
            try:
                return drain(seconds)
            except (OSError, subprocess.CalledProcessError) as error:
                logger.warning("it is not drained yet: %s", error)
        time.sleep(poll_s)


def drain_this_node(seconds: float) -> None:
    """Tell Ray that this node goes, so that nothing new is placed here and training hears of it.

    Args:
        seconds: Time until the node goes.
    """
    # Ray counts from when it hears of it, and the last checkpoint comes shortly before the end.
    told = max(1, int(seconds - _DRAIN_S))
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "spot notice", "--deadline-remaining-seconds", str(told)]
    subprocess.run(command, check=True)  # noqa: S603


def main(arguments: Sequence[str]) -> int:
    """Watch the cloud that is named; 2 if it is not known."""
    if len(arguments) != 1 or arguments[0] not in SOURCES:
        sys.stderr.write(f"usage: python -m raycrp.train.spot {{{','.join(SOURCES)}}}\n")
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    watch(SOURCES[arguments[0]](), drain=drain_this_node)
    return 0


def _ask(host: str, method: str, path: str, headers: Mapping[str, str]) -> str | None:
    """Answer of a metadata service; None where it has none, or none yet."""
    connection = HTTPConnection(host, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        text = response.read().decode()
        return text.strip() if response.status == HTTPStatus.OK else None
    except (OSError, HTTPException) as error:
        logger.debug("no answer from http://%s%s: %s", host, path, error)
        return None
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
