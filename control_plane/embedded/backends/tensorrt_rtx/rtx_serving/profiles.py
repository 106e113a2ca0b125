"""Which optimization profile runs a batch: the one that fits it tightest. Pure; `execution` asks for every run."""

from collections.abc import Mapping, Sequence
from math import prod

from .errors import RunError
from .signature import Profile, Shape


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> int:
    """Return the index of the profile that holds `shapes` and whose largest shapes are the smallest; ties: the first.

    Raises:
        RunError: no profile holds them; the text names a tensor, its shape and the ranges there are.

    """
    fitting = [at for at, profile in enumerate(profiles) if all(profile[name].holds(shapes[name]) for name in profile)]
    if not fitting:
        raise RunError(_problem(profiles, shapes), invalid_argument=True)
    return min(fitting, key=lambda at: sum(prod(part.max) for part in profiles[at].values()))


def _problem(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> str:
    for name, shape in shapes.items():
        ranges = [profile[name] for profile in profiles]
        if not any(part.holds(shape) for part in ranges):
            listed = ", ".join(f"{list(part.min)} to {list(part.max)}" for part in ranges)
            return f"input '{name}' has shape {list(shape)}, the engine takes {listed}"
    given = ", ".join(f"'{name}' {list(shape)}" for name, shape in shapes.items())
    return f"no optimization profile of the engine takes the shapes {given} together"
