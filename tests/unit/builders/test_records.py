"""What is written and read back: reference sets, forms and artifact records; and what is no such thing."""

import json
from pathlib import Path

import numpy as np
import pytest

from builders.artifacts import Artifact, CandidateResult, parse_artifact
from builders.errors import SourceError
from builders.forms import Form, InputRange, load_forms, save_forms
from builders.manifest import FileEntry, OutputParity, Parity
from builders.reference import Case, load_reference, save_reference

ARTIFACT = Artifact(
    "key",
    "onnxruntime-cpu-int8",
    {"onnxruntime": "1"},
    {"model.onnx": FileEntry("0" * 64, 3)},
    parity=Parity(2, 9, {"y": OutputParity(0.1, 0.01, 0.99)}, score=0.5),
    chosen="dynamic",
    candidates=(
        CandidateResult("plain", {"1": 0.2, "8": 0.8}),
        CandidateResult("dynamic", {"1": 0.1, "8": 0.1}, 3, 0.99, 0.1),
    ),
)


def test_cases_come_back_as_they_were(tmp_path: Path) -> None:
    cases = (
        Case("a", "golden", 2, {"x": np.ones((2, 3), np.float32)}, {"y/z": np.arange(2)}, np.array([1, 0])),
        Case("b", "measure", 1, {"x": np.zeros((1, 3), np.float32)}, {"y/z": np.arange(1)}),
    )
    save_reference(tmp_path / "m.npz", cases)
    found = load_reference(tmp_path / "m.npz")
    assert [(case.name, case.kind, case.batch) for case in found] == [("a", "golden", 2), ("b", "measure", 1)]
    np.testing.assert_array_equal(found[0].inputs["x"], cases[0].inputs["x"])
    np.testing.assert_array_equal(found[0].outputs["y/z"], [0, 1])
    assert found[0].labels is not None
    assert found[1].labels is None


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 not a zip"])
def test_what_is_no_reference_set_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(SourceError, match="not a reference set"):
        load_reference(tmp_path / "m.npz")


def test_a_pickled_reference_set_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SourceError, match="not a reference set"):
        load_reference(tmp_path / "m.npz")


def test_forms_come_back(tmp_path: Path) -> None:
    forms = (Form("model", (InputRange("x", (1, 2), (4, 8), (32, 64)),), {"input": [{"name": "x"}]}), Form("dense"))
    save_forms(tmp_path, forms)
    assert load_forms(tmp_path) == {"model": forms[0], "dense": forms[1]}
    (tmp_path / "forms.json").write_text("[{}]")
    with pytest.raises(SourceError, match="not the forms of an export"):
        load_forms(tmp_path)


def test_an_artifact_comes_back_and_says_how_much_faster_it_is() -> None:
    found = parse_artifact(ARTIFACT.to_json())
    assert found == ARTIFACT
    assert found.speed_up == pytest.approx(4.0)  # twice and eight times: the geometric mean
    assert Artifact("k", "t", {}, {}).speed_up is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 1}', ARTIFACT.to_json().replace('"schema": 1', '"schema": 9')]
)
def test_what_is_no_artifact_is_none(text: str) -> None:
    assert parse_artifact(text) is None


def test_an_artifact_with_an_unknown_field_is_none() -> None:
    assert parse_artifact(json.dumps({**json.loads(ARTIFACT.to_json()), "more": 1})) is None
