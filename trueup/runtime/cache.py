"""Where things that can be computed again are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$TRUEUP_CACHE``, else ``trueup`` in the user's cache directory; nothing is created."""
    if chosen := os.environ.get("TRUEUP_CACHE"):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "trueup"
