"""Signing a version's folder: what is covered, what the result says, and what is refused before anything is signed."""

import json
from pathlib import Path

import pytest
from model_signing import hashing, signing

from builders.digests import tree_digests
from builders.manifest import FileEntry, Manifest
from builders.supply_chain.keys import KeyPair, Signer, generate_key, read_signer
from builders.supply_chain.signing import SigningError, VerificationResult, sign_version, verify_version


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return generate_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def signer(pair: KeyPair) -> Signer:
    return read_signer(pair.private)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """Return a version as it is staged: its folder has not got its number yet."""
    content = tmp_path / "m" / "content"
    (content / "sub").mkdir(parents=True)
    (content / "model.onnx").write_bytes(b"model")
    (content / "sub" / "labels.txt").write_text("a\nb\n")
    files = {name: FileEntry(digest, 5) for name, digest in tree_digests(content).items()}
    manifest = Manifest("m", 3, "key", "Apache-2.0", "tritonfleet build m", files=files)
    (content / "manifest.json").write_text(manifest.to_json())
    return content


def test_a_signed_version_verifies_once_it_has_its_name(content: Path, signer: Signer) -> None:
    before = tree_digests(content)
    sign_version(content, signer)
    after = tree_digests(content)
    after.pop("signature.json")
    assert after == before, "signing touched a file"
    version = content.rename(content.with_name("3"))
    assert verify_version(version, signer.public_key) == VerificationResult("signed", "", signer.fingerprint)


def test_a_relative_path_and_read_only_files_will_do(
    content: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_version(content, signer)
    version = content.rename(content.with_name("3"))
    for path in version.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    monkeypatch.chdir(version)
    assert verify_version(Path(), signer.public_key).ok
    monkeypatch.chdir(version.parents[1])
    assert verify_version(Path("m/3"), signer.public_key).ok


def test_the_signature_is_a_sigstore_bundle_that_names_its_key(content: Path, signer: Signer) -> None:
    sign_version(content, signer)
    bundle = json.loads((content / "signature.json").read_text())
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"]["publicKey"]["hint"] == signer.fingerprint


def test_a_version_is_signed_once(content: Path, signer: Signer) -> None:
    sign_version(content, signer)
    with pytest.raises(SigningError, match=r"already holds a signature\.json; a version is signed once"):
        sign_version(content, signer)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("extra.bin", r"not listed in manifest\.json: extra\.bin"),
        (".gitignore", r"not listed in manifest\.json: \.gitignore"),
        ("empty/", "empty is an empty folder"),
        ("link", "link is a link"),
        ("-model.onnx", r"missing, though manifest\.json lists it: model\.onnx"),
        ("-manifest.json", r"has no manifest\.json that can be read; it is written before the signature"),
    ],
)
def test_nothing_unfit_is_signed(content: Path, signer: Signer, name: str, said: str) -> None:
    if name.startswith("-"):
        (content / name[1:]).unlink()
    elif name.endswith("/"):
        (content / name).mkdir()
    elif name == "link":
        (content / name).symlink_to("model.onnx")
    else:
        (content / name).write_text("x")
    with pytest.raises(SigningError, match=said):
        sign_version(content, signer)
    assert not (content / "signature.json").exists()


def test_a_signature_by_our_key_that_leaves_a_file_out_is_not_enough(
    content: Path, signer: Signer, pair: KeyPair
) -> None:
    version = content.rename(content.with_name("3"))
    leaving_out = hashing.Config().set_ignored_paths(paths=["signature.json", "model.onnx"], ignore_git_paths=False)
    config = signing.Config().use_elliptic_key_signer(private_key=pair.private).set_hashing_config(leaving_out)
    config.sign(version, version / "signature.json")
    assert verify_version(version, signer.public_key).problem.endswith(
        "is not as it was signed: not signed: model.onnx"
    )
