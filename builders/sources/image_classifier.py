"""A Hugging Face image classifier as ONNX: `pixel_values` [B, C, H, W], preprocessed, to `logits` [B, classes].

Sizes come from `preprocessor_config.json`, or from the model's own configuration. Beside it `sequence_classifier`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from builders.errors import MissingExtraError, SourceError
from builders.forms import MODEL, ExportRequest, Form
from builders.onnx.torch_export import export_module
from builders.reference import save_reference
from builders.sources.checkpoint import read_json
from builders.sources.pretrained import config_of, label_numbers, load_pretrained
from builders.sources.tensors import TensorInput, answered, axes, dynamic, input_ranges, tensor_calls

PIXEL_VALUES, LOGITS = "pixel_values", "logits"

_PREPROCESSOR = "preprocessor_config.json"
_USUAL_SIZE = 224
"""What image classifiers take that say nothing else: ImageNet's usual crop."""
_AXES = ("batch", "channels", "height", "width")


def export_image_classifier(checkpoint: Path, request: ExportRequest, out: Path) -> tuple[Form, ...]:
    """Write the classifier in the folder `checkpoint` into the folder `out`, and return its one form.

    Height and width are fixed unless `request.inputs` gives `pixel_values` [B, C, H, W] a range. The golden set holds
    pixel values, preprocessed. Raises SourceError or MissingExtraError.
    """
    model = load_pretrained("AutoModelForImageClassification", checkpoint)
    try:
        import torch  # noqa: PLC0415 - an optional extra

        from builders.onnx.torch_module import OrderedModule, answers_of  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    config = config_of(model)
    pixels = _pixels(checkpoint, config, request)
    ranges = input_ranges([pixels], request)
    module = OrderedModule(model, (LOGITS,), (PIXEL_VALUES,))
    calls = tensor_calls([pixels], ranges, request, label_numbers(config))
    save_reference(out / f"{MODEL}.npz", answered(calls, answers_of(module, (PIXEL_VALUES,))))
    # Two of every size that varies at least: the exporter takes 1 for a constant.
    sizes = [max(2, usual) if size is None else size for size, usual in zip(pixels.shape, ranges[0].opt, strict=True)]
    if pixels.shape[0] is None:
        sizes[0] = 2
    export_module(module, {PIXEL_VALUES: torch.zeros(sizes)}, (LOGITS,), axes([pixels], _AXES), out / f"{MODEL}.onnx")
    return (Form(MODEL, dynamic([pixels], ranges)),)


def _pixels(checkpoint: Path, config: Any, request: ExportRequest) -> TensorInput:  # noqa: ANN401 - see `config_of`
    sizes: list[int | None] = list(_size(checkpoint, config))
    given = next((entry for entry in request.inputs if entry.name == PIXEL_VALUES), None)
    if given is not None and len(given.min) == len(_AXES):
        ends = zip(given.min[2:], given.max[2:], strict=True)
        sizes = [size if low == high == size else None for size, (low, high) in zip(sizes, ends, strict=True)]
    channels = getattr(config, "num_channels", 3)
    batch = None if request.max_batch_size > 0 else 1
    return TensorInput(PIXEL_VALUES, np.dtype(np.float32), (batch, channels, *sizes))


def _size(checkpoint: Path, config: Any) -> tuple[int, int]:  # noqa: ANN401 - see `config_of`
    """Return height and width of what the model is fed."""
    said: object = None
    if (checkpoint / _PREPROCESSOR).is_file():
        preprocessor = read_json(checkpoint / _PREPROCESSOR)
        # A crop comes after the resizing, so it is what the model sees, where there is one.
        crops = preprocessor.get("do_center_crop") is not False
        said = (preprocessor.get("crop_size") if crops else None) or preprocessor.get("size")
    said = said or getattr(config, "image_size", None) or _USUAL_SIZE
    match said:
        case {"height": height, "width": width}:
            pair = (height, width)
        case {"shortest_edge": edge}:
            pair = (edge, edge)
        case [height, width]:
            pair = (height, width)
        case _:
            pair = (said, said)
    if not all(isinstance(size, int) and not isinstance(size, bool) and 0 < size <= 2**14 for size in pair):
        raise SourceError(f"{checkpoint}: the image size is {said!r}; expected a positive number of pixels, or two")
    return pair
