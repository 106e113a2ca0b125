"""Which backends a server turned out not to have. Pure.

There is no call that asks for them, and to have a server load what can only fail is no way to ask: with strict
readiness, Triton's default, a failed load leaves the whole server unready (measured on 2.51). So a registration is
believed until the server itself says otherwise, and then the server's word holds for every model.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from control_plane.state import ActionRecord, ModelName, ObservedServer, Result, ServerId

_ABSENT = re.compile(r"unable to find backend library for backend '([^']+)'")


def with_lacking(seen: ObservedServer, records: Mapping[tuple[ServerId, ModelName], ActionRecord]) -> ObservedServer:
    """Return the server with the backends that it lacks, by its own words.

    They hold as long as both its index and the record of the failed load say so: a server that was started again is
    asked again, and so is one whose records an operator dropped (by a new revision, or `server release`).
    """
    lacks = frozenset(
        found[1]
        for row in seen.models
        if (found := _ABSENT.search(row.reason)) is not None
        and (record := records.get((seen.server.id, row.name))) is not None
        and record.result is Result.FAILED
    )
    return replace(seen, lacks=lacks) if lacks else seen
