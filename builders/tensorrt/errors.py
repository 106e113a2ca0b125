"""What can go wrong with an engine: for good (the model, the compiler), or by this machine and its limits."""

from builders.errors import MachineError, TargetError


class EngineError(TargetError):
    """The engine cannot be compiled from this model with this compiler; nothing else of the build is affected."""


class EngineLimitError(MachineError):
    """This machine, or a limit of this build (memory, time, disk), ended the compile: with more of it, it may succeed.

    A GPU that is missing or busy, and a crash of the compiler, count as well: neither says anything of the model.
    """
