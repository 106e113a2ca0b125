"""The bill of materials: valid CycloneDX 1.6, complete, and the same bytes for the same version."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from builders.manifest import FileEntry
from builders.supply_chain.sbom import BillOfMaterials, sbom_text

BILL = BillOfMaterials(
    package="sentence_encoder",
    version=3,
    build_key="ab" * 32,
    licence="Apache-2.0",
    summary="Sentences to vectors — ünïcode",
    toolchain={
        "torch": ("2.13.0+cpu",),
        "onnx": ("1.23.2",),
        "python": ("3.11.9",),
        "onnxscript": ("absent",),
        "tensorrt": ("10.3.0", "10.9.0"),
    },
    sources={"checkpoint/model.safetensors": "cd" * 32, "repository": "a1b2c3"},
    files={"model.onnx": FileEntry("ef" * 32, 90_000_000), "sub/labels.txt": FileEntry("01" * 32, 5)},
)


def components(bill: BillOfMaterials) -> dict[str, Any]:
    return {component["bom-ref"]: component for component in json.loads(sbom_text(bill))["components"]}


@pytest.mark.parametrize(
    "bill",
    [
        BILL,
        replace(BILL, licence="LicenseRef-Proprietary OR MIT", summary=""),
        replace(BILL, licence="our own terms, see LICENSE", files={}, sources={}, toolchain={}),
        replace(BILL, licence=""),
    ],
    ids=["usual", "expression", "free text, nothing else", "no licence"],
)
def test_it_is_valid_by_the_published_schema(bill: BillOfMaterials) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom_text(bill)) is None


def test_the_validator_does_refuse() -> None:
    broken = json.loads(sbom_text(BILL)) | {"components": [{"name": "no type"}]}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_the_model_is_what_it_describes() -> None:
    model = json.loads(sbom_text(BILL))["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "sentence_encoder", "3")
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["description"] == BILL.summary
    assert {"name": "tritonfleet:build_key", "value": BILL.build_key} in model["properties"]


def test_every_file_source_and_tool_is_listed() -> None:
    found = components(BILL)
    assert sorted(found) == [
        "file:model.onnx",
        "file:sub/labels.txt",
        "source:checkpoint/model.safetensors",
        "source:repository",
        "tool:onnx@1.23.2",
        "tool:python@3.11.9",
        "tool:tensorrt@10.3.0",
        "tool:tensorrt@10.9.0",
        "tool:torch@2.13.0+cpu",
    ]
    assert found["file:model.onnx"]["hashes"] == [{"alg": "SHA-256", "content": "ef" * 32}]
    assert found["source:repository"]["properties"] == [{"name": "tritonfleet:digest", "value": "a1b2c3"}]
    assert found["tool:torch@2.13.0+cpu"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert found["tool:python@3.11.9"]["purl"] == "pkg:generic/python@3.11.9"


def test_the_same_version_gives_the_same_bytes_whatever_the_order() -> None:
    turned = replace(
        BILL,
        toolchain=dict([*BILL.toolchain.items()][::-1]),
        sources=dict([*BILL.sources.items()][::-1]),
        files=dict([*BILL.files.items()][::-1]),
    )
    assert sbom_text(turned) == sbom_text(BILL)
    assert "timestamp" not in sbom_text(BILL)


def test_two_versions_have_two_serial_numbers() -> None:
    rebuilt = replace(BILL, files={"model.onnx": FileEntry("ee" * 32, 90_000_000)})
    numbers = {json.loads(sbom_text(bill))["serialNumber"] for bill in (BILL, rebuilt, replace(BILL, build_key="b"))}
    assert len(numbers) == 3
