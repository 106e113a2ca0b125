"""Does a configuration fit its ONNX model? The checks that Triton's C++ ONNX Runtime backend makes when it loads one.

Source: triton-inference-server/onnxruntime_backend, src/onnxruntime.cc (ValidateInputs, ValidateOutputs) and
src/onnxruntime_utils.cc (CompareDimsSupported). Inputs may be stricter than the model, outputs have to match exactly.
Where the C++ backend compares counts of inputs, the names are compared here, so that the error can name the tensor.
"""

from collections.abc import Collection, Iterable, Sequence

from .errors import ModelSetupError
from .model_config import BatchInputConfig, InputConfig, OutputConfig, ServedModel
from .signature import ModelSignature, TensorSignature

_Dims = Sequence[int]


def check_model(model: ServedModel, signature: ModelSignature) -> None:
    """Check `model` against `signature`.

    Raises:
        ModelSetupError: they do not fit; the text names model, tensor and both values.

    """
    try:
        _check_input_names(model, signature)
        known = signature.inputs | signature.overridable
        for config in model.inputs:
            _check_input(config, known[config.name], model)
        for batch_input in model.batch_inputs:
            _check_batch_input(batch_input, model, signature)
        for output in model.outputs:
            _check_output(output, model, signature)
    except ModelSetupError as exc:
        raise ModelSetupError(f"unable to load model '{model.name}': {exc}") from exc


def _check_input_names(model: ServedModel, signature: ModelSignature) -> None:
    derived = {target for entry in model.batch_inputs for target in entry.targets}
    supplied = {config.name for config in model.inputs} | derived | set(model.controls)
    unknown = supplied - signature.inputs.keys() - signature.overridable.keys()
    if unknown:
        allowed = _listed([*signature.inputs, *signature.overridable])
        raise ModelSetupError(f"unexpected inference input {_listed(sorted(unknown))}, allowed inputs are: {allowed}")
    missing = signature.inputs.keys() - supplied
    if missing:
        raise ModelSetupError(f"the model requires input {_listed(sorted(missing))}, absent from the configuration")
    for config in model.inputs:
        if config.optional != (config.name in signature.overridable):
            must = "cannot be optional: it has no default" if config.optional else "has a default: declare it optional"
            raise ModelSetupError(f"input '{config.name}' {must} in the model")


def _check_input(config: InputConfig, tensor: TensorSignature, model: ServedModel) -> None:
    label = f"input '{config.name}'"
    if config.optional and model.batched:
        raise ModelSetupError(f"optional {label} is not supported for models that support batching")
    _check_type(label, config.data_type, tensor)
    if config.ragged:
        if config.optional:
            raise ModelSetupError(f"ragged {label} cannot be optional")
        if tensor.dims != (-1,):
            raise ModelSetupError(f"ragged {label} needs shape [-1] in the model, which has {list(tensor.dims)}")
        return
    _check_dims(label, config.dims, tensor.dims, batched=model.batched, exact=False)


def _check_batch_input(entry: BatchInputConfig, model: ServedModel, signature: ModelSignature) -> None:
    if entry.source not in {config.name for config in model.inputs}:
        raise ModelSetupError(f"batch_input {list(entry.targets)}: source_input '{entry.source}' is not an input")
    for target in entry.targets:
        tensor = signature.inputs.get(target) or signature.overridable[target]
        _check_type(f"batch input '{target}'", entry.data_type, tensor)


def _check_output(config: OutputConfig, model: ServedModel, signature: ModelSignature) -> None:
    label = f"output '{config.name}'"
    tensor = signature.outputs.get(config.name)
    if tensor is None:
        allowed = _listed(signature.outputs)
        raise ModelSetupError(f"unexpected inference output '{config.name}', allowed outputs are: {allowed}")
    _check_type(label, config.data_type, tensor)
    if config.scatter_by is None:
        _check_dims(label, config.dims, tensor.dims, batched=model.batched, exact=True)
        return
    source = next((entry for entry in model.inputs if entry.name == config.scatter_by), None)
    if source is None:
        raise ModelSetupError(f"batch output {label}: source_input '{config.scatter_by}' is not an input")
    if any(dim == -1 and at >= len(source.dims) for at, dim in enumerate(config.dims)):
        raise ModelSetupError(f"batch output {label}: dims {list(config.dims)} vary past those of '{source.name}'")


def _check_type(label: str, configured: str, tensor: TensorSignature) -> None:
    if tensor.data_type == "TYPE_INVALID":
        raise ModelSetupError(f"{label} has the ONNX type {tensor.onnx_type}, which Triton cannot carry")
    if configured != tensor.data_type:
        raise ModelSetupError(f"configuration expects datatype {configured} for {label}, model has {tensor.data_type}")


def _check_dims(label: str, configured: _Dims, model_dims: _Dims, *, batched: bool, exact: bool) -> None:
    if not model_dims:
        if any(dim != 1 for dim in configured):
            raise ModelSetupError(f"{label} is a scalar in the model: dims may hold ones only, got {list(configured)}")
        return
    if batched and model_dims[0] != -1:
        raise ModelSetupError(f"max_batch_size > 0 needs a variable first dimension: {label} has {list(model_dims)}")
    full = [-1, *configured] if batched else list(configured)
    if len(full) != len(model_dims) or any(
        have != want for have, want in zip(model_dims, full, strict=True) if exact or have != -1
    ):
        batch = ", the batch dimension first" if batched else ""
        raise ModelSetupError(f"{label}: the model has shape {list(model_dims)}, the configuration {full}{batch}")


def _listed(names: Collection[str] | Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
