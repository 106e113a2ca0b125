"""What a build observes of this machine: tools under whichever name they are installed, and what is missing."""

import pytest

from builders import observe
from builders.host import version_of


def test_a_tool_is_found_under_the_name_of_any_distribution_that_carries_it() -> None:
    here = version_of("tensorrt_rtx_cu12_bindings")
    assert observe._version("tensorrt_rtx") == here
    assert observe._version("onnxruntime") != "absent"


@pytest.mark.parametrize(
    ("absent", "extras"),
    [
        (["torch"], "export"),
        (["onnxruntime"], "cpu"),
        (["torch", "onnxruntime-genai"], "export,generation"),
        (["onnxruntime-genai"], "generation"),
    ],
)
def test_what_is_missing_is_told_with_the_extras_that_bring_it(absent: list[str], extras: str) -> None:
    assert observe._told_absent(absent) == f"needs {', '.join(absent)}: pip install 'tritonfleet[{extras}]'"
