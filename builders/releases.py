"""Triton releases: which TensorRT, CUDA and ONNX Runtime each brings, and what of a version it can therefore load.

The table is `data/triton_releases.toml`, which names its sources. `selection` asks here before a server is asked to
load: a TensorRT plan of another version fails there, and may leak GPU memory until a restart (server issue 8969).
Pure, but for reading that table once, as an import is.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "data" / "triton_releases.toml"

_CROSS_MAJOR = {(10, 11), (8, 10)}
"""Version-compatible plans go over these major versions, and no others (TensorRT 11.4.1, "Support Matrix")."""
_FIRST_COMPATIBLE = (8, 6)
"""TensorRT has version compatibility from here on ("Version Compatibility", TensorRT 10.16 documentation)."""
_EXACT_PARTS = 3


@dataclass(frozen=True, slots=True)
class TritonRelease:
    """One monthly container. `container` is as "24.10", "" where a server is of none; None is what is not known."""

    container: str
    server: str | None = None
    tensorrt: str | None = None
    cuda: str | None = None
    onnxruntime: str | None = None

    def __str__(self) -> str:
        return f"Triton {self.container}" if self.container else "a Triton of no known release"


@dataclass(frozen=True, slots=True)
class OnnxSupport:
    """The newest ONNX IR version and opset of the default domain that an ONNX Runtime opens."""

    version: str
    ir_version: int
    opset: int


@cache
def read_releases() -> tuple[TritonRelease, ...]:
    """Return all known releases, oldest first."""
    return tuple(TritonRelease(**row) for row in _table()["release"])


@cache
def read_onnx_support() -> tuple[OnnxSupport, ...]:
    """Return what versions of ONNX Runtime open, oldest first."""
    return tuple(OnnxSupport(**row) for row in _table()["onnxruntime"])


def release_of(server_version: str) -> TritonRelease | None:
    """Return the release whose server says it has this version ("2.51.0"), or None where the table has none."""
    return next((release for release in read_releases() if release.server == server_version), None)


def engine_problem(tensorrt: str, *, version_compatible: bool, release: TritonRelease) -> str | None:
    """Return why a server of `release` cannot load a plan of this TensorRT, and what to build; None where it can.

    A plain plan needs the same version; build numbers are compared where both are known. A version-compatible one
    loads on the same or a newer version of its major version, if the server was started with
    `--backend-config=tensorrt,version-compatible=true` (README of Triton's TensorRT backend).
    """
    if release.tensorrt is None:
        return (
            f"the engine is of TensorRT {tensorrt}, and which TensorRT {release} has is not known: "
            "serve an ONNX target there, or say the server's TensorRT version"
        )
    engine, server = version_parts(tensorrt), version_parts(release.tensorrt)
    common = max(_EXACT_PARTS, min(len(engine), len(server)))
    if engine[:common] == server[:common] or (version_compatible and _loads_on(engine, server)):
        return None
    kind = "a version-compatible engine" if version_compatible else "the engine"
    compatible = "" if version_compatible else ", or version-compatible with that TensorRT or an older one"
    return (
        f"{kind} is of TensorRT {tensorrt}; this server is {release} with TensorRT {release.tensorrt}: "
        f"build it with TensorRT {release.tensorrt}{compatible}"
    )


def onnx_problem(ir_version: int, opset: int, release: TritonRelease) -> str | None:
    """Return why the ONNX Runtime of `release` cannot open a model of this IR version and opset; None where it can.

    None too where its ONNX Runtime is not known, or older than the table: a failed load there costs nothing else.
    """
    support = onnx_support(release.onnxruntime) if release.onnxruntime else None
    if support is None:
        return None
    runtime = f"{release} with ONNX Runtime {release.onnxruntime}"
    if opset > support.opset:
        return (
            f"the model has opset {opset}; {runtime} opens up to {support.opset}: export it with opset {support.opset}"
        )
    if ir_version > support.ir_version:
        return (
            f"the model has ONNX IR version {ir_version}; {runtime} opens up to {support.ir_version}: "
            f"save it with IR version {support.ir_version}"
        )
    return None


def onnx_support(onnxruntime: str) -> OnnxSupport | None:
    """Return what this version of ONNX Runtime opens at least; None for one that is older than the table."""
    version = version_parts(onnxruntime)
    known = [support for support in read_onnx_support() if version_parts(support.version) <= version]
    return known[-1] if known else None


def _loads_on(engine: tuple[int, ...], server: tuple[int, ...]) -> bool:
    if engine < _FIRST_COMPATIBLE or not server:
        return False
    same_major = engine[0] == server[0] and engine[:_EXACT_PARTS] <= server[:_EXACT_PARTS]
    return same_major or (engine[0], server[0]) in _CROSS_MAJOR


def version_parts(version: str) -> tuple[int, ...]:
    """Return the numbers of a version ("10.13.3.9.post1": 10, 13, 3, 9), to compare by; none for what is no version."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()


def _table() -> dict[str, Any]:
    with TABLE.open("rb") as stream:
        return tomllib.load(stream)
