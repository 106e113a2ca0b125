"""Reading demands and measurements from CSV: the forms of ParvaGPU's public artifact, as they are.

A folder of profiles has a file for each model, `<model>.csv`: `Mig instance` (compute slices), `Batch size`, `Workload
Number` (processes on the slice), `Throughput` (requests per second of each process), `Latency` (seconds). A file of
scenarios has `scenario`, `model`, `slo_latency_ms`, `request_rate_per_s`, and may have `replicas`.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from control_plane.errors import SettingsError
from control_plane.mig import Product, Rules, SliceKind
from control_plane.sizing.model import Admission, Demand, Model, OperatingPoint

_PROFILE = ("Mig instance", "Batch size", "Workload Number", "Throughput", "Latency")
_SCENARIO = ("scenario", "model", "slo_latency_ms", "request_rate_per_s")


def parva_rules(product: Product) -> Rules:
    """Return how ParvaGPU cuts a GPU of the A100's layout: no variants, and 3g at memory slice 4 alone."""
    starts = {"3g": (4,)} if product.profiles.get("3g") is not None else {}
    return Rules(frozenset(product.plain), starts)


def parva_admission(product: Product, latency_part: float = 0.45) -> Admission:
    """Return the admission rule of the paper: below 0.45 of the objective, and GPUs cut as it cuts them."""
    return Admission(latency_part, {product.name: parva_rules(product)})


def read_scenarios(path: Path) -> dict[str, tuple[Demand, ...]]:
    """Return the demands of each scenario, in the file's order. Raises SettingsError with the line."""
    found: dict[str, list[Demand]] = {}
    for where, row in _rows(path, _SCENARIO):
        demands = found.setdefault(row["scenario"], [])
        latency_s = _number(where, row, "slo_latency_ms") / 1000
        rate = _number(where, row, "request_rate_per_s")
        replicas = _number(where, row, "replicas") if row.get("replicas") else 1
        if replicas != int(replicas):
            raise SettingsError(f"{where}: replicas is {replicas:g}; it must be a whole number")
        name = f"{row['model']}#{len(demands)}" if any(it.name == row["model"] for it in demands) else row["model"]
        demands.append(Demand(name, Model(row["model"]), rate, latency_s, int(replicas)))
    return {name: tuple(demands) for name, demands in found.items()}


def read_profiles(folder: Path, product: Product) -> dict[Model, tuple[OperatingPoint, ...]]:
    """Return what was measured of each model on slices of `product`. Raises SettingsError with the line."""
    if not folder.is_dir():
        raise SettingsError(f"{folder}: no such folder; it holds a file of measurements for each model")
    keys = {profile.g: key for key, profile in product.profiles.items() if key in product.plain}
    found: dict[Model, tuple[OperatingPoint, ...]] = {}
    for path in sorted(folder.glob("*.csv")):
        found[Model(path.stem)] = tuple(_points(path, product, keys))
    if not found:
        raise SettingsError(f"{folder}: there is no <model>.csv in it")
    return found


def _points(path: Path, product: Product, keys: Mapping[int, str]) -> Iterator[OperatingPoint]:
    for where, row in _rows(path, _PROFILE):
        slices, batch, processes = (_number(where, row, name) for name in _PROFILE[:3])
        if slices not in keys:
            there = ", ".join(map(str, sorted(keys)))
            raise SettingsError(f"{where}: {product.name} has no slice of {slices:g} compute slices; there are {there}")
        kind = SliceKind(product.name, keys[int(slices)])
        each, latency_s = _number(where, row, "Throughput", least=0), _number(where, row, "Latency", least=0)
        yield OperatingPoint(kind, int(batch), int(processes), each * processes, latency_s)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row with where it stands. Raises SettingsError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise SettingsError(f"{path}:1: there is no column {', '.join(missing)}")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise SettingsError(f"{where}: it has not as many values as there are columns")
                yield where, row
    except OSError as exc:
        raise SettingsError(f"{path}: cannot be read: {exc.strerror}") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise SettingsError(f"{path}: is no CSV: {exc}") from exc


def _number(where: str, row: Mapping[str, str], name: str, least: float | None = None) -> float:
    """Return a finite number above 0, or from `least` on."""
    try:
        value = float(row[name])
    except ValueError as exc:
        raise SettingsError(f"{where}: {name} is {row[name]!r}, and no number") from exc
    if not math.isfinite(value) or (value <= 0 if least is None else value < least):
        raise SettingsError(f"{where}: {name} is {row[name]}; it must be {'above 0' if least is None else 'from 0 on'}")
    return value
