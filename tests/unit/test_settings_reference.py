"""The settings that ``raycrp settings`` prints are those that a run takes."""

import pytest
import yaml

from raycrp.config import Config, SearchConfig, load_config
from raycrp.config.reference import describe_settings
from raycrp.errors import ConfigError


def test_the_printed_file_is_the_defaults(tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(describe_settings())
    assert load_config([path]) == Config()
    assert yaml.safe_load(path.read_text()) == Config().model_dump(mode="json")


def test_sections_come_as_they_are_asked_for():
    assert list(yaml.safe_load(describe_settings(["train", "run"]))) == ["train", "run"]
    with pytest.raises(ConfigError, match="no section 'trian'; sections: run, data, model"):
        describe_settings(["trian"])


def test_each_setting_has_what_it_means_and_may_be():
    text = describe_settings(["train", "model"])
    lines = [line.strip() for line in text.splitlines()]
    about = lines[lines.index("launcher: ray") - 1]
    assert about.startswith("# Ray Train workers, or one plain process for debugging. One of: ray")
    assert about.endswith("local. Execution only.")
    # Of two sections of one kind, what each is for.
    places = [lines.index(name) for name in ("llm_rt:", "llm_crp:")]
    assert lines[places[0] - 1] != lines[places[1] - 1]


def test_a_section_that_is_unset_is_shown_in_comments():
    text = describe_settings(["train"])
    shown = text[text.index("  # search:\n") :]
    block = [line[4:] for line in shown.splitlines() if line.startswith("  # ")]
    found = {line.split(":")[0].strip() for line in block if ": " in line and "#" not in line}
    assert set(SearchConfig.model_fields) <= found
