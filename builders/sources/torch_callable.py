"""A function of the package's own code that makes a PyTorch module, as ONNX.

The file is run as it is: a package's code is trusted as its build is. What it raises is told with file and line.
"""

import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

from builders.errors import MissingExtraError, SourceError
from builders.forms import MODEL, ExportRequest, Form
from builders.onnx.torch_export import export_module
from builders.reference import save_reference
from builders.sources.cases import SEED
from builders.sources.tensors import TensorInput, answered, axes, dynamic, input_ranges, tensor_calls

if TYPE_CHECKING:
    from torch import Tensor, nn

_MODULE = "_tritonfleet_package_source"


def export_torch_callable(file: Path, function: str, request: ExportRequest, out: Path) -> tuple[Form, ...]:
    """Write what `function` of the Python file makes into the folder `out`, and return its one form.

    The function takes nothing and returns (torch.nn.Module, example inputs by tensor name in the module's order, output
    names). The batch varies where `request.max_batch_size` is above 0, another size where its range says so. Random
    integers lie between the example's. Raises SourceError or MissingExtraError.
    """
    try:
        import torch  # noqa: PLC0415 - an optional extra

        from builders.onnx.torch_module import OrderedModule, answers_of  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    with _loaded(file) as package, torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module, examples, names = _made(file, function, package)
        inputs = [_input(name, tensor, request) for name, tensor in examples.items()]
        ranges = input_ranges(inputs, request)
        ordered = OrderedModule(module, names).eval()
        calls = tensor_calls(inputs, ranges, request)
        save_reference(out / f"{MODEL}.npz", answered(calls, answers_of(ordered, tuple(examples))))
        given = {entry.name: _example(examples[entry.name], entry, request) for entry in inputs}
        batch = ("batch",) if request.max_batch_size > 0 else ()
        export_module(ordered, given, names, axes(inputs, batch), out / f"{MODEL}.onnx")
    return (Form(MODEL, dynamic(inputs, ranges)),)


class _Uncached(SourceFileLoader):
    """Leaves no bytecode in the package's folder, and reads none."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - importlib's own signature
        path = self.path
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


@contextmanager
def _loaded(file: Path) -> Iterator[ModuleType]:
    """Run the file and give its module, which other code may look up by name only until this ends."""
    if not file.is_file():
        raise SourceError(f"{file}: no such file; model.toml names it as the source")
    spec = spec_from_loader(_MODULE, _Uncached(_MODULE, str(file)))
    if spec is None or spec.loader is None:
        raise SourceError(f"{file}: not a Python file")
    module = module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses look their module up
    try:
        with _told(file):
            spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[_MODULE]


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Tell what the package's own code raises with file and line."""
    try:
        yield
    except SourceError:
        raise
    except (Exception, SystemExit) as exc:
        lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == str(file)]
        line = exc.lineno if isinstance(exc, SyntaxError) and exc.filename == str(file) else lines[-1] if lines else 1
        text = str(exc.msg if isinstance(exc, SyntaxError) else exc).strip().partition("\n")[0]
        raise SourceError(f"{file}:{line}: {type(exc).__name__}{f': {text}' if text else ''}") from exc


def _made(
    file: Path, function: str, package: ModuleType
) -> tuple["nn.Module", Mapping[str, "Tensor"], tuple[str, ...]]:
    """Return what the function makes, checked. Raises SourceError."""
    import torch  # noqa: PLC0415 - an optional extra

    make = getattr(package, function, None)
    if not callable(make):
        raise SourceError(f"{file}: no function '{function}'; model.toml names it as the source")
    with _told(file):
        made = make()
    match made:
        case (torch.nn.Module() as module, Mapping() as examples, [*names]) if examples and names:
            pass
        case _:
            raise SourceError(
                f"{file}: {function} must return a torch.nn.Module, example inputs by name and output names; it "
                f"returned {type(made).__name__}"
            )
    wrong = [name for name, tensor in examples.items() if not isinstance(tensor, torch.Tensor)]
    if wrong or not all(isinstance(name, str) for name in [*examples, *names]):
        raise SourceError(f"{file}: {function} must return tensors as example inputs, and every name as a string")
    if len({*examples, *names}) != len(examples) + len(names):
        raise SourceError(f"{file}: {function} names two tensors alike")
    if any(tensor.dtype in {torch.bfloat16, torch.complex64, torch.complex128} for tensor in examples.values()):
        raise SourceError(f"{file}: {function} has example inputs of a type that NumPy or Triton does not know")
    return module, examples, tuple(names)


def _input(name: str, example: "Tensor", request: ExportRequest) -> TensorInput:
    given = next((entry for entry in request.inputs if entry.name == name), None)
    shape: list[int | None] = list(example.shape)
    if given is not None and len(given.min) == len(shape):
        shape = [None if low != high else size for size, low, high in zip(shape, given.min, given.max, strict=True)]
    if request.max_batch_size > 0 and shape:
        shape[0] = None
    low, high = 0, 1
    if not example.dtype.is_floating_point and example.numel():
        low, high = int(example.min()), int(example.max())
    return TensorInput(name, example.detach().numpy().dtype, tuple(shape), low, high)


def _example(example: "Tensor", entry: TensorInput, request: ExportRequest) -> "Tensor":
    """Return an example to export with: 2 or more in each dimension that varies; 1 would be taken for a constant."""
    if request.max_batch_size > 0 and example.shape[0] == 1:
        example = example.repeat_interleave(2, dim=0)
    short: Sequence[int] = [
        axis
        for axis, size in enumerate(entry.shape)
        if size is None and example.shape[axis] < 2  # noqa: PLR2004
    ]
    if short:
        raise SourceError(f"{entry.name}: dimension {short[0]} varies; give the example input 2 or more there")
    return example
