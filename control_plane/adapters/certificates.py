"""Making an authority and certificates for mutual TLS between the control plane and its agents.

By `cryptography`. Keys are P-256, written for their owner alone; what is there already is never written over.
"""

import ipaddress
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from builders.errors import SourceError
from control_plane.errors import MissingExtraError, SettingsError

_AUTHORITY = "authority"
_EARLIER = timedelta(minutes=5)
"""Clocks differ: a certificate is valid from a little before it is made."""


def issue(folder: Path, names: Mapping[str, tuple[str, ...]], days: int) -> Iterator[Path]:
    """Write a certificate and a key for each name, valid at its hosts, and yield their paths.

    The authority of the folder signs them; it is made first where there is none. Raises SettingsError where a name has
    files already, MissingExtraError without `cryptography`.
    """
    try:
        from cryptography import x509  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError("Certificates are made by cryptography: pip install 'tritonfleet[signing]'") from exc
    taken = [it for name in names for it in (folder / f"{name}.pem", folder / f"{name}.key") if it.exists()]
    if taken:
        raise SettingsError(f"{taken[0]} is there already: remove it, or take another name.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SourceError(f"{folder}: cannot be made: {exc.strerror}") from exc
    begins = datetime.now(UTC) - _EARLIER

    def subject(name: str) -> Any:  # noqa: ANN401 - cryptography is an extra
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def builder(name: str, issuer: str, key: Any, valid: timedelta) -> Any:  # noqa: ANN401
        made = x509.CertificateBuilder().subject_name(subject(name)).issuer_name(subject(issuer))
        made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return made.not_valid_before(begins).not_valid_after(begins + valid)

    def write(name: str, certificate: Any, key: Any) -> Iterator[Path]:  # noqa: ANN401
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        yield _written(folder / f"{name}.key", private)
        yield _written(folder / f"{name}.pem", certificate.public_bytes(pem))

    authority = folder / f"{_AUTHORITY}.pem"
    if authority.exists():
        root = x509.load_pem_x509_certificate(authority.read_bytes())
        root_key: Any = serialization.load_pem_private_key((folder / f"{_AUTHORITY}.key").read_bytes(), None)
    else:
        root_key = ec.generate_private_key(ec.SECP256R1())
        made = builder("Tritonfleet authority", "Tritonfleet authority", root_key, timedelta(days=3650))
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        made = made.add_extension(_usage(x509, signs_certificates=True), critical=True)
        root = made.sign(root_key, hashes.SHA256())
        yield from write(_AUTHORITY, root, root_key)
    for name, hosts in names.items():
        key = ec.generate_private_key(ec.SECP256R1())
        made = builder(name, "Tritonfleet authority", key, timedelta(days=days))
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        made = made.add_extension(x509.SubjectAlternativeName([_host(x509, it) for it in hosts]), critical=False)
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = made.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        made = made.add_extension(_usage(x509, signs_certificates=False), critical=True)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
        made = made.add_extension(identifier, critical=False)
        yield from write(name, made.sign(root_key, hashes.SHA256()), key)


def _usage(x509: Any, *, signs_certificates: bool) -> Any:  # noqa: ANN401
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(x509: Any, word: str) -> Any:  # noqa: ANN401
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(word))
    return x509.DNSName(word)


def _written(path: Path, content: bytes) -> Path:
    """Write a new file that only its owner may read. SourceError where the disk says no."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except OSError as exc:
        raise SourceError(f"{path}: cannot be written: {exc.strerror}") from exc
    return path
