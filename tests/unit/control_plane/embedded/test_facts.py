"""What an embedded server is said to have."""

from importlib import metadata
from pathlib import Path

import pytest

from builders.targets import Gpu
from control_plane.embedded.facts import host_facts, memory_bytes, visible_capabilities

GPUS = (Gpu("L4", "8.9", 24), Gpu("H100", "9.0", 80))


@pytest.mark.parametrize(
    ("visible", "capabilities"),
    [
        (None, ("8.9", "9.0")),
        ("", ()),
        ("-1", ()),
        ("1", ("9.0",)),
        ("1, 0", ("9.0", "8.9")),
        ("0,7", ("8.9",)),
        ("MIG-41b3359c-e721-56e5-8009-12e5797ed514", ("8.9", "9.0")),
    ],
)
def test_a_server_has_the_gpus_that_it_may_use(visible: str | None, capabilities: tuple[str, ...]) -> None:
    assert visible_capabilities(GPUS, visible) == capabilities


def test_backends_and_versions_are_those_that_are_here() -> None:
    facts = host_facts("")
    assert facts.compute_capabilities == ()
    assert facts.backends == {"python", "onnxruntime", "tensorrt_rtx"}
    assert facts.versions["onnxruntime"] == metadata.version("onnxruntime")


def test_memory_is_the_machines_or_less_where_a_cgroup_limits_it(tmp_path: Path) -> None:
    meminfo, limit, none = tmp_path / "meminfo", tmp_path / "max", tmp_path / "nothing"
    meminfo.write_text("MemTotal:       2048 kB\nMemFree:        1 kB\n")
    limit.write_text("max\n")
    assert memory_bytes(meminfo, (limit, none)) == 2048 * 1024
    limit.write_text("1000\n")
    assert memory_bytes(meminfo, (none, limit)) == 1000
    assert memory_bytes(none, (none,)) == 0
    assert memory_bytes() > 2**20
