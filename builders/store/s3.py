"""S3 as obstore is told to use it: bucket and prefix from the address, the rest from AWS_* variables; deadlines too.

`objects` opens stores with it.
"""

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import S3Store

from builders.store.errors import StoreAddressError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# obstore panics on these where they cannot be in a URL or a header.
_IN_A_REQUEST = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
_WORD = re.compile(r"[!-~]*")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(/[!-~]*)?")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """For an S3 server, in seconds: to connect, between two pieces of an answer, for one request, for its retries.

    A call makes one request per part and ends within `request_s + retry_s` for each. A folder has no deadlines.
    """

    connect_s: float = 5.0
    silence_s: float = 30.0
    request_s: float = 120.0
    retries: int = 3
    retry_s: float = 30.0


def s3_store(url: str, deadlines: Deadlines) -> S3Store:
    """Return obstore's store for an `s3://` address; nothing is sent yet. Raises StoreAddressError."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise StoreAddressError(f"{url}: names no bucket; write s3://<bucket>/<prefix>")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    if endpoint and not _is_endpoint(endpoint):
        raise StoreAddressError(f"AWS_ENDPOINT_URL is {endpoint!r}; write it as https://<host>:<port>")
    for name in _IN_A_REQUEST:
        if not _WORD.fullmatch(os.environ.get(name, "")):
            raise StoreAddressError(f"{name} has a blank, a line break or another character that cannot be in it")
    try:
        return S3Store(
            bucket,
            prefix=prefix.strip("/") or None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=deadlines.connect_s),
                "read_timeout": timedelta(seconds=deadlines.silence_s),
                "timeout": timedelta(seconds=deadlines.request_s),
            },
            retry_config={
                "max_retries": deadlines.retries,
                "retry_timeout": timedelta(seconds=deadlines.retry_s),
                "backoff": {"max_backoff": timedelta(seconds=deadlines.retry_s / 4)},
            },
        )
    except BaseError as exc:
        problem = str(exc).partition("\n")[0]
        raise StoreAddressError(f"{url} cannot be used with the AWS_* variables that are set: {problem}") from exc


def _is_endpoint(url: str) -> bool:
    """Whether obstore can use the URL: one with a port or a host that is none makes it panic, not raise."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        return False
    return _ENDPOINT.fullmatch(url) is not None
