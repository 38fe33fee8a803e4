"""What the image is made of: built where there is an engine, else resolved by pip alone."""

import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
TORCH_INDEX = "https://download.pytorch.org/whl/"
OF_TORCH = re.compile(r"(nvidia|cuda|triton|setuptools)\b")
"""What a build of torch brings along, which differs from variant to variant."""
TIMEOUT_S = 1_000

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def engine():
    """Docker or podman, where one of them answers."""
    for name in ("docker", "podman"):
        command = [name, "info"]
        if (
            shutil.which(name)
            and not subprocess.run(command, capture_output=True, check=False).returncode
        ):
            return name
    return None


def instructions(word):
    lines = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()
    return [line.removeprefix(word).strip() for line in lines if line.startswith(word + " ")]


def pip_lines():
    return [line for line in instructions("RUN") if line.startswith("pip install")]


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The files that the Dockerfile copies, and nothing else."""
    folder = tmp_path_factory.mktemp("image")
    for line in instructions("COPY"):
        *sources, _ = line.split()[1:]
        for source in sources:
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, folder / source)
    return folder


def resolve(line, folder, **environment):
    """Run a line of pip without installing anything, as on a machine that has nothing yet."""
    command = line.replace("pip install", f"{sys.executable} -m pip install --dry-run -I", 1)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_the_cpu_image_is_built():
    name = engine()
    if name is None:
        pytest.skip("no engine that builds images here; the lines of pip are resolved instead")
    tag = "raycrp:test-cpu"
    build = [name, "build", "-f", str(DOCKERFILE), "-t", tag, "--build-arg", "VARIANT=cpu", "."]
    subprocess.run(build, cwd=ROOT, check=True)
    run = [name, "run", "--rm", tag, "python", "-m", "raycrp", "validate"]
    subprocess.run([*run, "tune_configs/demo.yaml"], check=True)


@pytest.mark.parametrize("build", ["cpu", "cu126"])
def test_torch_is_there_for_both_variants(copied, build):
    try:
        urllib.request.urlopen(f"{TORCH_INDEX}{build}/torch/", timeout=10).close()
    except (urllib.error.URLError, OSError) as error:
        pytest.skip(f"torch's own index is not reachable here: {error}")
    [line] = [line for line in pip_lines() if TORCH_INDEX in line]
    result = resolve(line, copied, TORCH_BUILD=build)
    assert result.returncode == 0, result.stderr
    assert re.search(rf"torch-\S+\+{build}\b", result.stdout)


def test_all_that_the_package_needs_is_there_and_is_what_is_pinned(copied):
    probe = resolve("pip install --no-deps typer", copied)
    if probe.returncode:
        pytest.skip("no package index is reachable here")
    [line] = [line for line in pip_lines() if TORCH_INDEX not in line]
    result = resolve(line, copied)
    assert result.returncode == 0, result.stderr
    _, _, names = result.stdout.partition("Would install ")
    found = {canonical(name.rsplit("-", 1)[0]) for name in names.split()}
    assert found >= {"ray", "torch", "deepspeed", "transformers", "rdkit", "raycrp"}
    pins = (copied / "constraints.txt").read_text().splitlines()
    pinned = {canonical(line.partition("==")[0]) for line in pins}
    unpinned = found - pinned - {"raycrp"}
    assert {name for name in unpinned if not OF_TORCH.match(name)} == set()


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()
