"""Is model A better than model B? Scores of the same prompts under three seeds, an interval, a verdict.

python examples/compare_two_models.py
"""

from __future__ import annotations

import numpy as np

from trueup.stats.crossed import crossed_effect
from trueup.stats.verdicts import verdict

rng = np.random.default_rng(0)
seeds, prompts = 3, 200
difficulty = rng.normal(size=prompts)
a = difficulty + 0.25 + rng.normal(scale=0.05, size=(seeds, 1)) + rng.normal(scale=0.5, size=(seeds, prompts))
b = difficulty + rng.normal(scale=0.05, size=(seeds, 1)) + rng.normal(scale=0.5, size=(seeds, prompts))

effect = crossed_effect(a - b)
print(f"A - B = {effect.estimate:.2f} [{effect.low:.2f}, {effect.high:.2f}], p = {effect.p:.4f}")
print("A is", verdict(effect, effect.p, margin=0.1), "(against B, smallest difference that matters: 0.1)")
