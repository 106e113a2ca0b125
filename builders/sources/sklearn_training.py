"""A classifier head that is trained while building: a script of the package, on embeddings of a dataset of the package.

The texts are embedded by the encoder's checkpoint in PyTorch; the script trains and judges with scikit-learn; skl2onnx
turns what it trained into the graph. The reference set's answers are scikit-learn's own.
"""

import contextlib
import json
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from builders.errors import BuildError, MissingExtraError, SourceError, read_text
from builders.forms import MODEL, ExportRequest, Form, InputRange
from builders.onnx.torch_export import IR_VERSION, OPSET
from builders.reference import Case, CaseKind, save_reference
from builders.sources.cases import GOLDEN_BATCH, RANDOM_CASES, SEED, GoldenText, batch_sizes
from builders.sources.checkpoint import TOKENIZER, read_checkpoint
from builders.sources.texts import pad, tokenize

if TYPE_CHECKING:
    from onnx import ModelProto

Embeddings = npt.NDArray[np.float32]

EMBEDDING = "embedding"
"""FP32 [N, D], of norm 1 where the encoder normalises."""
PROBABILITY = "probability"
"""FP32 [N, 1]: of class 1."""
LABEL = "label"
"""INT64 [N, 1]: 1 where the probability is the script's threshold or more."""
EVALUATION = "evaluation.json"

_TEXTS_OF_A_BATCH = 32
_SCRIPT_MODULE = "tritonfleet_training_script"
_ONNX_ML = 3
"""Version of the operator set ai.onnx.ml that skl2onnx may use on the way; the graph that is written has none of it."""


class Estimator(Protocol):
    """A fitted classifier of scikit-learn, of the classes 0 and 1."""

    classes_: npt.NDArray[Any]

    def predict_proba(self, embeddings: Embeddings) -> npt.NDArray[np.float64]:
        """Return [N, 2]."""
        ...


class Trained(Protocol):
    """What a training script's function returns. The label is 1 from a probability of `threshold` on.

    The held-out rows, FP32 [N, D] and INT64 [N], were never trained on: they are the golden set. `evaluation` is what
    the script says of them; it must go into JSON.
    """

    estimator: Estimator
    threshold: float
    held_out_embeddings: Embeddings
    held_out_labels: npt.NDArray[np.int64]
    evaluation: Mapping[str, Any]


def export_sklearn_training(
    script: Path, function: str, dataset: Path, encoder: Path, request: ExportRequest, out: Path
) -> tuple[Form, ...]:
    """Train with `function` of the file `script`, and write the form, its reference set and EVALUATION into `out`.

    `encoder` is a sentence encoder's checkpoint folder. Input EMBEDDING; outputs PROBABILITY and LABEL; operators of
    ONNX's own set alone, so that every runtime takes it. Raises SourceError or MissingExtraError.
    """
    trained = run_training(script, function, dataset, encoder)
    size = int(trained.held_out_embeddings.shape[1])
    given = next((entry for entry in request.inputs if entry.name == EMBEDDING), None)
    form = Form(MODEL, (given or _range(request, size),))
    write_graph(trained, size, out / form.onnx)
    save_reference(out / form.reference, reference_cases(trained, request))
    text = json.dumps(trained.evaluation, indent=2, sort_keys=True)
    (out / EVALUATION).write_text(text + "\n", encoding="utf-8")
    return (form,)


def run_training(script: Path, function: str, dataset: Path, encoder: Path) -> Trained:
    """Return what `function(dataset, embed)` of the file `script` trained. Raises SourceError with file and line."""
    _require("sklearn", "skl2onnx")

    def embed(texts: Sequence[str]) -> Embeddings:
        return embed_texts(encoder, texts)

    with _loaded(script) as module:
        called = getattr(module, function, None)
        if not callable(called):
            raise SourceError(f"{script}: no function '{function}'; model.toml names it as [source] script")
        try:
            trained = called(dataset, embed)
        except BuildError:
            raise
        except Exception as exc:  # whatever a package's script raises
            raise _blame(script, exc) from exc
    problem = _problem(trained)
    if problem is not None:
        raise SourceError(f"{script}: what {function} returns {problem}")
    return cast("Trained", trained)


def embed_texts(checkpoint: Path, texts: Sequence[str]) -> Embeddings:
    """Return FP32 [N, D]: the embeddings of `texts` by the checkpoint in PyTorch, as its authors run it.

    Texts of like length share a batch. Takes some 10 ms a text on two cores. Raises SourceError, MissingExtraError.
    """
    source = read_checkpoint(checkpoint)
    try:
        import torch  # noqa: PLC0415 - an optional extra

        from builders.onnx.packed_module import ReferenceEncoder  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    rows = tokenize(checkpoint / TOKENIZER, [GoldenText(text) for text in texts], source.max_seq_length)
    encoder = ReferenceEncoder(source)
    embeddings = np.empty((len(rows), source.dimension), dtype=np.float32)
    by_length = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    for start in range(0, len(rows), _TEXTS_OF_A_BATCH):
        chosen = by_length[start : start + _TEXTS_OF_A_BATCH]
        ids = pad([rows[place].ids for place in chosen])
        mask = pad([[1] * len(rows[place]) for place in chosen])
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        embeddings[chosen] = encoder.embed(inputs).numpy()
    return embeddings


def reference_cases(trained: Trained, request: ExportRequest) -> tuple[Case, ...]:
    """Return what artifacts are held against: held-out rows with their labels, random rows, range ends, timed ones."""
    rng = np.random.default_rng(SEED)
    held_out, labels = trained.held_out_embeddings, trained.held_out_labels
    largest = max(request.max_batch_size, 1)

    def case(name: str, kind: CaseKind, rows: Embeddings, known: npt.NDArray[np.int64] | None = None) -> Case:
        return Case(name, kind, len(rows), {EMBEDDING: rows}, answers(trained, rows), known)

    def random_rows(count: int) -> Embeddings:
        rows = rng.standard_normal((count, held_out.shape[1]))
        unit: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit

    step = min(GOLDEN_BATCH, largest)
    golden = [
        case(f"golden {start}", "golden", held_out[start : start + step], labels[start : start + step])
        for start in range(0, len(held_out), step)
    ]
    random = [
        case(f"random {number}", "random", random_rows(int(rng.integers(1, largest + 1))))
        for number in range(RANDOM_CASES)
    ]
    ends = [
        case("one row", "range_end", random_rows(1)),
        case("largest batch", "range_end", random_rows(largest)),
    ]
    timed = [
        case(f"batch {size}", "measure", held_out[rng.integers(0, len(held_out), size)])
        for size in batch_sizes(request)
    ]
    return (*golden, *random, *ends, *timed)


def answers(trained: Trained, rows: Embeddings) -> dict[str, npt.NDArray[Any]]:
    """Return PROBABILITY and LABEL of FP32 [N, D] as scikit-learn gives them, in the types of the graph."""
    probability = trained.estimator.predict_proba(rows)[:, 1:].astype(np.float32)
    return {PROBABILITY: probability, LABEL: (probability >= np.float32(trained.threshold)).astype(np.int64)}


def write_graph(trained: Trained, size: int, target: Path) -> None:
    """Write the estimator, over embeddings of `size` numbers, to the ONNX file `target`. Raises SourceError."""
    _require("skl2onnx")
    import onnx  # noqa: PLC0415 - only a build needs it, and `import onnx` is slow
    from onnx import TensorProto, helper, utils  # noqa: PLC0415
    from skl2onnx import convert_sklearn  # noqa: PLC0415 - an optional extra
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    try:
        converted: ModelProto = convert_sklearn(
            trained.estimator,
            initial_types=[(EMBEDDING, FloatTensorType([None, size]))],
            options={id(trained.estimator): {"zipmap": False}},
            target_opset={"": OPSET, "ai.onnx.ml": _ONNX_ML},
            # In its place skl2onnx writes plain matrix products, which compilers and every device take.
            black_op={"LinearClassifier"},
        )
    except Exception as exc:  # skl2onnx raises bare RuntimeError and its own kinds, with no common root
        raise SourceError(f"skl2onnx cannot convert the trained {type(trained.estimator).__name__}: {exc}") from exc
    classes = converted.graph.output[1].name
    extracted = utils.Extractor(converted).extract_model([EMBEDDING], [classes])
    graph = extracted.graph
    graph.initializer.extend(
        [
            helper.make_tensor("class_1", TensorProto.INT64, [1], [1]),
            helper.make_tensor("threshold", TensorProto.FLOAT, [1], [trained.threshold]),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Gather", [classes, "class_1"], [PROBABILITY], axis=1),
            helper.make_node("GreaterOrEqual", [PROBABILITY, "threshold"], ["attains"]),
            helper.make_node("Cast", ["attains"], [LABEL], to=TensorProto.INT64),
        ]
    )
    model = helper.make_model(
        helper.make_graph(
            graph.node,
            "head",
            [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["batch", size])],
            [
                helper.make_tensor_value_info(PROBABILITY, TensorProto.FLOAT, ["batch", 1]),
                helper.make_tensor_value_info(LABEL, TensorProto.INT64, ["batch", 1]),
            ],
            graph.initializer,
        ),
        producer_name="tritonfleet",
        opset_imports=[entry for entry in extracted.opset_import if any(entry.domain == n.domain for n in graph.node)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def _range(request: ExportRequest, size: int) -> InputRange:
    largest = max(request.max_batch_size, 1)
    return InputRange(EMBEDDING, (1, size), (max(batch_sizes(request)), size), (largest, size))


def _problem(trained: object) -> str | None:
    """Return what is wrong with what a script returned; None where nothing is."""
    names = ("estimator", "threshold", "held_out_embeddings", "held_out_labels", "evaluation")
    lacking = [name for name in names if not hasattr(trained, name)]
    if lacking:
        return f"has no {', '.join(lacking)}"
    result = cast("Trained", trained)
    rows, labels = np.asarray(result.held_out_embeddings), np.asarray(result.held_out_labels)
    if rows.ndim != 2 or rows.dtype != np.float32 or labels.shape != (len(rows),) or not len(rows):  # noqa: PLR2004
        return f"holds held-out rows {rows.dtype} {rows.shape} and labels {labels.shape}; expected FP32 [N, D] and [N]"
    if not hasattr(result.estimator, "predict_proba") or list(result.estimator.classes_) != [0, 1]:
        return "holds no fitted classifier of the classes 0 and 1 with predict_proba"
    if not 0 < result.threshold < 1:
        return f"has the threshold {result.threshold!r}; expected a probability between 0 and 1"
    return None


def _require(*modules: str) -> None:
    for module in modules:
        try:
            __import__(module)
        except ImportError as exc:
            raise MissingExtraError(exc.name or module, "export") from exc


@contextlib.contextmanager
def _loaded(script: Path) -> Iterator[ModuleType]:
    """Run the file as a module that `sys.modules` holds only meanwhile; nothing is written beside it."""
    text = read_text(script, "the package's training script")
    module = ModuleType(_SCRIPT_MODULE)
    module.__file__ = str(script)
    before = sys.modules.get(_SCRIPT_MODULE)
    sys.modules[_SCRIPT_MODULE] = module
    try:
        try:
            exec(compile(text, str(script), "exec"), module.__dict__)  # noqa: S102 - the package's own code, as asked
        except (Exception, SystemExit) as exc:  # whatever a package's script raises
            raise _blame(script, exc) from exc
        yield module
    finally:
        if before is None:
            del sys.modules[_SCRIPT_MODULE]
        else:
            sys.modules[_SCRIPT_MODULE] = before


def _blame(script: Path, exc: BaseException) -> SourceError:
    """Return a SourceError that names the script's own line from which `exc` came."""
    lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == str(script)]
    line = exc.lineno if isinstance(exc, SyntaxError) and exc.filename == str(script) else None
    where = line or (lines[-1] if lines else 1)
    said = exc.msg if isinstance(exc, SyntaxError) else str(exc).strip().partition("\n")[0]
    return SourceError(f"{script}:{where}: {type(exc).__name__}: {said}")
