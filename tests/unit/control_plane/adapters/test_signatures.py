"""What becomes of versions that are not signed or were altered, and when a version is hashed again."""

import os
from pathlib import Path

import pytest

from builders.digests import tree_digests
from builders.manifest import FileEntry, Manifest
from builders.supply_chain.keys import KeyPair, generate_key, read_signer
from builders.supply_chain.signing import sign_version
from control_plane.adapters.repository import RepositoryFolder
from control_plane.adapters.signatures import SignatureCheck, open_signature_check
from control_plane.errors import LoadFailedError, SettingsError
from control_plane.planning import Infeasible, Pinned, resolve_pins
from control_plane.state import ModelName

M = ModelName("m")
CONFIG = 'name: "m" backend: "python" max_batch_size: 4 input [ { name: "X" data_type: TYPE_FP32 dims: [ 1 ] } ]'


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return generate_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def version(tmp_path: Path, keys: KeyPair) -> Path:
    """Return version 1 of `m`, signed, in the repository `tmp_path`."""
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    for path in (folder, folder.parent):
        (path / "config.pbtxt").write_text(f'{CONFIG} output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }} ]')
    (folder / "model.py").write_text("import this")
    files = {name: FileEntry(digest, 11) for name, digest in tree_digests(folder).items()}
    manifest = Manifest("m", 1, "key", "MIT", "tritonfleet build m", files=files)
    (folder / "manifest.json").write_text(manifest.to_json())
    sign_version(folder, read_signer(keys.private))
    return folder


def repository(version: Path, keys: KeyPair, *, required: bool = True) -> RepositoryFolder:
    return RepositoryFolder(version.parents[1], open_signature_check(keys.public, required=required))


def test_a_signed_version_is_as_good_as_any(version: Path, keys: KeyPair) -> None:
    folder = repository(version, keys)
    assert isinstance(resolve_pins(M, None, folder.read()), Pinned)
    assert '"specific"' in folder.load_config(M, 1)


def test_an_altered_version_is_not_served_and_not_loaded(version: Path, keys: KeyPair) -> None:
    (version / "model.py").write_text("import that")
    folder = repository(version, keys)
    answer = resolve_pins(M, None, folder.read())
    assert isinstance(answer, Infeasible)
    assert answer.reasons == (f"Model 'm': {version} is not as it was signed: altered: model.py.",)
    with pytest.raises(LoadFailedError, match=r"not as it was signed: altered: model\.py"):
        folder.load_config(M, 1)


def test_what_is_altered_after_the_plan_was_made_is_not_loaded(version: Path, keys: KeyPair) -> None:
    folder = repository(version, keys)
    assert folder.read().models[M].at(1).problems == ()
    (version / "model.py").write_text("import that")
    with pytest.raises(LoadFailedError, match="not as it was signed"):
        folder.load_config(M, 1)


def test_a_version_without_a_signature_or_config_of_its_own_is_refused_and_its_package_not(
    version: Path, keys: KeyPair
) -> None:
    (version.parent / "2").mkdir()
    package = repository(version, keys).read().models[M]
    assert (package.draft.problems, package.at(1).problems) == ((), ())
    (problem,) = package.at(2).problems
    assert problem == f"{version.parent / '2'} is not signed: it has no signature.json of its own."
    assert package.at(2).config == package.draft.config


def test_a_warning_keeps_nothing_from_being_served(
    version: Path, keys: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    (version / "model.py").write_text("import that")
    folder = repository(version, keys, required=False)
    for _ in range(3):
        package = folder.read().models[M]
    assert package.at(1).problems == ()
    assert package.at(1).warnings == (f"{version} is not as it was signed: altered: model.py.",)
    assert len(caplog.messages) == 1, "told once, not at every pass"
    assert '"specific"' in folder.load_config(M, 1)


def test_another_key_is_told(version: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = generate_key(tmp_path_factory.mktemp("other"))
    (problem,) = repository(version, other).read().models[M].at(1).problems
    assert "is signed with another key" in problem


class Counting(SignatureCheck):
    """Counts what is hashed."""

    hashed = 0

    def _verify(self, version: Path) -> tuple[str, bool]:
        self.hashed += 1
        return super()._verify(version)


def test_a_version_is_hashed_again_only_when_it_changed(version: Path, keys: KeyPair) -> None:
    check = Counting(read_signer(keys.private).public_key, required=True)
    assert [check.problem(version) for _ in range(3)] == ["", "", ""]
    assert check.hashed == 1
    before = (version / "model.py").stat()
    (version / "model.py").write_text("import that")
    os.utime(version / "model.py", ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time of writing
    assert "altered: model.py" in check.problem(version)
    (version / "model.py").write_text("import this")
    assert check.problem(version) == ""
    (version / "more").mkdir()
    assert "more is an empty folder" in check.problem(version)
    assert check.hashed == 4


def test_a_version_that_vanished_is_told_and_not_remembered(version: Path, keys: KeyPair) -> None:
    check = open_signature_check(keys.public, required=True)
    moved = version.rename(version.with_name("moved"))
    assert "nothing was verified" in check.problem(version)
    moved.rename(version)
    assert check.problem(version) == ""


def test_a_key_that_is_none_is_told_at_the_start(keys: KeyPair, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"TRITONFLEET_PUBLIC_KEY: .* no such file"):
        open_signature_check(tmp_path / "none.pub", required=True)
    with pytest.raises(SettingsError, match="this is a private key"):
        open_signature_check(keys.private, required=True)
