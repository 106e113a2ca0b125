"""The compiler's process: `python -m builders.tensorrt.child <request file> <folder>`, started by `compile`.

It writes the engine and `answer.json` into the folder. A refusal is an answer too (exit code 0); whatever else ends
it is for `compile` to tell from its exit code and log.
"""

import sys
from pathlib import Path

from builders.tensorrt.engine import build_engine
from builders.tensorrt.errors import EngineError, EngineLimitError
from builders.tensorrt.request import (
    ANSWER_FILENAME,
    ENGINE_FILENAME,
    Answer,
    EngineRequest,
    Refused,
    answer_json,
    parse_request,
)
from builders.tensorrt.toolkit import load_toolkit


def main(request_file: Path, folder: Path) -> None:
    """Build what the request asks for and leave the answer."""
    answer = _answer(parse_request(request_file.read_bytes()), folder)
    (folder / ANSWER_FILENAME).write_bytes(answer_json(answer))


def _answer(request: EngineRequest, folder: Path) -> Answer:
    try:
        toolkit = load_toolkit(request.target.runtime)
    except ImportError as exc:
        # A library that the module needs and does not find is told in the text.
        return Refused("refused", str(exc), missing=exc.name or request.target.runtime)
    try:
        return build_engine(request, toolkit, folder)
    except EngineError as exc:
        return Refused("refused", str(exc))
    except EngineLimitError as exc:
        return Refused("refused", str(exc), retryable=True)
    except MemoryError as exc:
        return Refused("refused", f"the compiler found no memory: {str(exc) or type(exc).__name__}", retryable=True)
    except OSError as exc:
        (folder / ENGINE_FILENAME).unlink(missing_ok=True)  # on a full disk the answer needs its room
        return Refused("refused", f"the engine could not be written: {exc}", retryable=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
