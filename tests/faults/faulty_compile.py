"""compile_engine with a compiler that has a fault: for test_compiler_faults and the builder processes that it kills."""

from pathlib import Path

from builders.targets import Target
from builders.tensorrt.compile import compile_engine
from builders.tensorrt.request import EngineRequest

MIB = 1 << 20


def compile_with(fault: str, folder: Path, memory_mib: int = 2048, time_limit_s: float = 60.0) -> None:
    """Compile to `folder` with a compiler that has this fault."""
    request = EngineRequest(
        onnx=Path(f"/{fault}.onnx"),
        target=Target("tensorrt_rtx", "sm_89", "fp32"),
        memory_limit_bytes=memory_mib * MIB,
        time_limit_s=time_limit_s,
    )
    compile_engine(request, folder / "out.engine", lambda _: None, child="tests.faults.compiler_stand_in")
