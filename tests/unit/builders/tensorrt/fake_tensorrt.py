"""A module in the shape of `tensorrt`, as far as a build uses it: it notes what it is asked for, and compiles nothing.

`modern` is TensorRT 11, whose networks are always strongly typed: the flag for that is gone.
"""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


class Levels:
    """An enumeration: `__members__` and attributes."""

    def __init__(self, **members: int) -> None:
        self.__members__ = members
        self.__dict__ |= members


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]
    is_shape_tensor: bool = False


@dataclass
class Network:
    flags: int
    tensors: list[Tensor]
    num_outputs: int = 1

    @property
    def num_inputs(self) -> int:
        return len(self.tensors)

    def get_input(self, index: int) -> Tensor:
        return self.tensors[index]


@dataclass
class Cache:
    data: bytes

    def serialize(self) -> bytes:
        return b"header " + self.data


@dataclass
class Config:
    """What a build set. As TensorRT does, it makes an empty cache of what is none, and refuses one of another GPU."""

    flags: list[str] = field(default_factory=list)
    hardware_compatibility_level: Any = None
    profiling_verbosity: Any = None
    pools: dict[str, int] = field(default_factory=dict)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    cache: Cache | None = None

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def create_timing_cache(self, data: bytes) -> Cache:
        return Cache(data.removeprefix(b"header ") if data.startswith(b"header ") else b"")

    def set_timing_cache(self, cache: Cache, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.data.startswith(b"of another GPU"):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Cache | None:
        return self.cache

    def add_optimization_profile(self, profile: "Profile") -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1


@dataclass
class Profile:
    shapes: dict[str, Any] = field(default_factory=dict)

    def set_shape(self, name: str, low: Any, usual: Any, high: Any) -> None:
        self.shapes[name] = (low, usual, high)


class FakeTensorRt:
    """The module. `networks` and `configs` are those that builds made, `inputs` what each network has."""

    __version__ = "10.13.3.9"

    def __init__(self, inputs: list[Tensor], *, modern: bool = False, fails: str = "") -> None:
        self.inputs, self.fails = inputs, fails
        self.networks: list[Network] = []
        self.configs: list[Config] = []
        self.NetworkDefinitionCreationFlag = SimpleNamespace() if modern else SimpleNamespace(STRONGLY_TYPED=1)
        self.BuilderFlag = SimpleNamespace(VERSION_COMPATIBLE="version compatible")
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
        self.LayerInformationFormat = SimpleNamespace(JSON="json")
        self.HardwareCompatibilityLevel = Levels(NONE=0, AMPERE_PLUS=1)

        class ILogger:
            def log(self, severity: str, text: str) -> None:
                raise NotImplementedError

        for name in SEVERITIES:
            setattr(ILogger, name, name)
        self.ILogger: Any = ILogger

    def Builder(self, logger: Any) -> Any:  # noqa: N802 - TensorRT's name
        def create_network(flags: int) -> Network:
            self.networks.append(Network(flags, self.inputs))
            return self.networks[-1]

        def create_builder_config() -> Config:
            self.configs.append(Config())
            return self.configs[-1]

        def build_serialized_network(_network: Network, config: Config) -> bytes | None:
            if config.cache is not None:
                config.cache.data += b"measured "
            logger.log("VERBOSE", "Tactic: 0x1 Time: 0.02")
            logger.log("VERBOSE", "a line of no interest")
            if self.fails:
                logger.log("ERROR", self.fails)
                logger.log("ERROR", "and so nothing works")
                return None
            return b"plan"

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=create_builder_config,
            create_optimization_profile=Profile,
            build_serialized_network=build_serialized_network,
        )

    def OnnxParser(self, _network: Network, _logger: Any) -> Any:  # noqa: N802 - TensorRT's name
        def parse_from_file(path: str) -> bool:
            return Path(path).is_file()

        return SimpleNamespace(parse_from_file=parse_from_file, num_errors=0)

    def Runtime(self, _logger: Any) -> Any:  # noqa: N802 - TensorRT's name
        inspector = SimpleNamespace(get_engine_information=lambda form: f'{{"format": "{form}"}}')
        engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
        return SimpleNamespace(deserialize_cuda_engine=lambda _: engine)
