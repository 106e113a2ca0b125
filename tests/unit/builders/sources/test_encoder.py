"""The encoder's two forms: each gives the checkpoint's answers on its own reference set, and they agree."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaConfig, RobertaModel

from builders.errors import SourceError
from builders.forms import DENSE, MODEL, ExportRequest, Form, InputRange
from builders.onnx.dense import load_dense_encoder
from builders.reference import Case, load_reference
from builders.sources.checkpoint import read_checkpoint
from builders.sources.encoder import export_encoder
from tests.tiny_encoder import DIMENSION, MAX_SEQ_LENGTH, save_tiny_encoder

MAX_BATCH = 6
TEXTS = ["w1 w2 w3", "", "w4", "w5 " * 100, "unknown words", "w6 w7 w8 w9 w10 w11", "w1"]
# A graph that compilers take has no shape that depends on data.
DATA_DEPENDENT = {"NonZero", "Compress", "Unique", "Loop", "If", "Scan", "NonMaxSuppression", "TopK"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer of the tiny encoder's two: exports take half the time, and weights too many do no harm."""
    folder = save_tiny_encoder(tmp_path_factory.mktemp("checkpoint") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    return folder


def request(
    package: Path, golden: Path | None = None, *, inputs: tuple[InputRange, ...] = (), batch: int = MAX_BATCH
) -> ExportRequest:
    return ExportRequest(package, golden, inputs, (1, 4, 32), batch)


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def forms(checkpoint: Path, out: Path, steps: list[tuple[str, int, int]]) -> dict[str, Form]:
    golden = out / "golden.jsonl"
    golden.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    exported = export_encoder(checkpoint, request(out, golden), out, lambda *step: steps.append(step))
    return {form.name: form for form in exported}


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def cases(out: Path, form: Form) -> dict[str, Case]:
    return {case.name: case for case in load_reference(out / form.reference)}


@pytest.mark.parametrize("name", [MODEL, DENSE])
def test_each_form_gives_the_checkpoints_answers(forms: dict[str, Form], out: Path, name: str) -> None:
    running = session(out / forms[name].onnx)
    for case in cases(out, forms[name]).values():
        answer = running.run(["sentence_embedding"], dict(case.inputs))[0]
        assert answer.shape == (case.batch, DIMENSION)
        np.testing.assert_allclose(answer, case.outputs["sentence_embedding"], atol=1e-5)


def test_both_forms_are_asked_and_answered_the_same(forms: dict[str, Form], out: Path) -> None:
    packed, dense = cases(out, forms[MODEL]), cases(out, forms[DENSE])
    assert packed.keys() == dense.keys()
    for name, case in packed.items():
        np.testing.assert_array_equal(case.outputs["sentence_embedding"], dense[name].outputs["sentence_embedding"])
        np.testing.assert_array_equal(case.inputs["token_count"], dense[name].inputs["token_count"])
    widths = [case.inputs["input_ids_shape"] for case in packed.values() if case.batch > 1]
    assert any((width == width[0]).all() for width in widths), "no requests padded to one width"
    assert any((width != width[0]).any() for width in widths), "no ragged requests"


def test_the_cases_cover_golden_set_range_ends_and_measured_batches(forms: dict[str, Form], out: Path) -> None:
    found = cases(out, forms[DENSE]).values()
    assert sum(case.batch for case in found if case.kind == "golden") == len(TEXTS)
    assert any(case.kind == "random" for case in found)
    ends = [case.inputs["input_ids"].shape for case in found if case.kind == "range_end"]
    assert ends == [(1, 1), (1, MAX_SEQ_LENGTH), (MAX_BATCH, MAX_SEQ_LENGTH)]
    assert [case.batch for case in found if case.kind == "measure"] == [1, 4, MAX_BATCH]


def test_every_dense_case_is_within_the_ranges(forms: dict[str, Form], out: Path) -> None:
    ranges = {entry.name: entry for entry in forms[DENSE].inputs}
    assert ranges["input_ids"].min == (1, 1)
    assert ranges["input_ids"].max == (MAX_BATCH, MAX_SEQ_LENGTH)
    assert ranges["token_count"].max == (MAX_BATCH, 1)
    for case in cases(out, forms[DENSE]).values():
        for name, entry in ranges.items():
            sizes = zip(entry.min, case.inputs[name].shape, entry.max, strict=True)
            assert all(low <= size <= high for low, size, high in sizes)


def test_dense_ignores_ids_from_the_count_on(forms: dict[str, Form], out: Path) -> None:
    running = session(out / forms[DENSE].onnx)
    counts = np.asarray([[2], [4], [0]], np.int32)
    ids = np.asarray([[5, 6, 0, 0], [7, 8, 9, 10], [0, 0, 0, 0]], np.int64)
    clean = running.run(None, {"input_ids": ids, "token_count": counts})[0]
    dirty = ids.copy()
    dirty[0, 2:], dirty[2] = 10**9, -(10**9)
    np.testing.assert_array_equal(clean, running.run(None, {"input_ids": dirty, "token_count": counts})[0])
    assert not clean[2].any(), "a sentence of no tokens has no direction"


def test_dense_is_plain(forms: dict[str, Form], out: Path) -> None:
    model = onnx.load(out / forms[DENSE].onnx)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert not {node.op_type for node in model.graph.node} & DATA_DEPENDENT
    assert b".py" not in (out / forms[DENSE].onnx).read_bytes(), "paths of the machine that built it"


def test_triton_is_told_of_the_ragged_input_alone(forms: dict[str, Form]) -> None:
    config = forms[MODEL].config
    assert [entry["name"] for entry in config["input"]] == ["input_ids", "token_count"]
    assert config["input"][0]["allow_ragged_batch"]
    assert config["output"][0]["dims"] == [DIMENSION]
    assert config["batch_input"][0]["target_name"] == ["input_ids_shape"]
    assert not forms[DENSE].config


def test_progress_ends_with_the_last_call(forms: dict[str, Form], out: Path, steps: list[tuple[str, int, int]]) -> None:
    total = len(cases(out, forms[MODEL]))
    assert steps[-1] == ("reference", total, total)


def test_what_does_not_batch_cannot_be_ragged(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"give config\.max_batch_size in model\.toml"):
        export_encoder(checkpoint, request(tmp_path, batch=0), tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (InputRange("input_ids", (1,), (8,), (24,)), r"2 dimensions, texts and tokens; .* has 1"),
        (InputRange("input_ids", (1, 1), (4, 8), (6, 25)), r"up to 25 tokens, and .* takes 24"),
        (InputRange("input_ids", (1, 1), (4, 8), (4, 24)), r"up to 4 texts, and max_batch_size is 6"),
    ],
)
def test_a_range_that_does_not_fit_is_refused(
    checkpoint: Path, tmp_path: Path, given: InputRange, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        export_encoder(checkpoint, request(tmp_path, inputs=(given,)), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def damaged(checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "damaged")


def assert_refused(folder: Path, message: str) -> None:
    with pytest.raises(SourceError, match=message) as refused:
        export_encoder(folder, request(folder), folder.parent)
    assert "\n" not in str(refused.value)


def test_weights_of_garbage(damaged: Path) -> None:
    (damaged / "model.safetensors").write_bytes(b"\xff" * 64)
    assert_refused(damaged, "transformers cannot load it as AutoModel")


def test_weights_that_are_not_all_there(damaged: Path) -> None:
    weights = load_file(damaged / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith("LayerNorm.bias")}
    save_file(kept, damaged / "model.safetensors", {"format": "pt"})
    assert_refused(damaged, "lacks 3 weights of AutoModel")


def test_code_of_its_own_is_not_run(damaged: Path) -> None:
    marker = damaged / "ran"
    (damaged / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "modeling_own.C", "AutoModel": "modeling_own.M"}}
    (damaged / "config.json").write_text(json.dumps(own))
    assert_refused(damaged, "transformers cannot load it as AutoModel")
    assert not marker.exists()


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
@pytest.mark.parametrize("part", [None, "text_config"])
def test_attention_from_a_hub_is_refused(damaged: Path, key: str, part: str | None) -> None:
    config = json.loads((damaged / "config.json").read_text())
    named: dict[str, object] = {key: "somebody/attention"}
    (damaged / "config.json").write_text(json.dumps(config | ({part: named} if part else named)))
    assert_refused(damaged, f"config.json: {key} names code on a hub, which is not run")


def test_a_checkpoint_in_half_precision_is_exported_in_full(damaged: Path) -> None:
    weights = load_file(damaged / "model.safetensors")
    halved = {name: tensor.half() for name, tensor in weights.items()}
    save_file(halved, damaged / "model.safetensors", {"format": "pt"})
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    encoder = load_dense_encoder(read_checkpoint(damaged))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_a_dimension_that_is_not_the_models(damaged: Path) -> None:
    pooling = {"word_embedding_dimension": DIMENSION + 1, "pooling_mode_mean_tokens": True}
    (damaged / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert_refused(damaged, f"embeddings have {DIMENSION} numbers, and 1_Pooling/config.json says {DIMENSION + 1}")


def test_an_architecture_that_counts_positions_otherwise(damaged: Path) -> None:
    torch.manual_seed(1)
    config = RobertaConfig(
        vocab_size=64,
        hidden_size=DIMENSION,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=MAX_SEQ_LENGTH + 2,
        initializer_range=1.0,
    )
    RobertaModel(config).save_pretrained(damaged)
    assert_refused(damaged, "with positions counted from 0 its embeddings are off by")
