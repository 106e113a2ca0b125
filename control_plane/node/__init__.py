"""One machine with GPUs: slices are cut on it, and one tritonserver runs on each."""

from control_plane.node.local import LocalNode, NodePlan

__all__ = ["LocalNode", "NodePlan"]
