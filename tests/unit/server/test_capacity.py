"""What a machine offers, within its control groups' limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from dts.server.capacity import cpu_limit, memory_limit

GIB = 1024**3


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "self"


def test_version_2_the_tightest_of_a_group_and_those_above_it(tmp_path: Path, own: Path) -> None:
    own.write_text("0::/pod/container\n")
    root = tree(
        tmp_path / "cgroup",
        {
            "pod/cpu.max": "150000 100000",
            "pod/container/cpu.max": "max 100000",
            "pod/memory.max": "max",
            "pod/container/memory.max": str(3 * GIB),
        },
    )
    assert cpu_limit(root, own) == 1_500
    assert memory_limit(root, own) == 3 * 1024


def test_version_1(tmp_path: Path, own: Path) -> None:
    own.write_text("12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n")
    root = tree(
        tmp_path / "cgroup",
        {
            "cpu/docker/abc/cpu.cfs_quota_us": "50000",
            "cpu/docker/abc/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/docker/abc/memory.limit_in_bytes": str(GIB // 2),
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert cpu_limit(root, own) == 500
    assert memory_limit(root, own) == 512


def test_in_a_container_the_root_of_what_is_mounted_is_its_own_group(tmp_path: Path, own: Path) -> None:
    own.write_text("0::/kubepods/not/visible/here\n")
    root = tree(tmp_path / "cgroup", {"cpu.max": "25000 100000", "memory.max": str(GIB)})
    assert cpu_limit(root, own) == 250
    assert memory_limit(root, own) == 1_024


def test_no_limit_and_no_control_groups_at_all(tmp_path: Path, own: Path) -> None:
    assert cpu_limit(tmp_path / "none", own) is None
    assert memory_limit(tmp_path / "none", own) is None
    own.write_text("0::/\n")
    root = tree(tmp_path / "cgroup", {"cpu.max": "max 100000", "memory.max": "max"})
    assert cpu_limit(root, own) is None
    assert memory_limit(root, own) is None
