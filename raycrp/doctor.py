"""Whether this machine, and the cluster if one is named, can carry out a run."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from raycrp.errors import ClusterError

GIB = 2**30
MIN_FREE_MEMORY_BYTES = 4 * GIB
MIN_FREE_DISK_BYTES = 5 * GIB
DEVICES = Path("/dev")
_V100_REMEDY = "pip install torch --index-url https://download.pytorch.org/whl/cu126"


@dataclass(frozen=True)
class Check:
    """What one check found.

    Args:
        name: What was looked at.
        is_ok: Whether a run can go ahead.
        detail: What was found.
        remedy: What to do where it is not ok.
    """

    name: str
    is_ok: bool
    detail: str
    remedy: str = ""


def run_checks() -> list[Check]:
    """Carry out all checks, cheapest first."""
    checks: list[Callable[[], Check]] = [
        check_python,
        check_torch,
        check_gpus,
        check_ray,
        check_deepspeed,
        check_memory,
        check_disk,
    ]
    if os.environ.get("RAY_ADDRESS"):
        checks.append(check_cluster)
    return [check() for check in checks]


def check_python() -> Check:
    """Python is 3.11 or newer."""
    is_ok = sys.version_info >= (3, 11)
    return Check("python", is_ok, platform.python_version(), "install Python 3.11 or newer")


def check_torch() -> Check:
    """PyTorch imports; says which GPU architectures its build has kernels for."""
    remedy = "pip install -c constraints.txt torch"
    try:
        import torch
    except ImportError as error:
        return Check("torch", is_ok=False, detail=f"cannot be imported: {error}", remedy=remedy)
    architectures = torch.cuda.get_arch_list()
    kernels = " ".join(architectures) if architectures else "CPU only"
    return Check("torch", is_ok=True, detail=f"{torch.__version__}, kernels for: {kernels}")


def check_gpus() -> Check:
    """Every GPU of this machine is seen by this build of PyTorch, and has kernels in it."""
    try:
        import torch
    except ImportError:
        return Check("gpu", is_ok=False, detail="unknown without torch", remedy="install torch")
    if not torch.cuda.is_available():
        return _check_no_gpu()
    devices = range(torch.cuda.device_count())
    names = ", ".join(torch.cuda.get_device_name(device) for device in devices)
    missing = missing_kernels(
        [torch.cuda.get_device_capability(device) for device in devices],
        architectures=torch.cuda.get_arch_list(),
    )
    if missing:
        return Check(
            "gpu",
            is_ok=False,
            detail=f"{names}: this torch has no kernels for {', '.join(missing)}",
            remedy=f"install a build that has them; V100 (sm_70): {_V100_REMEDY}",
        )
    return Check("gpu", is_ok=True, detail=names)


def _check_no_gpu() -> Check:
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    if is_hidden or not any(DEVICES.glob("nvidia[0-9]*")):
        return Check("gpu", is_ok=True, detail="none on this machine")
    return Check(
        "gpu",
        is_ok=False,
        detail="an NVIDIA GPU is here that this torch does not see",
        remedy=f"install a build that fits the driver; V100: {_V100_REMEDY}",
    )


def missing_kernels(capabilities: list[tuple[int, int]], *, architectures: list[str]) -> list[str]:
    """GPU architectures for which a PyTorch build has no kernels.

    A binary for ``sm_XY`` runs on GPUs of the same major version X and a minor one of Y or more.

    Args:
        capabilities: Compute capability of each GPU, such as ``(7, 0)``.
        architectures: What the build has, such as ``["sm_75", "sm_80"]``.

    Returns:
        Missing ones, such as ``["sm_70"]``.
    """
    built = [divmod(int(name.removeprefix("sm_")), 10) for name in architectures if _is_sm(name)]
    missing = {
        f"sm_{major}{minor}"
        for major, minor in capabilities
        if not any(b_major == major and b_minor <= minor for b_major, b_minor in built)
    }
    return sorted(missing)


def _is_sm(name: str) -> bool:
    return name.startswith("sm_") and name.removeprefix("sm_").isdigit()


def check_ray() -> Check:
    """Ray is installed."""
    return _check_package("ray", "ray")


def check_deepspeed() -> Check:
    """DeepSpeed is installed."""
    return _check_package("deepspeed", "deepspeed")


def check_memory() -> Check:
    """Enough free memory for a small run."""
    free = psutil.virtual_memory().available
    detail = f"{free / GIB:.1f} GiB available"
    remedy = f"free memory until {MIN_FREE_MEMORY_BYTES / GIB:.0f} GiB are available"
    return Check("memory", free >= MIN_FREE_MEMORY_BYTES, detail, remedy)


def check_disk() -> Check:
    """Enough free disk where runs and Ray's own files go."""
    folders = {Path.cwd(), Path(tempfile.gettempdir())}
    free = {folder: shutil.disk_usage(folder).free for folder in sorted(folders)}
    detail = ", ".join(f"{folder}: {size / GIB:.0f} GiB free" for folder, size in free.items())
    remedy = f"free disk until {MIN_FREE_DISK_BYTES / GIB:.0f} GiB are left"
    return Check("disk", min(free.values()) >= MIN_FREE_DISK_BYTES, detail, remedy)


def check_cluster() -> Check:
    """The cluster of ``RAY_ADDRESS`` answers; says what it has."""
    from raycrp.ray_session import connected_ray, describe_cluster

    try:
        with connected_ray():
            return Check("cluster", is_ok=True, detail=describe_cluster())
    except ClusterError as error:
        detail, _, remedy = str(error).partition("; ")
        return Check("cluster", is_ok=False, detail=detail, remedy=remedy)


def _check_package(name: str, distribution: str) -> Check:
    try:
        return Check(name, is_ok=True, detail=version(distribution))
    except PackageNotFoundError:
        remedy = f"pip install -c constraints.txt {distribution}"
        return Check(name, is_ok=False, detail="not installed", remedy=remedy)
