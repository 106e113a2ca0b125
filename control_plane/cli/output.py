"""How commands speak: results on standard output (tables, or JSON with `--json`), all else on standard error.

So `tritonfleet ... --json | jq` works while progress is shown, and a pipe never gets control characters.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

STATE_STYLES = {
    "serving": "green",
    "healthy": "green",
    "READY": "green",
    "progressing": "yellow",
    "pending": "yellow",
    "LOADING": "yellow",
    "degraded": "dark_orange",
    "failed": "red",
    "unreachable": "red",
    "UNAVAILABLE": "red",
}


def print_json(data: object) -> None:
    """Print `data` as JSON on standard output."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def print_error(problem: str, causes: Sequence[str] = (), next_step: str = "") -> None:
    """Print what went wrong, why, and what to do next, on standard error."""
    err.print(f"[bold red]error:[/] {escape(problem)}", soft_wrap=True)
    for cause in causes:
        err.print(f"  {escape(cause)}", soft_wrap=True)
    if next_step:
        err.print(f"[bold]next:[/] {escape(next_step)}", soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> Table:
    """Return a plain table; a column whose heading starts with `>` is set flush right."""
    result = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        flush_right = column.startswith(">")
        result.add_column(column.removeprefix(">"), justify="right" if flush_right else "left", overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def state(word: str) -> str:
    """Return a state in its colour."""
    style = STATE_STYLES.get(word)
    return f"[{style}]{word}[/]" if style else word


def size(count: int) -> str:
    """Return a number of bytes as people read it (decimal units)."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:  # noqa: PLR2004 - the step of decimal units
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
