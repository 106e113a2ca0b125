"""Attestations: what was signed comes back; anything else is told in one sentence and never taken."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from builders.supply_chain.attestation import Attestation, AttestationProblem, attest, verify_attestation
from builders.supply_chain.keys import PublicKey, Signer, generate_key, read_public_key, read_signer

DIGEST = "ab" * 32
STATEMENT = {"host": {"gpu": "NVIDIA H200", "compute_capability": "9.0"}, "parity": {"min_cosine": 0.9999}, "ü": [1, 2]}


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return read_signer(generate_key(tmp_path_factory.mktemp("key")).private)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> PublicKey:
    return read_public_key(generate_key(tmp_path_factory.mktemp("other")).public)


@pytest.fixture(scope="module")
def signed(signer: Signer) -> bytes:
    return attest(DIGEST, STATEMENT, signer)


def problem(attestation: bytes, key: PublicKey, **about: str) -> str:
    found = verify_attestation(attestation, key, **about)
    assert isinstance(found, AttestationProblem)
    return found.problem


def with_payload(signed: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    envelope = json.loads(signed)
    payload = json.loads(base64.b64decode(envelope["payload"]))
    change(payload)
    envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    return json.dumps(envelope).encode()


def test_what_was_attested_comes_back(signed: bytes, signer: Signer) -> None:
    found = verify_attestation(signed, signer.public_key, subject_digest=DIGEST)
    assert found == Attestation(DIGEST, STATEMENT, signer.fingerprint)
    assert verify_attestation(signed, signer.public_key) == found


def test_it_is_an_in_toto_statement_in_a_dsse_envelope(signed: bytes, signer: Signer) -> None:
    envelope = json.loads(signed)
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert [signature["keyid"] for signature in envelope["signatures"]] == [signer.fingerprint]
    payload = json.loads(base64.b64decode(envelope["payload"]))
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert payload["subject"] == [{"digest": {"sha256": DIGEST}}]


def test_another_key_is_told(signed: bytes, signer: Signer, other: PublicKey) -> None:
    said = problem(signed, other)
    assert said == f"it is signed by {signer.fingerprint[:16]}, not by {other.fingerprint[:16]}"


def test_another_key_under_our_name_does_not_hold(signed: bytes, signer: Signer, other: PublicKey) -> None:
    renamed = signed.replace(signer.fingerprint.encode(), other.fingerprint.encode())
    assert problem(renamed, other) == "its signature does not hold: it was altered after it was signed"


def test_an_altered_statement_does_not_hold(signed: bytes, signer: Signer) -> None:
    better = with_payload(signed, lambda payload: payload["predicate"]["parity"].update(min_cosine=1.0))
    assert problem(better, signer.public_key) == "its signature does not hold: it was altered after it was signed"


def test_one_of_another_artifact_is_told(signed: bytes, signer: Signer) -> None:
    said = problem(signed, signer.public_key, subject_digest="cd" * 32)
    assert said == f"it is about another artifact: {DIGEST[:16]}, not {('cd' * 32)[:16]}"


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b'{"payload": "", "payloadType": 3, "signatures": []}',
        b'{"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": [{"keyid": {}, "sig": ""}]}',
        b'{"payload": "e30=", "payloadType": "text/plain", "signatures": []}',
    ],
)
def test_garbage_is_told(garbage: bytes, signer: Signer) -> None:
    assert problem(garbage, signer.public_key).startswith("it is not an attestation")


def test_one_that_nobody_signed_is_told(signed: bytes, signer: Signer) -> None:
    nobody = json.dumps(json.loads(signed) | {"signatures": []}).encode()
    assert problem(nobody, signer.public_key) == f"it is signed by nobody, not by {signer.fingerprint[:16]}"


def test_a_statement_that_json_cannot_hold_is_refused(signer: Signer) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        attest(DIGEST, {"min_cosine": float("nan")}, signer)
