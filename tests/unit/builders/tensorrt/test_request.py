from pathlib import Path

import pytest

from builders.forms import InputRange
from builders.targets import Target
from builders.tensorrt.request import Answer, Built, EngineRequest, Refused, answer_json, parse_answer, parse_request


def test_a_request_passes_as_json() -> None:
    request = EngineRequest(
        Path("/a/dense.onnx"),
        Target("tensorrt", "sm_90", "bf16"),
        (InputRange("x", (1, 2), (3, 4), (5, 6)),),
        workspace_mib=64,
        version_compatible=True,
        hardware_compatible="ampere_plus",
        timing_cache=Path("/caches"),
        memory_limit_bytes=1,
        time_limit_s=0.5,
    )
    assert parse_request(request.to_json()) == request
    with pytest.raises(ValueError, match="hardware_compatible"):
        parse_request(request.to_json().replace(b"ampere_plus", b"all"))


@pytest.mark.parametrize(
    "answer",
    [
        Built("built", 1.5, {"tensorrt_rtx": "1.7"}, "none", inspected=False),
        Refused("refused", "why"),
        Refused("refused", "why", missing="tensorrt"),
    ],
)
def test_an_answer_passes_as_json(answer: Answer) -> None:
    assert parse_answer(answer_json(answer)) == answer


@pytest.mark.parametrize("text", [b"", b"{}", b'{"kind": "built"}', b"\xff", b'{"kind": "other", "problem": ""}'])
def test_what_is_no_answer(text: bytes) -> None:
    assert parse_answer(text) is None
