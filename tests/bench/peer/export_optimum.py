"""Runs in the peer's own environment: exports a checkpoint with optimum-onnx and optimises it at O1, O2 and O3.

`python export_optimum.py <checkpoint> <folder>` leaves `<level>/model_optimized.onnx` there. Imports nothing of this
project: the peer needs another version of transformers.
"""

import sys
from pathlib import Path

from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTOptimizer
from optimum.onnxruntime.configuration import AutoOptimizationConfig

LEVELS = ("O1", "O2", "O3")


def main(checkpoint: str, folder: Path) -> None:
    """Export, then optimise the export at each level."""
    model = ORTModelForFeatureExtraction.from_pretrained(checkpoint, export=True, local_files_only=True)
    optimizer = ORTOptimizer.from_pretrained(model)
    for level in LEVELS:
        optimizer.optimize(save_dir=folder / level, optimization_config=getattr(AutoOptimizationConfig, level)())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
