"""Questions about backends, and the answers that Triton 2.51 really gave to them."""

import json

import pytest

from control_plane.adapters.triton_backends import ASKING, question, says_absent

PRESENT = (
    "load failed for model 'tritonfleet-asks-python': version 1 is at UNAVAILABLE state: Invalid argument: instance "
    "group tritonfleet-asks-python_0 of model tritonfleet-asks-python specifies invalid or unsupported gpu id 99999. "
    "GPUs with at least the minimum required CUDA compute compatibility of 6.000000 are: ;"
)
ABSENT = (
    "load failed for model 'tritonfleet-asks-x': version 1 is at UNAVAILABLE state: Invalid argument: unable to find "
    "backend library for backend 'x', try specifying runtime on the model configuration.;"
)


def test_a_question_can_never_be_loaded() -> None:
    name, config = question("python")
    assert name == f"{ASKING}python"
    assert json.loads(config) == {
        "name": name,
        "backend": "python",
        "instance_group": [{"kind": "KIND_GPU", "count": 1, "gpus": [99999]}],
    }


@pytest.mark.parametrize(("error", "absent"), [(PRESENT, False), (ABSENT, True), ("something else", False)])
def test_what_the_answer_says(error: str, *, absent: bool) -> None:
    assert says_absent(error) is absent
