"""Asking a Triton which backends it has. There is no call for that, so `triton` has it load what cannot load.

The config names a GPU that no machine has. Triton (measured on 2.51) looks for the backend first and checks the GPUs
before it hands the model over, so the error tells whether the backend is there, and no model code runs, no process
starts and no memory is taken. A load with nonsense as the model's file would do all that; and of a file that is not
called `model.py` the Python backend never returns.
"""

import json

from control_plane.state import ModelName

ASKING = "tritonfleet-asks-"
"""How the names of these models begin; no package may have such a name, and `observe` leaves them out."""
FILES = {"file:1/nothing": b"-"}
"""Triton takes the config of a model that it has no folder of only together with a file."""

_NO_SUCH_GPU = 99_999
_ABSENT = ("unable to find backend library", "unable to load shared library", "unable to load backend library")


def question(backend: str) -> tuple[ModelName, str]:
    """Return the name of the model that asks for `backend`, and its config as JSON."""
    name = ModelName(f"{ASKING}{backend}")
    group = {"kind": "KIND_GPU", "count": 1, "gpus": [_NO_SUCH_GPU]}
    return name, json.dumps({"name": name, "backend": backend, "instance_group": [group]})


def says_absent(error: str) -> bool:
    """Tell whether the server's answer is that it lacks the backend, or cannot load it."""
    return any(sign in error for sign in _ABSENT)
