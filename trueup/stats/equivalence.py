"""Evidence that two arms do *not* differ by more than matters."""

from __future__ import annotations

import math

from scipy import special

from trueup.errors import UserError


def tost(estimate: float, se: float, df: float, margin: float) -> float:
    """P-value of two one-sided t tests (Schuirmann 1987): a small one says -margin < true effect < margin.

    ``p = max(P(T > (estimate + margin) / se), P(T < (estimate - margin) / se))``; p < alpha exactly when the interval
    of level 1 - 2 alpha lies within the margins. "Not significantly different" is no substitute: any two arms are that
    on few enough prompts.

    Args:
        estimate: the effect.
        se: its standard error.
        df: degrees of freedom of the standard error.
        margin: smallest effect that matters, > 0, in the unit of the estimate; declared before the data were seen.

    Returns:
        The p-value; with se = 0 it is 0 inside the margins, else 1; NaN where the error is unknown.
    """
    if not margin > 0:
        raise UserError(f"the margin of equivalence is {margin}: give the smallest effect that matters, above 0")
    if se == 0:
        return 0.0 if abs(estimate) < margin else 1.0
    if not df > 0:
        return math.nan
    # The nearer margin decides: the larger of the two p-values is the one whose distance is smaller.
    return float(special.stdtr(df, (abs(estimate) - margin) / se))
