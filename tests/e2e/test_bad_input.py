import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


def test_help_answers(command_line):
    result = command_line("--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_help_loads_neither_ray_nor_torch():
    code = (
        "import sys; sys.argv = ['raycrp', '--help']\n"
        "import raycrp.cli\n"
        "try: raycrp.cli.main()\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'ray', 'torch', 'rdkit', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("make_arguments", "fragment"),
    [
        (lambda folder: ["train.batchsize=3"], "train.batchsize: unknown key"),
        (lambda folder: ["elicit.num_clusters=[1]"], "at least 2"),
        (
            lambda folder: [
                "data.source=mol_instructions",
                "data.paths=[/nowhere/x.jsonl]",
                "data.notation=smiles",
            ],
            "/nowhere/x.jsonl",
        ),
        (lambda folder: ["run.storage=nonsense://bucket"], "nonsense"),
        (lambda folder: ["run.storage=/proc/none"], "run.storage '/proc/none' cannot be written"),
    ],
)
def test_bad_input_is_one_clear_line(command_line, tmp_path, make_arguments, fragment):
    result = command_line.here("run", *command_line.tiny_config, *make_arguments(tmp_path))
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert fragment in last


def test_a_file_that_is_not_text_is_named(command_line, tmp_path):
    path = tmp_path / "noise.jsonl"
    path.write_bytes(bytes(range(256)) * 10)
    result = command_line.run(
        "data.source=mol_instructions", f"data.paths=[{path}]", "data.notation=smiles"
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert str(path) in result.stderr.strip().splitlines()[-1]


def test_a_folder_that_is_not_a_model_is_named(command_line, tmp_path):
    result = command_line.here("predict", str(tmp_path), "CCO", "--task", "forward")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert str(tmp_path) in result.stderr


def test_validate_names_every_bad_file(command_line, tmp_path):
    good, bad, worse = (tmp_path / name for name in ("good.yaml", "bad.yaml", "worse.yaml"))
    good.write_text("run: {name: x}\n")
    bad.write_text("run: {nam: x}\n")
    worse.write_text("train: {batch_size: -1}\nelicit: {rule: best}\n")
    result = command_line.here("validate", str(good), str(bad), str(worse))
    assert result.returncode == 2
    assert f"{good}: ok" in result.stdout
    for fragment in (str(bad), "run.nam", str(worse), "train.batch_size", "elicit.rule"):
        assert fragment in result.stderr


def test_a_dry_run_starts_nothing(command_line):
    result = command_line.run("--dry-run")
    assert result.returncode == 0
    assert "num_reactions: 120" in result.stdout
    for stage in ("data", "embed", "elicit", "annotate", "prompt", "train", "evaluate", "report"):
        assert any(line.split()[:2] == [stage, "run"] for line in result.stdout.splitlines())
    assert not command_line.run_folder.exists()
