"""What the `tensorrt_rtx` Python-based backend is made of: it serves engines that TensorRT-RTX compiled ahead of time.

`model.py`, next to this folder, is what Triton's Python stub loads. Nothing here imports Tritonfleet, so the folder
`tensorrt_rtx/` can be copied into any Triton's backend directory; NumPy, the TensorRT-RTX bindings and the NVIDIA
driver are all it needs. Only `triton_model` imports Triton, only `execution` is handed TensorRT-RTX, only `cuda` calls
the driver; the rest is pure.

`execution` and `cuda` have never run on a GPU: they are tested against stand-ins (`tests/gpu` runs them where one is).
"""
