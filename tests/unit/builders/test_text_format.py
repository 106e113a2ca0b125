"""Texts that Python reads and Triton does not, with their line; the contract test of configs asks Triton itself."""

import pytest

from builders.text_format import text_problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        'name: "é \\u00e9 \\x41 \\101 \\n" # \u00a0 \\q +1',
        "name: 'it\\'s # not a comment' max: 0x1F a: 017 b: 1e+5 c: -0.5 d_1: 2 e2_3: KIND_CPU",
        "quote: \"'\" other: '\"'",
        "unended: 'a\n",
    ],
)
def test_what_both_read(text: str) -> None:
    assert text_problem(text) is None


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\n\u00a0b: 2", 2, "character '\\xa0'"),
        ('a: "x\\n"\n# c\n\x1cb: 2', 3, "character '\\x1c'"),
        ("a: +4", 1, "+4 is not a number"),
        ("a: 1_000", 1, "1_000 is not a number"),
        ("a: 0b11", 1, "0b11 is not a number"),
        ("a: [ 1,\n0o7 ]", 2, "0o7 is not a number"),
        ("a: 1_0 \u00a0", 1, "1_0 is not a number"),
        ("\u00a0 a: 1_0", 1, "character '\\xa0'"),
        ('a: "b"\n c: "\\\\ \\q"', 2, "'\\\\q' is no escape"),
        ('a: "\\u12"', 1, "'\\\\u' is no escape"),
    ],
)
def test_what_only_python_reads(text: str, line: int, said: str) -> None:
    found = text_problem(text)
    assert found is not None
    assert found[0] == line
    assert found[1].startswith(said)
