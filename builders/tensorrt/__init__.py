"""Engines of TensorRT and TensorRT-RTX, each compiled in a process of its own with a memory and a time limit.

`compile` is what the pipeline calls. It runs `child` through `limited`, which lets nothing of a compiler outlive its
builder (`guard`), and turns every end of it into an `EngineResult` or one sentence. In the child, `engine` builds with
either module (`toolkit`), with the optimization profiles of `profiles` and, for TensorRT alone, a `timing_cache`.
"""
