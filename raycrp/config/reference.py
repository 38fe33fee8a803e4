"""All settings with their defaults and what they mean, as a YAML file to read or to start from."""

import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, get_args

import yaml
from pydantic.fields import FieldInfo

from raycrp.config.load import Config
from raycrp.config.section import EXECUTION, Section
from raycrp.errors import ConfigError

_WIDTH = 100
_INDENT = "  "
_HEADER = """\
Every setting at its default. Those that say 'Execution only.' change how a run is carried out, not
what comes out of it, and may be changed while it is under way; others make the stages run again
that depend on them."""


def describe_settings(names: Sequence[str] = ()) -> str:
    """Settings as commented YAML that ``load_config`` reads; the defaults are their values.

    Args:
        names: Sections to describe, in this order; all of them if empty.

    Raises:
        ConfigError: If there is no section of a name.
    """
    known = list(Config.model_fields)
    strange = [name for name in names if name not in known]
    if strange:
        raise ConfigError(f"no section '{strange[0]}'; sections: {', '.join(known)}")
    defaults = Config()
    parts = ("\n".join(_section(name, getattr(defaults, name))) for name in names or known)
    return "\n\n".join(["\n".join(_comment(_HEADER, indent="")), *parts])


def _section(
    name: str, section: Section, *, about: str | None = None, indent: str = ""
) -> Iterator[str]:
    yield from _comment(about or type(section).__doc__ or "", indent=indent)
    yield f"{indent}{name}:"
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, Section):
            yield from _section(key, value, about=field.description, indent=indent + _INDENT)
        else:
            yield from _setting(key, field, section=section, indent=indent + _INDENT)


def _setting(key: str, field: FieldInfo, *, section: Section, indent: str) -> Iterator[str]:
    yield from _comment(" ".join(_sentences(field)), indent=indent)
    value = section.model_dump(mode="json", include={key})[key]
    yield f"{indent}{key}: {_inline(value)}"
    if value is None:
        for kind in _sections_of(field.annotation):
            yield from (f"{indent}# {line}" for line in _section(key, kind()))


def _inline(value: Any) -> str:
    dumped: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return dumped.removesuffix("...\n").strip()


def _sentences(field: FieldInfo) -> Iterator[str]:
    if field.description:
        yield " ".join(field.description.split())
    choices = [member.value for kind in _enums_of(field.annotation) for member in kind]
    if choices:
        yield f"One of: {', '.join(map(str, choices))}."
    if EXECUTION in field.metadata:
        yield "Execution only."


def _comment(text: str, *, indent: str) -> Iterator[str]:
    plain = " ".join(text.split()).replace("``", "'")
    for line in textwrap.wrap(plain, _WIDTH - len(indent) - 2, break_on_hyphens=False):
        yield f"{indent}# {line}"


def _enums_of(annotation: Any) -> Iterator[type[Enum]]:
    yield from (kind for kind in _kinds(annotation) if issubclass(kind, Enum))


def _sections_of(annotation: Any) -> Iterator[type[Section]]:
    yield from (kind for kind in _kinds(annotation) if issubclass(kind, Section))


def _kinds(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)
