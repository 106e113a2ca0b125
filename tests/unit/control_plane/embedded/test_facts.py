"""What an embedded server is said to have."""

from importlib import metadata

import pytest

from builders.targets import Gpu
from control_plane.embedded.facts import host_facts, visible_capabilities

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
