"""ONNX files from elsewhere: garbage, paths that leave the folder and sizes that are not there end in one sentence."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from builders.errors import SourceError
from builders.onnx.external_data import check_onnx_file, inline
from builders.parity import onnx_runner
from tests.unit.builders.onnx.tiny_graphs import block

LIMIT = 10 * 2**20


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """Return a model whose weights lie in `weights.bin` beside it."""
    path = tmp_path / "model.onnx"
    model = onnx.load(block(tmp_path / "inner.onnx"))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1000)
    return path


def change(path: Path, key: str, value: str) -> None:
    """Give the first external weight another entry."""
    model = onnx.load(path, load_external_data=False)
    tensor = next(each for each in model.graph.initializer if each.data_location == TensorProto.EXTERNAL)
    entries = {entry.key: entry.value for entry in tensor.external_data} | {key: value}
    del tensor.external_data[:]
    for name, text in entries.items():
        tensor.external_data.add(key=name, value=text)
    path.write_bytes(model.SerializeToString())


def test_an_honest_file_passes_and_is_made_one(external: Path, tmp_path: Path) -> None:
    check_onnx_file(external, limit_bytes=LIMIT)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    inline(external, moved / "model.onnx")
    x = {"x": np.ones((1, 32), np.float32)}
    expected = onnx_runner(external, threads=1)(x)["y"]
    np.testing.assert_array_equal(onnx_runner(moved / "model.onnx", threads=1)(x)["y"], expected)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("location", "../weights.bin", r"lies in '\.\./weights\.bin', outside the model's folder"),
        ("location", "/etc/passwd", r"lies in '/etc/passwd', outside the model's folder"),
        ("location", "", "lies in '', outside the model's folder"),
        ("location", "gone.bin", r"lies in 'gone\.bin', and there is no such file"),
        ("offset", "999999999", r"ends at byte \d+ of 'weights\.bin', which has \d+"),
        ("offset", "-1", "has the offset '-1'; expected a number of bytes"),
        ("length", "99999999999", "has the shape of 4096 bytes and says 99999999999"),
        ("length", "1" * 50, "expected a number of bytes"),
    ],
)
def test_a_dishonest_entry_is_refused(external: Path, key: str, value: str, told: str) -> None:
    change(external, key, value)
    with pytest.raises(SourceError, match=told):
        check_onnx_file(external, limit_bytes=LIMIT)


def test_links_are_not_followed(external: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (tmp_path / "weights.bin").rename(secret)
    (tmp_path / "weights.bin").symlink_to(secret)
    with pytest.raises(SourceError, match="which is a link"):
        check_onnx_file(external, limit_bytes=LIMIT)


def test_many_weights_over_one_stretch_of_a_file_count_each(tmp_path: Path) -> None:
    """A bomb: a file of 4 MiB that a thousand weights take whole."""
    (tmp_path / "weights.bin").write_bytes(bytes(4 * 2**20))
    model = onnx.load(block(tmp_path / "inner.onnx"))
    for number in range(1000):
        tensor = model.graph.initializer.add(name=f"bomb{number}", data_type=TensorProto.FLOAT, dims=[2**20])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match=r"external data take 12\.\d MiB or more, and 10\.0 MiB are allowed"):
        check_onnx_file(tmp_path / "model.onnx", limit_bytes=LIMIT)


def test_weights_inside_subgraphs_are_looked_at(tmp_path: Path) -> None:
    tensor = TensorProto(name="inner", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../elsewhere")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [onnx.helper.make_empty_tensor_value_info("c")])
    node = onnx.helper.make_node("If", ["condition"], ["c"], then_branch=branch, else_branch=branch)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [], []))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="outside the model's folder"):
        check_onnx_file(tmp_path / "model.onnx", limit_bytes=LIMIT)


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"\x08\x0a"])
def test_garbage_is_not_an_onnx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(SourceError, match=r"^model\.onnx: not a(n| valid) ONNX"):
        check_onnx_file(tmp_path / "model.onnx", limit_bytes=LIMIT)


def test_size_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as stream:
        stream.truncate(2**33)  # a hole: takes no space
    with pytest.raises(SourceError, match=r"8192\.0 MiB, more than the 10\.0 MiB"):
        check_onnx_file(tmp_path / "model.onnx", limit_bytes=LIMIT)
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        check_onnx_file(tmp_path / "none.onnx", limit_bytes=LIMIT)
