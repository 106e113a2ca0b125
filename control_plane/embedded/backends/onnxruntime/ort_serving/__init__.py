"""What the `onnxruntime` Python-based backend is made of: everything but the Triton API itself.

`model.py`, next to this folder, is what Triton's Python stub loads; it finds this package because the stub appends the
backend's folder to `sys.path`. Nothing here imports Tritonfleet, so the folder `onnxruntime/` can be copied into any
Triton's backend directory. Only `session` imports onnxruntime; only `triton_model` imports
Triton.
"""
