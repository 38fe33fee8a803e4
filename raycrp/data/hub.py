"""Data set files from the Hugging Face hub, pinned to a commit."""

from raycrp.config import HubSource
from raycrp.errors import DataError


def download_files(hub: HubSource) -> list[str]:
    """Paths of the files in the local cache; what is not there is downloaded.

    The hub's library repeats failed requests and goes on with broken downloads by itself.

    Args:
        hub: Repository, commit and file names.

    Raises:
        DataError: If the repository, the commit or a file is not there, or the hub cannot be
            reached.
    """
    return [_download_file(hub, name) for name in hub.files]


def _download_file(hub: HubSource, name: str) -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The HTTP library's own base error; which library that is depends on the hub's version.
    http_error: type[Exception] = HfHubHTTPError.__mro__[1]
    cause: Exception
    try:
        return hf_hub_download(hub.repo_id, name, repo_type="dataset", revision=hub.revision)
    except RepositoryNotFoundError as error:
        problem, cause = "no such repository, or no access to it", error
    except RevisionNotFoundError as error:
        problem, cause = "no such revision", error
    except LocalEntryNotFoundError as error:
        problem = f"neither in the local cache nor to be had from the hub: {_root(error)}"
        cause = error
    except (EntryNotFoundError, http_error, OSError, ValueError) as error:
        problem, cause = _root(error), error
    raise DataError(f"data.hub: {hub.repo_id} at {hub.revision}: {name}: {problem}") from cause


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
