"""The trainer's forward pass: the same twice, the same alone and in company, and blind to padding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from trueup.health.findings import Finding
from trueup.integrations.trl_bench import MEANS, Batch, Bench
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.repeat import COMMON, dropouts, of_adapter

REPEAT, COMPANY, PADDING = "repeated forward pass", "rows alone and in a batch", "garbage in padding"
NOISE = 1e-6
"""What a repeated forward pass may differ by, where nothing is random."""


def check_repeat(bench: Bench) -> Outcome:
    """The same batch twice in training mode: what differs is noise that the loss is trained on."""
    batch = bench.batch(bench.few[:2])
    gap = _gap(bench.means(batch, training=True), bench.means(batch, training=True))
    places = dropouts(bench.model)
    told = f"training mode, twice: largest difference {gap:.0e}"
    if gap <= NOISE and not places:
        return made(REPEAT, told)
    where = f"dropout of {max(places.values()):g} in {len(places)} modules" if places else "dropout inside attention"
    message = f"The same rows in training mode differ by up to {gap:.3g}: {where}."
    if bench.method in COMMON or (places and all(map(of_adapter, places))):
        severity, remedy = "note", "Fine as regularisation; metrics of training steps are noisier than those of eval."
    else:
        severity = "warning"
        remedy = "The reference has none, so the noise counts as a difference of policies: disable_dropout=True in the "
        remedy += "trainer's configuration, or lora_dropout=0."
    evidence = {"largest_difference": gap, "modules": sorted(places)[:10]}
    return made(REPEAT, told, [Finding("dropout-on", severity, 0, message, remedy, evidence, "P2; F34")])


def check_company(bench: Bench) -> Outcome:
    """What the trainer logs of a batch is the mean of what it logs of its rows one by one."""
    if len(bench.few) < 2:
        return skipped(COMPANY, "one row")
    together = bench.means(bench.batch(bench.few))
    sums: dict[str, tuple[float, float]] = {}
    for number in bench.few:
        batch = bench.batch([number])
        for name, value in bench.means(batch).items():
            weight, total = _weight(bench, name, batch), sums.get(name, (0.0, 0.0))
            if weight:
                sums[name] = total[0] + weight * value, total[1] + weight
    apart = {name: total / weight for name, (total, weight) in sums.items() if name in MEANS[bench.method]}
    gap = _gap({name: together[name] for name in apart}, apart)
    told = f"{len(bench.few)} rows together against alone: {gap:.0e} (relative above 1)"
    if gap <= bench.tolerance:
        return made(COMPANY, told)
    message = f"What the model says of rows changes by {gap:.3g} with what else is in their batch ({', '.join(apart)})."
    remedy = "Padding or position ids leak: look at the collator's attention_mask, the padding side and the attention."
    evidence = {"largest_difference": gap}
    return made(COMPANY, told, [Finding("batch-dependent", "fatal", 0, message, remedy, evidence, "P6; F31, F70")])


def check_padding(bench: Bench) -> Outcome:
    """Other tokens in the padding of a batch move nothing."""
    if bench.method == "reward":
        return skipped(PADDING, "the score is read where the padding token begins: rows alone and in a batch tell")
    batch = bench.batch(bench.few)
    dirty = {name: _dirty(batch, name, value, _vocabulary(bench)) for name, value in batch.items()}
    changed = sum(int((dirty[name] != batch[name]).sum()) for name in dirty if name.endswith("ids"))
    if not changed:
        return skipped(PADDING, "these rows have no padding")
    gap = _gap(bench.means(batch), bench.means(dirty))
    told = f"{changed} padded places: loss and metrics move by {gap:.0e}"
    if gap <= bench.tolerance:
        return made(PADDING, told)
    message = f"Other tokens in padding move the loss or what is logged of the rows by {gap:.3g}."
    remedy = "Padding leaks into the loss: look at the collator's attention_mask and completion_mask."
    evidence = {"largest_difference": gap, "padding": changed}
    return made(PADDING, told, [Finding("padding-leak", "fatal", 0, message, remedy, evidence, "P5; F28, F86")])


def _dirty(batch: Batch, name: str, value: Any, vocabulary: int) -> Any:
    """Ids with garbage where the mask that goes with them is 0; everything else as it is."""
    mask = next((batch[m] for m in (_mask_of(name), "attention_mask") if m in batch), None)
    if name not in _MASKS or mask is None or mask.shape != value.shape:
        return value
    places = torch.arange(value.numel(), device=value.device).view_as(value)
    return torch.where(mask == 0, (7 * places + 5) % vocabulary, value)


_MASKS: Mapping[str, str] = {
    "input_ids": "attention_mask",
    "KL_input_ids": "KL_attention_mask",
    "prompt_ids": "prompt_mask",
    "completion_ids": "completion_mask",
}


def _mask_of(name: str) -> str:
    return _MASKS.get(name, "")


def _vocabulary(bench: Bench) -> int:
    model: Any = bench.model
    return int(model.get_input_embeddings().weight.shape[0])


def _weight(bench: Bench, name: str, batch: Batch) -> float:
    """What a metric's mean counts: tokens, responses of a label, or rows."""
    if name == "entropy":
        mask = batch["labels"] != -100 if "labels" in batch else batch["completion_mask"]
        return float(mask.sum())
    if bench.method == "kto":
        return float((batch["label"] == ("chosen" in name)).sum())
    return 1.0


def _gap(one: Mapping[str, float], two: Mapping[str, float]) -> float:
    """The largest difference, relative where numbers are above 1; NaN on one side alone counts as infinite."""
    return max((_distance(one[name], two[name]) for name in one if name in two), default=0.0)


def _distance(one: float, two: float) -> float:
    if math.isnan(one) or math.isnan(two):
        return 0.0 if math.isnan(one) and math.isnan(two) else math.inf
    return abs(one - two) / max(1.0, abs(one)) if one != two else 0.0
