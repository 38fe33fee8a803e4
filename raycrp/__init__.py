"""Self-feedback knowledge elicitation for chemical reaction prediction, on Ray."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raycrp.evaluate.predict import Predictor

__version__ = "0.1.0"


def load(path: str) -> "Predictor":
    """The predictor of a run folder or an exported model; needs no Ray.

    Args:
        path: A run folder whose train stage is done, or its ``model`` folder.

    Raises:
        ModelError: If neither is there.
    """
    from raycrp.evaluate.predict import load_predictor

    return load_predictor(path)
