"""Cluster files against the schemas of the tools that read them, without any cluster."""

import copy
import gzip
import os
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from raycrp.train.spot import SOURCES

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHER_FILES = ["aws.yaml", "gcp.yaml", "onprem.yaml"]
CLOUD_FILES = ["aws.yaml", "gcp.yaml"]
IMAGE = "REGISTRY/raycrp:gpu"
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)


def load(name):
    return yaml.safe_load((CLUSTER / name).read_text())


def set_at(tree, path, value):
    """A copy of a tree with one value set, or taken out if the value is None."""
    changed = copy.deepcopy(tree)
    node = changed
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return changed


def is_ours(path):
    parts = path.relative_to(ROOT).parts
    return not any(part.startswith(".") or part in ("runs", "build", "data") for part in parts[:1])


@pytest.mark.parametrize(
    "path", sorted(filter(is_ours, ROOT.rglob("*.y*ml"))), ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_yaml_file_loads(path):
    assert list(yaml.load_all(path.read_text(), yaml.CSafeLoader)) != [None]


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("[!R]*")), ids=lambda p: p.name)
def test_every_file_opens_with_the_commands_that_use_it(path):
    head = "\n".join(path.read_text().splitlines()[:5])
    assert re.search(r"\b(ray|docker|bash|aws|sky|kubectl|helm|python|build)\b.*" + path.stem, head)


class TestRayUp:
    @pytest.mark.parametrize("name", LAUNCHER_FILES)
    def test_the_launcher_takes_the_file(self, name):
        validate_config(prepare_config(load(name)))

    @pytest.mark.parametrize(
        ("name", "path", "value", "message"),
        [
            ("aws.yaml", ["max_worker"], 3, "max_worker"),
            ("aws.yaml", ["provider", "type"], None, "type"),
            ("aws.yaml", ["max_workers"], "many", "many"),
            ("aws.yaml", ["head_node_type"], "haed", "head_node_type"),
            ("aws.yaml", ["available_node_types", "head", "resources"], None, "resources"),
            ("gcp.yaml", ["available_node_types", "v100-x1-spot", "max_worker"], 1, "max_worker"),
            (
                "gcp.yaml",
                ["available_node_types", "v100-x1-spot", "min_workers"],
                99,
                "min_workers",
            ),
            ("gcp.yaml", ["docker", "images"], "x", "images"),
            ("onprem.yaml", ["auth", "ssh_users"], "me", "ssh_users"),
            ("onprem.yaml", ["worker_start_ray_commands"], "ray start", "ray start"),
        ],
    )
    def test_a_planted_mistake_is_caught(self, name, path, value, message):
        with pytest.raises((jsonschema.ValidationError, ValueError, KeyError), match=message):
            validate_config(prepare_config(set_at(load(name), path, value)))

    @pytest.mark.parametrize("name", LAUNCHER_FILES)
    def test_every_node_asks_for_the_token_and_keeps_it_to_itself(self, name):
        config = load(name)
        assert config["docker"]["image"] == IMAGE
        assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
        assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
        assert any("chmod 600 ~/.ray/auth_token" in line for line in config["setup_commands"])

    @pytest.mark.parametrize("name", LAUNCHER_FILES)
    def test_the_head_carries_no_load(self, name):
        start = " ".join(load(name)["head_start_ray_commands"])
        assert "--num-cpus=0" in start
        if name in CLOUD_FILES:
            head = load(name)["available_node_types"]["head"]
            assert head["max_workers"] == 0
            assert head["resources"] == {"CPU": 0}

    @pytest.mark.parametrize("name", CLOUD_FILES)
    def test_workers_start_from_zero_on_spot_with_a_twin_on_demand(self, name):
        types = load(name)["available_node_types"]
        spot = {key.removesuffix("-spot") for key in types if key.endswith("-spot")}
        on_demand = {key.removesuffix("-on-demand") for key in types if "-on-demand" in key}
        assert spot == on_demand != set()
        for shape in spot:
            cheap, dear = types[f"{shape}-spot"], types[f"{shape}-on-demand"]
            assert cheap["min_workers"] == dear["min_workers"] == 0
            assert cheap["priority"] > dear["priority"]
            assert cheap["resources"] == dear["resources"]
            assert is_spot(cheap["node_config"])
            assert not is_spot(dear["node_config"])
        assert not is_spot(types["head"]["node_config"])

    @pytest.mark.parametrize("name", CLOUD_FILES)
    def test_workers_watch_for_the_notice_of_their_cloud(self, name):
        start, watch = load(name)["worker_start_ray_commands"][-2:]
        cloud = name.removesuffix(".yaml")
        assert "ray start" in start
        assert f"python -m raycrp.train.spot {cloud} " in watch
        assert cloud in SOURCES
        assert watch.startswith("setsid nohup ")
        assert watch.endswith("&")

    def test_aws_offers_the_three_v100_machines(self):
        types = load("aws.yaml")["available_node_types"]
        gpus = {
            kind["node_config"]["InstanceType"]: kind["resources"]["GPU"]
            for kind in types.values()
            if "GPU" in kind["resources"]
        }
        assert gpus == {"p3.2xlarge": 1, "p3.8xlarge": 4, "p3dn.24xlarge": 8}

    def test_gcp_asks_for_as_many_gpus_as_it_promises(self):
        for kind in load("gcp.yaml")["available_node_types"].values():
            accelerators = kind["node_config"].get("guestAccelerators", [])
            assert sum(a["acceleratorCount"] for a in accelerators) == kind["resources"].get(
                "GPU", 0
            )
            assert not accelerators or kind["node_config"]["machineType"].startswith("n1-")


def is_spot(node_config):
    scheduling = node_config.get("scheduling", {})
    market = node_config.get("InstanceMarketOptions", {})
    return scheduling.get("provisioningModel") == "SPOT" or market.get("MarketType") == "spot"


class TestSecurity:
    def test_no_file_opens_the_dashboard_or_a_port_to_the_world(self):
        for path in CLUSTER.iterdir():
            text = path.read_text()
            assert not re.search(r"dashboard-host[= \"]+0\.0\.0\.0", text), path.name
            assert "0.0.0.0/0" not in text, path.name
            assert not re.search(r"type: (LoadBalancer|NodePort)", text, re.IGNORECASE), path.name

    @pytest.mark.parametrize("name", [*LAUNCHER_FILES, "skypilot.yaml"])
    def test_every_head_started_here_has_its_dashboard_on_loopback(self, name):
        text = (CLUSTER / name).read_text()
        starts = re.findall(r"ray start --head(?:.|\n {4,})*", text)
        assert starts
        assert all("--dashboard-host=127.0.0.1" in start for start in starts)

    def test_aws_nodes_use_the_group_made_for_them(self):
        for kind in load("aws.yaml")["available_node_types"].values():
            assert kind["node_config"]["SecurityGroupIds"] == ["SG_ID"]
            assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"

    def test_no_secret_is_written_down(self):
        for path in CLUSTER.iterdir():
            assert not re.search(r"\b[0-9a-f]{32,}\b|AKIA[0-9A-Z]{16}", path.read_text()), path.name


@pytest.fixture(scope="module")
def schemas():
    """The operator's definitions, unknown keys refused."""
    folder = os.environ.get("RAYCRP_KUBERAY_CRDS")
    if not folder:
        pytest.skip("RAYCRP_KUBERAY_CRDS is not set; see cluster/fetch_crds.py")
    return {
        kind: strict_schema(Path(folder) / f"{kind.lower()}s.yaml.gz")
        for kind in ("RayCluster", "RayJob")
    }


def strict_schema(path):
    definition = yaml.load(gzip.decompress(path.read_bytes()), yaml.CSafeLoader)
    version = next(v for v in definition["spec"]["versions"] if v["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]
    refuse_unknown_keys(schema)
    return schema


def refuse_unknown_keys(schema):
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    for child in schema.get("properties", {}).values():
        refuse_unknown_keys(child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            refuse_unknown_keys(schema[key])


def mistakes_of(document, schemas):
    validator = jsonschema.Draft202012Validator(schemas[document["kind"]])
    return [error.message for error in validator.iter_errors(document)]


GROUP = ["workerGroupSpecs", 0]
POD = [*GROUP, "template", "spec"]


class TestKubeRay:
    @pytest.mark.parametrize("name", ["kuberay-cluster.yaml", "kuberay-job.yaml"])
    def test_the_operator_takes_the_file(self, name, schemas):
        assert mistakes_of(load(name), schemas) == []

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ([*GROUP, "minReplica"], 1, "minReplica"),
            ([*GROUP, "maxReplicas"], "8", "'8' is not of type 'integer'"),
            ([*GROUP, "rayStartParams"], {"num-cpus": 0}, "0 is not of type 'string'"),
            ([*POD, "terminationGracePeriod"], 120, "terminationGracePeriod"),
            ([*POD, "tolerations", 0, "operater"], "Exists", "operater"),
            ([*POD, "containers", 0, "volumeMount"], [], "volumeMount"),
            ([*POD, "containers"], None, "'containers' is a required property"),
            (["authOptions", "mode"], "tokens", "'tokens' is not one of"),
            (["autoscalerOptions", "idleTimeoutMinutes"], 10, "idleTimeoutMinutes"),
        ],
    )
    @pytest.mark.parametrize(
        ("name", "root"),
        [("kuberay-cluster.yaml", ["spec"]), ("kuberay-job.yaml", ["spec", "rayClusterSpec"])],
    )
    def test_a_planted_mistake_is_caught(self, name, root, path, value, message, schemas):
        found = mistakes_of(set_at(load(name), [*root, *path], value), schemas)
        assert any(message in mistake for mistake in found)

    def test_a_mistake_in_the_job_itself_is_caught(self, schemas):
        job = load("kuberay-job.yaml")
        misspelt = set_at(job, ["spec", "backoffLimt"], 3)
        headless = set_at(job, ["spec", "rayClusterSpec", "headGroupSpec"], None)
        assert any("backoffLimt" in mistake for mistake in mistakes_of(misspelt, schemas))
        assert "'headGroupSpec' is a required property" in mistakes_of(headless, schemas)

    def test_the_job_has_the_same_cluster_as_the_one_that_stays(self):
        cluster = load("kuberay-cluster.yaml")["spec"]
        assert load("kuberay-job.yaml")["spec"]["rayClusterSpec"] == cluster

    def test_the_token_is_asked_for_and_the_version_is_ours(self):
        spec = load("kuberay-cluster.yaml")["spec"]
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["rayVersion"] == PINS["ray"]
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"

    def test_workers_grow_from_zero_and_leave_in_time_to_save(self):
        for group in load("kuberay-cluster.yaml")["spec"]["workerGroupSpecs"]:
            pod = group["template"]["spec"]
            environment = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
            drain_s = float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert group["minReplicas"] == 0 < group["maxReplicas"]
            assert 0 < drain_s < pod["terminationGracePeriodSeconds"]

    def test_every_pod_has_the_image_the_volume_and_the_policy(self):
        spec = load("kuberay-cluster.yaml")["spec"]
        claim, policy = yaml.safe_load_all((CLUSTER / "kuberay-storage.yaml").read_text())
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            labels = group["template"]["metadata"]["labels"]
            assert pod["containers"][0]["image"] == IMAGE
            assert (
                pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
                == (claim["metadata"]["name"])
            )
            assert labels == policy["spec"]["podSelector"]["matchLabels"]


class TestDockerfile:
    def test_base_image_and_pip_lines_follow_the_pins(self):
        text = (CLUSTER / "Dockerfile").read_text()
        lines = text.replace("\\\n", " ").splitlines()
        installs = [line for line in lines if "pip install" in line]
        assert f"ARG RAY_VERSION={PINS['ray']}" in lines
        assert {line.split()[1] for line in lines if line.startswith("FROM rayproject")} == {
            "rayproject/ray:${RAY_VERSION}-py311-cu126",
            "rayproject/ray:${RAY_VERSION}-py311-cpu",
        }
        assert installs
        assert all("--constraint constraints.txt" in line for line in installs)

    def test_torch_comes_from_the_index_that_has_v100_kernels(self):
        text = (CLUSTER / "Dockerfile").read_text()
        command = re.search(r"\$\((grep .*?)\)", text).group(1)
        pin = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert pin.stdout.strip() == f"torch=={PINS['torch']}"
        assert "AS base-gpu\nENV TORCH_BUILD=cu126" in text
        assert "https://download.pytorch.org/whl/${TORCH_BUILD}" in text

    def test_what_is_copied_is_there_and_not_ignored(self):
        lines = (CLUSTER / "Dockerfile").read_text().splitlines()
        kept = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
        for line in filter(lambda line: line.startswith("COPY"), lines):
            for source in line.split()[2:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in kept


def test_the_host_script_is_bash():
    subprocess.run(["bash", "-n", CLUSTER / "prepare-host.sh"], check=True)


def test_sky_nodes_ask_for_the_token_and_run_the_image():
    task = load("skypilot.yaml")
    assert task["resources"]["image_id"] == f"docker:{IMAGE}"
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}
    assert "export RAY_AUTH_MODE=token" in task["run"]
    assert "ray stop" not in task["run"]
