"""The bodies of servers: registering one, and what is seen of each."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from control_plane.api.bodies import Body
from control_plane.api.wanted_schemas import NAME
from control_plane.state import ModelState, ServerCondition, Source


class EndpointsBody(Body):
    """Where a server listens, as host:port."""

    http: str
    grpc: str
    metrics: str


class ModelRow(Body):
    """One row of a server's repository index. `instances` is 0 where it is not known."""

    name: str
    version: int
    state: ModelState
    reason: str
    instances: int


class DeviceBody(Body):
    """A GPU or a MIG slice; `mig_profile` is empty for a whole GPU."""

    uuid: Annotated[str, Field(min_length=1, max_length=128)]
    product: Annotated[str, Field(max_length=128)] = ""
    compute_capability: Annotated[str, Field(pattern=r"^(\d{1,2}\.\d)?$")] = ""
    memory_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0
    mig_profile: Annotated[str, Field(pattern=r"^[a-z0-9.+]{0,32}$")] = ""


_Address = Annotated[str, Field(pattern=r"^[^\s/:]+:\d{1,5}$|^\[[0-9A-Fa-f:.]+\]:\d{1,5}$", max_length=300)]
_Word = Annotated[str, Field(pattern=NAME)]


# pydantic copies these for each body.
_BACKENDS = ["python", "onnxruntime"]
_NO_DEVICES: list[DeviceBody] = []
_NO_LABELS: dict[str, str] = {}


class NewServer(Body):
    """A Triton to command. It must be the control plane's own: what no deployment needs is unloaded from it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "gpu-7", "grpc": "10.0.0.7:8001", "http": "10.0.0.7:8000", "metrics": "10.0.0.7:8002"}]
        }
    )

    id: _Word
    grpc: _Address
    http: _Address
    metrics: _Address
    admin_key: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    backends: Annotated[list[_Word], Field(max_length=64)] = _BACKENDS
    devices: Annotated[list[DeviceBody], Field(max_length=64)] = _NO_DEVICES
    memory_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0
    repository: Annotated[str, Field(max_length=4096, pattern=r"^(/.*)?$")] = Field(
        default="",
        description="Folder of this machine that the server loads from, to which versions are copied; empty where it "
        "reads the model repository itself.",
    )
    pool: _Word = "default"
    labels: Annotated[dict[_Word, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = _NO_LABELS

    @model_validator(mode="after")
    def _one_slice(self) -> Self:
        slices = [device for device in self.devices if device.mig_profile]
        if slices and len(self.devices) > 1:
            raise ValueError("a tritonserver sees one MIG slice, or whole GPUs: give one slice and nothing else")
        return self


class DrainBody(Body):
    """Why a server is drained."""

    reason: Annotated[str, Field(max_length=500)] = "an operator drains it"


class ServerBody(Body):
    """A server as it was last observed; `detail` says why it is not healthy, `since` since when it is unreachable.

    `source` is where it comes from: started here, registered through the API, named by the servers file, or one of the
    addresses of a DNS name in that file. Only a registered one can be forgotten through the API.

    `quarantined` are models that are not loaded there any more, and why. `backends` are those that it was registered
    with or runs something by, without those that it said it `lacks`. `memory_used_bytes` is null where nobody tells;
    `memory_missing_bytes` did not come back after unloads and failed loads.
    """

    id: str
    source: Source
    condition: ServerCondition
    detail: str
    since: datetime | None
    pool: str
    labels: dict[str, str]
    devices: list[DeviceBody]
    memory_bytes: int
    memory_used_bytes: int | None
    memory_missing_bytes: int
    backends: list[str]
    lacks: list[str]
    triton_version: str
    endpoints: EndpointsBody
    models: list[ModelRow]
    quarantined: dict[str, str]


class ServerList(Body):
    """Every server. `observed_at` is null until the first look ended.

    `problems` is what is wrong with the servers file and the DNS names in it; what was found last holds meanwhile.
    """

    observed_at: datetime | None
    servers: list[ServerBody]
    problems: list[str]
