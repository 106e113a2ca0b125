"""What can go wrong with an artifact store, and the one place where `obstore`'s errors become one sentence each.

`objects` wraps each of its calls in `translated`; nothing else of the project sees an error of obstore.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from obstore import exceptions

from builders.errors import PermanentBuildError, RetryableBuildError

OBSTORE_ERRORS = (exceptions.BaseError, OSError, ValueError)
"""Everything that obstore documents to raise: its own errors, FileNotFoundError and ValueError; OSError is ours."""

_OS_ERROR = re.compile(r"os error (\d+)|code: (\d+),")
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")
_INSTANCE_METADATA = "169.254.169.254"  # asked for credentials where no variable gives them
_LONGEST_CAUSE = 200


class StoreError(RetryableBuildError):
    """The artifact store could not be read or written. What was recorded in it before is still there."""


class StoreAddressError(PermanentBuildError):
    """Where the store is said to be is no folder and no S3 address."""


class DamagedArtifactError(PermanentBuildError):
    """A file of a recorded artifact is missing from the store or is not what was recorded."""


@contextlib.contextmanager
def translated(where: str, doing: str) -> Iterator[None]:
    """Turn what obstore or the disk raises into StoreError: `doing` is as "write objects/ab/...", `where` the store."""
    try:
        yield
    except OBSTORE_ERRORS as exc:
        raise StoreError(f"cannot {doing} in the artifact store {where}: {cause_and_next_step(exc)}") from exc


@contextlib.contextmanager
def translated_disk(doing: str) -> Iterator[None]:
    """Turn what a file outside the store raises into StoreError."""
    try:
        yield
    except OSError as exc:
        raise StoreError(f"cannot {doing}: {cause_and_next_step(exc)}") from exc


def is_no_bucket(exc: BaseException) -> bool:
    """Tell a missing bucket from a missing object: obstore raises FileNotFoundError for both."""
    return "NoSuchBucket" in str(exc)


def cause_and_next_step(exc: BaseException) -> str:
    """Return why, in words of this project, and what to do about it."""
    text = str(exc)
    number = exc.errno if isinstance(exc, OSError) and exc.errno else _os_error(text)
    return (
        _server_cause(exc, text, number)
        or (number and _disk_cause(number))
        # The first line says what happened; from "Debug source" on, obstore repeats it as a data structure.
        or f"{text.partition(chr(10))[0][:_LONGEST_CAUSE] or type(exc).__name__}; run the build again"
    )


def _disk_cause(number: int) -> str:
    match number:
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full; free some space and run the build again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{os.strerror(number)}; give this build's user the right to write there, or choose another store"
        case _:
            return f"{os.strerror(number)}; see that it is a folder that this build can use"


def _server_cause(exc: BaseException, text: str, number: int | None) -> str | None:
    if is_no_bucket(exc):
        return "there is no such bucket; create it, or correct the store's address"
    if _INSTANCE_METADATA in text:
        return "no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(exc, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return "access is denied; check the AWS_* credentials and what they may do with the bucket"
    if "kind: Connect" in text or "kind: Timeout" in text:
        why = os.strerror(number) if number else "no answer in time" if "kind: Timeout" in text else "no connection"
        return f"it cannot be reached ({why}); check AWS_ENDPOINT_URL and the network, and run the build again"
    if (status := _STATUS.search(text)) is not None:
        return f"the server answered {status[1].strip()}; run the build again, or see the server's log"
    return None


def _os_error(text: str) -> int | None:
    match = _OS_ERROR.search(text)
    return int(match[1] or match[2]) if match else None
