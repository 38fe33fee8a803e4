import pytest
import torch

from raycrp import doctor


@pytest.mark.parametrize(
    ("capabilities", "architectures", "missing"),
    [
        ([(7, 0)], ["sm_70", "sm_80"], []),
        ([(7, 0)], ["sm_75", "sm_80", "sm_90"], ["sm_70"]),
        ([(8, 6)], ["sm_80"], []),
        ([(9, 0), (7, 0)], ["sm_80", "compute_90"], ["sm_70", "sm_90"]),
        ([], [], []),
    ],
)
def test_gpus_without_kernels_are_named(capabilities, architectures, missing):
    assert doctor.missing_kernels(capabilities, architectures=architectures) == missing


@pytest.mark.parametrize(("num_gpus", "is_ok"), [(0, True), (1, False)])
def test_a_gpu_that_torch_does_not_see_is_told(monkeypatch, tmp_path, num_gpus, is_ok):
    for number in range(num_gpus):
        (tmp_path / f"nvidia{number}").touch()
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(doctor, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check = doctor.check_gpus()
    assert check.is_ok is is_ok
    assert ("cu126" in check.remedy) is not is_ok


def test_a_machine_that_carries_the_tests_is_well(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(doctor, "MIN_FREE_DISK_BYTES", 0)
    monkeypatch.setattr(doctor, "MIN_FREE_MEMORY_BYTES", 0)
    checks = doctor.run_checks()
    assert [check.name for check in checks if not check.is_ok] == []


def test_too_little_disk_comes_with_a_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "MIN_FREE_DISK_BYTES", 2**70)
    check = doctor.check_disk()
    assert not check.is_ok
    assert "free disk" in check.remedy


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    check = doctor.check_cluster()
    assert not check.is_ok
    assert "127.0.0.1:9" in check.detail
    assert "RAY_ADDRESS" in check.remedy
