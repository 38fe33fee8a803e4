import re
import shlex
from types import SimpleNamespace

import pytest

from raycrp.config import load_config
from raycrp.errors import ConfigError
from raycrp.plan import Stage
from raycrp.submit import send
from raycrp.submit.send import (
    SubmitOptions,
    check_settings,
    new_submission_id,
    plain_command,
    submit_run,
)


class Cluster:
    """Job server that takes everything, and says that it has succeeded."""

    def __init__(self):
        self.sent = []

    def submit_job(self, *, entrypoint, submission_id, runtime_env):
        self.sent.append((submission_id, entrypoint))

    def get_job_info(self, job_id):
        return SimpleNamespace(status="SUCCEEDED", message="", driver_exit_code=0)


class TestSettings:
    @pytest.fixture
    def load(self, tmp_path):
        def _load(*overrides):
            path = tmp_path / "mine.yaml"
            path.write_text("run: {name: demo}\n")
            return load_config([path], overrides)

        return _load

    @pytest.mark.parametrize("storage", ["runs", "./runs", "~/runs"])
    def test_storage_inside_the_job_is_refused(self, load, storage):
        with pytest.raises(ConfigError, match="would be lost with the job"):
            check_settings(load(f"run.storage={storage}"), files={})

    @pytest.mark.parametrize("storage", ["/mnt/runs", "s3://bucket/raycrp", "gs://b"])
    def test_shared_storage_passes(self, load, storage):
        check_settings(load(f"run.storage={storage}"), files={})

    def test_data_must_go_along_or_be_named_where_all_see_it(self, load):
        config = load(
            "run.storage=/r", "data.source=reactions", "data.paths=[s3://b/*.csv,x/*.csv]"
        )
        check_settings(config, files={"x/a.csv": 1})
        with pytest.raises(ConfigError, match=re.escape("data.paths 'x/*.csv' does not go along")):
            check_settings(config, files={"y/a.csv": 1})

    @pytest.mark.parametrize("place", ["outside", "ignored"])
    def test_a_config_that_does_not_go_along_is_named(self, tmp_path, place):
        tree = tmp_path / "tree"
        (tree / "data").mkdir(parents=True)
        path = tmp_path / "a.yaml" if place == "outside" else tree / "data" / "a.yaml"
        path.write_text("run: {name: demo, storage: /mnt/runs}\n")
        with pytest.raises(ConfigError, match=r"a\.yaml does not go along"):
            submit_run([str(path)], [], options=SubmitOptions(working_dir=tree), echo=print)

    @pytest.mark.parametrize(("until", "word"), [(None, "run"), (Stage.ELICIT, "elicit")])
    def test_a_run_is_sent_with_paths_as_the_job_sees_them(
        self, tmp_path, monkeypatch, until, word
    ):
        cluster = Cluster()
        monkeypatch.setattr(send, "connect_to_jobs", lambda address: cluster)
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "a.yaml").write_text("run: {name: demo}\n")
        options = SubmitOptions(working_dir=tmp_path, checks_storage=False, waits=False)
        overrides = ["run.storage=/mnt/r", "data.paths=['/mnt/a b.zip']"]
        path = str(tmp_path / "configs" / "a.yaml")
        submit_run([path], overrides, options=options, echo=len, until=until)
        [(job_id, entrypoint)] = cluster.sent
        assert shlex.split(entrypoint) == (
            ["python", "-m", "raycrp", word, "configs/a.yaml", *overrides]
        )
        assert job_id.startswith("demo-")


def test_the_plain_command_survives_a_shell():
    line = plain_command(
        ["python", "-c", "print('a b')"], address="http://h:1", job_id="x", options=SubmitOptions()
    )
    words = shlex.split(line)
    assert words[:4] == ["RAY_AUTH_MODE=token", "ray", "job", "submit"]
    assert words[words.index("--") + 1 :] == ["python", "-c", "print('a b')"]
    assert words[words.index("--address") + 1] == "http://h:1"


def test_submission_ids_can_be_read_and_are_never_the_same():
    ids = {new_submission_id("demo") for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch(r"demo-\d{8}-\d{6}-[0-9a-f]{4}", name) for name in ids)
