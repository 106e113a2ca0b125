"""Ensembles: the stages that stand around a model, and how they are served.

`stages` are small typed classes, tested without Triton; `triton_adapter` serves any of them in Triton's Python backend.
`tritonfleet build` copies both into a version, so nothing here may import `control_plane`, or anything that is not
installed beside a tritonserver.
"""
