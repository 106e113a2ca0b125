"""Every error that obstore knows becomes a StoreError of one sentence, with a cause and a next step."""

import errno

import pytest
from obstore import exceptions

from builders.store.errors import StoreError, cause_and_next_step, translated, translated_disk

# `NotFoundError` is deprecated: obstore raises FileNotFoundError in its place, and warns of the other's name.
KINDS = [
    getattr(exceptions, name)
    for name in dir(exceptions)
    if name.endswith("Error") and name != "NotFoundError" and isinstance(getattr(exceptions, name), type)
]
LOCAL = "Generic LocalFileSystem error: Unable to copy data to file: {} (os error {})\n\nDebug source:\nGeneric {{}}"
SERVER = "Generic S3 error: Error performing PUT http://h/b in 1s - Server returned non-2xx status code: {}"


@pytest.mark.parametrize("kind", [*KINDS, FileNotFoundError, ValueError, TimeoutError, IsADirectoryError])
def test_all_of_them(kind: type[Exception]) -> None:
    raised = kind("something happened\n\nDebug source:\nlots")
    with pytest.raises(StoreError) as caught, translated("s3://b", "read objects/a"):
        raise raised
    text = str(caught.value)
    assert text.startswith("cannot read objects/a in the artifact store s3://b: ")
    assert "\n" not in text
    assert ";" in text
    assert caught.value.__cause__ is raised


def test_kinds_were_found() -> None:
    assert len(KINDS) >= 9
    assert exceptions.BaseError in KINDS


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), translated("s3://b", "read a"):
        raise KeyError("a bug stays a bug")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LOCAL.format("No space left on device", 28), "the disk is full; free some space and run the build again"),
        (LOCAL.format("Disk quota exceeded", 122), "the disk is full; free some space and run the build again"),
        (LOCAL.format("Read-only file system", 30), "Read-only file system; give this build's user the right to"),
        (LOCAL.format("Input/output error", 5), "Input/output error; see that it is a folder that this build can use"),
        (SERVER.format("503 Service Unavailable: busy"), "the server answered 503 Service Unavailable; run the"),
        ("Generic S3 error: x\n  kind: Connect,\n  code: 111,\n", "it cannot be reached (Connection refused); check"),
        ("Generic S3 error: x\n  kind: Timeout,\n", "it cannot be reached (no answer in time); check AWS_ENDPOINT"),
        ("Generic S3 error: GET http://169.254.169.254/latest", "no AWS credentials were found; set AWS_ACCESS_KEY_ID"),
        ("y" * 500, "y" * 200 + "; run the build again"),
    ],
)
def test_causes(text: str, told: str) -> None:
    assert cause_and_next_step(exceptions.GenericError(text)).startswith(told)


def test_no_right_is_told() -> None:
    assert cause_and_next_step(exceptions.PermissionDeniedError("x")).startswith("access is denied; check the AWS_*")


def test_a_file_outside_the_store() -> None:
    with (
        pytest.raises(StoreError, match=r"cannot write /x: the disk is full; free some space"),
        translated_disk("write /x"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
