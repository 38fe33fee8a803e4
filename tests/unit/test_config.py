import re
from pathlib import Path

import pytest
import yaml

from raycrp.config import Config, Section, dump_yaml, load_config, result_settings
from raycrp.errors import ConfigError

YAML_FILES = sorted(Path("tune_configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_every_shipped_yaml_is_valid_and_opens_with_its_command(path):
    load_config([path])
    command = re.match(r"# raycrp (\w+) (.*)", path.read_text())
    assert command is not None
    assert command[1] in {"run", "elicit", "ablate"}
    assert str(path) in command[2]


def test_later_files_and_overrides_win(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("run: {name: first, seed: 1}\nelicit: {num_clusters: [3, 4]}\n")
    second.write_text("run: {name: second}\n")
    config = load_config([first, second], ["train.learning_rate=1e-4", "elicit.rule=floor"])
    assert config.run.name == "second"
    assert config.run.seed == 1
    assert config.elicit.num_clusters == (3, 4)
    assert config.elicit.rule == "floor"
    assert config.train.learning_rate == 0.0001


def test_a_mistake_in_a_section_that_may_be_unset_is_named():
    with pytest.raises(ConfigError, match=r"train\.search\.rung: unknown key; known: .*first_rung"):
        load_config([], ["train.search.rung=1"])


def test_every_mistake_is_named_in_one_message(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("elicit: {rul: floor}\ntrain: {batch_size: 0}\nnonsense: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config([path], ["data.columns.products=x", "run.name=a/b"])
    lines = str(caught.value).splitlines()
    keys = {line.split(":")[0] for line in lines}
    assert keys == {
        "elicit.rul",
        "train.batch_size",
        "nonsense",
        "data.columns.products",
        "run.name",
    }
    assert "known: " in str(caught.value)


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("data.source=reactions", "needs data.paths"),
        ("data.source=hub", "needs data.notation"),
        ("data.tasks=[forward,forward]", "each once"),
        ("elicit.num_clusters=[1,3]", "at least 2"),
        ("evaluate.top_k=50", "cannot exceed num_beams"),
        ("prompt.train_reaction_type=cross_fitted", "needs elicit.cross_fit_folds"),
        ("model.llm_rt.name_or_path=t5-small", "either preset or name_or_path"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(override, fragment):
    with pytest.raises(ConfigError, match=fragment):
        load_config(
            [], [override, *(["model.llm_rt.preset=tiny"] if "name_or_path" in override else [])]
        )


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (None, "not found"),
        (b"\xff\xfe\x00bad", "not text"),
        (b"a: [1\n", "not YAML"),
        (b"- 1\n- 2\n", "'section:' mappings"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, content, fragment):
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=fragment) as caught:
        load_config([path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_without_an_equals_sign_is_refused():
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        load_config([], ["run.seed"])


def test_the_dumped_configuration_loads_to_the_same(tmp_path):
    config = load_config([Path("tune_configs/demo.yaml")], ["run.seed=7"])
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config))
    assert load_config([path]) == config


def test_execution_settings_stay_out_of_digests():
    one = load_config([], ["train.num_workers=1", "embed.num_actors=1"])
    two = load_config([], ["train.num_workers=2", "embed.num_actors=3"])
    other = load_config([], ["train.batch_size=64"])
    assert result_settings(one.train) == result_settings(two.train)
    assert result_settings(one.embed) == result_settings(two.embed)
    assert result_settings(one.train) != result_settings(other.train)
    assert "zero_stage" in result_settings(one.train)


def test_every_setting_has_a_sentence():
    def check(section: type[Section], path: str) -> list[str]:
        missing = []
        for name, field in section.model_fields.items():
            if isinstance(field.default, Section):
                missing += check(type(field.default), f"{path}{name}.")
            elif not field.description:
                missing.append(path + name)
        return missing

    assert check(Config, "") == []


def test_a_checkpoint_comes_before_workers_may_be_started_anew_for_an_added_node():
    train = Config().train
    assert train.checkpoint_every_s < train.resize_interval_s


def test_settings_are_frozen():
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 3


def test_every_yaml_of_the_repository_parses():
    for path in Path().rglob("*.yaml"):
        if ".venv" not in path.parts and "runs" not in path.parts:
            list(yaml.safe_load_all(path.read_text()))
