"""Drawing GPUs with their slices: a line of text each, or an SVG. Pure.

A cell is a memory slice; what a GPU instance holds is written into its cells, and what is free is dotted.
"""

from collections.abc import Sequence
from html import escape
from zlib import crc32

from control_plane.mig import Product
from control_plane.sizing.model import Gpu, Replica

_CELL = 11
_SVG_CELL, _SVG_ROW, _SVG_LEFT = 96, 44, 150


def text_line(gpu: Gpu, product: Product) -> str:
    """Return a GPU as one line: `|3g bert x2.....|1g vgg16  |...........|`."""
    cells: list[str] = []
    at = 0
    for replica, start, width in _spans(gpu, product):
        cells += ["·" * _CELL] * (start - at)
        room = _CELL * width + width - 1
        cells.append(_label(replica)[:room].ljust(room))
        at = start + width
    cells += ["·" * _CELL] * (product.memory_slices - at)
    return f"|{'|'.join(cells)}|"


def svg(gpus: Sequence[tuple[Gpu, int]], products: dict[str, Product], title: str) -> str:
    """Return an SVG of GPUs, each with how many there are alike."""
    width = _SVG_LEFT + _SVG_CELL * max((products[gpu.product].memory_slices for gpu, _ in gpus), default=1) + 10
    height = 40 + _SVG_ROW * len(gpus)
    font = 'font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {font}>',
        f'<text x="10" y="22" font-size="14">{escape(title)}</text>',
    ]
    for row, (gpu, count) in enumerate(gpus):
        y, product = 36 + _SVG_ROW * row, products[gpu.product]
        parts.append(f'<text x="10" y="{y + 22}">{count} x {escape(gpu.product)}</text>')
        full = _SVG_CELL * product.memory_slices
        parts.append(f'<rect x="{_SVG_LEFT}" y="{y}" width="{full}" height="34" fill="#eee" stroke="#999"/>')
        for replica, start, cells in _spans(gpu, product):
            x, hue = _SVG_LEFT + _SVG_CELL * start, crc32(replica.model.encode()) % 360
            box = f'x="{x}" y="{y}" width="{_SVG_CELL * cells}" height="34"'
            parts.append(f'<rect {box} fill="hsl({hue} 60% 80%)" stroke="#333"/>')
            parts.append(f'<text x="{x + 6}" y="{y + 15}">{escape(replica.placement.profile)}</text>')
            parts.append(f'<text x="{x + 6}" y="{y + 29}">{escape(str(replica.model))}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _spans(gpu: Gpu, product: Product) -> list[tuple[Replica, int, int]]:
    return [
        (it, it.placement.start, product.profiles[it.placement.profile].memory_slices)
        for it in sorted(gpu.replicas, key=lambda it: it.placement)
    ]


def _label(replica: Replica) -> str:
    processes = f" x{replica.point.processes}" if replica.point.processes > 1 else ""
    return f"{replica.placement.profile} {replica.model}{processes}"
