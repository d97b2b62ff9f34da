"""seqjepa doctor: each check finds what is wrong and says what to do."""

from __future__ import annotations

import importlib
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from seqjepa import doctor

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def broken_import(monkeypatch):
    """Makes `import NAME` fail with MESSAGE."""
    real = importlib.import_module

    def install(name: str, message: str) -> None:
        def fake(wanted: str, package: str | None = None):
            if wanted == name:
                raise ImportError(message)
            return real(wanted, package)

        monkeypatch.setattr(doctor.importlib, "import_module", fake)

    return install


@pytest.mark.parametrize(
    ("message", "cures"),
    [
        (
            "libxcb.so.1: cannot open shared object file: No such file or directory",
            ("libgl1", "opencv-python-headless"),
        ),
        ("No module named 'cv2'", ("pip install opencv-python",)),
    ],
)
def test_opencv_that_cannot_be_imported_names_the_packages(broken_import, message: str, cures: tuple[str, ...]):
    broken_import("cv2", message)
    finding = doctor.check_opencv()
    assert finding.status == "fail"
    assert all(cure in finding.advice for cure in cures)


def test_broken_torch_is_a_failure_with_advice(broken_import):
    broken_import("torchvision", "operator torchvision::nms does not exist")
    finding = doctor.check_torch()
    assert finding.status == "fail"
    assert "nms" in finding.found
    assert "constraints.txt" in finding.advice


@pytest.mark.parametrize(("free_gib", "status"), [(3, "warn"), (200, "ok")])
def test_disk(monkeypatch, free_gib: int, status: str):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(10**12, 0, free_gib * doctor.GIB))
    assert doctor.check_disk(Path("/data")).status == status


@pytest.mark.parametrize(("mib", "status"), [(64, "warn"), (8192, "ok")])
def test_shared_memory(monkeypatch, tmp_path: Path, mib: int, status: str):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(mib * 2**20, 0, 0))
    assert doctor.check_shared_memory(tmp_path).status == status


def test_missing_shared_memory_is_said(tmp_path: Path):
    assert doctor.check_shared_memory(tmp_path / "nowhere").found == "missing"


def test_a_gpu_that_only_imitates_bf16_is_told_of(monkeypatch):
    card = SimpleNamespace(name="Tesla T4", total_memory=15 << 30)
    given = {"is_available": lambda: True, "device_count": lambda: 1, "get_device_properties": lambda _: card}
    given["is_bf16_supported"] = lambda including_emulation=True: including_emulation
    for name, value in given.items():
        monkeypatch.setattr(f"torch.cuda.{name}", value)
    found = doctor.check_gpu()
    assert (found.status, found.found) == ("warn", "Tesla T4, 15 GiB")
    assert "train.precision='fp32'" in found.advice


def test_old_python_fails(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1))
    assert doctor.check_python().status == "fail"


def test_this_machine_passes(tmp_path: Path):
    findings = doctor.examine(tmp_path)
    assert [finding.name for finding in findings][:3] == ["Modules", "Python", "PyTorch"]
    assert not [finding for finding in findings if finding.status == "fail"]
    assert all(finding.advice for finding in findings if finding.status != "ok" and finding.name != "GPU")
