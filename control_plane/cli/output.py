"""How commands speak: results on standard output (tables, or JSON with `--json`), all else on standard error.

So `tritonfleet ... --json | jq` works while progress is shown, and a pipe never gets control characters. What servers,
models and files say is printed as it is: no console here reads markup or emoji codes in it.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Self

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.status import Status
from rich.table import Table
from rich.text import Text

_console = partial(Console, highlight=False, markup=False, emoji=False)
out = _console()
err = _console(stderr=True)

_NO_SCREEN_WIDTH = 10_000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

STATE_STYLES = {
    "serving": "green",
    "healthy": "green",
    "READY": "green",
    "done": "green",
    "progressing": "yellow",
    "draining": "yellow",
    "queued": "yellow",
    "running": "yellow",
    "waiting": "yellow",
    "pending": "yellow",
    "LOADING": "yellow",
    "degraded": "dark_orange",
    "failed": "red",
    "unreachable": "red",
    "quarantined": "red",
    "cancelled": "dark_orange",
    "UNAVAILABLE": "red",
}


def print_json(data: object) -> None:
    """Print `data` as JSON on standard output."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def print_json_line(data: object) -> None:
    """Print `data` as one line of JSON on standard output, at once: one of many that a program reads as they come."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show(result: RenderableType) -> None:
    """Print a table or a text on standard output; rows are folded on a screen alone, so `grep` finds whole ones."""
    (out if out.is_terminal else _console(width=_NO_SCREEN_WIDTH)).print(result)


def print_error(problem: str, causes: Sequence[str] = (), next_step: str = "") -> None:
    """Print what went wrong, why, and what to do next, on standard error."""
    err.print(labelled("error:", problem, "bold red"), soft_wrap=True)
    for cause in causes:
        err.print(f"  {cause}", soft_wrap=True)
    if next_step:
        err.print(labelled("next:", next_step), soft_wrap=True)


def labelled(label: str, text: str, style: str = "bold") -> Text:
    """Return `text` after a label in `style`."""
    return Text.assemble((label, style), f" {text}")


class Spinner:
    """Says on standard error what is being done, while it is: a context manager, silent where that is no screen."""

    def __init__(self, doing: str) -> None:
        self._status = Status(escape(doing), console=err)

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.stop()

    def update(self, doing: str) -> None:
        """Say something else."""
        self._status.update(escape(doing))

    def stop(self) -> None:
        """Say nothing any more."""
        self._status.stop()


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Return a plain table; a column whose heading starts with `>` is set flush right."""
    result = Table(box=None, pad_edge=False)
    for column in columns:
        flush_right = column.startswith(">")
        result.add_column(column.removeprefix(">"), justify="right" if flush_right else "left", overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def stacked(*parts: RenderableType) -> Table:
    """Return parts one below the other, so that they are printed, or drawn anew, as one."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(overflow="fold")
    for part in parts:
        grid.add_row(part)
    return grid


def clock(moment: str | None) -> str:
    """Return a moment that the API gave (ISO 8601) as people read it, in the time of this machine; "" for none."""
    return "" if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def state(word: str) -> Text:
    """Return a state in its colour."""
    return Text(word, STATE_STYLES.get(word, ""))


def size(count: int) -> str:
    """Return a number of bytes as people read it (decimal units)."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:  # noqa: PLR2004 - the step of decimal units
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
