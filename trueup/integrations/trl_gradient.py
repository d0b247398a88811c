"""The gradient of the trainer's loss: it reaches what is trained, and a tiny step along it lowers the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trueup.health.findings import Finding
from trueup.integrations.trl_bench import Batch, Bench
from trueup.preflight.direction import TRIES
from trueup.preflight.modes import moved
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.reach import DEAD_SHARE
from trueup.preflight.settings import LARGE, USUAL
from trueup.preflight.slope import NOTHING, Slope
from trueup.preflight.stride import stride

REACH, DIRECTION, RATE = "reach of the gradient", "direction of a tiny step", "learning rate"
REFERENCE = "F49, F50, F51 of the catalogue of silent failures"


def slope_of(bench: Bench, batch: Batch, training: bool) -> Slope:
    """The trainer's loss and its gradient; ``.grad`` of the parameters stays what it is."""
    look = bench.look(batch, training)
    if not look.loss.requires_grad:
        return Slope(float(look.loss), [None] * len(bench.leaves))
    found = torch.autograd.grad(look.loss, bench.leaves, allow_unused=True)
    return Slope(float(look.loss.detach()), [None if g is None else g.detach().float() for g in found])


def check_reach(bench: Bench) -> Outcome:
    """Every tensor that is trained has a gradient, at the start or after a small step, and all of it is finite."""
    names = [name for name, p in bench.model.named_parameters() if p.requires_grad]
    if not names:
        return made(REACH, "no tensor is trained", [_lost("no parameter of the model is trainable", 0)])
    batch = bench.batch(bench.few)
    first = slope_of(bench, batch, True)
    broken = [n for n, g in zip(names, first.gradients, strict=True) if g is not None and not bool(g.isfinite().all())]
    if broken or first.loss != first.loss:
        return made(REACH, "not finite", [_not_finite(broken, first.loss)])
    if first.norm == 0:
        return made(REACH, "no gradient at all", [_lost("the loss has no gradient in any of them", len(names))])
    dead = _without(names, first)
    if dead:  # an adapter's A has none while its B is 0
        with moved(bench.leaves, first.gradients, stride(bench.leaves, first)):
            dead = sorted(set(dead) & set(_without(names, slope_of(bench, batch, True))))
    told = f"{len(names) - len(dead)} of {len(names)} trained tensors have a gradient, all finite"
    return made(REACH, told, [_dead(dead, len(names))] if len(dead) > DEAD_SHARE * len(names) else [])


def check_direction(bench: Bench) -> Outcome:
    """Take the step, ask for the loss, and take it back."""
    if any(leaf.dtype in (torch.bfloat16, torch.float16) for leaf in bench.leaves):
        return skipped(DIRECTION, "weights in half precision round a tiny step away")
    if bench.trainer.args.bf16 or bench.trainer.args.fp16:
        return skipped(DIRECTION, "arithmetic in half precision rounds what a tiny step changes")
    batch = bench.batch(bench.few)
    slope = slope_of(bench, batch, False)
    if not slope.norm > NOTHING:
        return skipped(DIRECTION, "the first rows have no gradient to follow")
    fall = 0.0
    for share in TRIES:
        with moved(bench.leaves, slope.gradients, share * stride(bench.leaves, slope)), torch.no_grad():
            fall = slope.loss - float(bench.look(batch).loss)
        if fall > 0:
            return made(DIRECTION, f"loss falls by {fall:.0e}")
    message = f"A tiny step along the negative gradient does not lower the trainer's loss: it falls by {fall:.3g}."
    remedy = "Training would not do what the loss says: look for a detached term or a custom backward pass."
    finding = Finding("wrong-direction", "fatal", 0, message, remedy, {"loss_fall": fall}, "P8; F65, F94")
    return made(DIRECTION, "the wrong way", [finding])


def check_rate(bench: Bench) -> Outcome:
    """Compare the learning rate with what runs of the method usually have."""
    rate, size = bench.trainer.args.learning_rate, sum(p.numel() for p in bench.model.parameters())
    if size < LARGE:
        return skipped(RATE, f"usual rates are known for models of {LARGE // 10**6} M weights and more")
    adapted = hasattr(bench.model, "peft_config")
    low, high = USUAL[bench.method][adapted]
    told = f"{rate:g}; {bench.method} of {'adapters' if adapted else 'all weights'} usually has {low:g} to {high:g}"
    if low <= rate <= high:
        return made(RATE, told)
    remedy = (
        "Unless you chose it, set learning_rate inside this range: ten times too high, the loss reaches 0 and the "
        "model writes gibberish; far too low, nothing is learned."
    )
    evidence = {"learning_rate": rate, "low": low, "high": high}
    return made(
        RATE, told, [Finding("unusual-rate", "note", 0, f"The learning rate is {told}.", remedy, evidence, "F42")]
    )


def _without(names: Sequence[str], slope: Slope) -> list[str]:
    found = zip(names, slope.gradients, strict=True)
    return [name for name, gradient in found if gradient is None or not bool(torch.count_nonzero(gradient))]


def _lost(why: str, tensors: int) -> Finding:
    remedy = "Look for requires_grad = False, an adapter loaded for inference, or a detached hidden state."
    evidence = {"tensors": tensors}
    return Finding("gradient-lost", "fatal", 0, f"Nothing would be trained: {why}.", remedy, evidence, REFERENCE)


def _dead(names: Sequence[str], tensors: int) -> Finding:
    message = f"{len(names)} of {tensors} trained tensors get no gradient from the first rows: {', '.join(names[:3])}."
    remedy = "Freeze what should not train, or find what cuts the graph. Experts that no token chose are no fault."
    evidence = {"dead": list(names[:20]), "tensors": tensors}
    return Finding("gradient-missing", "warning", 0, message, remedy, evidence, REFERENCE)


def _not_finite(names: Sequence[str], loss: float) -> Finding:
    where = f" in {len(names)} tensors: {', '.join(names[:3])}" if names else ""
    message = f"The first loss is {loss:g}, its gradient not finite{where}."
    remedy = "Look at the weights, the rows of the first step, and the dtype: bf16 instead of fp16."
    evidence = {"tensors": list(names[:20]), "loss": loss}
    return Finding("gradient-not-finite", "fatal", 0, message, remedy, evidence, REFERENCE)
