"""Every error raised on purpose.

Each takes one message, so that all of them survive pickling between Ray processes.
"""


class RaycrpError(Exception):
    """Something the user can act on; the command line prints its message and exits with 2."""


class ConfigError(RaycrpError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class DataError(RaycrpError):
    """A data file is missing, empty, unreadable or not in the declared form."""


class NoRowsError(DataError):
    """A data file is in order but holds no row."""


class RejectLimitError(DataError):
    """More rows were rejected than ``data.max_reject_fraction`` allows."""


class ModelError(RaycrpError):
    """A model or tokenizer is missing, damaged or of the wrong kind."""


class RunError(RaycrpError):
    """A run folder is missing, belongs to another run, or lacks what a stage needs."""


class ElicitError(RaycrpError):
    """The search for reaction types cannot be carried out as asked."""


class TrainError(RaycrpError):
    """Training cannot start or go on."""


class DivergedError(TrainError):
    """Training came to a loss that is no number, or to gradients that stay beyond fp16."""


class ClusterError(RaycrpError):
    """The Ray cluster cannot be reached or lacks what the run asks for."""
