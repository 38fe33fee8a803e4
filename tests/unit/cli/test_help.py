import inspect
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from raycrp.cli import COMMANDS, app, stages
from raycrp.cli.predict import predict
from raycrp.evaluate.predict_settings import JobSettings, PredictSettings
from raycrp.plan import Stage

NAMES = [command.__name__ for command in COMMANDS] + list(stages.STAGE_HELP)


@pytest.mark.parametrize("command", ["", *NAMES])
def test_every_help_answers(command):
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert f"{command} [OPTIONS]" in result.stdout


def test_every_stage_has_a_command():
    assert list(stages.STAGE_HELP) == [stage.value for stage in Stage]


@pytest.mark.parametrize("kind", [PredictSettings, JobSettings])
def test_every_setting_of_predict_is_an_option(kind):
    assert {field.name for field in fields(kind)} <= set(inspect.signature(predict).parameters)
