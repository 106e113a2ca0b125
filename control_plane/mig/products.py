"""GPU products by name, each with its MIG profiles, from the data file beside this package.

A product without MIG has one profile, `full`: the whole card. Compute capability and multiprocessors are data; nothing
is derived from a profile's name.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

MIB = 2**20
FULL = "full"
"""Key of the one profile of a GPU without MIG."""

NVML_PROFILES = {
    0x0: "1g", 0x1: "2g", 0x2: "3g", 0x3: "4g", 0x4: "7g", 0x7: "1g+me", 0x8: "2g+me", 0x9: "1g.2x", 0xA: "1g+gfx",
    0xB: "2g+gfx", 0xC: "4g+gfx", 0xD: "1g-me", 0xE: "2g-me", 0xF: "1g+me.all", 0x10: "2g+me.all",
}  # fmt: skip
"""Our keys by NVML's `NVML_GPU_INSTANCE_PROFILE_*`; 6 and 8 slices are of no product that is sold."""
NVML_COMPUTE_PROFILES = {1: 0x0, 2: 0x1, 3: 0x2, 4: 0x3, 7: 0x4}
"""NVML's `NVML_COMPUTE_INSTANCE_PROFILE_*` that spans an instance of so many compute slices."""


@dataclass(frozen=True, slots=True, order=True)
class SliceKind:
    """A profile of a product, by key: what a replica of a model runs on alone."""

    product: str
    profile: str


@dataclass(frozen=True, slots=True)
class MigProfile:
    """One kind of GPU instance of a product.

    `key` names it alike on every product of a layout, `name` is the published one ("1g.10gb"). `starts` and
    `memory_slices` count memory slices, `g` compute slices; `most` of it fit one GPU. `profile_id` is that of
    `nvidia-smi mig -lgip`; None for a whole card.
    """

    key: str
    name: str
    g: int
    memory_slices: int
    most: int
    starts: tuple[int, ...]
    memory_bytes: int
    multiprocessors: int
    profile_id: int | None = None

    @property
    def takes_all_media(self) -> bool:
        """Whether it has every media engine of the GPU, so that beside it only profiles without any fit (inferred)."""
        return self.key.endswith("+me.all")

    @property
    def has_no_media(self) -> bool:
        """Whether it is a variant without media engines."""
        return self.key.endswith("-me")


@dataclass(frozen=True, slots=True)
class Product:
    """A GPU product: how many slices of each kind it has, and its profiles by key."""

    name: str
    compute_capability: str
    memory_slices: int
    compute_slices: int
    profiles: Mapping[str, MigProfile] = field(repr=False)

    @property
    def has_mig(self) -> bool:
        """Whether it can be cut."""
        return FULL not in self.profiles

    @property
    def plain(self) -> tuple[str, ...]:
        """Keys of the profiles that are no variant: without media or graphics suffix, and without doubled memory."""
        return tuple(key for key in self.profiles if key == FULL or key.rstrip("g").isdigit())


@cache
def products() -> Mapping[str, Product]:
    """Return every product of the data file, by name."""
    data = tomllib.loads(files(__package__).joinpath("data/mig_profiles.toml").read_text(encoding="utf-8"))
    return {name: _product(name, entry, data["layout"]) for name, entry in sorted(data["product"].items())}


def gpu_counts(text: str) -> dict[str, int]:
    """Read "PRODUCT:COUNT,...": how many GPUs of each product. ValueError in a sentence."""
    asked: dict[str, int] = {}
    for part in text.split(","):
        found = re.fullmatch(r"([\w.-]+)(?::(\d{1,3}))?", part)
        if found is None:
            raise ValueError(f"GPUs are named as PRODUCT:COUNT, such as h100-80gb:2, and not as {part!r}")
        try:
            product = product_named(found[1])
        except KeyError as exc:
            raise ValueError(exc.args[0]) from exc
        asked[product.name] = asked.get(product.name, 0) + int(found[2] or 1)
    return asked


def product_named(name: str) -> Product:
    """Return the product `name`. KeyError with those there are, the closest first."""
    known = products()
    if name not in known:
        close = get_close_matches(name, known, n=1)
        meant = f"; did you mean '{close[0]}'?" if close else ""
        raise KeyError(f"There is no product '{name}'{meant} There are: {', '.join(known)}.")
    return known[name]


def _product(name: str, entry: Mapping[str, Any], layouts: Mapping[str, Any]) -> Product:
    if "layout" not in entry:
        whole = MigProfile(FULL, FULL, 1, 1, 1, (0,), entry["mib"][FULL] * MIB, entry["sm"][FULL])
        return Product(name, entry["compute_capability"], 1, 1, {FULL: whole})
    layout = layouts[entry["layout"]]
    profiles = {
        it["key"]: MigProfile(
            it["key"],
            entry["names"][it["key"]],
            it["g"],
            it["memory_slices"],
            it["max"],
            tuple(it["starts"]),
            _of(entry["mib"], it["key"]) * MIB,
            _of(entry["sm"], it["key"]),
            it["profile_id"],
        )
        for it in layout["profiles"]
    }
    return Product(name, entry["compute_capability"], layout["memory_slices"], layout["compute_slices"], profiles)


def _of(figures: Mapping[str, int], key: str) -> int:
    """Return the figure of a profile; a variant without one of its own has that of its plain key."""
    if key in figures:
        return figures[key]
    plain = key.partition("+")[0].partition("-")[0]
    return figures[plain]
