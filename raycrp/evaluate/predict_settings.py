"""What ``predict`` is asked for: what decides the answers, and how a job is carried out."""

from dataclasses import dataclass

from raycrp.choices import Device


@dataclass(frozen=True)
class PredictSettings:
    """What decides the answers.

    Args:
        task: The task.
        top_k: Different answers for each input.
        num_beams: Beams of each spelling.
        num_reaction_types: Reaction types ranked together.
        num_spellings: Spellings that vote.
        round_trip: Whether answers to retrosynthesis are asked for their round trip.
        max_output_tokens: Longest answer in tokens; that of training if None.
    """

    task: str
    top_k: int = 5
    num_beams: int = 5
    num_reaction_types: int = 1
    num_spellings: int = 1
    round_trip: bool = True
    max_output_tokens: int | None = None


@dataclass(frozen=True)
class JobSettings:
    """How a job is carried out.

    Args:
        rows_per_block: Rows of a block: the unit of work, retry and resume.
        num_actors: Actors that predict at once; 0 predicts in this process, without Ray.
        gpus_per_actor: GPUs of each actor.
        num_cpus: CPUs of a Ray started here; all of the machine's if None.
        device: Where the models run.
    """

    rows_per_block: int = 1_024
    num_actors: int = 1
    gpus_per_actor: float = 0
    num_cpus: int | None = None
    device: Device = Device.AUTO
