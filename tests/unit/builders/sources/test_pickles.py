"""Pickles are found by what is in a file, however it is called or packed; what looks a little like one is not."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest

from builders.sources.pickles import is_pickled


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


DATA = {"weights": [1.0, 2.0], "name": "x" * 300}


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return stream.getvalue()


def saved(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


EVIL = pickle.dumps(Evil())
OBJECTS = saved(np.array([{"a": 1}], dtype=object))
RECORDS = saved(np.zeros(2, dtype=[("a", "i4"), ("b", "O")]))

PICKLED = {
    **{f"a call, protocol {protocol}": pickle.dumps(Evil(), protocol) for protocol in range(6)},
    **{f"data, protocol {protocol}": pickle.dumps(DATA, protocol) for protocol in range(2, 6)},
    "an ordered dict of tensors": pickle.dumps(OrderedDict(a=np.zeros(3))),
    "a call without its protocol": EVIL.removeprefix(b"\x80\x04\x95").removeprefix(EVIL[3:11]),
    "a call behind a long string": b"V" + b"x" * 100_000 + b"\n0" + pickle.dumps(Evil(), 0),
    "cut off": pickle.dumps({"a": Evil(), "b": DATA})[:-20],
    "several after one another": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2),
    "gzip": gzip.compress(EVIL),
    "zlib": zlib.compress(EVIL),
    "an old joblib's": b"ZF" + b"0x20".ljust(19) + zlib.compress(EVIL),
    "bz2": bz2.compress(EVIL),
    "xz": lzma.compress(EVIL),
    "lzma": lzma.compress(EVIL, lzma.FORMAT_ALONE),
    "torch.save": zipped(archive__data_pkl=pickle.dumps(DATA), archive__version=b"3\n"),
    "a zip of a pickle under another name": zipped(weights=EVIL),
    "a zip of objects": zipped(a_npy=OBJECTS),
    "an array of objects": OBJECTS,
    "records with objects": RECORDS,
    "an array without a header": b"\x93NUMPY\x01\x00\xff\xff{",
    "a damaged zip": zipped(model_txt=b"x" * 200).replace(b"x" * 100, b"y" * 100),
}

OTHER = {
    "nothing": b"",
    "text": b'name: "m"\nbackend: "onnxruntime"\n',
    "labels that read as opcodes": b"cat\ndog\nbird\ncow\n",
    "one label": b"I5\n.\n",
    "a numbered list": b"(i) one\n(ii) two\n",
    "json": b'{"a": [1, 2, 3]}',
    "code": b"import os\n\nclass TritonPythonModel:\n    pass\n",
    "a stop": b".",
    "a licence": b"Copyright (c) 2026 the authors. All rights reserved.\n" * 20,
    "text whose first word reads as a length": b"This is text, Byte by Byte. Test it." * 20,
    "a time zone": b"TZif2" + bytes(100),
    "safetensors whose length reads as a protocol": (0x0480).to_bytes(8, "little") + b" " * 0x480,
    "numbers": np.arange(5000, dtype=np.float32).tobytes(),
    "an array": saved(np.arange(4)),
    "records": saved(np.zeros(2, dtype=[("a", "i4"), ("b", "U3")])),
    "a zip without one": zipped(a_npy=saved(np.arange(4)), b_txt=b"text", c_json=b"{}"),
    "gzip of text": gzip.compress(b"some text\n" * 100),
    "begins like zlib": b"\x78\x9cgarbage",
    "an onnx model": onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString(),
}


@pytest.mark.parametrize("name", PICKLED)
def test_a_pickle_is_found_whatever_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(PICKLED[name])
    assert is_pickled(tmp_path / "weights.bin")


@pytest.mark.parametrize("name", OTHER)
def test_anything_else_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(OTHER[name])
    assert not is_pickled(tmp_path / "weights.bin")


def test_what_is_always_unpickled_counts_by_name(tmp_path: Path) -> None:
    for suffix in ("pkl", "PICKLE", "joblib", "dill", "pt", "pth", "ckpt"):
        (tmp_path / f"model.{suffix}").write_bytes(b"\0\1\2")
        assert is_pickled(tmp_path / f"model.{suffix}"), suffix
    (tmp_path / "model.pt").write_bytes(OTHER["a zip without one"])
    assert not is_pickled(tmp_path / "model.pt")


def test_a_length_that_is_a_lie_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    with path.open("wb") as stream:
        stream.write(b"\x8e" + (1 << 40).to_bytes(8, "little"))
        stream.truncate(1 << 41)
    assert is_pickled(path)


def test_encrypted_members_count(tmp_path: Path) -> None:
    archive = bytearray(zipped(model_txt=b"text"))
    archive[6] |= 1  # the local header's flag and the directory's
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "weights.bin").write_bytes(archive)
    assert is_pickled(tmp_path / "weights.bin")


@pytest.mark.parametrize("name", ["weights.bin", "model.pt", "model.onnx"])
@pytest.mark.parametrize("front", ["a call, protocol 4", "data, protocol 2", "gzip", "an array of objects"])
def test_a_harmless_zip_behind_a_pickle_does_not_hide_it(front: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PICKLED[front] + OTHER["a zip without one"])
    assert zipfile.is_zipfile(tmp_path / name)
    assert is_pickled(tmp_path / name)


def test_what_only_ends_as_a_zip_is_no_harmless_checkpoint(tmp_path: Path) -> None:
    for suffix, counts in (("pt", True), ("txt", False)):
        (tmp_path / f"model.{suffix}").write_bytes(b"\0\1\2" + OTHER["a zip without one"])
        assert is_pickled(tmp_path / f"model.{suffix}") is counts


def test_what_begins_as_a_zip_and_cannot_be_opened_counts(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(OTHER["a zip without one"][:-30])
    assert is_pickled(tmp_path / "weights.bin")
