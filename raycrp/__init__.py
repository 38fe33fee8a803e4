"""Self-feedback knowledge elicitation for chemical reaction prediction, on Ray.

Where things are:

- ``cli``: the commands; ``config``, ``choices``: the settings and the values they may take;
- ``pipeline`` runs the stages in the order of ``plan``, each in a package of its own: ``data``,
  ``embed``, ``elicit``, ``annotate``, ``prompt``, ``train``, ``evaluate``, ``report``;
- ``compare``, ``audit``, ``ablate``: what finished runs are worth, and why;
- ``board``, ``status``: a run while it goes on; ``submit``, ``doctor``: a cluster;
- ``chem``: molecules and reactions, without Ray and torch; ``model``: T5 and heads, without Ray;
- ``run``: the run folder; ``schemas``: its tables; ``errors``, ``arrays``: what all share;
- ``ray_session``, ``ray_data``, ``ray_tune``: how Ray is used;
- ``tracking``, ``prometheus``, ``mlflow_run``: where metrics go.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raycrp.evaluate.predict import Predictor

__version__ = "0.1.0"


def load(
    path: str,
    *,
    device: str = "auto",
    num_beams: int = 5,
    num_reaction_types: int = 1,
    num_spellings: int = 1,
) -> "Predictor":
    """The predictor of a run folder or an exported model; needs no Ray.

    Args:
        path: A run folder whose train stage is done, or its ``model`` folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        num_beams: Beams of the search.
        num_reaction_types: Most probable reaction types that are ranked together; beams beyond the
            answers wanted look for answers under all of them.
        num_spellings: Spellings of the input that vote.

    Raises:
        ModelError: If neither is there.
    """
    from raycrp.evaluate.predict import load_predictor

    return load_predictor(
        path,
        device=device,
        num_beams=num_beams,
        num_reaction_types=num_reaction_types,
        num_spellings=num_spellings,
    )
