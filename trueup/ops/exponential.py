"""The exponential function with a finite gradient far to the right: log-ratios of responses reach hundreds of nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EXPONENT_LIMIT = 40.0
"""Nats. exp(40)² is still a float32, so a gradient norm over such terms is finite too."""


def tangent_exp(x: Tensor) -> Tensor:
    """Return exp(x), continued along its tangent beyond ``EXPONENT_LIMIT``.

    A clamp would keep the value finite too, but its gradient is zero exactly where a correction is most needed;
    the tangent keeps the sign.
    """
    return torch.where(x > EXPONENT_LIMIT, _tangent(x), x.clamp(max=EXPONENT_LIMIT).exp())


def tangent_expm1(x: Tensor) -> Tensor:
    """Return exp(x) - 1, accurate near zero, continued along its tangent beyond ``EXPONENT_LIMIT``."""
    return torch.where(x > EXPONENT_LIMIT, _tangent(x) - 1.0, x.clamp(max=EXPONENT_LIMIT).expm1())


def _tangent(x: Tensor) -> Tensor:
    # Chosen by torch.where, not added as exp(40) · (x - clamped x): there two slopes of 2e17 would cancel inside the
    # backward pass and swallow the slope of the exponential.
    return math.exp(EXPONENT_LIMIT) * (1.0 + x - EXPONENT_LIMIT)
