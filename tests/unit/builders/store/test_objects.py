"""Addresses of stores, and what a folder's store leaves on the disk."""

import os
from pathlib import Path

import pytest

from builders.store.errors import StoreAddressError
from builders.store.objects import open_objects


@pytest.mark.parametrize("url", ["", "gs://bucket", "http://host/x", "s3://", "s3:///prefix", "s3://Not_A_Bucket/x"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(StoreAddressError):
        open_objects(url)


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "http://h:99999", "http://[::1", "http://a b", "ftp://h"])
def test_an_endpoint_that_is_none_is_told_before_it_is_used(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StoreAddressError, match=r"AWS_ENDPOINT_URL is .*; write it as https://<host>:<port>"):
        open_objects("s3://bucket/prefix")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"])
def test_a_variable_with_a_line_break_is_told_by_name_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hidden\n")
    with pytest.raises(StoreAddressError, match=f"{name} has a blank, a line break") as caught:
        open_objects("s3://bucket/prefix")
    assert "hidden" not in str(caught.value)


def test_a_variable_that_is_no_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "zz")
    with pytest.raises(StoreAddressError, match=r"cannot be used with the AWS_\* variables that are set: .*zz"):
        open_objects("s3://bucket/prefix")


def test_a_folder_by_path_relative_path_and_url_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_objects("a store").create("x", b"1")
    assert open_objects(str(tmp_path / "a store")).read("x") == b"1"
    assert open_objects(f"file://{tmp_path}/a%20store").read("x") == b"1"
    assert (tmp_path / "a store" / "x").read_bytes() == b"1"


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    objects = open_objects(str(tmp_path / "store"))
    assert (objects.read("x"), objects.names("x"), objects.sweep()) == (None, [], 0)
    assert list(tmp_path.iterdir()) == []
    objects.create("x", b"made later")
    assert objects.read("x") == b"made later"


def test_only_old_leftovers_are_swept_and_none_is_listed(tmp_path: Path) -> None:
    objects = open_objects(str(tmp_path))
    objects.create("objects/ab/whole", b"1")
    for name, age in (("old#1", 2 * 86400), ("young#1", 0)):
        path = tmp_path / "objects" / "ab" / name
        path.write_bytes(b"half")
        at = path.stat().st_mtime - age
        os.utime(path, (at, at))
    assert objects.names("objects") == ["objects/ab/whole"]
    assert objects.sweep() == 1
    assert sorted(path.name for path in (tmp_path / "objects" / "ab").iterdir()) == ["whole", "young#1"]
