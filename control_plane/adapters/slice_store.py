"""Slices that were given out, in the state file: the real `SliceStore`."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from control_plane.adapters.tables import action_records, server_marks, slices
from control_plane.adapters.transactions import Transactions
from control_plane.mig import Placement
from control_plane.slicing import GpuId, ReplicaId, Seat
from control_plane.slicing.records import SliceRecord
from control_plane.state import DeploymentName, ServerId


class SqlSliceStore:
    """Every call is one transaction. Raises StateFileError when the disk says no."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def slices(self) -> tuple[SliceRecord, ...]:
        """Return every record, by server."""

        def work(connection: Connection) -> tuple[SliceRecord, ...]:
            rows = connection.execute(select(slices).order_by(slices.c.server))
            return tuple(_record(row) for row in rows)

        return await self._transactions.run(work)

    async def write_slices(self, changed: Iterable[SliceRecord], dropped: Iterable[ServerId] = ()) -> None:
        """Write and drop records, all or none; of a server that is dropped, mark and records go too."""
        new, gone = tuple(changed), tuple(dropped)

        def work(connection: Connection) -> None:
            for server in (*gone, *(it.server for it in new)):
                connection.execute(delete(slices).where(slices.c.server == server))
            for server in gone:
                connection.execute(delete(server_marks).where(server_marks.c.server == server))
                connection.execute(delete(action_records).where(action_records.c.server == server))
            for it in new:
                connection.execute(insert(slices).values(**_columns(it)))

        await self._transactions.run(work)


def _columns(it: SliceRecord) -> dict[str, Any]:
    return {
        "server": it.server,
        "node": it.node,
        "gpu": it.seat.gpu,
        "start": it.seat.placement.start,
        "profile": it.seat.placement.profile,
        "replica": it.replica,
        "deployment": it.deployment,
        "created_at": it.created_at.isoformat(),
        "moved": it.moved,
        "leaving": it.leaving,
    }


def _record(row: Any) -> SliceRecord:  # noqa: ANN401 - a row has the table's columns
    return SliceRecord(
        ServerId(row.server),
        row.node,
        Seat(GpuId(row.gpu), Placement(row.start, row.profile)),
        ReplicaId(row.replica),
        DeploymentName(row.deployment),
        datetime.fromisoformat(row.created_at),
        row.moved,
        row.leaving,
    )
