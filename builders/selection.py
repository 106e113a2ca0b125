"""Which of a version's targets a server loads: right architecture, right versions, proven. Pure.

`manifest` has the targets, `releases` says what a Triton release can open. The answer is a choice or a refusal that
says for every target why not; nobody is asked to load what would fail.

The rule of precision: a lower one is never chosen by itself. Without a wish, a server gets the most precise target that
was built for its device, and one with a GPU gets the CPU's only where nothing is for the GPU; a deployment that wishes
other precisions names them, best first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from builders.manifest import ManifestTarget
from builders.releases import TritonRelease, engine_problem, onnx_problem, version_parts
from builders.targets import PRECISIONS, RUNTIMES, Precision, Runtime, Target, target_problem

_RUNTIME_ORDER: tuple[Runtime, ...] = ("tensorrt", "tensorrt_rtx", "onnxruntime")
_USUAL: Mapping[str, tuple[Precision, ...]] = {"cpu": ("fp32",), "cuda": ("fp32",)}
_DEVICE_ORDER = {"cuda": 0, "cpu": 1}
_FIRST_AMPERE = (8, 0)

HARDWARE_COMPATIBLE = "hardware_compatible"
"""Option of an engine: absent, "ampere_plus" or "same_compute_capability", TensorRT's HardwareCompatibilityLevel."""
VERSION_COMPATIBLE = "version_compatible"
"""Option of an engine: "true" where it was built so."""
IR_VERSION = "ir_version"
"""Option of an ONNX file: its IR version. Where it or the opset is absent, neither is compared."""
OPSET = "opset"
"""Option of an ONNX file: its opset of the default domain."""

# The TensorRT backend's README: such an engine holds code for the host, which the backend runs only when told to.
_NOT_COMPATIBLE = (
    "the engine is version-compatible, and the server does not take such engines: start tritonserver with "
    "--backend-config=tensorrt,version-compatible=true"
)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server has. `compute_capabilities` are those of its GPUs, as "8.9"; empty for a server on a CPU.

    `versions` are of runtimes on the server, as far as they are known otherwise than from the release: `tensorrt`,
    `tensorrt_rtx`, `onnxruntime` (a Python-based backend runs whatever is installed beside it). `version_compatible`
    says whether its TensorRT backend was started to take version-compatible engines: it refuses them otherwise.
    """

    compute_capabilities: tuple[str, ...] = ()
    release: TritonRelease | None = None
    backends: frozenset[str] = frozenset()
    versions: Mapping[str, str] = field(default_factory=dict)
    version_compatible: bool = False

    @property
    def runtimes(self) -> TritonRelease:
        """The release with the versions that are known better."""
        release = self.release or TritonRelease("")
        return replace(
            release,
            tensorrt=self.versions.get("tensorrt", release.tensorrt),
            onnxruntime=self.versions.get("onnxruntime", release.onnxruntime),
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The target to load, by its name in the manifest, and why each other one was passed over."""

    name: str
    target: Target
    entry: ManifestTarget
    passed_over: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing of the version can be loaded there: one sentence, and the cause of each target by name."""

    sentence: str
    causes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    target: Target
    made: ManifestTarget

    @property
    def on_cpu(self) -> bool:
        return self.target.device == "cpu"


def parse_target(name: str) -> Target | None:
    """Return the target in a manifest's name, as "tensorrt-sm_89-fp16" or "tensorrt-sm_89-fp16@10.5.0.18"."""
    for runtime in RUNTIMES:
        device, _, precision = name.partition("@")[0].removeprefix(f"{runtime}-").rpartition("-")
        for known in PRECISIONS:
            if precision == known and name.startswith(f"{runtime}-") and device and "-" not in device:
                return Target(runtime, device, known)
    return None


def select(
    targets: Mapping[str, ManifestTarget],
    server: ServerFacts,
    *,
    precisions: Sequence[Precision] = (),
    allow_unproven: bool = False,
) -> Choice | Refusal:
    """Choose among a version's targets for a server. `precisions` are those that will do, best first.

    A version without targets has nothing to choose: its files serve everywhere, and nobody asks here.

    Of what fits, in this order: the precision wished most, or without a wish what is for the GPU; TensorRT before
    TensorRT-RTX before ONNX Runtime on CUDA before ONNX Runtime on the CPU; an engine for the very architecture before
    a hardware-compatible one; a plain engine before a version-compatible one; proven before unproven; the newest
    TensorRT.
    """
    entries = [_Entry(name, target, made) for name, made in targets.items() if (target := parse_target(name))]
    wishes = {on_cpu: tuple(precisions) or _most_precise(entries, server, on_cpu=on_cpu) for on_cpu in (False, True)}
    causes = {name: "is no target that this release of Tritonfleet knows" for name in targets if not parse_target(name)}
    fitting = []
    for entry in entries:
        cause = _architecture_problem(entry.target, entry.made, server.compute_capabilities)
        if cause is None and entry.target.precision not in wishes[entry.on_cpu]:
            wish = " or ".join(wishes[entry.on_cpu])
            why = "wished" if precisions else "the most precise for the device, and no other is wished"
            cause = f"is {entry.target.precision}; {wish} is {why}"
        if cause is None:
            cause = _cause(entry, server, allow_unproven=allow_unproven)
        if cause is None:
            fitting.append(entry)
        else:
            causes[entry.name] = cause
    if not fitting:
        told = dict(sorted(causes.items()))
        listed = "; ".join(f"{name} {cause}" for name, cause in told.items())
        advice = _advice(entries, server, precisions)
        return Refusal(f"no target of the version fits the server: {listed or 'it has none'}{advice}", told)
    fitting.sort(key=lambda entry: (entry.on_cpu and not precisions, _rank(entry, server, wishes[entry.on_cpu])))
    best = fitting[0]
    causes |= {entry.name: f"fits too; {best.name} comes first" for entry in fitting[1:]}
    return Choice(best.name, best.target, best.made, dict(sorted(causes.items())))


def cc_model_filenames(filenames: Mapping[str, str], name: str) -> dict[str, str]:
    """Return ModelConfig's `cc_model_filenames` for the target `name` of a version with these files by target.

    They are its TensorRT engines of the same precision, by architecture; of several for one the target itself, else the
    first by name, for `select` tells them apart by the server. Empty where the target is no engine.
    """
    own = parse_target(name)
    if own is None or own.runtime != "tensorrt":
        return {}
    found: dict[str, str] = {own.compute_capability or "": filenames[name]}
    for other, filename in sorted(filenames.items()):
        target = parse_target(other)
        if target is not None and (target.runtime, target.precision) == (own.runtime, own.precision):
            found.setdefault(target.compute_capability or "", filename)
    return dict(sorted(found.items()))


def _advice(entries: Sequence[_Entry], server: ServerFacts, precisions: Sequence[Precision]) -> str:
    """Return what to build for the server, as the end of a refusal; "" where what is built for it has another fault."""
    wanted = target_for(server, precisions)
    for_it = (
        entry.target.runtime in server.backends
        and (not precisions or entry.target.precision in precisions)
        and _architecture_problem(entry.target, entry.made, server.compute_capabilities) is None
        for entry in entries
    )
    return "" if wanted is None or not entries or any(for_it) else f"; build {wanted} for it"


def target_for(server: ServerFacts, precisions: Sequence[Precision] = ()) -> Target | None:
    """Return the target to build for a server of the runtimes that it has; None where there is none that it could load.

    On GPUs of one architecture an engine, on others what runs on any of them, and on a CPU what is for CPUs; in the
    precision that is wished most, or without a wish in the one that is usual there.
    """
    capabilities = set(server.compute_capabilities)
    own = [f"sm_{it.replace('.', '')}" for it in capabilities] if len(capabilities) == 1 else []
    for device in (*own, *(["cuda"] if capabilities else []), "cpu"):
        for runtime in (it for it in _RUNTIME_ORDER if it in server.backends):
            for precision in precisions or _USUAL.get(device, ("fp16", "fp32")):
                target = Target(runtime, device, precision)
                if target_problem(target) is None:
                    return target
    return None


def _cause(entry: _Entry, server: ServerFacts, *, allow_unproven: bool) -> str | None:
    """Return why a server of the right architecture does not load a target; None where it can."""
    target, made = entry.target, entry.made
    if target.runtime not in server.backends:
        return f"needs the backend {target.runtime}, which the server does not have"
    runtime = _runtime_problem(target, made, server)
    if runtime is not None:
        return f"cannot be loaded: {runtime}"
    if not made.proven and not allow_unproven:
        return f"is unproven ({made.unproven}), and the deployment does not allow that"
    return None


def _architecture_problem(target: Target, made: ManifestTarget, capabilities: Sequence[str]) -> str | None:
    own = target.compute_capability
    if own is None:
        if target.device == "cpu" or capabilities:
            return None
        return "needs an NVIDIA GPU, and the server has none"
    if not capabilities:
        return f"is for a GPU of {target.device}, and the server has no GPU"
    strangers = [it for it in capabilities if not _runs_on(own, it, made)]
    if strangers:
        return f"is for a GPU of compute capability {own}, and the server has {', '.join(sorted(set(strangers)))}"
    return None


def _runs_on(own: str, capability: str, made: ManifestTarget) -> bool:
    if capability == own:
        return True
    ampere_plus = made.options.get(HARDWARE_COMPATIBLE) == "ampere_plus"
    return ampere_plus and min(version_parts(own), version_parts(capability)) >= _FIRST_AMPERE


def _runtime_problem(target: Target, made: ManifestTarget, server: ServerFacts) -> str | None:
    match target.runtime:
        case "tensorrt":
            version = made.toolchain.get("tensorrt")
            if version is None:
                return "the manifest does not say of which TensorRT it is; publish the version again"
            compatible = made.options.get(VERSION_COMPATIBLE) == "true"
            problem = engine_problem(version, version_compatible=compatible, release=server.runtimes)
            return problem or (_NOT_COMPATIBLE if compatible and not server.version_compatible else None)
        case "tensorrt_rtx":
            return _rtx_problem(made.toolchain.get("tensorrt_rtx"), server.versions.get("tensorrt_rtx"))
        case "onnxruntime":
            ir_version, opset = made.options.get(IR_VERSION, ""), made.options.get(OPSET, "")
            if not (ir_version.isdecimal() and opset.isdecimal()):
                return None
            return onnx_problem(int(ir_version), int(opset), server.runtimes)


def _rtx_problem(engine: str | None, server: str | None) -> str | None:
    # An engine loads on the very release that made it (TensorRT-RTX documentation, "Engine Compatibility").
    if server is None or engine == server:
        return None
    return f"the engine is of TensorRT-RTX {engine}; the server has {server}: build it with TensorRT-RTX {server}"


def _most_precise(entries: Iterable[_Entry], server: ServerFacts, *, on_cpu: bool) -> tuple[Precision, ...]:
    """Return the most precise precision of what was built for the server's CPU, or for its GPUs."""
    present = {
        entry.target.precision
        for entry in entries
        if entry.on_cpu == on_cpu
        and _architecture_problem(entry.target, entry.made, server.compute_capabilities) is None
    }
    return tuple(precision for precision in PRECISIONS if precision in present)[:1]


def _rank(entry: _Entry, server: ServerFacts, wished: Sequence[Precision]) -> tuple[object, ...]:
    target, made = entry.target, entry.made
    return (
        list(wished).index(target.precision),
        _RUNTIME_ORDER.index(target.runtime),
        _DEVICE_ORDER.get(target.device, 0),
        any(it != target.compute_capability for it in server.compute_capabilities),
        made.options.get(VERSION_COMPATIBLE) == "true",
        not made.proven,
        [-part for part in version_parts(made.toolchain.get(target.runtime, ""))],
        entry.name,
    )
