"""What every section of the settings is made of."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raycrp.choices import Device, Preset


class _Execution:
    """Marks a field that changes how a stage runs, not what it makes."""


EXECUTION = _Execution()


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RunConfig(Section):
    """The run itself: its name, where it is kept, its seed."""

    name: str = Field(default="demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run folder."""
    storage: Annotated[str, EXECUTION] = "runs"
    """Local folder or pyarrow.fs URI (``s3://bucket/prefix``) that holds the run folders."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random choice."""
    num_cpus: Annotated[int | None, EXECUTION] = Field(default=None, ge=1)
    """CPUs of the Ray started on this machine; all of them if unset. Unused on a cluster."""
    device: Annotated[Device, EXECUTION] = Device.AUTO
    """Where models run; ``auto`` takes a GPU where the worker has one."""


class Backbone(Section):
    """A T5: a from-scratch preset, a local ``save_pretrained`` folder or a hub id."""

    preset: Preset | None = None
    """From-scratch size, with a tokenizer built from the data."""
    name_or_path: str | None = None
    """Local folder or hub id, e.g. ``GT4SD/multitask-text-and-chemistry-t5-base-augm``."""
    revision: str | None = None
    """Commit of a hub id; required there."""

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if (self.preset is None) == (self.name_or_path is None):
            raise ValueError("give either preset or name_or_path")
        return self
