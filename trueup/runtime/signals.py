"""Ctrl-C and SIGTERM, handled for the length of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)
"""The signals by which a user or a scheduler asks a process to stop."""


@contextmanager
def on_stop(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let ``handler(number, frame)`` answer ``STOPS`` inside the block; the handlers before come back after it.

    Only the main thread may set handlers: in any other the block runs with those that are there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOPS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
