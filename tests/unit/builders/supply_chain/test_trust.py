"""Trust that is remembered: a version is read again exactly when something touched it."""

import os
from pathlib import Path

import pytest

from builders.digests import tree_digests
from builders.manifest import FileEntry, Manifest
from builders.supply_chain.keys import Signer, generate_key, read_signer
from builders.supply_chain.signing import sign_version
from builders.supply_chain.trust import TrustedVersions


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return read_signer(generate_key(tmp_path_factory.mktemp("key")).private)


@pytest.fixture
def version(tmp_path: Path, signer: Signer) -> Path:
    version = tmp_path / "m" / "1"
    (version / "sub").mkdir(parents=True)
    (version / "model.onnx").write_text("model")
    (version / "sub" / "stage.py").write_text("ANSWER = 42\n")
    files = {name: FileEntry(digest, 5) for name, digest in tree_digests(version).items()}
    (version / "manifest.json").write_text(Manifest("m", 1, "k", "MIT", "c", files=files).to_json())
    sign_version(version, signer)
    return version


def test_an_untouched_version_is_read_once(version: Path, signer: Signer) -> None:
    trusted = TrustedVersions(signer.public_key)
    first = trusted.verify(version)
    assert first.ok
    assert trusted.verify(version) is first


def test_content_that_was_changed_with_its_times_set_back_is_seen(version: Path, signer: Signer) -> None:
    trusted = TrustedVersions(signer.public_key)
    path = version / "sub" / "stage.py"
    times = path.stat()
    assert trusted.verify(version).ok
    path.write_text("ANSWER = 43\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    altered = trusted.verify(version)
    assert altered.problem.endswith("altered: sub/stage.py")
    assert trusted.verify(version) is altered
    path.write_text("ANSWER = 42\n")
    assert trusted.verify(version).ok


def test_what_comes_and_goes_is_seen(version: Path, signer: Signer) -> None:
    trusted = TrustedVersions(signer.public_key)
    assert trusted.verify(version).ok
    (version / "sub" / "extra.py").write_text("")
    assert trusted.verify(version).state == "altered"
    (version / "sub" / "extra.py").unlink()
    assert trusted.verify(version).ok
    signature = (version / "signature.json").rename(version.parent / "kept")
    assert trusted.verify(version).state == "unsigned"
    signature.rename(version / "signature.json")
    assert trusted.verify(version).ok


def test_a_version_that_is_not_there_is_asked_for_each_time(version: Path, signer: Signer) -> None:
    trusted = TrustedVersions(signer.public_key)
    elsewhere = version.rename(version.with_name("9"))
    assert trusted.verify(version).state == "unsigned"
    elsewhere.rename(version)
    assert trusted.verify(version).ok
