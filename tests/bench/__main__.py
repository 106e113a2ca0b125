"""`python -m tests.bench` (`make bench`): every bench, one after another; the exit code says whether one failed.

Names after it choose: `python -m tests.bench reload_under_load`. Takes about three quarters of an hour on two cores.
"""

import subprocess
import sys

BENCHES = (
    "text_embedding",
    "reload_under_load",
    "onnx_conformance",
    "encoder_peers",
    "deploy_overhead",
    "fleet_scale",
    "sizing",
    "reconfiguration",
    "live_placement",
)


def main() -> int:
    """Run the chosen benches in processes of their own; return how many failed."""
    chosen = sys.argv[1:] or list(BENCHES)
    unknown = sorted(set(chosen) - set(BENCHES))
    if unknown:
        sys.stderr.write(f"no bench {', '.join(unknown)}; there are: {', '.join(BENCHES)}\n")
        return 2
    failed = []
    for name in chosen:
        sys.stdout.write(f"\n== {name}\n")
        sys.stdout.flush()
        if subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        sys.stdout.write(f"\nfailed: {', '.join(failed)}\n")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
