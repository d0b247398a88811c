"""Randomness as a pure function of (seed, stream, index): nothing to save, nothing to restore."""

from __future__ import annotations

import hashlib
import random

import torch


def derive(seed: int, *stream: object) -> int:
    """Return a 63-bit seed for a named stream, for instance ``derive(0, "rollout", step)``."""
    text = "/".join(map(str, (seed, *stream)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *stream: object, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator for a named stream."""
    return torch.Generator(device=device).manual_seed(derive(seed, *stream))


def python_random(seed: int, *stream: object) -> random.Random:
    """Return a standard-library generator for a named stream."""
    return random.Random(derive(seed, *stream))


def seed_globally(seed: int, *stream: object) -> None:
    """Seed torch's global generator, which weight initialisation and dropout draw from."""
    torch.manual_seed(derive(seed, *stream))
