"""Mutual TLS between the control plane and its agents: the files of a side, and what is made of them.

Each side shows a certificate of one authority that both trust, and takes nobody who shows none. TLS 1.3 only: both
sides are ours.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from control_plane.errors import SettingsError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the authority that both sides trust, and the certificate and private key of this one."""

    authority: Path
    certificate: Path
    key: Path


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of who asks; the other side's name must be in its certificate. Raises SettingsError."""
    return _context(files, ssl.PROTOCOL_TLS_CLIENT)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of who answers, which asks for a certificate. Raises SettingsError."""
    context = _context(files, ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _context(files: TlsFiles, side: int) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(files.authority)
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"The TLS files {files.authority}, {files.certificate} and {files.key} cannot be used: {error}. "
            "`tritonfleet certificates` makes a set."
        ) from error
    return context
