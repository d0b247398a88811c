"""The clock: durations, for journals and reports. No result may depend on it."""

from __future__ import annotations

import time


def seconds() -> float:
    """Seconds since some fixed moment; only differences mean something."""
    return time.perf_counter()
