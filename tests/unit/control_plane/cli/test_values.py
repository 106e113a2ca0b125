"""Sizes, pairs, numbers and compute capabilities, read from words."""

import pytest
import typer

from control_plane.cli.values import capability, number, pair, size


@pytest.mark.parametrize(
    ("word", "count"),
    [("8GiB", 8 * 2**30), ("8gib", 8 * 2**30), ("500MB", 500_000_000), ("1048576", 2**20), ("1.5 kB", 1500), ("0", 0)],
)
def test_a_size_is_decimal_or_binary_as_its_unit_says(word: str, count: int) -> None:
    assert size("--memory", word) == count


@pytest.mark.parametrize("word", ["", "GiB", "8 G", "-1GiB", "8GiBB", "1e9", "٣GiB", "8..5GB"])
def test_what_is_no_size_is_refused_with_the_option_and_an_example(word: str) -> None:
    with pytest.raises(typer.BadParameter, match="--memory is a size such as 8GiB"):
        size("--memory", word)


def test_pairs_numbers_and_capabilities() -> None:
    assert (pair("--label", "a=b=c"), pair("--label", "a=")) == (("a", "b=c"), ("a", ""))
    assert (number("--pool", "0", 0), capability("--require-capability", "12.0")) == (0, "12.0")
    for refused in ("a", "=b", ""):
        with pytest.raises(typer.BadParameter, match="two sides"):
            pair("--label", refused)
    for refused in ("x", "-1", "0", "1.5", "9999999999"):
        with pytest.raises(typer.BadParameter, match="whole number of 1 or more"):
            number("--split", refused, 1)
    for refused in ("8", "sm_89", "8.9.1", "108.9"):
        with pytest.raises(typer.BadParameter, match=r"such as 8\.9"):
            capability("--require-capability", refused)
