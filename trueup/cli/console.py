"""Consoles that go on when nobody reads them any more."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console


class _Patient(Console):
    def on_broken_pipe(self) -> None:
        """Fall silent; rich's own way is to end the process, and a run is worth more than its display."""
        self.quiet = True
        silence(self.file)


def open_console(stderr: bool = False) -> Console:
    """A console on stdout or stderr; when its reader has gone (``| head``), what is printed goes nowhere."""
    return _Patient(stderr=stderr, highlight=False)


def silence(stream: IO[str]) -> None:
    """Send nowhere what else is written to a stream, and what is still in its buffer when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
