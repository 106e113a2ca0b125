"""The NVML adapter over a library in C with the driver's real name: loaded by the unpatched binding, as on a GPU host.

What a fake in Python lets through is caught here: layouts of structures, symbols, types of arguments. The binding loads
a library once for a process, so the adapter runs in one of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "nvml_library" / "nvml.c"
SONAME = "libnvidia-ml.so.1"
SCRIPT = """
import json
from control_plane.adapters.nvml import NvmlHost
from control_plane.mig import Placement
from control_plane.mig.host import GpuError

host, said = NvmlHost(), {}

def seen():
    (gpu,) = host.gpus()
    return [[it.placement.profile, it.placement.start, it.memory_slices, it.uuid, it.processes] for it in gpu.instances]

def refused(call):
    try:
        call()
    except GpuError as error:
        return [type(error).__name__, str(error)]

(gpu,) = host.gpus()
said["name"], said["uuid"], said["mig"] = gpu.name, gpu.uuid, gpu.mig
said["profiles"] = {
    key: [it.name, it.g, it.memory_slices, it.most, it.starts, it.memory_bytes >> 20, it.multiprocessors]
    for key, it in gpu.product.profiles.items()
}
said["mode"] = host.set_mig(gpu.uuid, enabled=True)
said["made"] = [host.create(gpu.uuid, Placement(start, key)).uuid for key, start in (("3g", 4), ("1g", 0))]
said["cut"] = seen()
said["taken"] = refused(lambda: host.create(gpu.uuid, Placement(0, "4g")))
said["mode in use"] = refused(lambda: host.set_mig(gpu.uuid, enabled=False))
for number in (1, 2):
    host.destroy(gpu.uuid, number)
said["empty"] = seen()
said["unknown"] = refused(lambda: host.destroy(gpu.uuid, 9))
used = host.create(gpu.uuid, Placement(0, "7g"))
said["in use"] = [seen(), refused(lambda: host.destroy(gpu.uuid, used.id))]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("the driver's library in C needs a C compiler (cc), and there is none")
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{SONAME}"]
    subprocess.run([*command, "-o", folder / SONAME, SOURCE], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    ran = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def test_what_the_library_tells_of_a_gpu_is_read(said: dict[str, Any]) -> None:
    assert (said["name"], said["mig"]) == ("Library H100 80GB HBM3", False)
    assert said["uuid"].startswith("GPU-1111")
    assert said["profiles"]["1g.2x"] == ["1g.20gb", 1, 2, 4, [0, 2, 4, 6], 20096, 26]
    assert said["profiles"]["3g"] == ["3g.40gb", 3, 4, 2, [0, 4], 40448, 60]
    assert set(said["profiles"]) == {"1g", "2g", "3g", "4g", "7g", "1g.2x"}


def test_instances_are_cut_at_their_places_and_found_by_walking_the_handles(said: dict[str, Any]) -> None:
    assert said["mode"] is True
    first, second = said["made"]
    assert first != second
    assert said["cut"] == [["1g", 0, 1, second, []], ["3g", 4, 4, first, []]]
    assert said["empty"] == []


def test_what_the_library_refuses_is_told_by_its_cause(said: dict[str, Any]) -> None:
    assert said["taken"][0] == "PlacementTakenError"
    assert "Insufficient Resources" in said["taken"][1]
    assert said["mode in use"][0] == "InstanceInUseError"
    assert said["unknown"][0] == "NoInstanceError"
    (held,), refused = said["in use"]
    assert (held[0], held[4]) == ("7g", [4711])
    assert refused[0] == "InstanceInUseError"
