"""Either TensorRT module behind one face: what only one of the two has is asked of that one alone.

`engine` builds with it. Both modules have Builder, OnnxParser and optimization profiles; networks are strongly typed in
both, and no precision flag is ever set, so that TensorRT 10.x and 11.x are served by the same calls. TensorRT compiles
for the GPU that is there and alone has timing caches, version-compatible and hardware-compatible engines, and an
inspector that works where it builds. TensorRT-RTX compiles for named architectures without a GPU.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builders.targets import Runtime, Target
from builders.tensorrt.cuda import CudaDevice, NoGpuError, use_device
from builders.tensorrt.errors import EngineError, EngineLimitError
from builders.tensorrt.request import EngineRequest
from builders.tensorrt.timing_cache import CacheKey, load_cache, save_cache

_MODULES: Final[dict[Runtime, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt",),
    # The meta package `tensorrt_rtx` imports under its own name, the bindings' wheel under that of the bindings.
    "tensorrt_rtx": ("tensorrt_rtx_bindings", "tensorrt_rtx"),
}


class Toolkit(ABC):
    """One module. Objects of TensorRT have no static types: the modules ship none."""

    product: str

    def __init__(self, module: Any) -> None:  # noqa: ANN401 - a module without types
        self.trt = module

    def __str__(self) -> str:
        return f"{self.product} {self.version}"

    @property
    def version(self) -> str:
        """The module's own version, such as 10.13.3.9."""
        return str(self.trt.__version__)

    @abstractmethod
    def prepare(self, request: EngineRequest) -> None:
        """Refuse what this module cannot do and choose the GPU; a Builder keeps the one that it was made on.

        Raises EngineError, EngineLimitError where that GPU is not here or cannot be used.
        """

    @abstractmethod
    def configure(self, config: Any, request: EngineRequest) -> str:  # noqa: ANN401 - an IBuilderConfig
        """Set what only this module has; returns the timing cache's state. Raises EngineError."""

    @abstractmethod
    def finish(self, config: Any, request: EngineRequest) -> None:  # noqa: ANN401 - an IBuilderConfig
        """Keep what the build leaves behind beside the engine. Raises OSError."""

    @abstractmethod
    def inspect(self, engine: Any, logger: Any) -> str | None:  # noqa: ANN401 - IHostMemory and ILogger
        """Return the engine inspector's JSON, None where the engine cannot be opened here."""


def load_toolkit(runtime: Runtime) -> Toolkit:
    """Import the module of `runtime`. Raises ImportError where there is none."""
    module = import_runtime(runtime)
    return TensorRt(module) if runtime == "tensorrt" else TensorRtRtx(module)


def import_runtime(runtime: Runtime) -> Any:  # noqa: ANN401 - a module without types
    """Return the module of `runtime`, under whichever name it is installed. Raises ImportError where there is none."""
    for name in _MODULES[runtime]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name != name:
                raise
    raise ModuleNotFoundError(f"No module named '{_MODULES[runtime][0]}'", name=_MODULES[runtime][0])


class TensorRtRtx(Toolkit):
    """TensorRT-RTX: ahead of time for one architecture; the last steps happen on the GPU when the engine is loaded."""

    product = "TensorRT-RTX"

    def prepare(self, request: EngineRequest) -> None:
        """Refuse what TensorRT-RTX takes without effect or fails on, and architectures that it does not know."""
        if request.version_compatible or request.hardware_compatible != "none":
            raise EngineError(
                "TensorRT-RTX has no version-compatible and no hardware-compatible engines: take these options away "
                "from the tensorrt_rtx targets"
            )
        architectures = self.trt.ComputeCapability.__members__
        if _member(request.target) not in architectures:
            known = ", ".join(sorted(entry for entry in architectures if entry.startswith("SM")))
            raise EngineError(f"{self} does not compile for {request.target.device}, only {known}")

    def configure(self, config: Any, request: EngineRequest) -> str:  # noqa: ANN401 - an IBuilderConfig
        """Name the architecture."""
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(self.trt.ComputeCapability.__members__[_member(request.target)], 0):
            raise EngineError(f"{self} refused the architecture {request.target.device}")
        return "none"

    def finish(self, config: Any, request: EngineRequest) -> None:  # noqa: ANN401 - an IBuilderConfig
        """Nothing is left behind: there is no timing cache."""

    def inspect(self, engine: Any, logger: Any) -> str | None:  # noqa: ANN401, ARG002 - IHostMemory and ILogger
        """Return None: without a GPU of that architecture an engine can be neither opened nor inspected."""
        return None


def _member(target: Target) -> str:
    """Return the target's architecture as TensorRT-RTX's enumeration has it."""
    return target.device.replace("sm_", "SM")


@dataclass(frozen=True, slots=True)
class _Cache:
    folder: Path
    key: CacheKey


class TensorRt(Toolkit):
    """TensorRT: for the GPU that is there, by timing kernels on it. Never run on hardware yet."""

    product = "TensorRT"

    def __init__(self, module: Any, choose_gpu: Callable[[str], CudaDevice] = use_device) -> None:  # noqa: ANN401 - no types
        super().__init__(module)
        self._choose_gpu = choose_gpu
        self._gpu = ""
        self._cache: _Cache | None = None

    def prepare(self, request: EngineRequest) -> None:
        """Make the GPU of the target's architecture the current one."""
        capability = request.target.compute_capability
        if capability is None:
            raise EngineError(f"{request.target} names no GPU architecture")
        try:
            self._gpu = self._choose_gpu(capability).name
        except NoGpuError as exc:
            raise EngineLimitError(f"TensorRT compiles on the GPU that the engine is for: {exc}") from exc

    def configure(self, config: Any, request: EngineRequest) -> str:  # noqa: ANN401 - an IBuilderConfig
        """Set compatibility and verbosity, and hand the timing cache over."""
        if request.version_compatible:
            config.set_flag(self.trt.BuilderFlag.VERSION_COMPATIBLE)
        config.hardware_compatibility_level = self._hardware_level(request)
        config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED  # the inspector tells layers only then
        if request.timing_cache is None:
            return "none"
        key = CacheKey(self.version, request.target.device, self._gpu)
        loaded = load_cache(request.timing_cache, key)
        self._cache = _Cache(request.timing_cache, key)
        if self._hand_over(config, loaded.data):
            return loaded.state
        if not self._hand_over(config, b""):
            self._cache = None
        return f"ignored: {self} refused {key.filename}"

    @staticmethod
    def _hand_over(config: Any, data: bytes) -> bool:  # noqa: ANN401 - an IBuilderConfig
        """Let the build use a cache of `data`; False where TensorRT does not take it.

        A cache that it cannot use it replaces by an empty one, with a warning in the log alone.
        """
        cache = config.create_timing_cache(data)
        if data:
            empty = bytes(config.create_timing_cache(b"").serialize())
            if data != empty and bytes(cache.serialize()) == empty:
                return False
        return bool(config.set_timing_cache(cache, ignore_mismatch=False))

    def finish(self, config: Any, request: EngineRequest) -> None:  # noqa: ANN401, ARG002 - an IBuilderConfig
        """Keep the timing cache for the next build."""
        if self._cache is not None:
            save_cache(self._cache.folder, self._cache.key, bytes(config.get_timing_cache().serialize()))

    def inspect(self, engine: Any, logger: Any) -> str | None:  # noqa: ANN401 - IHostMemory and ILogger
        """Return the engine inspector's JSON."""
        runtime = self.trt.Runtime(logger)
        runtime.engine_host_code_allowed = True  # what a version-compatible engine carries was built here just now
        opened = runtime.deserialize_cuda_engine(engine)
        if opened is None:
            return None
        inspector = opened.create_engine_inspector()
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))

    def _hardware_level(self, request: EngineRequest) -> Any:  # noqa: ANN401 - an enumeration's member
        levels = self.trt.HardwareCompatibilityLevel.__members__
        name = request.hardware_compatible.upper()
        if name not in levels:
            raise EngineError(
                f"{self} has no hardware compatibility {request.hardware_compatible}, only "
                f"{', '.join(sorted(levels)).lower()}"
            )
        return levels[name]
