import pyarrow as pa
import pytest
import ray
from ray._private import services
from ray._private.state import state

from raycrp.errors import ClusterError
from raycrp.ray_data import map_shards
from raycrp.ray_session import check_only_ray_here, connected_ray
from raycrp.run import RunFolder


def test_a_token_that_the_cluster_refuses_is_one_line(monkeypatch):
    def refuse(**_):
        raise ray.exceptions.AuthenticationError("invalid token")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ClusterError, match="invalid token"), connected_ray():
        pass


def test_a_job_does_not_wait_for_a_gpu_that_never_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(ray.data, "from_items", lambda *_, **__: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: None)
    run = RunFolder(str(tmp_path), "run")
    run.write_table("data/part.parquet", pa.table({"row_id": [1]}))
    with pytest.raises(ClusterError, match=r"embed asks for 1 GPU \(each actor\), .* has 0; lower"):
        map_shards(
            run,
            tables={"data": "embed"},
            function=dict,
            arguments={},
            schema=pa.schema([("row_id", pa.int64())]),
            rows_per_shard=1,
            gpus_per_actor=1,
        )


def test_work_that_needs_the_only_ray_of_a_machine_names_the_others(monkeypatch):
    found = {"10.0.0.1:6379"}
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: found)
    check_only_ray_here(who="train.search")
    found.add("10.0.0.1:7001")
    with pytest.raises(ClusterError, match=r"train.search .* found 2 \(10.0.0.1:6379, 10.0.0.1:70"):
        check_only_ray_here(who="train.search")
