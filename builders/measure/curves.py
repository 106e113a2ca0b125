"""The curves of a HardwareProfile as one SVG: throughput over concurrency, and p99 latency over throughput.

Written by hand, so that no drawing library is needed; its colours follow the reader's light or dark scheme. Pure. A
line is one number of instances (its dashes) at one batch size (its colour and mark).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from builders.measure.profile import HardwareProfile
from builders.measure.report import device_text
from builders.measure.sweep import PointResult, instances_text

WIDTH = 960
_PLOT_WIDTH, _PLOT_HEIGHT = 380.0, 260.0
_TOP, _LEFTS = 98.0, (64.0, 552.0)
_LEGEND_COLUMNS, _LEGEND_STEP = 4, 22.0
# Okabe and Ito's colours, made to stand out on white and on black; further batch sizes start again.
_LIGHT = ("#0072b2", "#d55e00", "#007a5a", "#a8478a", "#8a6d00", "#4477aa", "#7a3b00", "#555555")
_DARK = ("#56b4e9", "#ff9a4d", "#2fc79a", "#e39ac8", "#f0e442", "#99bbee", "#c99a6b", "#bbbbbb")
_DASHES = ("", "7 4", "2 4", "9 3 2 3", "14 4")
_STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: values to a share of its length (0 to 1), the values that get a tick, and what it is."""

    title: str
    ticks: tuple[float, ...]
    place: Callable[[float], float]


@dataclass(frozen=True, slots=True)
class _Line:
    """One series: its looks by number, its name, and its points in order of concurrency."""

    colour: int
    dashes: str
    name: str
    results: tuple[PointResult, ...]


def curves_svg(profile: HardwareProfile) -> str:
    """Return the text of the SVG. Points without an answered request are left out; so may be all of them."""
    lines = _lines([it for it in profile.points if it.samples])
    results = [result for line in lines for result in line.results]
    throughput = linear_axis("throughput, items/s", [it.throughput for it in results])
    concurrency = log_axis("requests in flight", [float(it.point.concurrency) for it in results], base=2)
    latency = log_axis("p99 latency, ms", [it.p99_ms for it in results if it.p99_ms], base=10)
    height = _TOP + _PLOT_HEIGHT + 72 + _LEGEND_STEP * math.ceil(len(lines) / _LEGEND_COLUMNS)
    title = f"{profile.model}:{profile.version}" + (f", {profile.target}" if profile.target else "")
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="system-ui, sans-serif">',
        f"<title>{escape(title)} on {escape(device_text(profile))}</title>",
        _style(),
        f'<rect class="ground" width="{WIDTH}" height="{height:.0f}"/>',
        _text(24, 32, title, "title"),
        _text(24, 54, f"{device_text(profile)}; {profile.measured_at}", "note"),
        *_plot(_LEFTS[0], concurrency, throughput, lines, lambda it: (it.point.concurrency, it.throughput)),
        *_plot(_LEFTS[1], throughput, latency, lines, lambda it: (it.throughput, it.p99_ms or 0.0)),
        *_legend(lines, _TOP + _PLOT_HEIGHT + 72),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def linear_axis(title: str, values: Iterable[float]) -> _Axis:
    """Return an axis from 0 to a round number above the largest value, with four to eight ticks."""
    largest = max(values, default=0.0) or 1.0
    step = next(it for it in _round_numbers(largest / 6) if largest / it <= 6)  # noqa: PLR2004 - see above
    top = step * math.ceil(largest / step - 1e-9)
    ticks = tuple(step * number for number in range(round(top / step) + 1))
    return _Axis(title, ticks, lambda value: value / top)


def log_axis(title: str, values: Iterable[float], base: int) -> _Axis:
    """Return a logarithmic axis around the values: powers of 2, or 1, 2 and 5 times powers of 10."""
    given = sorted(values) or [1.0]
    numbers = _powers_of_two(given) if base == 2 else _decades(given)  # noqa: PLR2004 - the two bases there are
    if len(numbers) == 1:
        numbers = (numbers[0] / base, numbers[0], numbers[0] * base)
    low, high = math.log(numbers[0]), math.log(numbers[-1])
    return _Axis(title, numbers, lambda value: (math.log(value) - low) / (high - low))


def _powers_of_two(given: Sequence[float]) -> tuple[float, ...]:
    first, last = math.floor(math.log2(given[0])), math.ceil(math.log2(given[-1]))
    return tuple(2.0**power for power in range(first, last + 1))


def _decades(given: Sequence[float]) -> tuple[float, ...]:
    """Return the round numbers from the last one that is not above the least value to the first not below the most."""
    around = list(_round_numbers(given[0] / 10, given[-1] * 10))
    first = max(number for number, it in enumerate(around) if it <= given[0] * (1 + 1e-9))
    last = min(number for number, it in enumerate(around) if it >= given[-1] * (1 - 1e-9))
    return tuple(around[first : last + 1])


def _round_numbers(least: float, most: float = math.inf) -> Iterable[float]:
    """Yield 1, 2 and 5 times powers of ten, ascending, from the decade of `least` on, until one is above `most`."""
    power = math.floor(math.log10(least))
    while True:
        for number in _STEPS:
            value = number * 10.0**power
            if value > most:
                return
            yield value
        power += 1


def _lines(results: Sequence[PointResult]) -> list[_Line]:
    sizes = sorted({it.point.batch_size for it in results})
    counts = sorted({it.point.instances for it in results})
    lines = []
    for count in counts:
        for size in sizes:
            own = [it for it in results if (it.point.instances, it.point.batch_size) == (count, size)]
            if own:
                own.sort(key=lambda it: it.point.concurrency)
                dashes = _DASHES[counts.index(count) % len(_DASHES)]
                name = f"{instances_text(count)}, batch {size}"
                lines.append(_Line(sizes.index(size) % len(_LIGHT), dashes, name, tuple(own)))
    return lines


def _plot(
    left: float, across: _Axis, up: _Axis, lines: Sequence[_Line], values: Callable[[PointResult], tuple[float, float]]
) -> list[str]:
    bottom = _TOP + _PLOT_HEIGHT

    def x(value: float) -> float:
        return left + _PLOT_WIDTH * across.place(value)

    def y(value: float) -> float:
        return bottom - _PLOT_HEIGHT * up.place(value)

    parts = [_text(left - 40, _TOP - 12, up.title, "label")]
    for tick in up.ticks:
        parts.append(_rule(left, y(tick), left + _PLOT_WIDTH, y(tick)))
        parts.append(_text(left - 8, y(tick) + 4, _number(tick), "tick", "end"))
    for tick in across.ticks:
        parts.append(_rule(x(tick), _TOP, x(tick), bottom))
        parts.append(_text(x(tick), bottom + 18, _number(tick), "tick", "middle"))
    parts.append(_text(left + _PLOT_WIDTH / 2, bottom + 38, across.title, "label", "middle"))
    for line in lines:
        places = [(x(one), y(other)) for one, other in map(values, line.results)]
        path = " ".join(f"{one:.1f},{other:.1f}" for one, other in places)
        parts.append(f'<polyline class="line l{line.colour}" points="{path}"{_dash(line)}/>')
        parts.extend(
            f'<circle class="m{line.colour}" cx="{one:.1f}" cy="{other:.1f}" r="3.5">'
            f"<title>{escape(_hint(result))}</title></circle>"
            for (one, other), result in zip(places, line.results, strict=True)
        )
    return parts


def _legend(lines: Sequence[_Line], top: float) -> list[str]:
    parts = []
    width = (WIDTH - 48) / _LEGEND_COLUMNS
    for number, line in enumerate(lines):
        left, at = 24 + width * (number % _LEGEND_COLUMNS), top + _LEGEND_STEP * (number // _LEGEND_COLUMNS)
        points = f"{left:.1f},{at:.1f} {left + 34:.1f},{at:.1f}"
        parts.append(f'<polyline class="line l{line.colour}" points="{points}"{_dash(line)}/>')
        parts.append(f'<circle class="m{line.colour}" cx="{left + 17:.1f}" cy="{at:.1f}" r="3.5"/>')
        parts.append(_text(left + 42, at + 4, line.name, "tick"))
    return parts


def _style() -> str:
    """Return the style sheet: plain rules, which every renderer knows, and those of the dark scheme over them."""
    return (
        "<style>\n"
        ".title { font-size: 18px; font-weight: 600 } .label { font-size: 13px } .note, .tick { font-size: 12px }\n"
        ".rule { stroke-width: 1 } .line { fill: none; stroke-width: 2 }\n"
        f"{_scheme('#ffffff', '#1b1f24', '#57606a', '#d8dee4', _LIGHT)}\n"
        "@media (prefers-color-scheme: dark) {\n"
        f"{_scheme('#0d1117', '#e6edf3', '#9da7b1', '#30363d', _DARK)}\n}}\n"
        "</style>"
    )


def _scheme(ground: str, ink: str, quiet: str, rule: str, palette: Sequence[str]) -> str:
    lines = [f".l{number} {{ stroke: {it} }} .m{number} {{ fill: {it} }}" for number, it in enumerate(palette)]
    return "\n".join(
        (
            f".ground {{ fill: {ground} }} .title, .label {{ fill: {ink} }}",
            f".note, .tick {{ fill: {quiet} }} .rule {{ stroke: {rule} }}",
            *lines,
        )
    )


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="rule" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dash(line: _Line) -> str:
    return f' stroke-dasharray="{line.dashes}"' if line.dashes else ""


def _hint(result: PointResult) -> str:
    return f"{result.point}: {result.throughput:.1f} items/s, p50 {result.p50_ms:.2f} ms, p99 {result.p99_ms:.2f} ms"


def _number(value: float) -> str:
    return f"{value:,.6g}"
