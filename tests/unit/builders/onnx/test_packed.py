"""The packed encoder: whatever shares its batch, a sentence gets what it gets alone, and what the original gives."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.onnx.candidates import make_candidate
from builders.onnx.packed import export_packed_encoder
from builders.onnx.packed_module import ReferenceEncoder
from builders.parity import compare, onnx_runner
from builders.reference import Case
from builders.sources.checkpoint import EncoderCheckpoint, read_checkpoint
from builders.spec import Tolerance
from builders.targets import Precision, Target
from tests.tiny_encoder import DIMENSION, MAX_SEQ_LENGTH, VOCABULARY, save_tiny_encoder

Ids = list[int]
sentences = st.lists(st.integers(4, len(VOCABULARY) - 1), min_size=1, max_size=MAX_SEQ_LENGTH)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> EncoderCheckpoint:
    return read_checkpoint(save_tiny_encoder(tmp_path_factory.mktemp("checkpoint") / "tiny"))


@pytest.fixture(scope="module")
def exported(checkpoint: EncoderCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_packed_encoder(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def session(exported: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])


def embed(
    session: onnxruntime.InferenceSession,
    batch: Sequence[Ids],
    widths: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
) -> npt.NDArray[np.float32]:
    widths = [len(ids) for ids in batch] if widths is None else widths
    counts = [len(ids) for ids in batch] if counts is None else counts
    flat: Ids = []
    for ids, width in zip(batch, widths, strict=True):
        flat += [*ids, *[0] * (width - len(ids))]
    result: npt.NDArray[np.float32] = session.run(
        None,
        {
            "input_ids": np.asarray(flat, dtype=np.int64),
            "token_count": np.asarray(counts, dtype=np.int32).reshape(-1, 1),
            "input_ids_shape": np.asarray(widths, dtype=np.int32).reshape(-1, 1),
        },
    )[0]
    return result


@given(batch=st.lists(sentences, min_size=1, max_size=6), padding=st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_a_sentence_never_depends_on_its_batch(
    session: onnxruntime.InferenceSession, batch: list[Ids], padding: int
) -> None:
    alone = np.concatenate([embed(session, [ids]) for ids in batch])
    np.testing.assert_allclose(embed(session, batch), alone, atol=1e-6)
    width = max(map(len, batch)) + padding
    np.testing.assert_allclose(embed(session, batch, widths=[width] * len(batch)), alone, atol=1e-6)


@given(batch=st.lists(sentences, min_size=1, max_size=4))
@settings(deadline=None, max_examples=25)
def test_equals_the_original(
    session: onnxruntime.InferenceSession, checkpoint: EncoderCheckpoint, batch: list[Ids]
) -> None:
    width = max(map(len, batch))
    expected = ReferenceEncoder(checkpoint).embed(
        {
            "input_ids": torch.tensor([ids + [0] * (width - len(ids)) for ids in batch]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch]),
        }
    )
    np.testing.assert_allclose(embed(session, batch), expected.numpy(), atol=1e-5)


@given(ids=st.lists(sentences, min_size=1, max_size=6), padding=st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_sentences_of_one_length_get_what_they_get_among_others(
    session: onnxruntime.InferenceSession, ids: list[Ids], padding: int
) -> None:
    length = min(map(len, ids))
    batch = [each[:length] for each in ids]
    another = [5] * (length - 1 or 2)  # of another length, and within the tiny encoder's positions
    among_others = embed(session, [*batch, another])[:-1]
    np.testing.assert_allclose(embed(session, batch), among_others, atol=1e-6)
    np.testing.assert_allclose(embed(session, batch, widths=[length + padding] * len(ids)), among_others, atol=1e-6)


@given(claim=st.integers(-5, 1000))
@settings(deadline=None, max_examples=20)
def test_a_false_count_never_reads_a_neighbours_tokens(session: onnxruntime.InferenceSession, claim: int) -> None:
    mine, secret = [5, 6, 7], [9, 10, 11, 12]
    first = embed(session, [mine, secret], counts=[claim, 4])[0]
    again = embed(session, [mine, [30] * 4], counts=[claim, 4])[0]
    np.testing.assert_array_equal(first, again)


def test_no_tokens_give_no_direction(session: onnxruntime.InferenceSession) -> None:
    nothing, something = embed(session, [[5, 6], [7]], counts=[0, 1])
    assert not nothing.any()
    assert np.linalg.norm(something) == pytest.approx(1)
    assert not embed(session, [[5], [7]], counts=[0, 0]).any()
    assert not embed(session, [[], []]).any()


def test_the_graph_is_of_standard_operators_and_named_as_triton_sees_it(exported: Path) -> None:
    model = onnx.load(exported)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert [value.name for value in model.graph.input] == ["input_ids", "token_count", "input_ids_shape"]
    assert [value.name for value in model.graph.output] == ["sentence_embedding"]


@pytest.mark.parametrize(
    ("precision", "name", "error"),
    [
        *(("fp32", name, 1e-6) for name in ("slim", "fused", "merged", "merged+fused")),
        *(("int8", name, 0.05) for name in ("dynamic7", "dynamic7+merged+fused")),
    ],
)
def test_its_candidates_find_what_they_rewrite(
    precision: Precision,
    name: str,
    error: float,
    exported: Path,
    session: onnxruntime.InferenceSession,
    tmp_path: Path,
) -> None:
    make_candidate(name, Target("onnxruntime", "cpu", precision), exported, [], tmp_path / "model.onnx")
    candidate = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for batch in ([[5, 6, 7], [8, 9, 10]], [[5, 6, 7], [8], [9, 10, 11, 12, 13]]):
        np.testing.assert_allclose(embed(candidate, batch), embed(session, batch), atol=error)


def test_weights_are_outside_the_branches(exported: Path) -> None:
    graph = onnx.load(exported).graph
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    assert branches
    for branch in branches:
        assert not branch.initializer
        assert weights.isdisjoint(name for node in branch.node for name in node.input)


def test_parity_is_proven_or_refused(exported: Path, session: onnxruntime.InferenceSession, tmp_path: Path) -> None:
    counts = np.asarray([[3], [1]], dtype=np.int32)
    inputs = {"input_ids": np.asarray([5, 6, 7, 8]), "token_count": counts, "input_ids_shape": counts}
    case = Case("two", "random", 2, inputs, {"sentence_embedding": session.run(None, inputs)[0]})
    tolerance = Tolerance(min_cosine=0.9999)
    parity, problems = compare(onnx_runner(exported), [case], tolerance)
    assert (parity.items, problems) == (2, ())
    assert parity.min_cosine > 0.9999
    model = onnx.load(exported)
    weight = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [len(VOCABULARY), DIMENSION])
    weight.raw_data = np.frombuffer(weight.raw_data, np.float32)[::-1].tobytes()
    onnx.save(model, tmp_path / "broken.onnx")
    _, (problem,) = compare(onnx_runner(tmp_path / "broken.onnx"), [case], tolerance)
    assert problem.startswith("output sentence_embedding: cosine ")
