"""Data set files from the Hugging Face hub, pinned to a commit."""

import logging

from raycrp.config import HubSource
from raycrp.errors import DataError

logger = logging.getLogger(__name__)

_ATTEMPTS = 4


def download_files(hub: HubSource) -> list[str]:
    """Paths of the files in the local cache; what is not there is downloaded.

    Args:
        hub: Repository, commit and file names.

    Raises:
        DataError: If the repository, the commit or a file is not there, or the hub cannot be
            reached.
    """
    return [_download_file(hub, name) for name in hub.files]


def _download_file(hub: HubSource, name: str) -> str:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{hub.repo_id} at {hub.revision}: {name}"
    try:
        return _download_with_retries(hub, name)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        kind = "repository" if isinstance(error, RepositoryNotFoundError) else "revision"
        raise DataError(f"data.hub: {where}: no such {kind}, or no access to it") from error
    except HFValidationError as error:
        raise DataError(f"data.hub: {where}: {_first_line(error)}") from error
    except (EntryNotFoundError, _http_error(), OSError) as error:
        if _is_transient(error):
            detail = f"not reached in {_ATTEMPTS} attempts, and not in the local cache"
            raise DataError(f"data.hub: {where}: {detail}: {_first_line(error)}") from error
        raise DataError(f"data.hub: {where}: {_first_line(error)}") from error


def _download_with_retries(hub: HubSource, name: str) -> str:
    from huggingface_hub import hf_hub_download
    from tenacity import (
        Retrying,
        before_sleep_log,
        retry_if_exception,
        stop_after_attempt,
        wait_exponential,
    )

    for attempt in Retrying(
        retry=retry_if_exception(_is_transient),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(multiplier=0.5, max=10),
        before_sleep=before_sleep_log(logger, logging.WARNING),
        reraise=True,
    ):
        with attempt:
            return hf_hub_download(hub.repo_id, name, repo_type="dataset", revision=hub.revision)
    raise AssertionError("unreachable: tenacity returns or raises")


def _is_transient(error: BaseException) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, (_http_error(), LocalEntryNotFoundError, ConnectionError))


def _http_error() -> type[Exception]:
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP library's own base error; which library that is depends on the hub's version.
    base: type[Exception] = HfHubHTTPError.__mro__[1]
    return base


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
