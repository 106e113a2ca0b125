"""The table of Triton releases, and what a server of each can open."""

import re

import pytest

from builders.releases import (
    TritonRelease,
    engine_problem,
    onnx_problem,
    onnx_support,
    read_onnx_support,
    read_releases,
    release_of,
    version_parts,
)

BY_CONTAINER = {release.container: release for release in read_releases()}


def test_the_table_has_every_month_from_2401_on_once_and_in_order() -> None:
    months = [tuple(map(int, container.split("."))) for container in BY_CONTAINER]
    first = (24, 1)
    expected = [(first[0] + index // 12, index % 12 + 1) for index in range(len(months))]
    assert months == expected
    assert len(read_releases()) == len(BY_CONTAINER) >= 32


def test_versions_grow_from_release_to_release() -> None:
    for column in ("server", "tensorrt", "cuda", "onnxruntime"):
        found = [value for release in read_releases() if (value := getattr(release, column)) is not None]
        assert len(found) >= 12
        assert all(re.fullmatch(r"\d+(\.\d+){2,3}", value) for value in found), (column, found)
        short = [version_parts(value)[:3] for value in found]
        assert short == sorted(short), column
    servers = [release.server for release in read_releases() if release.server]
    assert len(set(servers)) == len(servers)


def test_the_embedded_server_is_of_2410() -> None:
    release = release_of("2.51.0")
    assert release is not None
    assert (release.container, str(release), release.onnxruntime) == ("24.10", "Triton 24.10", "1.19.2")
    assert release_of("2.51.9") is None


@pytest.mark.parametrize(
    ("engine", "compatible", "server", "loads"),
    [
        ("10.7.0.23", False, "10.7.0.23", True),
        ("10.7.0", False, "10.7.0.23", True),  # the build number is not known
        ("10.7.0.22", False, "10.7.0.23", False),
        ("10.13.3.9.post1", False, "10.13.3.9", True),
        ("10.7.1", False, "10.7.0.23", False),
        ("10.6.0", False, "10.7.0", False),
        ("10.6.0", True, "10.7.0", True),
        ("10.7.0.26", True, "10.7.0.23", True),
        ("10.8.0", True, "10.7.0", False),
        ("10.7.0", True, "11.0.0", True),
        ("8.6.1", True, "10.7.0", True),
        ("8.5.3", True, "8.6.1", False),
        ("8.6.1", True, "11.0.0", False),
        ("9.0.0", True, "10.0.1", False),
        ("11.0.0", True, "10.16.1", False),
        ("nonsense", True, "10.7.0", False),
        ("10.7.0", True, "nonsense", False),
    ],
)
def test_which_engine_loads_on_which_tensorrt(engine: str, server: str, *, compatible: bool, loads: bool) -> None:
    problem = engine_problem(engine, version_compatible=compatible, release=TritonRelease("99.1", tensorrt=server))
    assert (problem is None) == loads, problem


def test_a_mismatch_says_what_to_build() -> None:
    told = engine_problem("10.3.0.26", version_compatible=False, release=BY_CONTAINER["24.12"])
    assert told == (
        "the engine is of TensorRT 10.3.0.26; this server is Triton 24.12 with TensorRT 10.7.0.23: build it with "
        "TensorRT 10.7.0.23, or version-compatible with that TensorRT or an older one"
    )
    told = engine_problem("11.0.0", version_compatible=True, release=TritonRelease("", tensorrt="10.7.0"))
    assert told == (
        "a version-compatible engine is of TensorRT 11.0.0; this server is a Triton of no known release with TensorRT "
        "10.7.0: build it with TensorRT 10.7.0"
    )


def test_where_the_tensorrt_is_not_known_no_engine_is_loaded() -> None:
    told = engine_problem("10.7.0", version_compatible=True, release=TritonRelease("26.01"))
    assert told is not None
    assert "which TensorRT Triton 26.01 has is not known" in told


@pytest.mark.parametrize(
    ("ir_version", "opset", "told"),
    [
        (10, 21, None),
        (8, 17, None),
        (
            10,
            22,
            "the model has opset 22; Triton 24.10 with ONNX Runtime 1.19.2 opens up to 21: export it with opset 21",
        ),
        (
            11,
            21,
            "the model has ONNX IR version 11; Triton 24.10 with ONNX Runtime 1.19.2 opens up to 10: save it with",
        ),
    ],
)
def test_which_onnx_model_opens(ir_version: int, opset: int, told: str | None) -> None:
    problem = onnx_problem(ir_version, opset, BY_CONTAINER["24.10"])
    assert problem is None if told is None else str(problem).startswith(told)


def test_versions_between_and_beyond_the_measured_ones() -> None:
    between, newest, oldest = onnx_support("1.26.0"), onnx_support("1.99.0"), onnx_support("1.16.3")
    assert between is not None
    assert between.version == "1.24"
    assert newest == read_onnx_support()[-1]
    assert oldest is None
    assert onnx_problem(99, 99, TritonRelease("24.01")) is None


def test_the_installed_onnxruntime_opens_what_the_table_says() -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    support = onnx_support(onnxruntime.__version__)
    assert support is not None
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", support.opset)])
    model.ir_version = support.ir_version
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].name == "y"
