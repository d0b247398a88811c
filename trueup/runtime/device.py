"""Devices and threads."""

from __future__ import annotations

import torch

from trueup.errors import UserError


def prepare(device: str, threads: int | None) -> torch.device:
    """Set the CPU threads (None keeps torch's choice) and return the device to train on."""
    if threads is not None:
        torch.set_num_threads(threads)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("run.device: cuda was asked for and no CUDA device is available; use --run.device cpu")
    try:
        found = torch.device(name)
    except RuntimeError:
        raise UserError(f"run.device: '{device}' is not a device; use auto, cpu or cuda") from None
    # Reproducible kernels: a run must be a function of its config and seed.
    torch.use_deterministic_algorithms(True, warn_only=True)
    return found
