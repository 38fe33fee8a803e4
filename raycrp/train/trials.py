"""Where the trials of a training search leave their files, for those who only look at them."""

from raycrp.run import RunFolder

SEARCH_DIR = "train/search"
TRIALS_FILE = f"{SEARCH_DIR}/trials.parquet"

STOPPED_FILE = "train/stopped.json"
"""In a trial's own folder, once it was stopped early."""

RESULT_FILE = "train/result.json"
"""In the folder of a run or a trial, once its training has finished."""


def trial_name(*, learning_rate: float, batch_size: int) -> str:
    """Folder of the trial.

    Args:
        learning_rate: Peak step size.
        batch_size: Global batch in rows.
    """
    return f"rate-{learning_rate:g}-batch-{batch_size}"


def trial_run(run: RunFolder, name: str) -> RunFolder:
    """A trial's own run folder.

    Args:
        run: The run folder of the search.
        name: Folder of the trial.
    """
    return RunFolder(run.uri(SEARCH_DIR), name)
