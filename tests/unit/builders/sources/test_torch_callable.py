"""A function of a package as a source: exported, or refused with the file and line of what went wrong."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from builders.errors import SourceError
from builders.forms import ExportRequest, InputRange
from builders.reference import load_reference
from builders.sources.torch_callable import export_torch_callable

SOURCE = """
from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Sizes:
    width: int = 4


class Weighted(torch.nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(sizes.width, 3)
        self.drop = torch.nn.Dropout(0.5)
        self.table = torch.nn.Embedding(6, 3)

    def forward(self, x, kind):
        mixed = self.drop(self.linear(x)).sum(1) + self.table(kind)
        return {"unused": x, "best": mixed.argmax(1), "scores": mixed}


def make():
    example = {"x": torch.zeros(1, 2, 4), "kind": torch.tensor([5])}
    return Weighted(Sizes()), example, ("scores", "best")


def twins():
    class Difference(torch.nn.Module):
        def forward(self, a, b):
            return a - b
    same = torch.zeros(2, 4)
    return Difference(), {"a": same, "b": same}, ["y"]


def fixed():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x.reshape(int(x.shape[0]) if x.shape[0] == 2 else 7, -1)
    return Fixed(), {"x": torch.zeros(2, 4)}, ["y"]


def fails():
    return torch.zeros(2, 3) @ torch.zeros(2, 3)


def nothing():
    return None


def alike():
    return torch.nn.Identity(), {"x": torch.zeros(2)}, ["x"]


def leaves():
    raise SystemExit(3)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    return path


def request(package: Path, *inputs: InputRange, batch: int = 4) -> ExportRequest:
    return ExportRequest(package, None, inputs, (1, 4), batch)


def test_what_it_makes_is_exported_with_the_sizes_that_vary(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    modules = set(sys.modules)
    given = InputRange("x", (1, 1, 4), (4, 3, 4), (4, 9, 4))
    (form,) = export_torch_callable(file, "make", request(tmp_path, given), out)
    assert form.inputs == (given, InputRange("kind", (1,), (4,), (4,)))
    session = onnxruntime.InferenceSession(str(out / form.onnx), providers=["CPUExecutionProvider"])
    cases = load_reference(out / form.reference)
    assert {case.inputs["x"].shape for case in cases} >= {(1, 1, 4), (4, 9, 4), (1, 3, 4), (4, 3, 4)}
    for case in cases:
        assert (case.inputs["kind"] == 5).all(), "random integers lie between the example's"
        scores, best = session.run(["scores", "best"], dict(case.inputs))
        np.testing.assert_allclose(scores, case.outputs["scores"], atol=1e-5)
        np.testing.assert_array_equal(best, case.outputs["best"])
    sizes = [dimension.dim_param for dimension in onnx.load(out / form.onnx).graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", "x_1", ""]
    assert {path.name for path in tmp_path.iterdir()} == {"source.py", "out"}, "bytecode was left"
    assert not [name for name in set(sys.modules) - modules if "tritonfleet" in name or name == "source"]


def test_two_inputs_stay_two_where_their_example_is_one_tensor(file: Path, tmp_path: Path) -> None:
    (form,) = export_torch_callable(file, "twins", request(tmp_path), tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / form.onnx), providers=["CPUExecutionProvider"])
    a, b = np.full((3, 4), 5, np.float32), np.full((3, 4), 2, np.float32)
    np.testing.assert_array_equal(session.run(None, {"a": a, "b": b})[0], a - b)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("absent", r"source\.py: no function 'absent'"),
        ("Sizes", r"source\.py: Sizes must return a torch\.nn\.Module, .* it returned Sizes"),
        ("nothing", r"source\.py: nothing must return a torch\.nn\.Module, .* it returned NoneType"),
        ("alike", r"source\.py: alike names two tensors alike"),
        ("fails", r"source\.py:47: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("leaves", r"source\.py:59: SystemExit: 3"),
        ("fixed", r"the source model cannot take x \[\d, 4\]: |axis 0 of x came out fixed|PyTorch cannot export"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_sentence(
    file: Path, tmp_path: Path, function: str, message: str
) -> None:
    with pytest.raises(SourceError, match=message) as refused:
        export_torch_callable(file, function, request(tmp_path), tmp_path)
    assert "\n" not in str(refused.value)
    assert "_tritonfleet_package_source" not in sys.modules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\ndef (:\n", r"source\.py:3: SyntaxError: invalid syntax"),
        ("import torch\nimport absent_module\n", r"source\.py:2: ModuleNotFoundError: No module named 'absent_module'"),
        ("\0", r"source\.py:1: SyntaxError|source\.py:1: ValueError"),
    ],
)
def test_a_file_that_does_not_run(file: Path, tmp_path: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(SourceError, match=message):
        export_torch_callable(file, "make", request(tmp_path), tmp_path)
    file.unlink()
    with pytest.raises(SourceError, match=r"source\.py: no such file"):
        export_torch_callable(file, "make", request(tmp_path), tmp_path)


def test_a_size_of_one_cannot_vary(file: Path, tmp_path: Path) -> None:
    file.write_text(SOURCE.replace("torch.zeros(1, 2, 4)", "torch.zeros(1, 1, 4)"))
    given = InputRange("x", (1, 1, 4), (4, 3, 4), (4, 9, 4))
    with pytest.raises(SourceError, match="x: dimension 1 varies; give the example input 2 or more there"):
        export_torch_callable(file, "make", request(tmp_path, given), tmp_path)
