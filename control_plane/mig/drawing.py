"""Drawing GPUs with their slices: a line of text each, or an SVG. Pure.

A cell is a memory slice; what a GPU instance holds is written into its cells, and what is free is dotted. `sizing` and
`slicing` say what is written.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from zlib import crc32

from control_plane.mig.geometry import Placement
from control_plane.mig.products import Product

_CELL = 11
_SVG_CELL, _SVG_ROW, _SVG_LEFT, _SVG_BOX = 96, 44, 210, 34
_LETTER = 6.6
"""Width of a letter in the SVG, for cutting names that are too long."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A GPU instance with what it holds; nothing for an empty one. `fresh` is what was not so before."""

    placement: Placement
    holds: str = ""
    note: str = ""
    fresh: bool = False

    def label(self) -> str:
        """Return all of it in one line."""
        return " ".join(part for part in (self.placement.profile, self.holds, self.note) if part)


@dataclass(frozen=True, slots=True)
class Row:
    """A GPU as it is drawn: its label, its bars by start."""

    label: str
    product: Product
    bars: tuple[Bar, ...]

    def spans(self) -> Iterable[tuple[Bar, int, int]]:
        """Yield each bar with its first memory slice and how many it has."""
        for bar in sorted(self.bars, key=lambda it: it.placement):
            yield bar, bar.placement.start, self.product.profiles[bar.placement.profile].memory_slices


def text_line(row: Row) -> str:
    """Return a GPU as one line: `|3g bert x2.....|1g vgg16  |...........|`. What is fresh has a star."""
    cells: list[str] = []
    at = 0
    for bar, start, width in row.spans():
        cells += ["·" * _CELL] * (start - at)
        room = _CELL * width + width - 1
        cells.append((("*" if bar.fresh else "") + bar.label())[:room].ljust(room))
        at = start + width
    cells += ["·" * _CELL] * (row.product.memory_slices - at)
    return f"|{'|'.join(cells)}|"


def svg(columns: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Return an SVG of columns of GPUs beside each other, each with its title: before and after, say."""
    slices = max((row.product.memory_slices for _, rows in columns for row in rows), default=1)
    column = _SVG_LEFT + _SVG_CELL * slices + 20
    height = 40 + _SVG_ROW * max((len(rows) for _, rows in columns), default=0)
    size = f'width="{column * max(1, len(columns))}" height="{height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">']
    for number, (title, rows) in enumerate(columns):
        left = column * number
        parts.append(f'<text x="{left + 10}" y="22" font-size="14">{escape(title)}</text>')
        for place, row in enumerate(rows):
            parts.extend(_svg_row(row, left, 36 + _SVG_ROW * place))
    return "\n".join([*parts, "</svg>", ""])


def _svg_row(row: Row, left: int, y: int) -> Iterable[str]:
    begin, full = left + _SVG_LEFT, _SVG_CELL * row.product.memory_slices
    yield f'<text x="{left + 10}" y="{y + 22}">{_cut(row.label, _SVG_LEFT - 14)}</text>'
    yield f'<rect x="{begin}" y="{y}" width="{full}" height="{_SVG_BOX}" fill="#eee" stroke="#999"/>'
    for bar, start, cells in row.spans():
        x, width = begin + _SVG_CELL * start, _SVG_CELL * cells
        fill = f"hsl({crc32(bar.holds.encode()) % 360} 60% 80%)" if bar.holds else "#fff"
        border = 'stroke="#c00" stroke-width="2"' if bar.fresh else 'stroke="#333"'
        yield f'<rect x="{x}" y="{y}" width="{width}" height="{_SVG_BOX}" fill="{fill}" {border}/>'
        first = " ".join(part for part in (bar.placement.profile, bar.note) if part)
        yield f'<text x="{x + 6}" y="{y + 15}">{_cut(first, width - 8)}</text>'
        yield f'<text x="{x + 6}" y="{y + 29}">{_cut(bar.holds, width - 8)}</text>'


def _cut(text: str, width: float) -> str:
    return escape(text[: max(1, int(width / _LETTER))])
