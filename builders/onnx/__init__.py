"""ONNX artifacts: export from PyTorch, and the graph surgery around it."""
