"""Kinds of failures, from the errors there are and from what Triton and its backends really say."""

import pytest

from control_plane import errors
from control_plane.error_kinds import ErrorKind, kind_of
from control_plane.errors import (
    AdminKeyRefusedError,
    ControlPlaneError,
    DamagedVersionError,
    DeadlineExceededError,
    LoadFailedError,
    LocationBusyError,
    LocationError,
    MissingExtraError,
    NameNotResolvedError,
    NoSpaceError,
    NotOursError,
    PermanentError,
    PortTakenError,
    RetryableError,
    ServerStartError,
    ServerUnreachableError,
    SettingsError,
    StateFileError,
    StateFileLockedError,
)

BY_CLASS: dict[type[ControlPlaneError], ErrorKind] = {
    ControlPlaneError: ErrorKind.INFRASTRUCTURE,
    RetryableError: ErrorKind.INFRASTRUCTURE,
    PermanentError: ErrorKind.INFRASTRUCTURE,
    ServerUnreachableError: ErrorKind.INFRASTRUCTURE,
    DeadlineExceededError: ErrorKind.TIMEOUT,
    LoadFailedError: ErrorKind.ARTIFACT,
    AdminKeyRefusedError: ErrorKind.INFRASTRUCTURE,
    ServerStartError: ErrorKind.INFRASTRUCTURE,
    PortTakenError: ErrorKind.INFRASTRUCTURE,
    StateFileLockedError: ErrorKind.INFRASTRUCTURE,
    StateFileError: ErrorKind.INFRASTRUCTURE,
    SettingsError: ErrorKind.INVALID_INPUT,
    MissingExtraError: ErrorKind.INFRASTRUCTURE,
    NoSpaceError: ErrorKind.INFRASTRUCTURE,
    LocationBusyError: ErrorKind.INFRASTRUCTURE,
    NotOursError: ErrorKind.INFRASTRUCTURE,
    NameNotResolvedError: ErrorKind.INFRASTRUCTURE,
    LocationError: ErrorKind.INFRASTRUCTURE,
    DamagedVersionError: ErrorKind.ARTIFACT,
}

OUT_OF_MEMORY = [
    "Internal: onnx runtime error 6: bfc_arena.cc:368 Failed to allocate memory for requested buffer of size 268435456",
    "Internal: Resource exhausted: OOM when allocating tensor with shape[128,3,299,299] and type float",
    "failed to allocate 4.00G (4294967296 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "Internal: torch.OutOfMemoryError: CUDA out of memory. Tried to\n\nAt:\n  model.py(9): initialize",
    "CUDA error in cuMemAlloc_v2: out of memory (2)",
    "unable to create context: cudaErrorMemoryAllocation",
    "Internal: std::bad_alloc",
    "Internal: MemoryError: \n\nAt:\n  model.py(3): initialize",
]
ARTIFACT = [
    "failed to load 'was_never_there', model not found in any model repository.",
    "Internal: ModuleNotFoundError: No module named 'nothing_here'\n\nAt:\n  /repo/broken/1/model.py(4): <module>",
    "load failed for model 'kept': at least one version must be available",
    "Internal: SyntaxError: '(' was never closed (model.py, line 1)\n\nAt:\n  <frozen importlib>(241): call",
    "Internal: TypeError: the argument must be a string, not int\n\nAt:\n  /repo/x/1/model.py(4): initialize",
    "onnxruntime cannot load '/repo/x/1/model.onnx': INVALID_PROTOBUF : Protobuf parsing failed.",
    "unable to find '/repo/x/1/absent.onnx'",
    "/repo/x/config.pbtxt: there is no such file; a package needs one",
    "/repo/x/config.pbtxt: cannot be read: [Errno 13] Permission denied: '/repo/x/config.pbtxt'",
    "/repo/x/1 has no target tensorrt-sm_90-fp16; there are: onnxruntime-cpu-fp32.",
    "version 1 was altered after it was published: model.onnx",
    "unexpected error when creating modelInstanceState: Assertion failed: Failed to deserialize cuda engine",
    "Not found: unable to load shared library: libfoo.so: cannot open shared object file: No such file or directory",
    "onnxruntime has no OpenVINOExecutionProvider here (it has ['CPUExecutionProvider']); see README, extras",
    "words that nobody has seen before",
]
INVALID_INPUT = [
    "dynamic batching preferred size must be <= max batch size for invalid",
    "failed to read text proto from /repo/garbled/config.pbtxt: 1:15: String literals cannot cross line boundaries.",
    "unexpected inference output 'q', allowed outputs are: 'y'",
    "input 'x': the model has shape [-1, 1], the configuration [-1, 3]",
    "parameter 'intra_op_thread_count': cannot read 'few': invalid literal for int() with base 10: 'few'",
    "unable to autofill for 'x', configuration not allowed",
    "Invalid argument: instance group odd_0 of model odd must be KIND_CPU",
    '/repo/x/config.pbtxt: 3:1: Message type "inference.ModelConfig" has no field named "bakend".',
]


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_a_load_without_room_is_out_of_memory(text: str) -> None:
    assert kind_of(LoadFailedError(text)) is kind_of(text) is ErrorKind.OUT_OF_MEMORY


@pytest.mark.parametrize("text", ARTIFACT)
def test_what_is_missing_or_broken_is_the_artifacts(text: str) -> None:
    assert kind_of(LoadFailedError(text)) is ErrorKind.ARTIFACT


@pytest.mark.parametrize("text", INVALID_INPUT)
def test_a_config_that_breaks_a_rule_is_invalid_input(text: str) -> None:
    assert kind_of(LoadFailedError(text)) is kind_of(text) is ErrorKind.INVALID_INPUT


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("model 'm' did not load on server 's' within 5 s. The server's log last said:\nout of memory", "timeout"),
        ("server 's' (127.0.0.1:2) did not unload model 'm' within 0.5 s", "timeout"),
        ("[StatusCode.DEADLINE_EXCEEDED] Deadline Exceeded", "timeout"),
        ("[request id: 7] Request timeout expired", "timeout"),
        ("server 's' (127.0.0.1:2) did not answer to load model 'm': failed to connect", "infrastructure"),
        ("server 's' refused to load model 'm': its admin key is another one.", "infrastructure"),
        ("failed to allocate pinned system memory: CUDA driver version is insufficient", "infrastructure"),
        ("words that nobody has seen before", "infrastructure"),
        ("", "infrastructure"),
        ("[request id: 7] Exceeds maximum queue size", "overload"),
        ("The answer was blocked by the guardrail 'toxicity'.", "safety_block"),
    ],
)
def test_a_text_alone(text: str, kind: str) -> None:
    assert kind_of(text) == kind


def test_every_error_there_is_has_a_kind_by_its_class() -> None:
    """A new class of error must be given one here, and then it has one in `kind_of`."""
    there = {it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, ControlPlaneError)}
    assert there <= set(BY_CLASS)
    for kind_of_error in there:
        more = {"bytes_short": 1} if kind_of_error is NoSpaceError else {}
        assert kind_of(kind_of_error("something that tells nothing", **more)) is BY_CLASS[kind_of_error]


def test_the_class_tells_more_than_the_text() -> None:
    assert kind_of(DeadlineExceededError("model 'm' says: out of memory")) is ErrorKind.TIMEOUT
    assert kind_of(ServerUnreachableError("timed out")) is ErrorKind.INFRASTRUCTURE
