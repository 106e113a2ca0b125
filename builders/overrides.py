"""What a package's overrides of ModelConfig break of Triton's rules whatever its graph is: told before it is exported.

Pure. For each target the config is generated that would serve it, over the tensors that the overrides name, each as it
suits them best; the rules are `validate`'s. What needs the exported signature is left to `assemble`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from builders.config_text import generate_config
from builders.errors import ConfigError
from builders.onnx.signature import Signature, TensorSignature
from builders.pbtxt import parse_config
from builders.targets import Target
from builders.validate import config_problems

Layer = Mapping[str, Any]
Location = tuple[str | int, ...]
"""Where a field stands in `model.toml`: names and list positions from the top."""

_ON_GPU: Layer = {"instance_group": [{"kind": "KIND_GPU", "count": 1}]}
"""What a target for a GPU has in place of the package's own instance groups, unless the target says otherwise."""
_ANY_SHAPE = (-1, -1, -1)
"""Dims that go with every `format`."""


def override_layers(package: Layer, target: Target, own: Layer) -> tuple[Layer, ...]:
    """Return what is laid over the export's own config: the package's overrides, then those of the target."""
    return package, _ON_GPU if target.device != "cpu" else {}, own


def broken_rules(name: str, package: Layer, targets: Sequence[tuple[Target, Layer]]) -> Iterator[tuple[Location, str]]:
    """Yield where an override breaks a rule, and which. `targets` are those of the spec, with their own overrides."""
    told = set()
    for number, (target, own) in enumerate(targets):
        given: dict[Location, Any] = {("config", field): value for field, value in package.items()}
        given |= {("targets", number, "config", field): value for field, value in own.items()}

        def judge(fields: Mapping[Location, Any], target: Target = target) -> list[str]:
            return _problems(name, target, fields)

        for problem in judge(given) if given else []:
            location = _origin(problem, given, judge)
            if (location, problem) not in told:
                told.add((location, problem))
                yield location, f"{'.'.join(map(str, location))}: {problem}"


def _origin(
    problem: str, given: Mapping[Location, Any], judge: Callable[[Mapping[Location, Any]], list[str]]
) -> Location:
    """Return the field to tell a problem of: one without which it is none, rather a target's, rather not the batch."""

    def rank(location: Location) -> tuple[bool, bool, Location]:
        return location[0] != "targets", location[-1] == "max_batch_size", location

    needed = [it for it in given if problem not in judge({other: given[other] for other in given if other != it})]
    # Where the package and the target make the same mistake, each of them is enough.
    enough = needed or [it for it in given if problem in judge({it: given[it]})]
    return min(enough or given, key=rank)


def _problems(name: str, target: Target, given: Mapping[Location, Any]) -> list[str]:
    package = {str(location[-1]): value for location, value in given.items() if location[0] == "config"}
    own = {str(location[-1]): value for location, value in given.items() if location[0] == "targets"}
    layers = [_of_no_graph(layer) for layer in override_layers(package, target, own)]
    tensors = _tensors(layers)
    inputs, outputs = (
        tuple(TensorSignature(entry["name"], entry["data_type"], _ANY_SHAPE) for entry in tensors[field])
        for field in ("input", "output")
    )
    try:
        text = generate_config(
            name,
            target.runtime,
            str(target),
            Signature(inputs, outputs),
            max_batch_size=0,
            layers=(tensors, *layers),
        )
        config = parse_config(text, path=name)
    except ConfigError as exc:
        return [exc.problem]
    problems = config_problems(config, package=name)
    # A graph is no ensemble: what else it would lack as one is no help.
    return problems[:1] if config.is_ensemble else problems


def _of_no_graph(layer: Layer) -> dict[str, Any]:
    """Return a layer less what is right or wrong by the graph: an ensemble's tensors, a reshape of unknown dims."""
    judged = {field: value for field, value in layer.items() if field != "ensemble_scheduling"}
    for field in {"input", "output"} & judged.keys():
        judged[field] = [
            {key: value for key, value in entry.items() if key != "reshape" or "dims" in entry}
            for entry in judged[field]
        ]
    return judged


def _tensors(layers: Sequence[Layer]) -> dict[str, list[dict[str, Any]]]:
    """Return an entry for every tensor of the graph that the overrides name, as its first warm-up has it, or any."""
    warmed: dict[str, Layer] = {}
    for sample in _entries(layers, "model_warmup"):
        warmed = {**sample.get("inputs", {}), **warmed}
    sources = [name for made in _made(layers) for name in made.get("source_input", [])]
    written = [name for made in _entries(layers, "batch_output") for name in made.get("target_name", [])]
    named = {
        "input": dict.fromkeys([*(entry["name"] for entry in _entries(layers, "input")), *sources]),
        "output": dict.fromkeys([*(entry["name"] for entry in _entries(layers, "output")), *written]),
    }
    return {
        field: [
            {
                "name": name,
                "data_type": warmed.get(name, {}).get("data_type", "TYPE_FP32"),
                "dims": [-1] * len(warmed.get(name, {}).get("dims", ())) or list(_ANY_SHAPE),
            }
            for name in names
        ]
        for field, names in named.items()
    }


def _made(layers: Sequence[Layer]) -> list[Layer]:
    return [*_entries(layers, "batch_input"), *_entries(layers, "batch_output")]


def _entries(layers: Sequence[Layer], field: str) -> list[Layer]:
    return [entry for layer in layers for entry in layer.get(field, [])]
