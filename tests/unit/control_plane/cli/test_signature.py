"""`verify-signature` and `key new`: what they print, how they end, and what they refuse."""

from pathlib import Path

import pytest

from builders.digests import tree_digests
from builders.manifest import FileEntry, Manifest
from builders.supply_chain.keys import Signer, generate_key, read_signer
from builders.supply_chain.signing import sign_version
from tests.command_line import run_here


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    generate_key(folder)
    return folder


@pytest.fixture
def signer(keys: Path) -> Signer:
    return read_signer(keys / "tritonfleet.key")


def add_version(package: Path, version: int, signer: Signer | None) -> Path:
    path = package / str(version)
    path.mkdir(parents=True)
    (path / "model.onnx").write_text(f"{package.name} {version}")
    files = {name: FileEntry(digest, 5) for name, digest in tree_digests(path).items()}
    (path / "manifest.json").write_text(Manifest(package.name, version, "k", "MIT", "c", files=files).to_json())
    if signer is not None:
        sign_version(path, signer)
    return path


@pytest.fixture
def repository(tmp_path: Path, signer: Signer) -> Path:
    repository = tmp_path / "repository"
    for package, version in (("one", 1), ("one", 12), ("two", 3)):
        add_version(repository / package, version, signer)
    (repository / "unbuilt").mkdir()
    (repository / ".hidden" / "1").mkdir(parents=True)
    (repository / "README").write_text("")
    return repository


def test_every_version_is_verified_and_shown(repository: Path, keys: Path, signer: Signer) -> None:
    ended = run_here("verify-signature", "-r", str(repository), "--public-key", str(keys / "tritonfleet.pub"))
    by = signer.fingerprint[:16]
    assert ended.code == 0
    assert ended.err == ""
    shown = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert shown == ["package version signed by state", *(f"{it} {by} signed" for it in ("one 1", "one 12", "two 3"))]


def test_one_that_fails_is_told_and_the_others_are_still_verified(
    repository: Path, keys: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "one" / "1" / "model.onnx").write_text("tampered")
    add_version(repository / "two", 4, None)
    monkeypatch.setenv("TRITONFLEET_PUBLIC_KEY", str(keys / "tritonfleet.pub"))
    ended = run_here("verify-signature", "-r", str(repository), "--json")
    assert ended.code == 1
    assert [(it["package"], it["version"], it["state"], it["signed_by"]) for it in ended.data] == [
        ("one", 1, "altered", signer.fingerprint),
        ("one", 12, "signed", signer.fingerprint),
        ("two", 3, "signed", signer.fingerprint),
        ("two", 4, "unsigned", None),
    ]
    assert ended.data[0]["problem"].endswith("one/1 is not as it was signed: altered: model.onnx")
    assert ended.data[1]["problem"] is None
    assert "one/1 is not as it was signed: altered: model.onnx" in ended.err
    assert "two/4 is not signed" in ended.err
    assert run_here("verify-signature", "one", "-r", str(repository)).code == 1
    (repository / "two" / "4" / "manifest.json").unlink()
    assert run_here("verify-signature", "two", "-r", str(repository), "--json").data[0]["version"] == 3


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        (["three", "unbuilt"], "has no version of three, unbuilt; it has versions of: one, two"),
        (["[/x]"], "no version of [/x]"),
    ],
)
def test_an_unknown_package_is_told(repository: Path, keys: Path, packages: list[str], said: str) -> None:
    key = str(keys / "tritonfleet.pub")
    ended = run_here("verify-signature", *packages, "-r", str(repository), "--public-key", key)
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.flat


def test_nothing_to_verify_is_no_success(tmp_path: Path, keys: Path) -> None:
    key = str(keys / "tritonfleet.pub")
    empty = run_here("verify-signature", "-r", str(tmp_path), "--public-key", key)
    assert (empty.code, "holds no version; `tritonfleet build` makes them" in empty.flat) == (1, True)
    nowhere = run_here("verify-signature", "-r", str(tmp_path / "no"), "--public-key", key)
    assert (nowhere.code, "cannot be read: No such file or directory" in nowhere.flat) == (1, True)


def test_without_a_key_nothing_is_verified(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITONFLEET_PUBLIC_KEY", raising=False)
    missing = run_here("verify-signature", "-r", str(repository))
    assert (missing.code, "--public-key" in missing.flat) == (2, True)
    wrong = run_here("verify-signature", "-r", str(repository), "--public-key", str(repository / "README"))
    assert (wrong.code, "not a public key in PEM form" in wrong.flat) == (1, True)


def test_a_new_key_is_made_once(tmp_path: Path) -> None:
    made = run_here("key", "new", str(tmp_path / "keys"))
    private, public = tmp_path / "keys" / "tritonfleet.key", tmp_path / "keys" / "tritonfleet.pub"
    assert made.code == 0
    assert f"TRITONFLEET_SIGNING_KEY={private}" in made.flat
    assert f"TRITONFLEET_PUBLIC_KEY={public}" in made.flat
    assert read_signer(private).fingerprint in made.flat
    assert private.read_text().splitlines()[1] not in made.flat
    again = run_here("key", "new", str(tmp_path / "keys"), "--json")
    assert (again.code, again.out) == (1, "")
    assert "already exists; a key is never overwritten" in again.flat


def test_a_new_key_takes_the_password_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONFLEET_SIGNING_KEY_PASSWORD", "correct horse")
    made = run_here("key", "new", str(tmp_path), "--json")
    assert made.data["fingerprint"] == read_signer(tmp_path / "tritonfleet.key", "correct horse").fingerprint
    assert "correct horse" not in made.flat
