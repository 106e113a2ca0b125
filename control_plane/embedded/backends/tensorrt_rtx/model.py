"""What Triton's Python stub loads as the backend `tensorrt_rtx`; the backend itself is `rtx_serving`, beside this file.

The stub imports this file as the module `model` and puts this folder at the end of `sys.path`. So `rtx_serving` must
not be called like an installed package, and this folder must hold no `__init__.py`: the server's working directory is
on that path too, and a package `tensorrt_rtx` there would hide the real one.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.triton_model import TritonPythonModel
else:
    from rtx_serving.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
