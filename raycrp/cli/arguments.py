"""Arguments and options that commands share, and what they become."""

import logging
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from raycrp.errors import ConfigError

if TYPE_CHECKING:
    from raycrp.config import Config

Choice = TypeVar("Choice", bound=StrEnum)

ConfigArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG... [section.key=value ...]",
        help="YAML files, merged in order, and single settings; later ones win.",
        show_default=False,
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, a path or URI.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]


def load_settings(arguments: list[str]) -> "Config":
    """The configuration that the arguments name.

    Raises:
        ConfigError: If no file is named, or a setting is wrong.
    """
    from raycrp.config import load_config

    paths, overrides = split_arguments(arguments)
    return load_config(paths, overrides)


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """YAML files, and single settings.

    Raises:
        ConfigError: If no file is named.
    """
    overrides = [argument for argument in arguments if "=" in argument]
    paths = [argument for argument in arguments if "=" not in argument]
    if not paths:
        raise ConfigError("give at least one YAML file, such as tune_configs/demo.yaml")
    return paths, overrides


def parse_choice(kind: type[Choice], name: str, *, option: str) -> Choice:
    """The member of an enumeration that an option names.

    Raises:
        ConfigError: If it names none.
    """
    if name not in list(kind):
        raise ConfigError(f"{option} {name}: expected one of {', '.join(kind)}")
    return kind(name)


def configure_logging(verbose: bool) -> None:
    """Send log lines to standard error."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
