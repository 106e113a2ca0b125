"""GPUs that are cut into slices: products, the profiles that each has, and which sets of placements are legal. Pure.

The figures are data (`data/mig_profiles.toml`, with their sources); on a real host NVML's own answer wins over them.
"""

from control_plane.mig.geometry import (
    Geometry,
    Placement,
    Rules,
    geometries,
    illegality,
    layout_of,
    maximal_mixes,
    mix_of,
    mixes,
)
from control_plane.mig.products import FULL, MigProfile, Product, SliceKind, product_named, products

__all__ = [
    "FULL",
    "Geometry",
    "MigProfile",
    "Placement",
    "Product",
    "Rules",
    "SliceKind",
    "geometries",
    "illegality",
    "layout_of",
    "maximal_mixes",
    "mix_of",
    "mixes",
    "product_named",
    "products",
]
