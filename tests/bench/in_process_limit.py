"""The limit that serving is held against: tokenizing and ONNX Runtime in one process, nothing between them.

The texts are sorted by length, so batches carry the least padding there can be, and the best graph, batch size and
thread count is searched. Run by `text_embedding` on the server's cores, with a JSON plan on standard input.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_COARSE_TEXTS = 256


@dataclass(frozen=True, slots=True)
class LimitPlan:
    """`graphs` are paths of a plain and of a packed encoder; `cpus` where to run; `tokenizer` a tokenizer.json."""

    graphs: dict[str, str]
    tokenizer: str
    max_seq_length: int
    texts: list[str]
    cpus: list[int]


@dataclass(frozen=True, slots=True)
class Limit:
    """The best that was found, in sentences per second, and with what."""

    rate: float
    graph: str
    batch_size: int
    threads: int


def find_limit(plan: LimitPlan) -> Limit:
    """Search coarsely on some texts, then measure the three best on all of them, twice each."""
    os.sched_setaffinity(0, plan.cpus)
    tokenizer = Tokenizer.from_file(plan.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(plan.max_seq_length)
    some = plan.texts[:: max(1, len(plan.texts) // _COARSE_TEXTS)]
    found: list[tuple[float, str, int, int]] = []
    for threads in range(1, len(plan.cpus) + 1):
        for graph, path in plan.graphs.items():
            session = _session(path, threads)
            _run(session, graph, tokenizer, some[:32], 8)
            found += [(_run(session, graph, tokenizer, some, size), graph, size, threads) for size in BATCH_SIZES]
    best: list[Limit] = []
    for _, graph, size, threads in sorted(found, reverse=True)[:3]:
        session = _session(plan.graphs[graph], threads)
        rate = max(_run(session, graph, tokenizer, plan.texts, size) for _ in range(2))
        best.append(Limit(rate, graph, size, threads))
    return max(best, key=lambda limit: limit.rate)


def _session(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(
    session: onnxruntime.InferenceSession, graph: str, tokenizer: Tokenizer, texts: list[str], batch_size: int
) -> float:
    """Return sentences per second, tokenizing included."""
    started = time.perf_counter()
    tokens = sorted((encoding.ids for encoding in tokenizer.encode_batch(texts)), key=len)
    for start in range(0, len(tokens), batch_size):
        batch = tokens[start : start + batch_size]
        counts = np.asarray([[len(ids)] for ids in batch], dtype=np.int32)
        if graph == "packed":
            flat = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in batch])
            feed = {"input_ids": flat, "token_count": counts, "input_ids_shape": counts}
        else:
            ids = np.zeros((len(batch), int(counts.max())), dtype=np.int64)
            for row, values in zip(ids, batch, strict=True):
                row[: len(values)] = values
            feed = {"input_ids": ids, "attention_mask": (np.arange(ids.shape[1]) < counts).astype(np.int64)}
        session.run(None, feed)
    return len(texts) / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(find_limit(LimitPlan(**json.load(sys.stdin))))))
