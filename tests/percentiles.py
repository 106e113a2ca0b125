"""One percentile for every bench and test, so that figures can be compared."""

from collections.abc import Sequence

import numpy as np


def percentile(values: Sequence[float], q: float) -> float:
    """Return the `q`-th percentile (0 to 100) of `values`: an observed value, never an interpolated one."""
    return float(np.percentile(np.asarray(values), q, method="higher"))
