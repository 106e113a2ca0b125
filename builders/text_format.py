"""Where Python's reader of protobuf's text format takes what Triton's own, in C++, does not: found before it is parsed.

Pure, and without protobuf: `pbtxt` asks here first. Each rule was measured on Triton 2.51 (release 24.10), where such a
text is only "failed to poll".
"""

import re

_PIECES = re.compile(r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[^#"']+|["']""", re.DOTALL)
_UNKNOWN_CHARACTER = re.compile(r"[^\x20-\x7e\t\n\r\v\f]")
_NUMBER = re.compile(r"(?<![\w.])(\+[\w.]+|0[bBoO]\w*|\d[\w.]*_\w*)")
_ESCAPE = re.compile(r"""\\(?:[abfnrtv?"'\\]|[0-7]{1,3}|[xX][0-9a-fA-F]|u[0-9a-fA-F]{4}|U00(?:0|10)[0-9a-fA-F]{4,5})""")


def text_problem(text: str) -> tuple[int, str] | None:
    """Return line and sentence of the first piece of `text` that Triton cannot read though Python can; None if none."""
    line = 1
    for piece in _PIECES.findall(text):
        found = None if piece.startswith("#") else _quoted(piece) if piece[0] in "\"'" else _bare(piece)
        if found is not None:
            position, problem = found
            return line + piece.count("\n", 0, position), problem
        line += piece.count("\n")
    return None


def _bare(piece: str) -> tuple[int, str] | None:
    character = _UNKNOWN_CHARACTER.search(piece)
    number = _NUMBER.search(piece)
    if character is not None and (number is None or character.start() < number.start()):
        return character.start(), f"character {character.group()!a} may only stand inside quotes or a comment"
    if number is not None:
        return number.start(), f"{number.group()} is not a number as Triton reads them; write plain digits"
    return None


def _quoted(piece: str) -> tuple[int, str] | None:
    position = piece.find("\\")
    while position >= 0:
        match = _ESCAPE.match(piece, position)
        if match is None:
            return (
                position,
                f"{piece[position : position + 2]!a} is no escape that Triton knows; write \\\\ for a backslash",
            )
        position = piece.find("\\", match.end())
    return None
