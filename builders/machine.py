"""Tells trouble of this machine from a refusal of the model in what foreign libraries raise: they have no types for it.

Used wherever ONNX Runtime, TensorRT or CUDA says no. A refusal is recorded and not tried again, trouble of a machine is
not: what is doubtful counts as a refusal only where the library's words are known to be about the model.
"""

import errno

_WORDS = (
    # Memory: ONNX Runtime's arena, CUDA and its libraries, C++, TensorRT ("Error Code 2: OutOfMemory").
    *("out of memory", "outofmemory", "failed to allocate", "could not be allocated", "cannot allocate"),
    *("bad_alloc", "bad allocation", "insufficient memory", "alloc_failed", "no space left on device", "memoryerror"),
    # The GPU and its driver: texts of CUDA's error codes 3, 35, 46, 100, 214, 719, 802 and 804.
    *("cuda initialization", "initialization error", "driver version is insufficient", "busy or unavailable"),
    *("no cuda-capable device", "uncorrectable ecc", "unspecified launch failure", "system not yet initialized"),
    *("forward compatibility was attempted", "status_not_initialized", "device lost"),
)


def is_machine_trouble(told: Exception | str) -> bool:
    """Whether an error of a foreign library, or what it says, is about memory, disk, GPU or driver of this machine."""
    if isinstance(told, MemoryError):
        return True
    if isinstance(told, OSError) and told.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
        return True
    text = str(told).lower()
    return any(word in text for word in _WORDS)
