"""`gpus`: GPUs as a driver tells them, made-up ones here."""

import subprocess
import sys

import pytest

from control_plane.adapters.nvml import NvmlHost
from control_plane.mig import Placement
from control_plane.mig.simulated import SimulatedNvml, installed
from tests.command_line import environment, run_here


def test_made_up_gpus_are_shown_whole() -> None:
    shown = run_here("gpus", "--simulate", "a100-80gb:2,l4-24gb")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.count("Simulated a100-80gb GPU-") == 2
    assert "Simulated l4-24gb" in shown.out
    data = run_here("gpus", "--simulate", "h100-80gb", "--json").data
    assert [(it["compute_capability"], it["mig"], it["free"]) for it in data] == [("9.0", False, [])]


def test_slices_are_shown_with_what_still_fits() -> None:
    library = SimulatedNvml({"h100-80gb": 1})
    library.gpus[0].mig = True
    with installed(library):
        made = NvmlHost().create(library.gpus[0].uuid, Placement(0, "4g"))
        library.gpus[0].instances[made.id].processes.add(4711)
        shown = run_here("gpus")
        (gpu,) = run_here("gpus", "--json").data
    assert f"0 4 4g.40gb {made.uuid} 4711" in shown.flat
    assert "still fits: 3g.40gb@4, 1g.20gb@4, 1g.20gb@6, 2g.20gb@4" in shown.flat
    assert gpu["instances"][0]["processes"] == [4711]
    assert {"profile": "3g.40gb", "start": 4} in gpu["free"]


@pytest.mark.parametrize("simulate", [(), ("--simulate", "h100-80gb:2")])
def test_without_the_binding_the_extra_is_named(simulate: tuple[str, ...]) -> None:
    gone = "import sys; sys.modules['pynvml'] = None; from control_plane.cli.main import main; "
    run = f"{gone}main(['gpus', *{simulate}])"
    ended = subprocess.run([sys.executable, "-c", run], env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "pip install 'tritonfleet[gpu]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [("h100-80gb:x", "named as PRODUCT:COUNT"), ("h100", "There is no product 'h100'"), ("", "named as")],
)
def test_what_cannot_be_simulated_is_told(asked: str, said: str) -> None:
    ended = run_here("gpus", "--simulate", asked)
    assert ended.code == 2
    assert said in ended.flat
