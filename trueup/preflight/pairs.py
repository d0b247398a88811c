"""What the pairs alone say before training: identical sides, empty responses."""

from __future__ import annotations

from trueup.data.encode import EncodedSet
from trueup.data.store import response_lengths_of
from trueup.health.findings import Finding

REFERENCE = "seed audit 1.3; rule D01 of the specification"


def pair_findings(data: EncodedSet) -> list[Finding]:
    """Report pairs that were identical and left out, and responses that are nothing but a terminator."""
    findings = []
    identical = sum(count for reason, count in data.dropped.items() if reason.startswith("identical"))
    if identical:
        share = identical / (identical + len(data))
        number = f"{identical} of {identical + len(data)} pairs ({share:.1%})"
        message = f"{number} had identical chosen and rejected responses and were left out."
        remedy = "They carry no gradient. If many: check how the rejected side was sampled."
        severity = "warning" if share >= 0.01 else "note"
        findings.append(Finding("identical-pairs", severity, 0, message, remedy, {"pairs": identical}, REFERENCE))
    sides = response_lengths_of(data.trees).reshape(len(data), 2)
    empty = int((sides <= 1).any(axis=1).sum())
    if empty:
        message = f"In {empty} of {len(data)} pairs a side is nothing but its terminator."
        remedy = "Remove them, unless saying nothing is an answer you want to teach or to punish."
        findings.append(Finding("empty-responses", "warning", 0, message, remedy, {"pairs": empty}, REFERENCE))
    return findings
