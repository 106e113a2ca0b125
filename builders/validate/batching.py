"""Rules about `dynamic_batching` and `sequence_batching`."""

from collections import Counter
from collections.abc import Iterator, Sequence

from builders.model_config import (
    DynamicBatching,
    InitialState,
    ModelConfig,
    QueuePolicy,
    SequenceBatching,
    SequenceControl,
    SequenceState,
)
from builders.validate.paths import path_problem

_FALSE_TRUE = 2
_CORRELATION = "CONTROL_SEQUENCE_CORRID"
_CORRELATION_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")


def problems(config: ModelConfig) -> Iterator[str]:
    """Yield what is wrong, one sentence each."""
    if config.dynamic_batching is not None:
        yield from _preferred(config.dynamic_batching.preferred_batch_size, config.max_batch_size)
        yield from _queues(config.dynamic_batching)
    if config.sequence_batching is not None:
        if config.response_cache:
            yield "response_cache cannot be enabled together with sequence_batching"
        yield from _preferred(config.sequence_batching.oldest_preferred_batch_size, config.max_batch_size)
        yield from _sequence(config.sequence_batching)


def _preferred(sizes: Sequence[int], max_batch_size: int) -> Iterator[str]:
    for size in sorted(set(sizes)):
        if size <= 0:
            yield f"preferred_batch_size {size} must be positive"
        elif size > max_batch_size:
            yield f"preferred_batch_size {size} is above max_batch_size {max_batch_size}"


def _queues(batching: DynamicBatching) -> Iterator[str]:
    levels = batching.priority_levels
    if levels and not 1 <= batching.default_priority_level <= levels:
        yield f"default_priority_level is {batching.default_priority_level}; priority_levels allows 1 to {levels}"
    yield from (
        f"priority_queue_policy is given for level {level}; priority_levels allows 1 to {levels}"
        for level in sorted(batching.priority_queue_policy)
        if levels and not 1 <= level <= levels
    )
    if batching.preserve_ordering:
        if levels > 1:
            yield f"preserve_ordering allows one priority level; priority_levels is {levels}"
        if any(map(_delays, [batching.default_queue_policy, *batching.priority_queue_policy.values()])):
            yield "preserve_ordering does not go with the timeout_action DELAY of a queue policy"


def _delays(policy: QueuePolicy) -> bool:
    return policy.timeout_action == "DELAY" and policy.default_timeout_microseconds != 0


def _sequence(batching: SequenceBatching) -> Iterator[str]:
    slots = batching.minimum_slot_utilization
    if slots < 0 or slots > 1:
        yield f"minimum_slot_utilization is {slots}; it must be from 0 to 1"
    names = Counter(name for name, _ in batching.control_inputs)
    if "" in names:
        yield "a control_input of sequence_batching has no name"
    yield from (
        f"control_input '{name}' is declared {count} times" for name, count in sorted(names.items()) if count > 1
    )
    controls = [control for _, entries in batching.control_inputs for control in entries]
    for kind, count in sorted(Counter(control.kind for control in controls).items()):
        if count > 1:
            yield f"sequence_batching has {count} controls of kind {kind}; it may have one"
    for control in controls:
        yield from _control(control)
    for state in batching.states:
        yield from _state(state)
    # Triton looks for a state's first value by the name of its input.
    started = Counter(state.input_name for state in batching.states if state.initial_state)
    yield from (f"state '{name}' has an initial_state twice" for name, count in sorted(started.items()) if count > 1)


def _control(control: SequenceControl) -> Iterator[str]:
    given = sorted(control.false_true)
    if control.kind == _CORRELATION:
        if control.data_type not in _CORRELATION_TYPES:
            yield f"{_CORRELATION} has data_type {control.data_type}; it must be {', '.join(_CORRELATION_TYPES)}"
        if given:
            yield f"{_CORRELATION} takes a data_type and no {given[0]}"
    elif len(given) != 1:
        yield f"{control.kind} needs one of int32_false_true, fp32_false_true and bool_false_true; it has {len(given)}"
    elif control.false_true[given[0]] != _FALSE_TRUE:
        yield f"{control.kind} needs two entries in {given[0]}; it has {control.false_true[given[0]]}"


def _state(state: SequenceState) -> Iterator[str]:
    if len(state.initial_state) > 1:
        yield f"state '{state.input_name}' has {len(state.initial_state)} initial_state; it may have one"
    for initial in state.initial_state:
        yield from (f"initial_state of '{state.input_name}' {problem}" for problem in _initial(initial, state))


def _initial(initial: InitialState, state: SequenceState) -> Iterator[str]:
    if initial.data_type != state.data_type:
        yield f"is {initial.data_type}, the state {state.data_type}"
    if not initial.name:
        yield "has no name"
    if any(dim < 0 for dim in initial.dims):  # -1 is refused; Triton dies of any other
        yield "has a dimension below 0; its shape must be fixed"
    elif len(initial.dims) != len(state.dims) or any(
        known not in (-1, dim) for dim, known in zip(initial.dims, state.dims, strict=True)
    ):
        yield f"has dims {list(initial.dims)}, the state {list(state.dims)}"
    if not initial.source:
        yield "needs zero_data or data_file"
    problem = path_problem(initial.data_file) if initial.source == "data_file" else None
    if problem is not None:
        yield f"has data_file '{initial.data_file}', which {problem}"
