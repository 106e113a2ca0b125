"""Words of the command line that are more than one value: sizes, pairs, compute capabilities. Pure.

Each raises typer.BadParameter, which names the option, says what it takes, and ends the command with 2.
"""

import re

import typer

from control_plane.mig import Product, product_named

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def size(option: str, word: str) -> int:
    """Return a number of bytes, written as 8GiB, 500MB or 1048576."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]{0,3})", word, re.ASCII)
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    if match is None or match[2].lower() not in units:
        raise typer.BadParameter(f"{option} is a size such as 8GiB, 500MB or 1048576, and not {word!r}")
    return int(float(match[1]) * units[match[2].lower()])


def gpu_product(word: str) -> Product:
    """Return the GPU product of this name."""
    try:
        return product_named(word)
    except KeyError as exc:
        raise typer.BadParameter(str(exc.args[0])) from exc


def pair(option: str, word: str) -> tuple[str, str]:
    """Return both sides of NAME=VALUE; the name is never empty."""
    name, equals, value = word.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{option} has two sides around a '=', as in name=value, and not {word!r}")
    return name, value


def number(option: str, word: str, least: int) -> int:
    """Return a whole number that is `least` or more."""
    if not re.fullmatch(r"\d{1,9}", word, re.ASCII) or int(word) < least:
        raise typer.BadParameter(f"{option} takes a whole number of {least} or more there, and not {word!r}")
    return int(word)


def capability(option: str, word: str) -> str:
    """Return a compute capability as NVIDIA writes it: 8.9."""
    if not re.fullmatch(r"\d{1,2}\.\d", word, re.ASCII):
        raise typer.BadParameter(f"{option} is a compute capability such as 8.9, and not {word!r}")
    return word
