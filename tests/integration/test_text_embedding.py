"""The ensemble through a real Triton with real clients, held against the model's own authors' library."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
from sentence_transformers import SentenceTransformer
from tritonclient.utils import InferenceServerException

from builders.manifest import read_manifest
from builders.sources.distribution import locate
from builders.spec import HuggingFaceSource, read_spec
from tests.deployed import MODEL, deployed, text_input

ODDITIES = [
    "", " ", "a", ".", "\n", "\x00", "\u200b", "🙂", "👩‍👩‍👧‍👦 family", "🇫🇷🇩🇪", "e\u0301 é", "ﬁ ligature", "Z̵̡a̶l̷g̸o̴",
    "[CLS] [SEP] [PAD] [MASK] [UNK]",
    "<script>alert(1)</script>", "x" * 5000, "\u202eright to left\u202c", "\uff21\uff22\uff23",
    "one two " * 5000, "語" * 600, "a" * 99 + " " + "b" * 101, "\ud7ff\ue000",
]  # fmt: skip

Embeddings = npt.NDArray[np.float32]


def test_the_encoder_is_served_ragged_and_its_dense_form_and_golden_answers_stay_behind(built_repository: Path) -> None:
    version = built_repository / "sentence_encoder" / "1"
    names = ["config.pbtxt", "manifest.json", "onnxruntime-cpu-fp32.onnx", "probes.json", "sbom.json"]
    assert sorted(path.name for path in version.iterdir()) == names
    text = (version / "config.pbtxt").read_text()
    assert "allow_ragged_batch: true" in text
    assert "BATCH_ITEM_SHAPE" in text
    manifest = read_manifest(version)
    assert manifest is not None
    parity = manifest.targets["onnxruntime-cpu-fp32"].parity
    assert parity is not None
    assert parity.min_cosine > 0.9999
    assert manifest.sources.keys() >= {"golden.jsonl", "checkpoint/model.safetensors", "checkpoint/tokenizer.json"}
    probes = json.loads((version / "probes.json").read_text())
    assert len(probes) == 2
    for probe in probes:
        ids, count = probe["inputs"]
        assert ids["shape"] == [1, len(ids["data"])]
        assert count["data"] == [len(ids["data"])]


def corpus() -> list[str]:
    """Return a thousand real sentences, and what is odd."""
    lines = (Path(__file__).parents[1] / "data" / "sentences.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines] + ODDITIES


def test_embeddings_equal_the_original_for_a_thousand_sentences(built_repository: Path, tmp_path: Path) -> None:
    """Through gRPC one by one at concurrency 16, so that lengths mix; and through HTTP in requests of many texts."""
    texts = corpus()
    source = read_spec(built_repository / "sentence_encoder").source
    assert isinstance(source, HuggingFaceSource)
    original = SentenceTransformer(
        str(locate(source.checkpoint, built_repository / "sentence_encoder")), device="cpu", local_files_only=True
    )
    expected: Embeddings = original.encode(texts, batch_size=32, convert_to_numpy=True)
    order = list(range(len(texts)))
    random.Random(3).shuffle(order)

    async def ask() -> tuple[Embeddings, Embeddings, dict[str, Any]]:
        async with deployed(built_repository, tmp_path) as running:
            endpoints = running.fleet.servers()[0].server.endpoints
            key = {"triton-grpc-protocol-admin-key": running.fleet.servers()[0].server.admin_key}
            singly = np.empty_like(expected)
            async with tritonclient.grpc.aio.InferenceServerClient(endpoints.grpc) as client:
                queue = iter(order)

                async def worker() -> None:
                    for index in queue:
                        tensor = text_input(tritonclient.grpc, [texts[index]])
                        singly[index] = (await client.infer(MODEL, [tensor], client_timeout=60)).as_numpy("embedding")

                await asyncio.gather(*(worker() for _ in range(16)))
                statistics = await client.get_inference_statistics("sentence_encoder", headers=key, as_json=True)
            many = await asyncio.to_thread(in_requests_of_many, endpoints.http, texts)
            return singly, many, statistics["model_stats"][0]

    singly, many, statistics = asyncio.run(ask())
    assert float(np.abs(singly - expected).max()) < 1e-4
    assert float(np.abs(many - expected).max()) < 1e-4
    batches = [int(entry["batch_size"]) for entry in statistics["batch_stats"]]
    assert max(batches) >= 4, f"requests of different lengths never shared a batch: {statistics['batch_stats']}"


def in_requests_of_many(address: str, texts: list[str]) -> Embeddings:
    """Embed over HTTP in requests of 1 to 32 texts of any length."""
    parts: list[Embeddings] = []
    with tritonclient.http.InferenceServerClient(address, network_timeout=120) as client:
        start, size = 0, 1
        while start < len(texts):
            tensor = text_input(tritonclient.http, texts[start : start + size])
            parts.append(client.infer(MODEL, [tensor]).as_numpy("embedding"))
            start, size = start + size, size % 32 + 1
    return np.concatenate(parts)


def test_what_the_guard_refuses_is_told_clearly_and_alone(built_repository: Path, tmp_path: Path) -> None:
    refused: dict[str, str | bytes] = {
        "131073 characters": "a" * 131_073,
        "40002 tokens": "a " * 40_000,
        "not UTF-8": b"fine until \xff here",
    }

    async def ask() -> None:
        async with deployed(built_repository, tmp_path) as running:
            endpoints = running.fleet.servers()[0].server.endpoints
            for library, address in ((tritonclient.grpc, endpoints.grpc), (tritonclient.http, endpoints.http)):
                await asyncio.to_thread(check, library, address)
            async with tritonclient.grpc.aio.InferenceServerClient(endpoints.grpc) as client:
                mixed: list[str | bytes] = [*refused.values(), *["a fine sentence"] * 9]
                answers = await asyncio.gather(
                    *(client.infer(MODEL, [text_input(tritonclient.grpc, [text])]) for text in mixed),
                    return_exceptions=True,
                )
            assert [isinstance(answer, Exception) for answer in answers] == [True] * 3 + [False] * 9

    def check(library: Any, address: str) -> None:
        with library.InferenceServerClient(address) as client:
            for said, text in refused.items():
                with pytest.raises(InferenceServerException, match=said) as raised:
                    client.infer(MODEL, [text_input(library, [text])])
                assert raised.value.status() in {"StatusCode.INVALID_ARGUMENT", "400"}

    asyncio.run(ask())
