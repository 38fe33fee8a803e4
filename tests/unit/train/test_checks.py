import pytest
import ray
from ray._private.state import state

from raycrp.config import TrainConfig
from raycrp.errors import ClusterError, TrainError
from raycrp.train.checks import check_resources, check_settings


def make_train(**values):
    return TrainConfig.model_validate(values)


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with what is put into it, now and at most."""
    resources = {"now": {"CPU": 8.0}, "most": None}
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources["now"])
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: resources["most"])
    return resources


def test_more_gpus_than_the_cluster_has_are_refused(cluster):
    with pytest.raises(
        ClusterError, match=r"asks for 4 GPU \(4 workers\), the cluster has 0; lower"
    ):
        check_resources(make_train(num_workers=4, use_gpu=True))


def test_gpus_that_the_autoscaler_may_bring_are_waited_for(cluster):
    cluster["most"] = {"CPU": 64, "GPU": 8}
    check_resources(make_train(num_workers=8, use_gpu=True))
    with pytest.raises(ClusterError, match=r"16 GPU .* has 0 and may grow to 8; lower"):
        check_resources(make_train(num_workers=16, use_gpu=True))


def test_an_elastic_training_needs_its_fewest_workers_alone(cluster):
    cluster["now"] = {"CPU": 8.0, "GPU": 1.0}
    check_resources(make_train(num_workers=[1, 8], use_gpu=True, batch_size=32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "fp16", "zero_stage": 0}, "fp16 needs train.zero_stage 1, 2 or 3"),
        ({"offload": True, "zero_stage": 0}, "offload needs train.zero_stage 1, 2 or 3"),
        ({"ema_decay": 0.9, "zero_stage": 3}, "ema_decay needs whole weights"),
        ({"num_workers": 3, "batch_size": 16}, r"batch_size \(16\) does not divide among 3"),
        ({"num_workers": [5, 7], "batch_size": 16}, "does not divide among 5 to 7 workers"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values, message):
    with pytest.raises(TrainError, match=message):
        check_settings(make_train(**values))


def test_compiling_under_zero_3_is_refused():
    with pytest.raises(TrainError, match=r"train.compile .* use stage 0, 1 or 2"):
        check_settings(TrainConfig(compile=True, zero_stage=3))


def test_bf16_on_gpus_needs_a_zero_optimizer():
    check_settings(TrainConfig(precision="bf16", zero_stage=0))
    with pytest.raises(TrainError, match=r"bf16 .* train.zero_stage 1, 2 or 3 on a GPU, found 0"):
        check_settings(TrainConfig(precision="bf16", zero_stage=0, use_gpu=True))
