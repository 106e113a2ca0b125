"""Requests that are sent again: with an `Idempotency-Key`, what they ask for is done once.

A client that saw no answer sends the same request with the same key, and gets the deployment as it stands; the header
`Idempotency-Replayed` tells. The keys are kept as long as the operations that they began.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel

from control_plane.api.parts import Parts
from control_plane.api.problems import Problem
from control_plane.journal import REQUEST, Request
from control_plane.operations import KeyReused

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="A word of your own for this request: sent again with it, the request is not carried out twice.",
    ),
]
REPLAYED = "Idempotency-Replayed"


@asynccontextmanager
async def once(parts: Parts, key: str | None, call: str, body: BaseModel | None) -> AsyncIterator[bool]:
    """Begin to carry out a request; gives False where that was done before. Raises Problem for a key used otherwise.

    A rehearsal changes nothing, so it takes no key.
    """
    if key is None or parts.rehearsal is not None:
        yield True
        return
    asked = json.dumps([call, None if body is None else body.model_dump(mode="json")], sort_keys=True)
    request = Request(key, hashlib.sha256(asked.encode()).hexdigest())
    async with parts.journal.keyed:
        earlier = await parts.journal.store.by_key(request.key, request.digest)
        if isinstance(earlier, KeyReused):
            cause = f"This Idempotency-Key came with another request, which began operation {earlier.operation.id}."
            step = "Take a new key for a new request."
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "key-reused", "The key is taken", (cause,), step)
        if earlier is not None:
            yield False
            return
        token = REQUEST.set(request)
        try:
            yield True
        finally:
            REQUEST.reset(token)
