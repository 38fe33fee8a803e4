"""Fetch KubeRay's CustomResourceDefinitions, which the tests check cluster files against.

python cluster/fetch_crds.py crds
RAYCRP_KUBERAY_CRDS=crds pytest tests/unit/test_cluster_files.py
"""

import argparse
import gzip
import sys
import urllib.error
import urllib.request
from pathlib import Path

RELEASE = "v1.7.0"
NAMES = ("rayclusters", "rayjobs")
URL = (
    "https://raw.githubusercontent.com/ray-project/kuberay/{release}"
    "/helm-chart/kuberay-operator/crds/ray.io_{name}.yaml"
)
TIMEOUT_S = 30


def main() -> int:
    """Write one gzipped file for each definition; 1 if one cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument("--release", default=RELEASE, help=f"KubeRay release (default: {RELEASE})")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        url = URL.format(release=arguments.release, name=name)
        try:
            fetch(url, arguments.folder / f"{name}.yaml.gz")
        except (urllib.error.URLError, TimeoutError) as error:
            sys.stderr.write(f"error: {url} cannot be fetched: {error}\n")
            return 1
        sys.stderr.write(f"{arguments.folder / name}.yaml.gz\n")
    return 0


def fetch(url: str, target: Path) -> None:
    """Fetch a URL into a gzipped file, which appears whole or not at all."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310
        data = response.read()
    scratch = target.with_suffix(".part")
    scratch.write_bytes(gzip.compress(data, mtime=0))
    scratch.replace(target)


if __name__ == "__main__":
    sys.exit(main())
