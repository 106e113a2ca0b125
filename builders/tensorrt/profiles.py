"""Optimization profiles: do the ranges that the spec gives fit the network's inputs? Pure; `engine` sets what fits.

A network with a dynamic input and no profile compiles to nothing (`build_serialized_network` returns None), and most
ranges that do not fit are only told in the compiler's own words: all of it is checked here first.
"""

from collections.abc import Mapping, Sequence

from builders.forms import InputRange

DYNAMIC = -1


def profile_problems(inputs: Mapping[str, Sequence[int]], ranges: Sequence[InputRange]) -> list[str]:
    """Return what is wrong with `ranges` for a network's `inputs` (shape by name, -1 is a dynamic dimension)."""
    given = {entry.name: entry for entry in ranges}
    problems = [f"there is no input '{name}'; the model has {_listed(inputs)}" for name in given.keys() - inputs.keys()]
    for name, shape in inputs.items():
        entry = given.get(name)
        if entry is None:
            if DYNAMIC in shape:
                problems.append(f"input '{name}' has the dynamic shape {list(shape)} and no range: give min, opt, max")
        elif (problem := _range_problem(tuple(shape), entry)) is not None:
            problems.append(f"input '{name}': {problem}")
    return sorted(problems)


def _range_problem(shape: tuple[int, ...], entry: InputRange) -> str | None:
    for word, dims in (("min", entry.min), ("opt", entry.opt), ("max", entry.max)):
        if len(dims) != len(shape):
            return f"{word} {list(dims)} has {len(dims)} dimensions, the model's shape {list(shape)} has {len(shape)}"
        if any(have not in {DYNAMIC, want} for have, want in zip(shape, dims, strict=True)):
            return f"{word} {list(dims)} is not a case of the model's shape {list(shape)}"
    if not all(0 <= low <= usual <= high for low, usual, high in zip(entry.min, entry.opt, entry.max, strict=True)):
        return f"min {list(entry.min)} <= opt {list(entry.opt)} <= max {list(entry.max)} does not hold"
    return None


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
