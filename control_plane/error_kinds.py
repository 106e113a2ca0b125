"""The taxonomy of failures: one word for each kind, the same in metrics, operations, the API and the docs.

Pure. `kind_of` reads the class of an error where that tells, and else its text: Triton answers every failed load with
the same status, so only the words of its reason tell a full GPU from a broken file. Beside `errors`, below `planning`.
"""

import re
from enum import StrEnum
from typing import NamedTuple

from control_plane.errors import (
    AdminKeyRefusedError,
    ControlPlaneError,
    DamagedVersionError,
    DeadlineExceededError,
    LoadFailedError,
    LocationBusyError,
    LocationError,
    MissingExtraError,
    NameNotResolvedError,
    NoSpaceError,
    NotOursError,
    PortTakenError,
    ServerStartError,
    ServerUnreachableError,
    SettingsError,
    StateFileError,
    StateFileLockedError,
)


class ErrorKind(StrEnum):
    """What kind of thing went wrong, by what mends it."""

    TIMEOUT = "timeout"
    """No answer within a deadline."""
    OUT_OF_MEMORY = "out_of_memory"
    """No room on the device or the host."""
    INVALID_INPUT = "invalid_input"
    """A request, setting or config that breaks a rule."""
    SAFETY_BLOCK = "safety_block"
    """A guardrail refused."""
    OVERLOAD = "overload"
    """More was asked than there is capacity for."""
    ARTIFACT = "artifact"
    """A file, version, backend or the model's own code is missing or broken."""
    INFRASTRUCTURE = "infrastructure"
    """A server, disk, network or the control plane itself."""


_BY_CLASS: dict[type[ControlPlaneError], ErrorKind] = {
    DeadlineExceededError: ErrorKind.TIMEOUT,
    ServerUnreachableError: ErrorKind.INFRASTRUCTURE,
    AdminKeyRefusedError: ErrorKind.INFRASTRUCTURE,
    ServerStartError: ErrorKind.INFRASTRUCTURE,
    PortTakenError: ErrorKind.INFRASTRUCTURE,
    StateFileLockedError: ErrorKind.INFRASTRUCTURE,
    StateFileError: ErrorKind.INFRASTRUCTURE,
    SettingsError: ErrorKind.INVALID_INPUT,
    MissingExtraError: ErrorKind.INFRASTRUCTURE,
    NoSpaceError: ErrorKind.INFRASTRUCTURE,
    LocationBusyError: ErrorKind.INFRASTRUCTURE,
    NotOursError: ErrorKind.INFRASTRUCTURE,
    NameNotResolvedError: ErrorKind.INFRASTRUCTURE,
    LocationError: ErrorKind.INFRASTRUCTURE,
    DamagedVersionError: ErrorKind.ARTIFACT,
}


class _Sign(NamedTuple):
    kind: ErrorKind
    words: re.Pattern[str]


def _sign(kind: ErrorKind, *words: str) -> _Sign:
    return _Sign(kind, re.compile("|".join(words), re.IGNORECASE | re.DOTALL))


_SIGNS = (
    # Before all others: the control plane's own sentence of a hung load quotes the log, which may say anything.
    _sign(ErrorKind.TIMEOUT, r"\bdid not .{1,300}? within [\d.]+ s\b"),
    # "failed to allocate pinned system memory" is what Triton says where the driver is wrong, not where memory is full.
    _sign(
        ErrorKind.OUT_OF_MEMORY,
        r"\bout[ _]of[ _]memory\b",
        r"\bOutOfMemory",
        r"cudaErrorMemoryAllocation",
        r"\b(?:failed|unable) to allocate\b(?! pinned)",
        r"\bcannot allocate memory\b",
        r"\bbad_alloc\b",
        r"\bOOM\b",
        r"\bMemoryError\b",
    ),
    _sign(ErrorKind.SAFETY_BLOCK, r"\bsafety[ _-]block", r"\bblocked by (?:a|the) (?:guardrail|safety\b)"),
    _sign(
        ErrorKind.OVERLOAD, r"\bexceeds maximum queue size\b", r"\btoo many requests\b", r"\bresource[ _]exhausted\b"
    ),
    _sign(ErrorKind.TIMEOUT, r"\bdeadline exceeded\b", r"\btimed out\b", r"\btimeout expired\b"),
    _sign(
        ErrorKind.INFRASTRUCTURE,
        r"\bdid not answer\b",
        r"\bconnection (?:refused|reset)\b",
        r"\badmin key\b",
        r"\bno space left on device\b",
        r"\bdriver version is insufficient\b",
        r"\bpinned system memory\b",
    ),
    _sign(
        ErrorKind.ARTIFACT,
        r"\bnot found in any model repository\b",
        r"\bno such file\b",
        r"\bunable to find\b",
        r"\bat least one version must be available\b",
        r"\bhas no target\b",
        r"\bcannot be read\b",
        r"\baltered after\b",
        r"\b(?:un|not )signed\b|\bsignature\b",
        r"\bmanifest\b",
        r"\bdeserializ",
        r"\bprotobuf parsing failed\b",
        r"\bunable to load (?:shared library|model)\b",
        r"\bonnxruntime cannot load\b",
        r"\bonnxruntime has no\b",
    ),
    _sign(
        ErrorKind.INVALID_INPUT,
        r"\bpreferred size must be\b",
        r"\btext proto\b",
        r"\bModelConfig\b",
        r"\bconfig[\w.]*\.pbtxt\b",
        r"\b(?:model|the) configuration\b|\bconfiguration expects\b",
        r"\bunexpected inference (?:input|output)\b",
        r"\bunable to autofill\b",
        r"\binvalid argument\b",
        r"\bmust specify\b",
        r"\bparameter '[^']*'",
    ),
    # Code of the model that raised: any other words are the exception's own, which may hold "must be" and the like.
    _sign(ErrorKind.ARTIFACT, r"\b\w+(?:Error|Exception): ", r"\nAt:\n"),
    _sign(ErrorKind.INVALID_INPUT, r"\bmust (?:be|have|not|specify)\b", r"\bunsupported\b"),
)


def kind_of(error: ControlPlaneError | str) -> ErrorKind:
    """Say what kind of failure `error` is; give the error itself where there is one, for its class tells more.

    A load that failed for a reason in words that nobody knows is the artifact's; anything else is the infrastructure's.
    """
    if isinstance(error, str):
        return _kind_of_text(error) or ErrorKind.INFRASTRUCTURE
    for known, kind in _BY_CLASS.items():
        if isinstance(error, known):
            return kind
    otherwise = ErrorKind.ARTIFACT if isinstance(error, LoadFailedError) else ErrorKind.INFRASTRUCTURE
    return _kind_of_text(str(error)) or otherwise


def _kind_of_text(text: str) -> ErrorKind | None:
    return next((sign.kind for sign in _SIGNS if sign.words.search(text)), None)
