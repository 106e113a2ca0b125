"""What can go wrong with an engine: for good (the model, the compiler), or by a limit that somebody can raise."""

from builders.errors import RetryableBuildError, TargetError


class EngineError(TargetError):
    """The engine cannot be compiled from this model with this compiler; nothing else of the build is affected."""


class EngineLimitError(RetryableBuildError):
    """A limit of this machine or this build (memory, time, disk) ended the compile: with more of it, it may succeed."""
