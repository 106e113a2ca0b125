"""HardwareProfile as text: it comes back as it was, is stable, and what is none is refused with the file's name."""

import json

import pytest

from builders.errors import SourceError
from builders.measure.profile import MeasuredDevice, parse_profile
from tests.unit.builders.measure.profiles import a_profile


def test_it_comes_back_as_it_was() -> None:
    profile = a_profile(complete=False)
    text = profile.to_json()
    assert parse_profile(text, path="p.json") == profile
    assert parse_profile(text.encode(), path="p.json").to_json() == text
    assert json.loads(text)["schema"] == 1


def test_its_file_is_named_by_model_version_target_and_device() -> None:
    name = "encoder-3-onnxruntime-cpu-fp32-nvidia-a100-sxm4-40gb-1g.5gb"
    assert a_profile().filename == f"{name}.json"
    assert a_profile(complete=False).filename == f"{name}.partial.json"


@pytest.mark.parametrize(
    ("name", "slug"),
    [("AMD EPYC 9454P 48-Core", "amd-epyc-9454p-48-core"), ("/../", "cpu"), ("A(R) @ 2/3", "a-r-2-3")],
)
def test_a_device_name_is_made_safe_for_files(name: str, slug: str) -> None:
    assert MeasuredDevice("cpu", name).slug == slug


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"schema": 1}'])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match=r"^p\.json: not a HardwareProfile: .*; run `tritonfleet measure` again$"):
        parse_profile(text, path="p.json")


def test_an_unknown_field_is_refused() -> None:
    data = json.loads(a_profile().to_json())
    data["points"][0]["p75_ms"] = 1.0
    with pytest.raises(SourceError, match="p75_ms"):
        parse_profile(json.dumps(data), path="p.json")


def test_another_schema_is_refused() -> None:
    data = {**json.loads(a_profile().to_json()), "schema": 2}
    with pytest.raises(SourceError, match=r"p\.json: its schema is 2, and this version reads 1"):
        parse_profile(json.dumps(data), path="p.json")
