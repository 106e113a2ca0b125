"""Lines of a TOML text: where a field is, for error messages. Pure; `tomllib` keeps no positions.

Reads table headers and the keys that stand at the beginning of a line, which is how people write them. A field inside
an inline table or a multi-line array is found at the line of the nearest field around it.
"""

import re
from collections.abc import Sequence

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_PART = re.compile(r"[\w-]+|\"[^\"]*\"|'[^']*'")


def line_of(text: str, location: Sequence[str | int]) -> int:
    """Return the line (from 1) of the field at `location`, names and list positions from the top; 1 where none is.

    A field of which only parts are given (`a.b = 1`, `[[a]]`) is at the first of them.
    """
    wanted = tuple(location)
    found, depth = 1, 0
    for number, path in _fields(text):
        shared = _shared(path, wanted)
        if shared == min(len(path), len(wanted)) and shared > depth:
            found, depth = number, shared
    return found


def _fields(text: str) -> list[tuple[int, tuple[str | int, ...]]]:
    """Every header and key with its line and its full path."""
    result: list[tuple[int, tuple[str | int, ...]]] = []
    counts: dict[tuple[str | int, ...], int] = {}
    table: tuple[str | int, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _in_lists(_split(header[2]), counts, is_list=header[1] == "[[")
            result.append((number, table))
        elif key := _KEY.match(line):
            result.append((number, (*table, *_split(key[1]))))
    return result


def _in_lists(
    names: tuple[str, ...], counts: dict[tuple[str | int, ...], int], *, is_list: bool
) -> tuple[str | int, ...]:
    """Put the position of the list's current element behind every name of a list of tables."""
    path: tuple[str | int, ...] = ()
    for depth, name in enumerate(names):
        path = (*path, name)
        if is_list and depth == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _split(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _shared(path: Sequence[str | int], wanted: Sequence[str | int]) -> int:
    count = 0
    for one, other in zip(path, wanted, strict=False):
        if one != other:
            break
        count += 1
    return count
