"""How many GPUs of which product, cut how, a list of demands needs: the least, with a proof or a bound.

`model` has the words, `covers` and `layout` are pure, `solving` asks the solver, `tables` reads the CSV forms.
"""

from control_plane.sizing.model import (
    Admission,
    Demand,
    Gpu,
    Model,
    Offer,
    OperatingPoint,
    Refused,
    Replica,
    Sizing,
    best_points,
)

__all__ = [
    "Admission",
    "Demand",
    "Gpu",
    "Model",
    "Offer",
    "OperatingPoint",
    "Refused",
    "Replica",
    "Sizing",
    "best_points",
]
