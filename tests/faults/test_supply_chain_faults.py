"""Versions and attestations that were tampered with, signed by somebody else or not at all: one clear sentence each."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from builders.digests import tree_digests
from builders.manifest import FileEntry, Manifest, altered_files, read_manifest
from builders.publish import staging_folder
from builders.sources.triton_import import import_model
from builders.sources.triton_model import import_plan
from builders.supply_chain.attestation import AttestationProblem, verify_attestation
from builders.supply_chain.keys import KeyFileError, PublicKey, Signer, generate_key, read_public_key, read_signer
from builders.supply_chain.signing import sign_version, verify_version
from tests.command_line import DEADLINE_S, environment


@dataclass(frozen=True, slots=True)
class Signed:
    """Two signed versions of one package, the key they are signed with, and somebody else's."""

    package: Path
    signer: Signer
    other: PublicKey

    @property
    def version(self) -> Path:
        return self.package / "1"

    def problem(self, *, version: str = "1") -> str:
        found = verify_version(self.package / version, self.signer.public_key)
        assert not found.ok
        assert found.problem
        assert "\n" not in found.problem
        return found.problem


def write_version(path: Path, text: str, signer: Signer) -> None:
    (path / "sub").mkdir(parents=True)
    (path / "model.onnx").write_text(text)
    (path / "sub" / "stage.py").write_text("ANSWER = 42\n")
    files = {name: FileEntry(digest, 5) for name, digest in tree_digests(path).items()}
    manifest = Manifest(path.parent.name, int(path.name), "key", "Apache-2.0", "tritonfleet build m", files=files)
    (path / "manifest.json").write_text(manifest.to_json())
    sign_version(path, signer)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    folder = tmp_path_factory.mktemp("signed")
    signer = read_signer(generate_key(folder / "ours").private)
    other = read_public_key(generate_key(folder / "theirs").public)
    for number in (1, 2):
        write_version(folder / "m" / str(number), f"model {number}", signer)
    return Signed(folder / "m", signer, other)


@pytest.fixture
def signed(origin: Signed, tmp_path: Path) -> Signed:
    """Return a copy that a test may tamper with; it verifies as it is."""
    found = replace(origin, package=Path(shutil.copytree(origin.package, tmp_path / "m")))
    assert verify_version(found.version, found.signer.public_key).ok
    return found


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda version: (version / name).write_text(text)


def remove(name: str) -> Callable[[Path], object]:
    return lambda version: (version / name).unlink()


def make_folder(version: Path) -> None:
    (version / "sub" / "deep" / "deeper").mkdir(parents=True)


def turn_into_link(version: Path) -> None:
    (version / "model.onnx").rename(version.parent / "model.onnx")
    (version / "model.onnx").symlink_to(version.parent / "model.onnx")


def make_pipe(version: Path) -> None:
    os.mkfifo(version / "pipe")


def turn_a_bit(version: Path) -> None:
    content = bytearray((version / "model.onnx").read_bytes())
    content[-1] ^= 1
    (version / "model.onnx").write_bytes(content)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (turn_a_bit, "altered: model.onnx"),
        (write("sub/stage.py", "ANSWER = 43\n"), "altered: sub/stage.py"),
        (write("extra.py", ""), "not signed: extra.py"),
        (write(".gitignore", "*"), "not signed: .gitignore"),
        (write(".gitattributes", "*"), "not signed: .gitattributes"),
        (write("sub/signature.json", "{}"), "not signed: sub/signature.json"),
        (write("manifest.json", "{}"), "altered: manifest.json; or the signature is that of another version"),
        (remove("manifest.json"), "missing: manifest.json"),
        (remove("model.onnx"), "missing: model.onnx"),
        (make_folder, "sub/deep is an empty folder; sub/deep/deeper is an empty folder"),
        (turn_into_link, "model.onnx is a link"),
        (make_pipe, "pipe is neither a file nor a folder"),
    ],
)
def test_what_was_tampered_with_is_named(signed: Signed, tamper: Callable[[Path], object], said: str) -> None:
    tamper(signed.version)
    assert signed.problem() == f"{signed.version} is not as it was signed: {said}"
    assert verify_version(signed.version, signed.signer.public_key).state == "altered"


def test_an_artifact_and_the_manifest_that_covers_it_up(signed: Signed) -> None:
    turn_a_bit(signed.version)
    manifest = json.loads((signed.version / "manifest.json").read_text())
    manifest["files"]["model.onnx"]["sha256"] = tree_digests(signed.version)["model.onnx"]
    (signed.version / "manifest.json").write_text(json.dumps(manifest))
    assert "altered: manifest.json, model.onnx; or the signature is that of another version" in signed.problem()


def test_an_unsigned_version(signed: Signed) -> None:
    (signed.version / "signature.json").unlink()
    assert signed.problem() == f"{signed.version} is not signed: it has no signature.json of its own"
    (signed.version / "signature.json").symlink_to(signed.package / "2" / "signature.json")
    assert "is not signed" in signed.problem()
    assert "is not signed" in signed.problem(version="7")


def test_the_signature_of_another_version(signed: Signed) -> None:
    shutil.copyfile(signed.package / "2" / "signature.json", signed.version / "signature.json")
    said = "altered: manifest.json, model.onnx; or the signature is that of another version"
    assert signed.problem() == f"{signed.version} is not as it was signed: {said}"


def test_a_whole_signed_version_in_another_ones_place(signed: Signed) -> None:
    shutil.rmtree(signed.version)
    (signed.package / "2").rename(signed.version)
    assert signed.problem() == f"{signed.version} is not as it was signed: it was signed as m/2 and lies at m/1"


def test_a_version_under_another_package(signed: Signed) -> None:
    moved = replace(signed, package=signed.package.rename(signed.package.with_name("other")))
    assert "it was signed as m/1 and lies at other/1" in moved.problem()


def test_another_key(signed: Signed) -> None:
    found = verify_version(signed.version, signed.other)
    assert (found.state, found.signed_by) == ("wrong key", signed.signer.fingerprint)
    ours, theirs = signed.signer.fingerprint[:16], signed.other.fingerprint[:16]
    assert found.problem == f"{signed.version} is signed with another key: {ours}, not {theirs}"


def test_a_signature_that_claims_to_be_ours(signed: Signed) -> None:
    path = signed.version / "signature.json"
    path.write_text(path.read_text().replace(signed.signer.fingerprint, signed.other.fingerprint))
    found = verify_version(signed.version, signed.other)
    assert found.problem == f"{signed.version} is not as it was signed: signature.json itself was altered"


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff\xfe\x00", b"{}", b"[]", b"null", b"[" * 100_000, b'{"verificationMaterial": {}}']
)
def test_a_signature_of_garbage(signed: Signed, garbage: bytes) -> None:
    (signed.version / "signature.json").write_bytes(garbage)
    assert signed.problem().startswith(f"{signed.version}/signature.json is not a signature; publish the version again")


def drop_signatures(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["signatures"] = []


def drop_payload(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["payload"] = ""


def mistype_payload(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["payloadType"] = "text/plain"


def mistype_media(bundle: dict[str, Any]) -> None:
    bundle["mediaType"] = 3


def sign_less(bundle: dict[str, Any]) -> None:
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload["predicate"]["serialization"]["ignore_paths"].append("extra")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()


@pytest.mark.parametrize("damage", [drop_signatures, drop_payload, mistype_payload, mistype_media, sign_less])
def test_a_bundle_with_a_part_that_was_changed(signed: Signed, damage: Callable[[dict[str, Any]], None]) -> None:
    path = signed.version / "signature.json"
    bundle = json.loads(path.read_text())
    damage(bundle)
    path.write_text(json.dumps(bundle))
    assert signed.problem() == f"{signed.version} is not as it was signed: signature.json itself was altered"


def test_a_key_that_is_none(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA\n")
    with pytest.raises(KeyFileError, match="not a public key in PEM form; `tritonfleet key new` makes a pair"):
        read_public_key(tmp_path / "key.pub")
    with pytest.raises(KeyFileError, match="not a public key in PEM form"):
        read_public_key(signed.version / "signature.json")


def test_a_versions_signature_is_no_proof_of_an_artifact(signed: Signed) -> None:
    envelope = json.loads((signed.version / "signature.json").read_text())["dsseEnvelope"]
    envelope["signatures"][0]["keyid"] = signed.signer.fingerprint  # it is not covered by the signature
    found = verify_attestation(json.dumps(envelope).encode(), signed.signer.public_key)
    assert found == AttestationProblem("it is signed, but it is no proof of an artifact")


KILLED_IMPORT = """\
import os, signal, sys
from pathlib import Path
from builders.sources.triton_import import ImportSettings, import_model
from builders.sources.triton_model import import_plan

def report(done, total):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

import_model(import_plan(Path(sys.argv[1])), Path(sys.argv[2]), ImportSettings(report=report))
"""


def test_an_import_that_is_killed_leaves_nothing_and_the_next_takes_all(tmp_path: Path) -> None:
    model, repository = tmp_path / "source" / "resnet", tmp_path / "repository"
    repository.mkdir()
    for version in ("1", "2"):
        (model / version).mkdir(parents=True)
        (model / version / "model.onnx").write_bytes(b"x" * 1000)
    (model / "config.pbtxt").write_text('name: "resnet"\nbackend: "onnxruntime"\n')
    arguments = [sys.executable, "-c", KILLED_IMPORT, str(model), str(repository), "2000"]
    killed = subprocess.run(arguments, env=environment(), capture_output=True, check=False, timeout=DEADLINE_S)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(repository.iterdir()) == []
    left = [path for path in staging_folder(repository).iterdir() if path.is_dir()]
    assert len(left) == 1, "it was to be killed half way"
    assert import_model(import_plan(model), repository).imported == (1, 2)
    for published in (repository / "resnet" / "1", repository / "resnet" / "2"):
        manifest = read_manifest(published)
        assert manifest is not None
        assert altered_files(published, manifest) == ()
    assert not left[0].exists()
