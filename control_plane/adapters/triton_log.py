"""Finding the cause of a failed load in the lines that a tritonserver logged meanwhile.

Pure text work for `triton`: Triton answers some failures with "failed to poll from model repository" and writes the
reason to its log alone. The forms below are those of Triton 2.51 (`model_repository_manager.cc`, `model_lifecycle.cc`).
"""

import re
from collections.abc import Iterable

_LINE = re.compile(r"^(?P<level>[EWIF])\d{4} \d\d:\d\d:\d\d\.\d+ \d+ (?P<place>[\w.]+:\d+)\] (?P<text>.*)$")
_POLL_FAILED = re.compile(
    r"^(?:Poll failed for model directory|failed to poll model) '(?P<model>[^']*)': (?P<cause>.*)$"
)
_LOAD_FAILED = re.compile(r"^failed to load (?:model )?'(?P<model>[^']*)'(?: version \d+)?: (?P<cause>.*)$")
_PROTOBUF = re.compile(r"^\[libprotobuf ERROR [^\]]*\] (?P<cause>.*)$")
_HIDING = "failed to poll from model repository"
_TAIL_LINES = 6


def hides_cause(message: str) -> bool:
    """Tell whether Triton's answer leaves out why the load failed."""
    return not message.strip() or _HIDING in message


def cause_in_log(lines: Iterable[str], model: str) -> str:
    """Return why `model` failed to load, as the log says it; empty when the log does not."""
    parser_error = ""
    causes: list[str] = []
    for line in lines:
        if protobuf := _PROTOBUF.match(line):
            parser_error = protobuf["cause"]
            continue
        text = _message(line)
        if text is None:
            continue
        match = _POLL_FAILED.match(text) or _LOAD_FAILED.match(text)
        if match is not None and match["model"] == model:
            causes.append(f"{match['cause']}: {parser_error}" if parser_error else match["cause"])
    return _plain(causes[-1]) if causes else ""


def last_words(lines: Iterable[str], model: str) -> str:
    """Return the last few lines worth reading about `model`: those that name it or are no lines of Triton's own."""
    kept = [text for line in lines if (text := _worth_reading(line, model))]
    return "\n".join(kept[-_TAIL_LINES:])


def _worth_reading(line: str, model: str) -> str:
    match = _LINE.match(line)
    if match is None:
        return line.strip()
    return _plain(match["text"].strip('"')) if model in match["text"] or match["level"] in "EF" else ""


def _message(line: str) -> str | None:
    match = _LINE.match(line)
    return match["text"].strip().strip('"') if match is not None and match["level"] in "EW" else None


def _plain(text: str) -> str:
    """Undo the escapes that Triton writes line breaks and quotes with."""
    return text.replace("\\n", "\n").replace('\\"', '"').strip()
