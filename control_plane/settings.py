"""How a control plane is set up: defaults, then `TRITONFLEET_*` environment variables, then what the caller gives.

Read by `bootstrap` and `cli`. What is unsafe or unknown is refused with the setting's name and what to give instead.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from control_plane.errors import SettingsError
from control_plane.mig.products import gpu_counts
from control_plane.tls import TlsFiles

ENV_PREFIX = "TRITONFLEET_"
CLIENT_URL_VARIABLE = "TRITONFLEET_URL"
OF_COMMANDS = (
    CLIENT_URL_VARIABLE,
    "TRITONFLEET_ARTIFACT_STORE",
    "TRITONFLEET_SIGNING_KEY",
    "TRITONFLEET_SIGNING_KEY_PEM",
    "TRITONFLEET_SIGNING_KEY_PASSWORD",
)
"""No settings of the control plane: what the commands that ask, build and sign read. They may stand beside them."""

SignaturePolicy = Literal["off", "warn", "require"]

Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """Every setting. Times are in seconds.

    `port` 0 takes a free one. The `triton_*_port` are those of the first server, and each further one has them three
    higher (8000, 8001, 8002; 8003, ...); left out, free ports are taken.

    `profiles` holds what `tritonfleet measure` measured: placement goes by the memory in it.

    `servers` are started on this machine; models may take `server_memory_bytes` of each, by default an even part of
    what the machine has where they run on CPUs.

    `servers_file` names further ones that run elsewhere (JSON, see `adapters.servers_file`). It is read again every
    `discovery_interval_s`, and the DNS names in it are asked for. A server whose address DNS names no more stays for
    `discovery_grace_s`: a headless Service lists ready pods only, and Kubernetes waits up to five minutes before it
    starts a crashing container again, or gives a lost node's pods up.

    `simulate` names made-up GPUs ("h100-80gb:2") whose slices are cut for deployments, each with a tritonserver of this
    machine. `agents` are those of machines with GPUs that are cut likewise ("gpu1=https://gpu1:8710,..."): both sides
    show a certificate of `agent_authority`; ours is `agent_certificate`, with `agent_key`. With either, no other server
    is started here. At most `moves_per_hour` replicas are moved for others. `warm` are slices kept ready with an empty
    server ("1g.10gb:2,..."); `defragment_after_s` has replicas moved together once nothing changed for so long.

    `signature_policy` says what becomes of a version that is not signed with the private part of `public_key` (a PEM
    file), or was altered since: nothing is looked at (`off`), it is told (`warn`), or it is never loaded (`require`).
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    token: SecretStr | None = None
    model_repository: Path = Path("model_repository")
    state_path: Path = Path(".tritonfleet/state.db")
    profiles: Path = Path(".tritonfleet/profiles")
    servers: Annotated[int, Field(ge=0, le=64)] = 1
    server_memory_bytes: Annotated[int, Field(ge=0)] | None = None
    servers_file: Path | None = None
    discovery_interval_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    discovery_grace_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    simulate: str | None = None
    agents: str = ""
    agent_authority: Path | None = None
    agent_certificate: Path | None = None
    agent_key: Path | None = None
    warm: str = ""
    defragment_after_s: Annotated[float, Field(ge=1, le=604_800)] | None = None
    moves_per_hour: Annotated[int, Field(ge=0, le=10_000)] = 12
    load_deadline_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    reconcile_interval_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    triton_http_port: Port | None = None
    triton_grpc_port: Port | None = None
    triton_metrics_port: Port | None = None
    signature_policy: SignaturePolicy = "off"
    public_key: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # another name: what it resolves to may change
            return False

    @property
    def embedded_servers(self) -> int:
        """How many servers are started beside those of slices."""
        return 0 if self.simulate is not None or self.agents else self.servers

    @property
    def agent_urls(self) -> dict[str, str]:
        """Where the agents answer, by their names."""
        pairs = (it.partition("=") for it in self.agents.split(",") if it)
        return {name: url for name, _, url in pairs}

    @property
    def warm_counts(self) -> dict[str, int]:
        """How many slices of each profile are kept ready."""
        return {name: int(count) for name, _, count in (it.partition(":") for it in self.warm.split(",") if it)}

    @field_validator("warm")
    @classmethod
    def _counted_profiles(cls, text: str) -> str:
        for it in text.split(",") if text else ():
            if not re.fullmatch(r"[1-9][\w.+-]*:[1-9]\d{0,3}", it):
                raise ValueError(
                    f"slices to keep ready are given as PROFILE:COUNT, such as 1g.10gb:2, and not as {it!r}"
                )
        return text

    def agent_files(self) -> TlsFiles:
        """Return the files to talk to agents with. SettingsError where one is not given."""
        files = {
            "AGENT_AUTHORITY": self.agent_authority,
            "AGENT_CERTIFICATE": self.agent_certificate,
            "AGENT_KEY": self.agent_key,
        }
        missing = ", ".join(f"{ENV_PREFIX}{name}" for name, path in files.items() if path is None)
        if self.agent_authority is None or self.agent_certificate is None or self.agent_key is None:
            raise SettingsError(
                f"Agents are talked to over mutual TLS: give {missing} too (`tritonfleet certificates` makes them)."
            )
        return TlsFiles(self.agent_authority, self.agent_certificate, self.agent_key)

    @field_validator("agents")
    @classmethod
    def _named_agents(cls, text: str) -> str:
        for it in text.split(",") if text else ():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}=https://[^\s,=]+", it):
                raise ValueError(f"an agent is given as NAME=https://HOST:PORT, and not as {it!r}")
        return text

    @field_validator("simulate")
    @classmethod
    def _known_gpus(cls, text: str | None) -> str | None:
        if text is not None:
            gpu_counts(text)
        return text

    @model_validator(mode="after")
    def _one_kind_of_servers(self) -> Self:
        if (self.simulate is not None or self.agents) and "servers" in self.model_fields_set and self.servers:
            raise ValueError("where GPUs are cut there is a server on each slice: leave SERVERS out, or at 0")
        return self

    def validate_binding(self) -> None:
        """Refuse to be open to other machines without a token, and a repository that is none. SettingsError."""
        if not self.is_loopback and (self.token is None or not self.token.get_secret_value()):
            raise SettingsError(
                f"Host {self.host} can be reached from other machines, and there is no token: set {ENV_PREFIX}TOKEN, "
                f"or leave {ENV_PREFIX}HOST at 127.0.0.1."
            )
        if not self.model_repository.is_dir():
            raise SettingsError(
                f"The model repository {self.model_repository} is no folder: give one with "
                f"{ENV_PREFIX}MODEL_REPOSITORY."
            )

    def validate_signatures(self) -> None:
        """Refuse to look at signatures without a key. SettingsError."""
        if self.signature_policy != "off" and self.public_key is None:
            raise SettingsError(
                f"{ENV_PREFIX}SIGNATURE_POLICY is {self.signature_policy}, and there is no key to verify with: give "
                f"the public key's file with {ENV_PREFIX}PUBLIC_KEY."
            )


def load_settings(given: Mapping[str, object] | None = None) -> Settings:
    """Return the settings from the environment, with `given` before it. Raises SettingsError naming every problem."""
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    others = {*known, *OF_COMMANDS}
    unknown = sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name not in others)
    if unknown:
        raise SettingsError(f"There is no setting {', '.join(unknown)}; there are: {', '.join(sorted(known))}.")
    try:
        settings = Settings(**(given or {}))  # type: ignore[arg-type]  # checked by pydantic, which is the point
    except ValidationError as exc:
        problems = [f"{ENV_PREFIX}{'.'.join(map(str, it['loc'])).upper()}: {it['msg']}" for it in exc.errors()]
        raise SettingsError("; ".join(problems) + ".") from exc
    settings.validate_signatures()
    return settings
