"""Rules that make Triton refuse a config with nothing but "failed to poll from model repository", checked beforehand.

Pure. Triton writes the reason to its log alone (`model_config_utils.cc`, `ValidateModelConfig`) or dies of it, so the
control plane and `tritonfleet build` ask here first and tell the user. Every rule was measured on Triton 2.51 (release
24.10); `tests/contract/test_config_validation.py` asks the real server again. What depends on more than the config is
left to the server: GPUs and backends that are there, files beside the config, the configs of an ensemble's members.
"""

from builders.model_config import ModelConfig
from builders.validate import batching, ensembles, general, tensors, warmups


def config_problems(config: ModelConfig, *, package: str) -> list[str]:
    """Return what is wrong with `config` as the config of the folder `package`: one sentence each, in a fixed order."""
    return [
        *general.problems(config, package),
        *tensors.problems(config),
        *batching.problems(config),
        *warmups.problems(config),
        *ensembles.problems(config, package),
    ]
