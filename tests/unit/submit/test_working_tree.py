from pathlib import Path
from zipfile import ZipFile

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from raycrp.errors import ClusterError
from raycrp.submit.working_tree import EXCLUDES, check_size, files_to_send

ROOT = Path(__file__).parents[3]
MIB = 2**20


@pytest.fixture
def tree(tmp_path):
    files = {
        "main.py": 10,
        "data/raw.csv": 20,
        "runs/demo/model.bin": 30,
        "package/data/read.py": 40,
        "package/runs/code.py": 50,
        "notebooks/large.ipynb": 60,
        "cache/x": 70,
        ".git/objects/ab": 80,
        ".venv/lib/site.py": 90,
    }
    for name, size in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"0" * size)
    (tmp_path / ".gitignore").write_text("cache/\n")
    (tmp_path / ".rayignore").write_text("/notebooks/\n")
    return tmp_path


def test_data_runs_and_ignored_files_stay_but_packages_of_those_names_go(tree):
    sizes = files_to_send(tree)
    assert sizes == {
        "main.py": 10,
        "package/data/read.py": 40,
        "package/runs/code.py": 50,
        ".gitignore": 7,
        ".rayignore": 12,
    }


def test_it_names_the_very_files_that_ray_packs(tree, tmp_path_factory):
    target = tmp_path_factory.mktemp("package") / "package.zip"
    excludes = [*get_runtime_env_default_excludes(), *EXCLUDES]
    create_package(str(tree), target, include_gitignore=True, excludes=excludes)
    with ZipFile(target) as package:
        packed = {name for name in package.namelist() if not name.endswith("/")}
    assert packed == set(files_to_send(tree))


def test_this_project_sends_its_code_and_settings_alone():
    sent = set(files_to_send(ROOT))
    assert {"raycrp/data/__init__.py", "raycrp/cli/__init__.py", "tune_configs/paper.yaml"} <= sent
    assert not [name for name in sent if name.startswith(("runs/", "data/", "tests/", ".venv/"))]


def test_a_tree_within_the_limit_passes():
    check_size({"a": 3, "b": 4}, max_bytes=7)


def test_a_large_tree_is_refused_with_what_is_large():
    sizes = {"notes/a.bin": 3 * MIB, "notes/b.bin": 2 * MIB, "model.bin": 4 * MIB, "x.py": 10}
    with pytest.raises(ClusterError) as caught:
        check_size(sizes, max_bytes=8 * MIB)
    assert "9.0 MiB would be sent, at most 8.0 MiB" in str(caught.value)
    assert "largest: notes/ 5.0 MiB, model.bin 4.0 MiB" in str(caught.value)
    assert ".rayignore" in str(caught.value)


def test_a_missing_tree_is_named(tmp_path):
    with pytest.raises(ClusterError, match="nowhere is not a folder"):
        files_to_send(tmp_path / "nowhere")
