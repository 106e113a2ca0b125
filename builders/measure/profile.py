"""HardwareProfile: latency, throughput, load time and memory of a version on one device, as JSON with a schema number.

Written by the control plane's `measuring`. Placement reads the memory, and on slices the latency; the curves are for
people and programs of theirs. When it was measured is given from outside, so that the same measurements give the same
text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from builders.errors import SourceError
from builders.measure.sweep import Point, PointResult, Skipped

SCHEMA = 1

_NOT_IN_FILENAMES = re.compile(r"[^A-Za-z0-9.]+")


@dataclass(frozen=True, slots=True)
class MeasuredDevice:
    """What it ran on. `kind` is "cpu" or "gpu"; the other fields are "" where they do not apply.

    `compute_capability` as "9.0"; `mig_profile` as NVIDIA names it ("1g.10gb"); `cores` is what the server could use.
    """

    kind: str
    name: str
    cores: int = 0
    compute_capability: str = ""
    mig_profile: str = ""
    driver: str = ""

    @property
    def slug(self) -> str:
        """A short name for files: letters, digits, dots and dashes."""
        return _NOT_IN_FILENAMES.sub("-", f"{self.name} {self.mig_profile}".strip()).strip("-.").lower() or self.kind


@dataclass(frozen=True, slots=True)
class InstanceCost:
    """What `instances` instances cost. Bytes are per instance: the peak under load above the empty server, shared out.

    None where it could not be read (a server of another machine, a device without memory metrics).
    """

    instances: int
    load_seconds: float
    host_bytes: int | None
    device_bytes: int | None


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """`target` is "" where the version does not say; `requests` says in words what was sent.

    `complete` is False where the sweep was stopped; what was measured until then stands. `measured_at` is ISO 8601.
    """

    model: str
    version: int
    target: str
    device: MeasuredDevice
    measured_at: str
    requests: str
    seconds_per_point: float
    points: tuple[PointResult, ...]
    costs: tuple[InstanceCost, ...]
    skipped: tuple[Skipped, ...] = ()
    software: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True
    schema: int = SCHEMA

    @property
    def filename(self) -> str:
        """Name of its file: one per model, version, target and device; one that was stopped replaces no whole one."""
        parts = (self.model, str(self.version), self.target, self.device.slug)
        return "-".join(part for part in parts if part) + (".json" if self.complete else ".partial.json")

    def to_json(self) -> str:
        """Return its text: equal profiles, equal bytes."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def parse_profile(text: str | bytes, *, path: str) -> HardwareProfile:
    """Return the profile in `text`; `path` is where it came from. Raises SourceError where it is none."""
    try:
        data = json.loads(text)
        parsed = {
            "device": MeasuredDevice(**data["device"]),
            "points": tuple(PointResult(**{**it, "point": Point(**it["point"])}) for it in data["points"]),
            "costs": tuple(InstanceCost(**it) for it in data["costs"]),
            "skipped": tuple(Skipped(Point(**it["point"]), it["reason"]) for it in data["skipped"]),
        }
        profile = HardwareProfile(**{**data, **parsed})
    except (ValueError, TypeError, KeyError) as exc:
        raise SourceError(f"{path}: not a HardwareProfile: {exc}; run `tritonfleet measure` again") from exc
    if profile.schema != SCHEMA:
        raise SourceError(
            f"{path}: its schema is {profile.schema}, and this version reads {SCHEMA}; run `tritonfleet measure` again"
        )
    return profile
