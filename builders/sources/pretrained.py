"""Loading a Hugging Face checkpoint folder with transformers: safetensors only, nothing from a hub, no code of its own.

Every source that is such a checkpoint loads through here, so that what is refused is refused in one place.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.errors import MissingExtraError, SourceError
from builders.onnx.torch_export import first_line, quiet_exporter
from builders.sources.checkpoint import read_json, require_safetensors

if TYPE_CHECKING:
    from torch import nn

POOLER = ("pooler.",)
"""Weights of an encoder's pre-training: sentence encoders are saved with or without them, and do not use them."""


def load_pretrained(auto_class: str, path: Path, *, attention: str = "eager", spare: Sequence[str] = ()) -> "nn.Module":
    """Return the model of the folder `path` as transformers' `auto_class` (such as "AutoModel") makes it, in FP32.

    transformers fills weights that a checkpoint lacks with random ones; here that is an error, but for those whose
    names begin with one of `spare`. Raises SourceError, or MissingExtraError without PyTorch and transformers.
    """
    require_safetensors(path)
    _refuse_kernels(path, read_json(path / "config.json"))
    try:
        import torch  # noqa: PLC0415 - an optional extra
        import transformers  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "transformers", "export") from exc
    with _quiet_transformers():
        try:
            model, report = getattr(transformers, auto_class).from_pretrained(
                str(path),
                attn_implementation=attention,
                dtype=torch.float32,  # unset, it is what the checkpoint was saved in
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,  # unset, it asks on the terminal whether to run the checkpoint's code
                output_loading_info=True,
            )
        except Exception as exc:  # whatever a damaged or hostile checkpoint makes transformers raise
            raise SourceError(f"{path}: transformers cannot load it as {auto_class}: {first_line(exc)}") from exc
    lacking = sorted(name for name in report["missing_keys"] if not name.startswith(tuple(spare)))
    if lacking:
        raise SourceError(
            f"{path}: the checkpoint lacks {len(lacking)} weights of {auto_class}, such as {lacking[0]}; take the "
            "checkpoint of such a model"
        )
    module: nn.Module = model.eval()
    return module


def _refuse_kernels(path: Path, config: Mapping[str, object]) -> None:
    """Refuse a configuration that names attention code on a hub: transformers would fetch and run it, told or not."""
    for key, value in config.items():
        if key.endswith("attn_implementation") and "/" in str(value):
            raise SourceError(f"{path / 'config.json'}: {key} names code on a hub, which is not run; take it out")
        if isinstance(value, dict):
            _refuse_kernels(path, value)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Leave out progress bars and the report of weights: what matters of it is checked above."""
    from transformers.utils import logging  # noqa: PLC0415 - an optional extra

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with quiet_exporter():
            yield
    finally:
        logging.set_verbosity(level)


def config_of(model: "nn.Module") -> Any:  # noqa: ANN401 - each architecture has a configuration class of its own
    """Return a transformers model's configuration."""
    return model.config


def label_numbers(config: Any) -> dict[str, int]:  # noqa: ANN401 - see above
    """Return the classes of a classifier by name."""
    named: dict[str, int] = dict(getattr(config, "label2id", None) or {})
    return named
