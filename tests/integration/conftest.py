import sys
from pathlib import Path

import pytest
import ray

# Tests are imported by path, so modules beside them are found only if their folder is named.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def local_ray():
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def head():
    from ray_head import Head

    head = Head()
    yield head
    head.stop()
