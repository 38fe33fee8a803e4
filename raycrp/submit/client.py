"""The connection to a cluster's job server: its address, the token, the version it runs."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raycrp.errors import ClusterError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
CONNECT_TIMEOUT_S = 10.0

_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"


def connect_to_jobs(address: str) -> Any:
    """A ``ray.job_submission.JobSubmissionClient`` of a cluster that runs this version of Ray.

    Args:
        address: URL of the job server, such as ``http://127.0.0.1:8265``.

    Raises:
        ClusterError: If nothing answers, the token is missing or wrong, or the versions differ.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    _check_reachable(address)
    try:
        with _only_address(address):
            client = JobSubmissionClient(address, headers=auth_headers())
    except AuthenticationError as error:
        raise ClusterError(_token_problem(address, error)) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ClusterError(
            f"no Ray job server answers at {address}: {reason}; give the dashboard's address "
            f"(--address or {_ADDRESS_VARIABLE})"
        ) from error
    _check_version(client, address)
    return client


def job_address(address: str | None) -> str:
    """Where the job server is: as given, else from Ray's own variables, else on this machine.

    Args:
        address: URL, or host and port; None to look at the environment.

    Returns:
        URL without a slash at its end.
    """
    named = address or os.environ.get(_ADDRESS_VARIABLE) or os.environ.get("RAY_ADDRESS", "")
    if not address and not named.startswith("http") and _ADDRESS_VARIABLE not in os.environ:
        named = DEFAULT_ADDRESS
    return (named if "://" in named else f"http://{named}").rstrip("/")


def auth_headers() -> dict[str, str]:
    """The token of this machine as an HTTP header; none where ``RAY_AUTH_MODE`` is ``disabled``.

    Ray's order is kept: ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``. Other
    than for Ray's own command line, a token that is there is sent without ``RAY_AUTH_MODE=token``.

    Raises:
        ClusterError: If ``RAY_AUTH_TOKEN_PATH`` names a file without a token.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip() or _token_in_file(os.environ)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _token_in_file(environment: Mapping[str, str]) -> str:
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        token = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"the token file {path} cannot be read: {error}") from error
    if named and not token:
        raise ClusterError(f"RAY_AUTH_TOKEN_PATH={path} holds no token; correct it or unset it")
    return token


@contextmanager
def _only_address(address: str) -> Iterator[None]:
    """Ray's client prefers its variables to the address it is given; here the address wins."""
    before = os.environ.get(_ADDRESS_VARIABLE)
    os.environ[_ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ADDRESS_VARIABLE]
        else:
            os.environ[_ADDRESS_VARIABLE] = before


def _check_reachable(address: str) -> None:
    parts = urlsplit(address)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise ClusterError(f"'{address}' is no address of a job server, such as {DEFAULT_ADDRESS}")
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no cluster at {address}: {error.strerror or error}; start it and open the tunnel "
            "(`ray dashboard FILE`, `kubectl port-forward`), or give its --address"
        ) from error


def _token_problem(address: str, error: Exception) -> str:
    if "Authentication required" in str(error):
        return (
            f"the cluster at {address} asks for a token, and none was found here; put the "
            "cluster's into ~/.ray/auth_token (mode 600), RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN, "
            "and RAY_AUTH_MODE=token"
        )
    return (
        f"the cluster at {address} refuses the token of this machine; compare `ray get-auth-token` "
        "here with the one that the cluster was started with"
    )


def _check_version(client: Any, address: str) -> None:
    import ray

    # Read from the answer of the client's own first request; there is no public accessor.
    running = client._server_ray_version
    if running != ray.__version__:
        raise ClusterError(
            f"the cluster at {address} runs Ray {running}, this machine Ray {ray.__version__}; "
            "use the image built from this constraints.txt, or install the cluster's version here"
        )
