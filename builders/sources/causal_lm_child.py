"""What `causal_lm` runs in processes of their own: onnxruntime-genai's model builder, and the comparison with it.

`build SCRIPT ARGUMENTS` becomes the builder (exec, so that its package `builders` is found and not this one);
`compare STEPS MODEL ANSWER` runs the model over the source's steps and writes figures as JSON. Neither reaches a
network.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def main(arguments: list[str]) -> None:
    """Do what the first argument says."""
    os.environ.update(_OFFLINE)
    task, *rest = arguments
    if task == "build":
        # Without -P: the script's own folder has to come first, since its packages are there.
        os.execv(sys.executable, [sys.executable, *rest])  # noqa: S606 - our own interpreter, no shell
    else:
        steps, model, answer = rest
        _compare(Path(steps), model, Path(answer))


def _compare(steps_file: Path, model_folder: str, answer: Path) -> None:
    """Write how far the model is from the source's logits, all of whose steps are on the source's own tokens.

    So one early difference does not hide the rest.
    """
    import onnxruntime_genai  # noqa: PLC0415 - an optional extra

    model = onnxruntime_genai.Model(model_folder)
    agreed, steps, lowest, errors = 0, 0, 1.0, []
    with np.load(steps_file, allow_pickle=False) as arrays:
        prompts = [(arrays[f"{number}/tokens"], arrays[f"{number}/logits"]) for number in range(len(arrays) // 2)]
    for tokens, expected in prompts:
        actual = _model_logits(onnxruntime_genai, model, tokens, expected.argmax(axis=1))
        for one, other in zip(expected, actual, strict=True):
            agreed += int(one.argmax() == other.argmax())
            steps += 1
            lowest = min(lowest, _cosine(one, other))
            errors.append(np.abs(one - other))
    figures = {
        "prompts": len(prompts),
        "steps": steps,
        "agreement": agreed / steps,
        "min_cosine": lowest,
        "max_abs_error": float(np.max(errors)),
        "mean_abs_error": float(np.mean(errors)),
    }
    answer.write_text(json.dumps(figures), encoding="utf-8")


def _model_logits(genai: Any, model: Any, tokens: Tokens, following: Tokens) -> list[Logits]:  # noqa: ANN401
    """Return the built model's logits at every step, through its KV cache: the prompt at once, then token by token."""
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(tokens) + len(following) + 1, do_sample=False)
    generator = genai.Generator(model, parameters)
    found: list[Logits] = []
    for part in (tokens, *(following[number : number + 1] for number in range(len(following) - 1))):
        generator.append_tokens(part.astype(np.int32))
        logits = np.asarray(generator.get_logits(), dtype=np.float32)
        found.append(logits.reshape(-1, logits.shape[-1])[-1])
    return found


def _cosine(one: Logits, other: Logits) -> float:
    return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))


if __name__ == "__main__":
    main(sys.argv[1:])
