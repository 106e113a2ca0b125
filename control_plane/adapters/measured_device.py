"""Which slice of a GPU a measurement sees: the MIG profile behind CUDA_VISIBLE_DEVICES, through NVML."""

import re

_MIG_NAME = re.compile(r"\bMIG (\S+)")


def visible_mig_profile(visible: str) -> str:
    """Return the MIG profile ("1g.10gb") of the device that `visible` (CUDA_VISIBLE_DEVICES) begins with; else "".

    Where NVML cannot tell (no driver, no `nvidia-ml-py`), the answer is "" too.
    """
    uuid = visible.split(",", 1)[0].strip()
    if not uuid.startswith("MIG-"):
        return ""
    try:
        import pynvml  # noqa: PLC0415 - of the extra `gpu`
    except ImportError:
        return ""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ""
    try:
        return mig_profile_in(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByUUID(uuid)))
    except pynvml.NVMLError:
        return ""
    finally:
        pynvml.nvmlShutdown()


def mig_profile_in(device_name: str) -> str:
    """Return the profile in NVML's name of a MIG device ("NVIDIA A100-SXM4-40GB MIG 1g.5gb"), or ""."""
    found = _MIG_NAME.search(device_name)
    return found[1] if found is not None else ""
