"""What can go wrong while building: one root, split by whether trying again can help."""

from pathlib import Path


class BuildError(Exception):
    """Root of everything the builders raise. `str()` of it is one sentence that names the cause and the next step."""


class RetryableBuildError(BuildError):
    """The same build may succeed later without anybody changing its inputs (a full disk, another build running)."""


class PermanentBuildError(BuildError):
    """The same build fails again until somebody changes its inputs."""


class ConfigError(PermanentBuildError):
    """A `config.pbtxt` is not a ModelConfig. Names the file and, where known, line and column."""

    def __init__(self, path: str, problem: str, line: int | None = None) -> None:
        self.path = path
        self.problem = problem
        self.line = line
        where = path if line is None else f"{path}:{line}"
        super().__init__(f"{where}: {problem}")


class SpecError(PermanentBuildError):
    """A `model.toml` is not a BuildSpec. Names the file and every field that is wrong."""


class SourceError(PermanentBuildError):
    """What a model is built from is missing or is not what the spec says."""


class MissingExtraError(PermanentBuildError):
    """A step needs an optional part that is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed; this step needs it: pip install 'tritonfleet[{extra}]'")


class TargetError(PermanentBuildError):
    """A target's artifact cannot be made from this source by these tools; the next build need not try again."""


class MachineError(RetryableBuildError):
    """This machine, not the model, stands in the way: memory, disk, GPU or driver. No TargetError, so never recorded.

    Another machine that shares the artifact store, or this one later, may well make what could not be made now.
    """


class ParityError(TargetError):
    """A built artifact does not give the source's answers within the spec's tolerance. Nothing was published."""


class MissingTargetError(PermanentBuildError):
    """A version cannot be put together: a target that its package requires has not been built."""


class PublishError(RetryableBuildError):
    """A version could not be put into the model repository. Nothing half-published is left there."""


def read_text(path: Path, what: str) -> str:
    """Return the text of `path`, or raise SourceError that says what the file is for."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise SourceError(f"{path}: no such file ({what})") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"{path}: cannot be read ({what}): {exc}") from exc
