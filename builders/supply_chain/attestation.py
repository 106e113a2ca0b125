"""Attestations: in-toto statements about an artifact, signed with the same kind of key as versions are (DSSE envelope).

`tritonfleet verify` proves an artifact on a machine that can run it and puts what it found into the artifact store,
beside the artifact and outside any version's folder, which is never altered. Pure but for the signature's randomness.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builders.errors import MissingExtraError
from builders.supply_chain.keys import PublicKey, Signer

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope

PREDICATE_TYPE = "urn:tritonfleet:proof:v1"
"""Names the kind of statement: a proof that an artifact gives its source's answers."""

_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement that its signer stands for: `statement` is about the artifact with this SHA-256."""

    subject_digest: str
    statement: Mapping[str, Any]
    signed_by: str


@dataclass(frozen=True, slots=True)
class AttestationProblem:
    """Why bytes are no attestation to go by: one sentence."""

    problem: str


def attest(subject_digest: str, statement: Mapping[str, Any], signer: Signer) -> bytes:
    """Return the signed attestation that `statement` (JSON data) holds for the artifact of `subject_digest`.

    `subject_digest` is a SHA-256 in hex. Signatures of this kind differ each time. Raises MissingExtraError, and
    ValueError where the statement is no JSON (NaN is none).
    """
    try:
        from securesystemslib.dsse import Envelope  # noqa: PLC0415 - an optional extra
        from securesystemslib.signer import CryptoSigner  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError("securesystemslib", "signing") from exc
    payload = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"digest": {"sha256": subject_digest}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": dict(statement),
    }
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    envelope = Envelope(text.encode(), _PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(signer.key, _key(signer.public_key)))
    return json.dumps(envelope.to_dict(), sort_keys=True).encode() + b"\n"


def verify_attestation(
    attestation: bytes, public_key: PublicKey, *, subject_digest: str | None = None
) -> Attestation | AttestationProblem:
    """Return what `attestation` says if the key's owner signed it, about `subject_digest` where that is given.

    Whatever the bytes are, this raises nothing but MissingExtraError.
    """
    envelope = _envelope(attestation)
    if envelope is None:
        return AttestationProblem("it is not an attestation: no DSSE envelope of an in-toto statement")
    problem = _signature_problem(envelope, public_key)
    if problem:
        return AttestationProblem(problem)
    found = _statement(envelope.payload)
    if found is None:
        return AttestationProblem("it is signed, but it is no proof of an artifact")
    digest, statement = found
    if subject_digest is not None and digest != subject_digest:
        return AttestationProblem(f"it is about another artifact: {digest[:16]}, not {subject_digest[:16]}")
    return Attestation(digest, statement, public_key.fingerprint)


def _envelope(text: bytes) -> "Envelope | None":
    try:
        from securesystemslib.dsse import Envelope  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise MissingExtraError("securesystemslib", "signing") from exc
    if len(text) > _LARGEST:
        return None
    try:
        envelope = Envelope.from_dict(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return envelope if envelope.payload_type == _PAYLOAD_TYPE else None


def _signature_problem(envelope: "Envelope", public_key: PublicKey) -> str:
    """Return why the key's owner does not stand for the envelope's payload; "" where he does."""
    from securesystemslib.exceptions import VerificationError  # noqa: PLC0415 - an optional extra

    key = _key(public_key)
    if key.keyid not in envelope.signatures:
        others = ", ".join(str(name)[:16] for name in envelope.signatures) or "nobody"
        return f"it is signed by {others}, not by {public_key.fingerprint[:16]}"
    try:
        envelope.verify([key], threshold=1)
    except VerificationError:
        return "its signature does not hold: it was altered after it was signed"
    return ""


def _key(public_key: PublicKey) -> Any:  # noqa: ANN401 - securesystemslib's own type, of an optional extra
    from securesystemslib.signer import SSlibKey  # noqa: PLC0415

    return SSlibKey.from_crypto(public_key.key, keyid=public_key.fingerprint)


def _statement(payload: bytes) -> tuple[str, Mapping[str, Any]] | None:
    """Return digest and predicate of a payload whose signature holds; None where it is another kind of statement.

    A version's signature is an envelope of the same kind by the same key, and must not pass for a proof.
    """
    try:
        data = json.loads(payload)
        if (data["_type"], data["predicateType"]) != (_STATEMENT_TYPE, PREDICATE_TYPE):
            return None
        (subject,) = data["subject"]
        digest, statement = subject["digest"]["sha256"], data["predicate"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (digest, statement) if isinstance(digest, str) and isinstance(statement, dict) else None
