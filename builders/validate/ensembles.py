"""Rules about ensembles: what the config itself must hold to be one, and the flow of its tensors."""

from collections.abc import Iterator

from builders.model_config import EnsembleStep, ModelConfig


def problems(config: ModelConfig, package: str) -> Iterator[str]:
    """Yield what is wrong, one sentence each."""
    if config.has_ensemble_scheduling and config.platform != "ensemble":
        yield 'ensemble_scheduling needs platform: "ensemble"'
    if not config.is_ensemble:
        return
    if not config.ensemble_steps:
        yield "an ensemble must have at least one step in ensemble_scheduling"
    if config.instance_groups:
        yield "an ensemble may not have an instance_group; its members have their own"
    if config.has_optimization:
        yield "an ensemble may not have optimization; its members have their own"
    if config.warmups:
        yield "an ensemble may not have model_warmup; its members have their own"
    if not config.inputs:
        yield "an ensemble must declare at least one input"
    if not config.outputs:
        yield "an ensemble must declare at least one output"
    for number, step in enumerate(config.ensemble_steps, 1):
        yield from _step(number, step, package)
    yield from _written(config)
    yield from _read(config)


def _step(number: int, step: EnsembleStep, package: str) -> Iterator[str]:
    if not step.model_name:
        yield f"step {number} has no model_name"
    if step.model_name == package:
        yield f"step {number} calls the ensemble itself"
    if step.model_version != -1 and step.model_version < 1:
        yield f"step '{step.model_name}' has model_version {step.model_version}; it must be -1 (the newest) or from 1"
    if not step.input_map:
        yield f"step '{step.model_name}' has no input_map"
    if not step.output_map:
        yield f"step '{step.model_name}' has no output_map"


def _written(config: ModelConfig) -> Iterator[str]:
    """Yield what is written twice, or read or given out without being written: a cycle never is."""
    produced = {tensor.name for tensor in config.inputs}
    for step in config.ensemble_steps:
        for name in step.output_map.values():
            if name in produced:
                yield f"tensor '{name}' is produced twice, the second time by step '{step.model_name}'"
            produced.add(name)
    for step in config.ensemble_steps:
        yield from (
            f"step '{step.model_name}' reads tensor '{name}', which no step writes and no input is called"
            for name in sorted(step.input_map.values())
            if name not in produced
        )
    yield from (
        f"output '{tensor.name}' is written by no step" for tensor in config.outputs if tensor.name not in produced
    )
    ready = _ready(config)
    yield from (
        f"step '{step.model_name}' waits for tensor '{name}', which comes of its own outputs"
        for step in config.ensemble_steps
        for name in sorted(step.input_map.values())
        if name in produced - ready
    )


def _ready(config: ModelConfig) -> set[str]:
    """Return the tensors that come to be when the steps run as their inputs do."""
    ready = {tensor.name for tensor in config.inputs}
    waiting = list(config.ensemble_steps)
    while True:
        runs = [step for step in waiting if ready.issuperset(step.input_map.values())]
        if not runs:
            return ready
        ready.update(name for step in runs for name in step.output_map.values())
        waiting = [step for step in waiting if step not in runs]


def _read(config: ModelConfig) -> Iterator[str]:
    used = {name for step in config.ensemble_steps for name in step.input_map.values()}
    given_out = {tensor.name for tensor in config.outputs}
    yield from (f"input '{tensor.name}' is read by no step" for tensor in config.inputs if tensor.name not in used)
    yield from (
        f"step '{step.model_name}' writes tensor '{name}', which nothing reads"
        for step in config.ensemble_steps
        for name in sorted(step.output_map.values())
        if name not in used | given_out
    )
