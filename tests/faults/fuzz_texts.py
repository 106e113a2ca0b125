"""`python -m tests.faults.fuzz_texts`: thousands of damaged model.toml and config.pbtxt texts, and a server's word.

Every text must end in data or in a BuildError. Of the configs that are accepted a sample is loaded into a real
tritonserver, half as files, half as the load call's `config`: it must take each. Exits with 1 if it does not.
"""

import argparse
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from builders.errors import BuildError
from builders.pbtxt import parse_config, to_json
from builders.spec import read_spec
from builders.validate import config_problems
from tests.config_questions import NotComparableError, question_of
from tests.config_verdicts import ConfigCourt, Question, Verdict
from tests.fuzzed_texts import CONFIG, SPEC, Fuzzed, fuzzed

REPOSITORY = Path(__file__).parents[2] / "model_repository"


@dataclass(slots=True)
class Tally:
    """What became of the texts. `questions` are for a server; `left_out` counts why others cannot be asked."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    tracebacks: list[str] = field(default_factory=list)
    questions: dict[str, Question] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def read_all(texts: Sequence[Fuzzed], folder: Path) -> Tally:
    """Read every text as a build does."""
    tally = Tally()
    for number, entry in enumerate(texts):
        tally.read[entry.filename] += 1
        try:
            taken = _spec(entry, folder) if entry.filename == SPEC else _config(entry, tally, number)
        except BuildError:
            taken = False
        except Exception:  # noqa: BLE001 - the very thing that is looked for
            tally.tracebacks.append(f"{entry.origin}: {entry.text!r}\n{traceback.format_exc()}")
            continue
        (tally.accepted if taken else tally.refused)[entry.filename] += 1
    return tally


def _spec(entry: Fuzzed, folder: Path) -> bool:
    package = folder / entry.model
    package.mkdir(exist_ok=True)
    (package / SPEC).write_bytes(entry.text.encode("utf-8", "surrogatepass"))
    read_spec(package)
    return True


def _config(entry: Fuzzed, tally: Tally, number: int) -> bool:
    config = parse_config(entry.text, path=CONFIG)
    if config_problems(config, package=entry.model):
        return False
    to_json(entry.text, path=CONFIG, versions=[1])
    try:
        question = question_of(config, entry.text, entry.model, by_override=number % 2 == 1)
    except NotComparableError as reason:
        tally.left_out[str(reason)] += 1
    else:
        tally.questions[entry.model] = question
    return True


def sampled(questions: Mapping[str, Question], sample: int, seed: int) -> dict[str, Question]:
    """Return `sample` of the questions, the same ones for the same seed."""
    names = random.Random(seed).sample(sorted(questions), min(sample, len(questions)))
    return {name: questions[name] for name in names}


def wrong_accepts(asked: Mapping[str, Question], verdicts: Mapping[str, Verdict]) -> list[str]:
    """Return what the server refused of that which was accepted, with its reason and the text."""
    return [f"{name}: {verdict.reason}\n{asked[name].text}" for name, verdict in verdicts.items() if not verdict.loaded]


def main() -> int:
    """Read, ask, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--auto-complete", action="store_true", help="on a server that auto-completes configs: slow")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz_texts_") as folder:
        root = Path(folder)
        tally = read_all(fuzzed(REPOSITORY, arguments.seed, arguments.count), root)
        asked = sampled(tally.questions, arguments.sample, arguments.seed)
        served = root / "served"
        served.mkdir()
        with ConfigCourt(served, auto_complete=arguments.auto_complete) as court:
            wrong = wrong_accepts(asked, court.ask(asked))
    for problem in [*tally.tracebacks, *wrong]:
        sys.stdout.write(f"{problem}\n\n")
    table = Table("text", "read", "refused", "accepted")
    for name in (SPEC, CONFIG):
        table.add_row(name, *(str(counts[name]) for counts in (tally.read, tally.refused, tally.accepted)))
    console = Console()
    console.print(table)
    left_out = ", ".join(f"{reason} {count}" for reason, count in tally.left_out.most_common())
    console.print(f"tracebacks {len(tally.tracebacks)}, asked of the server {len(asked)}, wrong accepts {len(wrong)}")
    console.print(f"accepted, but not to be judged here: {sum(tally.left_out.values())} ({left_out})")
    return 1 if tally.tracebacks or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
