"""The catalog's entries for losses on single responses and on tokens.

Notation: r = log π - log π_ref of a response, summed over tokens, nats; ρ = π/π_old of a token; A an advantage; v a
value, R a return; sg stops the gradient.
"""

from __future__ import annotations

import math

from trueup.losses import policy, unpaired
from trueup.losses.entry import Loss, Paper

NO_ONE_VALUE = "at policy = behaviour it is minus each token's advantage"

# fmt: off
# The entries are a table: one argument per line would hide it.
UNPAIRED: tuple[Loss, ...] = (
    Loss(
        "kto", unpaired.kto, "unpaired", True, "sequence",
        Paper("Ethayarajh et al.", 2024, "2402.01306", "Eq. 7 and 8"),
        "desirable: λ_D σ(-β (r - z)); undesirable: λ_U σ(β (r - z)); z an estimate of KL(π, π_ref)",
        # of a desirable response, with z = 0
        at_reference=lambda desirable_weight: 0.5 * desirable_weight, chosen_gradient=-1, default_beta=0.1,
        options=frozenset({"desirable_weight", "undesirable_weight"}),
    ),
    Loss(
        "bco", unpaired.bco, "unpaired", True, "sequence",
        Paper("Jung et al.", 2024, "2404.04656", "Section 4"),
        "desirable: -log σ(β r - δ); undesirable: -log σ(-(β r - δ)); δ the running mean of β r",
        at_reference=math.log(2.0), chosen_gradient=-1, default_beta=0.1, running_mean=True,
    ),
)

POLICY: tuple[Loss, ...] = (
    Loss(
        "clipped_surrogate", policy.clipped_surrogate, "policy", False, "token",
        Paper("Schulman et al.", 2017, "1707.06347", "Eq. 7"),
        "-min(ρ A, clip(ρ, 1 - low, 1 + high) A)",
        at_reference=None, chosen_gradient=-1, default_beta=None, options=frozenset({"low", "high", "delta"}),
        no_value=NO_ONE_VALUE,
    ),
    Loss(
        "cispo", policy.cispo, "policy", False, "token",
        Paper("MiniMax", 2025, "2506.13585", "Eq. 4 and 5"),
        "-sg(clip(ρ, 1 - low, 1 + high)) A log π",
        at_reference=None, chosen_gradient=-1, default_beta=None, options=frozenset({"low", "high"}),
        no_value="at policy = behaviour it is minus each token's advantage times its log-probability",
    ),
    Loss(
        "clipped_value", policy.clipped_value, "policy", False, "token",
        Paper("Engstrom et al.", 2020, "2005.12729"),
        "½ max((v - R)², (v_old + clip(v - v_old, -c, c) - R)²), c = clip",
        at_reference=None, chosen_gradient=None, default_beta=None, options=frozenset({"clip"}),
        no_value="it compares values with returns, not a policy with a reference",
    ),
)
