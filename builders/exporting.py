"""Writes a package's export: the source's ONNX forms with their reference sets and signatures, or its folder of files.

Between `pipeline` and the sources: it knows what an export's folder must hold, they know how to make it.
"""

from pathlib import Path

from builders.forms import ExportRequest, save_forms
from builders.onnx.signature import save_signature, signature
from builders.sources.catalogue import Report, export
from builders.spec import BuildSpec

SIGNATURE_SUFFIX = ".signature.json"


def write_export(spec: BuildSpec, package: Path, out: Path, report: Report) -> None:
    """Write the export of `package` into the empty folder `out`. Raises BuildError."""
    report("export", 0, 0)
    request = ExportRequest(
        package=package,
        golden=None if spec.golden is None else package / spec.golden.file,
        inputs=tuple(shapes.range for shapes in spec.inputs),
        batch_sizes=tuple(sorted(set(spec.measure.batch_sizes))),
        max_batch_size=spec.max_batch_size,
        calibration=None if spec.calibration is None else package / spec.calibration.file,
    )
    forms = export(spec, request, out, report)
    if not forms:
        return
    save_forms(out, forms)
    for form in forms:
        save_signature(out / f"{form.name}{SIGNATURE_SUFFIX}", signature(out / form.onnx))
