"""Keys: made once, read from a file or the environment, refused with the reason, and never told to anybody."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from builders.supply_chain.keys import (
    KeyFileError,
    KeyPair,
    generate_key,
    read_public_key,
    read_signer,
    signer_from_environment,
)

PASSWORD = "correct horse"  # noqa: S105 - a test's own


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return generate_key(tmp_path_factory.mktemp("keys") / "new")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return generate_key(tmp_path_factory.mktemp("locked"), PASSWORD)


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_a_new_pair_is_the_owners_alone_and_reads_back(pair: KeyPair) -> None:
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600
    signer = read_signer(pair.private)
    assert signer.fingerprint == read_public_key(pair.public).fingerprint == pair.fingerprint
    assert signer.public_key == read_public_key(pair.public)


def test_a_pair_is_never_overwritten(tmp_path: Path) -> None:
    generate_key(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyFileError, match="already exists; a key is never overwritten, so name another folder"):
        generate_key(tmp_path)
    (tmp_path / "tritonfleet.key").rename(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match=r"tritonfleet\.pub already exists"):
        generate_key(tmp_path)
    assert not (tmp_path / "tritonfleet.key").exists()
    assert (tmp_path / "elsewhere").read_bytes() == before["tritonfleet.key"]


def test_no_pair_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="no key can be written there: Not a directory"):
        generate_key(tmp_path / "file" / "keys")


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o644])
def test_a_private_key_that_others_can_get_at_is_refused(pair: KeyPair, tmp_path: Path, mode: int) -> None:
    loose = tmp_path / "loose.key"
    loose.write_bytes(pair.private.read_bytes())
    loose.chmod(mode)
    with pytest.raises(KeyFileError, match=f"open to other users \\(mode {mode:04o}\\); run chmod 600"):
        read_signer(loose)
    loose.chmod(0o440)  # a Kubernetes secret for a group of its own
    assert read_signer(loose).fingerprint == pair.fingerprint


def test_a_password_opens_what_it_locked_and_nothing_else(pair: KeyPair, locked: KeyPair) -> None:
    assert read_signer(locked.private, PASSWORD).fingerprint == locked.fingerprint
    with pytest.raises(KeyFileError, match="is encrypted; set TRITONFLEET_SIGNING_KEY_PASSWORD"):
        read_signer(locked.private)
    with pytest.raises(KeyFileError, match="does not open with the password in TRITONFLEET_SIGNING_KEY_PASSWORD"):
        read_signer(locked.private, "wrong")
    with pytest.raises(KeyFileError, match="has no password; unset TRITONFLEET_SIGNING_KEY_PASSWORD"):
        read_signer(pair.private, PASSWORD)


def test_the_environment_names_a_key_or_holds_it(pair: KeyPair, locked: KeyPair) -> None:
    assert signer_from_environment({}) is None
    assert signer_from_environment({"TRITONFLEET_SIGNING_KEY": "", "TRITONFLEET_SIGNING_KEY_PEM": ""}) is None
    by_path = signer_from_environment({"TRITONFLEET_SIGNING_KEY": str(pair.private)})
    by_text = signer_from_environment({"TRITONFLEET_SIGNING_KEY_PEM": pair.private.read_text()})
    opened = signer_from_environment(
        {"TRITONFLEET_SIGNING_KEY": str(locked.private), "TRITONFLEET_SIGNING_KEY_PASSWORD": PASSWORD}
    )
    assert by_path is not None
    assert by_text is not None
    assert opened is not None
    assert by_path.fingerprint == by_text.fingerprint == pair.fingerprint
    assert opened.fingerprint == locked.fingerprint
    with pytest.raises(KeyFileError, match="both TRITONFLEET_SIGNING_KEY and TRITONFLEET_SIGNING_KEY_PEM are set"):
        signer_from_environment({"TRITONFLEET_SIGNING_KEY": "a", "TRITONFLEET_SIGNING_KEY_PEM": "b"})


def test_each_kind_of_key_is_asked_for_by_name(pair: KeyPair, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="this is a private key; keep it secret"):
        read_public_key(pair.private)
    (tmp_path / "public").write_bytes(pair.public.read_bytes())
    (tmp_path / "public").chmod(0o600)
    with pytest.raises(KeyFileError, match="this is a public key; signing needs the private one"):
        read_signer(tmp_path / "public")


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 1024)],  # noqa: S505 - it is refused
    ids=["P-384", "RSA"],
)
def test_only_p_256_will_do(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="not an EC P-256 key; `tritonfleet key new` makes one"):
        signer_from_environment({"TRITONFLEET_SIGNING_KEY_PEM": pem(key)})
    public = tmp_path / "public"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(KeyFileError, match="not an EC P-256 key"):
        read_public_key(public)


@pytest.mark.parametrize(
    "text", ["", "garbage", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "\0"]
)
def test_a_file_that_is_no_key_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a private key in PEM form"):
        read_signer(path)
    path.write_text(text.replace("PRIVATE", "PUBLIC"))
    with pytest.raises(KeyFileError, match="not a public key in PEM form"):
        read_public_key(path)


def test_what_is_no_file_is_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 30)
    for name, said in (
        ("nothing", "no such file; a public key is expected there"),
        (".", "cannot be read: Is a directory"),
        ("pipe", "not a file"),
        ("huge", "too large for a public key"),
        ("huge/x", "cannot be read: Not a directory"),
        ("\0", "no path of a file"),
    ):
        with pytest.raises(KeyFileError, match=said):
            read_public_key(tmp_path / name)


def test_no_private_key_is_ever_shown(pair: KeyPair, locked: KeyPair) -> None:
    signer = read_signer(pair.private)
    secret = pair.private.read_text().splitlines()[1]
    assert secret not in repr(signer) + str(signer)
    assert secret.encode() in signer.private_pem()
    broken = pair.private.read_text().replace("-----END PRIVATE KEY-----", "")
    for environment in (
        {"TRITONFLEET_SIGNING_KEY_PEM": broken},
        {"TRITONFLEET_SIGNING_KEY_PEM": pair.private.read_text(), "TRITONFLEET_SIGNING_KEY_PASSWORD": PASSWORD},
        {"TRITONFLEET_SIGNING_KEY": str(locked.private), "TRITONFLEET_SIGNING_KEY_PASSWORD": "wr0ng"},
    ):
        with pytest.raises(KeyFileError) as refused:
            signer_from_environment(environment)
        told = f"{refused.value}{refused.value.__cause__}"
        assert not any(text in told for text in (secret, PASSWORD, "wr0ng"))
