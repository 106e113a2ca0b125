"""Builders: from a model package's `model.toml` to a version that Triton can load, proven and digested.

`spec` reads, `plan` decides (pure), `pipeline` carries out with `sources`, `onnx`, `verify` and `publish`.
`model_config` and `pbtxt` are Triton's ModelConfig as everybody else in this project reads it. Imports nothing of
`ensembles` or `control_plane`.
"""
