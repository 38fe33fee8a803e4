"""What killed attempts left in Ray Train's folder, put right before the next one starts."""

import json
import logging

from raycrp.run import RunFolder
from raycrp.train.checkpoint import stored_checkpoints
from raycrp.train.session import RAY_DIR, RAY_RUN_NAME

_FOLDER = f"{RAY_DIR}/{RAY_RUN_NAME}"
_SNAPSHOT_NAME = "checkpoint_manager_snapshot.json"
_SNAPSHOT = f"{_FOLDER}/{_SNAPSHOT_NAME}"

logger = logging.getLogger(__name__)


def tidy_ray_folder(run: RunFolder, *, num_checkpoints: int) -> None:
    """Drop what Ray cannot read, and checkpoints that it does not know and nobody needs.

    Ray deletes old checkpoints that it has noted in its snapshot. Those of an upload that was
    killed, or was over just before the note, would stay for ever.

    Args:
        run: The run folder.
        num_checkpoints: Newest checkpoints to keep, whether Ray knows them or not.
    """
    snapshot = _read_snapshot(run)
    if not snapshot:
        # Nothing tells then which of the older ones must serve if the newest is not whole.
        return
    newest = stored_checkpoints(run, folders=(_FOLDER,))[:num_checkpoints]
    kept = {_SNAPSHOT_NAME, *(checkpoint.path.rpartition("/")[2] for checkpoint in newest)}
    for name in run.list_names(_FOLDER):
        if name.startswith("checkpoint_") and name not in kept and name not in snapshot:
            logger.info("%s is of a killed attempt and is deleted", run.uri(f"{_FOLDER}/{name}"))
            run.delete(f"{_FOLDER}/{name}")


def _read_snapshot(run: RunFolder) -> str:
    if not run.exists(_SNAPSHOT):
        return ""
    try:
        text = run.read_bytes(_SNAPSHOT).decode()
        json.loads(text)
    except (OSError, ValueError):
        # Ray does not start on a snapshot that it cannot read; checkpoints speak for themselves.
        logger.warning("%s is damaged and set aside", run.uri(_SNAPSHOT))
        run.delete(_SNAPSHOT)
        return ""
    return text
