from dataclasses import replace
from pathlib import Path

import pytest

from builders.tensorrt.timing_cache import CacheKey, Loaded, load_cache, save_cache

KEY = CacheKey("10.13.3.9", "sm_90", "NVIDIA H100 PCIe")


def test_a_cache_comes_back_and_each_version_and_architecture_has_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "caches"
    assert load_cache(folder, KEY) == Loaded(b"", "new")
    save_cache(folder, KEY, b"a\nb")
    assert load_cache(folder, KEY) == Loaded(b"a\nb", "used")
    assert load_cache(folder, replace(KEY, version="11.0.0.1")) == Loaded(b"", "new")
    assert load_cache(folder, replace(KEY, device="sm_80")) == Loaded(b"", "new")
    assert [path.name for path in folder.iterdir()] == ["sm_90-tensorrt-10.13.3.9.timing"]


@pytest.mark.parametrize("other", [{"version": "9.3"}, {"gpu": "NVIDIA H200"}, {"device": "sm_80"}])
def test_a_foreign_cache_under_our_name_is_ignored_and_said_to_be(tmp_path: Path, other: dict[str, str]) -> None:
    foreign = replace(KEY, **other)
    save_cache(tmp_path, foreign, b"times")
    (tmp_path / foreign.filename).rename(tmp_path / KEY.filename)
    found = load_cache(tmp_path, KEY)
    assert found.data == b""
    assert found.state.startswith(f"ignored: {KEY.filename} is of TensorRT {foreign.version} on {foreign.gpu}")
    assert found.state.endswith("this build has TensorRT 10.13.3.9 on NVIDIA H100 PCIe (sm_90)")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"tritonfleet timing", b"something else", "is no timing cache of this program"),
        (b'"gpu"', b'"cpu"', "has a header that cannot be read"),
        (b"{", b"[", "has a header that cannot be read"),
        (b"times", b"tames", "is damaged (its digest does not match)"),
    ],
)
def test_damage_is_seen(tmp_path: Path, old: bytes, new: bytes, reason: str) -> None:
    save_cache(tmp_path, KEY, b"times")
    path = tmp_path / KEY.filename
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    assert load_cache(tmp_path, KEY) == Loaded(b"", f"ignored: {KEY.filename} {reason}")


def test_what_cannot_be_read_or_replaced(tmp_path: Path) -> None:
    (tmp_path / KEY.filename).mkdir()
    assert load_cache(tmp_path, KEY).state == f"ignored: {KEY.filename} cannot be read (Is a directory)"
    with pytest.raises(IsADirectoryError):
        save_cache(tmp_path, KEY, b"times")
    assert [path.name for path in tmp_path.iterdir()] == [KEY.filename]
