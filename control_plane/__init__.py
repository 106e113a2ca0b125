"""The control plane: declared deployments made true on Triton servers, and kept true.

A pure core (`state`, `actions`, `planning`) decides; `ports` say what it needs of the world; `adapters` and `embedded`
are that world; `executor` and `reconciler` act; `api` and `cli` are how people and programs talk to it.
"""
