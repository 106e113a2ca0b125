"""Bill of materials of a version, CycloneDX 1.6 as JSON: its files, what they were made from and with what tools.

Pure, and stable text: no clock and no random number goes into it, so the same version gives the same bytes. `pipeline`
writes it into the version before the manifest, which lists it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from builders.digests import data_digest
from builders.manifest import FileEntry

if TYPE_CHECKING:
    from cyclonedx.model import HashType
    from cyclonedx.model.component import Component

SBOM_FILENAME = "sbom.json"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ABSENT = "absent"
# Part of a toolchain, but no distribution of the Python package index: package URLs of type "generic".
_GENERIC = frozenset({"cpython", "cuda", "driver", "gpu", "python"})


@dataclass(frozen=True, slots=True)
class BillOfMaterials:
    """What a version's bill of materials says. `sources` maps names to digests, `toolchain` tools to their versions.

    `files` are those of the version, without the bill, the manifest and the signature.
    """

    package: str
    version: int
    build_key: str
    licence: str
    summary: str
    toolchain: Mapping[str, tuple[str, ...]]
    sources: Mapping[str, str]
    files: Mapping[str, FileEntry]


def sbom_text(bill: BillOfMaterials) -> str:
    """Return the text of `sbom.json`. The serial number is derived from all that the text says."""
    from cyclonedx.contrib.license.factories import LicenseFactory  # noqa: PLC0415 - only a build needs it
    from cyclonedx.model import Property  # noqa: PLC0415
    from cyclonedx.model.bom import Bom, BomMetaData  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415

    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=bill.package,
        version=str(bill.version),
        bom_ref=f"{bill.package}@{bill.version}",
        description=bill.summary or None,
        licenses=[LicenseFactory().make_from_string(bill.licence)] if bill.licence else None,
        properties=[Property(name="tritonfleet:build_key", value=bill.build_key)],
    )
    files = list(_files(bill))
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"tritonfleet:{data_digest(asdict(bill))}"),
        metadata=BomMetaData(component=model),
        components=[*files, *_sources(bill), *_tools(bill)],
    )
    bom.register_dependency(model, files)
    data = json.loads(JsonV1Dot6(bom).output_as_string())
    data["metadata"].pop("timestamp", None)  # the library's clock
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _files(bill: BillOfMaterials) -> "Iterator[Component]":
    from cyclonedx.model import Property  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentScope, ComponentType  # noqa: PLC0415

    for name, entry in sorted(bill.files.items()):
        yield Component(
            type=ComponentType.FILE,
            name=name,
            bom_ref=f"file:{name}",
            scope=ComponentScope.REQUIRED,
            hashes=[_sha256(entry.sha256)],
            properties=[Property(name="tritonfleet:bytes", value=str(entry.bytes))],
        )


def _sources(bill: BillOfMaterials) -> "Iterator[Component]":
    """Give what the version was made from. A digest that is no SHA-256 (a commit's, say) is kept as a property."""
    from cyclonedx.model import Property  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentScope, ComponentType  # noqa: PLC0415

    for name, digest in sorted(bill.sources.items()):
        is_sha256 = _SHA256.fullmatch(digest) is not None
        yield Component(
            type=ComponentType.DATA,
            name=name,
            bom_ref=f"source:{name}",
            scope=ComponentScope.EXCLUDED,
            hashes=[_sha256(digest)] if is_sha256 else None,
            properties=None if is_sha256 else [Property(name="tritonfleet:digest", value=digest)],
        )


def _tools(bill: BillOfMaterials) -> "Iterator[Component]":
    from cyclonedx.model.component import Component, ComponentScope, ComponentType  # noqa: PLC0415
    from packageurl import PackageURL  # noqa: PLC0415

    for name, version in ((name, version) for name, each in sorted(bill.toolchain.items()) for version in each):
        if version == _ABSENT:
            continue
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            bom_ref=f"tool:{name}@{version}",
            scope=ComponentScope.EXCLUDED,
            purl=PackageURL("generic" if name in _GENERIC else "pypi", name=name, version=version),
        )


def _sha256(digest: str) -> "HashType":
    from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415

    return HashType(alg=HashAlgorithm.SHA_256, content=digest)
