"""The conformance kit on functions of the DPO family: right ones conform, and each wrong one is told its own fault."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trueup.errors import UserError
from trueup.losses.preference import sigmoid
from trueup.losses.ranking import bradley_terry
from trueup.ops.logprobs import Head, linear_token_logps
from trueup.preflight.conformance.call import load
from trueup.preflight.conformance.kit import KINDS, check, close
from trueup.types import PairLogps

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import my_dpo

OURS = ("token_logps", "dpo_loss", "reward_loss")


def picked(logits: Tensor, ids: Tensor) -> Tensor:
    """Right log-probabilities of every token but the first."""
    return logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)


def logps(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return (picked(logits, ids) * mask[:, 1:]).sum(1)


def margin(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor) -> Tensor:
    return (pc - pr) - (rc - rr)


def no_shift(logits, ids, mask):
    return (logits.log_softmax(-1).gather(2, ids[..., None]).squeeze(2) * mask).sum(1)


def rolled(logits, ids, mask):
    values = logits.log_softmax(-1).gather(2, ids.roll(-1, 1)[..., None]).squeeze(2)
    return (values * mask.roll(-1, 1)).sum(1)


def rolled_mask_kept(logits, ids, mask):
    return (logits.log_softmax(-1).gather(2, ids.roll(-1, 1)[..., None]).squeeze(2) * mask).sum(1)


def shifted_twice(logits, ids, mask):
    return (logits[:, :-2].log_softmax(-1).gather(2, ids[:, 2:, None]).squeeze(2) * mask[:, 2:]).sum(1)


def to_the_last(mask):
    return mask.flip(1).int().cummax(1)[0].flip(1).bool()


def without_last(mask):
    order = mask.cumsum(1)
    return mask & (order < order.amax(1, keepdim=True))


def without_first(mask):
    return mask & (mask.cumsum(1) > 1)


def written_over(logits, ids, mask):
    result = logps(logits, ids.clone(), mask.clone())
    ids[~mask] = 0
    return result


def written_over_too_soon(logits, ids, mask):
    kept = mask.float()
    result = logps(logits, ids, kept)
    kept.zero_()
    return result


def squeezed(logits, ids, mask):
    return (picked(logits, ids).squeeze() * mask[:, 1:].squeeze()).sum(-1).reshape(-1).squeeze()


def in_bfloat16(logits, ids, mask):
    values = logits[:, :-1].bfloat16().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    return (values * mask[:, 1:]).sum(1).float()


def masked_by_product(logits, ids, mask):
    return logps(logits, ids, mask) * (mask.sum(1) / mask.sum(1))


LOGPS = {
    "mask-unshifted": lambda logits, ids, mask: (picked(logits, ids) * mask[:, :-1]).sum(1),
    "no-shift": no_shift,
    "double-shift": shifted_twice,
    "rolled": rolled_mask_kept,
    "shifted-backwards": lambda logits, ids, mask: (
        logits[:, 1:].log_softmax(-1).gather(2, ids[:, :-1, None]).squeeze(2) * mask[:, :-1]
    ).sum(1),
    "prompt-counted": lambda logits, ids, mask: logps(logits, ids, to_the_last(mask)),
    "padding-counted": lambda logits, ids, mask: logps(logits, ids, mask.int().cummax(1)[0].bool()),
    "mask-ignored": lambda logits, ids, mask: picked(logits, ids).sum(1),
    "mask-inverted": lambda logits, ids, mask: logps(logits, ids, ~mask),
    "last-token-lost": lambda logits, ids, mask: logps(logits, ids, without_last(mask)),
    "first-token-lost": lambda logits, ids, mask: logps(logits, ids, without_first(mask)),
    "mean-not-sum": lambda logits, ids, mask: logps(logits, ids, mask) / mask.sum(1),
    "batch-reduced": lambda logits, ids, mask: logps(logits, ids, mask).mean(),
    "no-log-softmax": lambda logits, ids, mask: (
        logits[:, :-1].gather(2, ids[:, 1:, None]).squeeze(2) * mask[:, 1:]
    ).sum(1),
    "probabilities-not-logs": lambda logits, ids, mask: (picked(logits, ids).exp() * mask[:, 1:]).sum(1),
    "wrong-axis": lambda logits, ids, mask: (
        logits.log_softmax(1)[:, :-1].gather(2, ids[:, 1:, None]).squeeze(2) * mask[:, 1:]
    ).sum(1),
    "sign": lambda logits, ids, mask: -logps(logits, ids, mask),
    "logps-detached": lambda logits, ids, mask: logps(logits.detach(), ids, mask),
    "inputs-changed": written_over,
    "backward-fails": written_over_too_soon,
    "depends-on-the-batch": squeezed,
    "low-precision": in_bfloat16,
    "empty-mask-nan": masked_by_product,
    "unstable-log-softmax": lambda logits, ids, mask: (
        (logits.softmax(-1) + 1e-12).log()[:, :-1].gather(2, ids[:, 1:, None]).squeeze(2) * mask[:, 1:]
    ).sum(1),
}


def loss_of(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of the kind whose last lines are ``change(margin, beta)``."""
    return lambda pc, pr, rc, rr, beta: change(margin(pc, pr, rc, rr), beta)


def straight_through(x):
    """The right values with twice the gradient."""
    loss = -F.logsigmoid(x)
    return loss.detach() + 2 * (loss - loss.detach())


DPO = {
    "sign": loss_of(lambda h, b: F.logsigmoid(b * h).mean()),
    "chosen-rejected-swapped": loss_of(lambda h, b: -F.logsigmoid(-b * h)),
    "no-log": loss_of(lambda h, b: -torch.sigmoid(b * h).mean()),
    "no-sigmoid": loss_of(lambda h, b: -(b * h).mean()),
    "sigmoid-twice": loss_of(lambda h, b: -F.logsigmoid(torch.sigmoid(b * h)).mean()),
    "is-hinge": loss_of(lambda h, b: torch.relu(1 - b * h)),
    "is-ipo": loss_of(lambda h, b: (h - 1 / (2 * b)) ** 2),
    "is-smoothed": loss_of(lambda h, b: -0.9 * F.logsigmoid(b * h) - 0.1 * F.logsigmoid(-b * h)),
    "beta-missing": loss_of(lambda h, b: -F.logsigmoid(h).mean()),
    "beta-outside": loss_of(lambda h, b: -b * F.logsigmoid(h)),
    "beta-twice": loss_of(lambda h, b: -b * F.logsigmoid(b * h)),
    "beta-divides": loss_of(lambda h, b: -F.logsigmoid(h / b)),
    "sum-not-mean": loss_of(lambda h, b: -F.logsigmoid(b * h).sum()),
    "mean-before-the-link": loss_of(lambda h, b: -F.logsigmoid(b * h.mean())),
    "reference-ignored": lambda pc, pr, rc, rr, beta: -F.logsigmoid(beta * (pc - pr)).mean(),
    "reference-added": lambda pc, pr, rc, rr, beta: -F.logsigmoid(beta * (pc - pr + rc - rr)).mean(),
    "reference-on-one-side": lambda pc, pr, rc, rr, beta: -F.logsigmoid(beta * (pc - pr - rc)).mean(),
    "policy-sides-swapped": lambda pc, pr, rc, rr, beta: -F.logsigmoid(beta * (pr - pc - (rc - rr))).mean(),
    "broadcast": lambda pc, pr, rc, rr, beta: -F.logsigmoid(beta * ((pc - rc)[:, None] - (pr - rr))).mean(),
    "wrong-shape": lambda pc, pr, rc, rr, beta: -F.logsigmoid(beta * margin(pc, pr, rc, rr))[:, None],
    "gradient-saturates": loss_of(lambda h, b: -torch.log(torch.sigmoid(b * h) + 1e-9)),
    "overflows": loss_of(lambda h, b: -torch.log(torch.sigmoid(b * h))),
    "loss-detached": lambda pc, pr, rc, rr, beta: -F.logsigmoid(beta * margin(pc, pr.detach(), rc, rr)).mean(),
    "wrong-gradient": loss_of(lambda h, b: straight_through(b * h)),
    "low-precision": lambda pc, pr, rc, rr, beta: (
        -F.logsigmoid(beta * margin(*(x.bfloat16() for x in (pc, pr, rc, rr)))).float()
    ),
    "inputs-changed": lambda pc, pr, rc, rr, beta: -F.logsigmoid(
        beta * (pc.clone() - rc.clone() - pr + rr.clone() + 0 * rc.mul_(2))
    ),
    "logged-rewards-raw": lambda pc, pr, rc, rr, beta: (
        -F.logsigmoid(beta * margin(pc, pr, rc, rr)), (pc - rc).detach(), (pr - rr).detach()
    ),
    "unknown-values": loss_of(lambda h, b: -F.logsigmoid(b * h) + 0.37),
}  # fmt: skip

REWARD = {
    "sign": lambda chosen, rejected: F.logsigmoid(chosen - rejected).mean(),
    "chosen-rejected-swapped": lambda chosen, rejected: -F.logsigmoid(rejected - chosen).mean(),
    "no-log": lambda chosen, rejected: torch.sigmoid(rejected - chosen).mean(),
    "sum-not-mean": lambda chosen, rejected: -F.logsigmoid(chosen - rejected).sum(),
    "is-squared-error": lambda chosen, rejected: ((chosen - rejected - 1) ** 2).mean(),
    "margin-added": lambda chosen, rejected, margin: -F.logsigmoid(chosen - rejected + margin).mean(),
    "margin-ignored": lambda chosen, rejected, margin: -F.logsigmoid(chosen - rejected).mean(),
    "overflows": lambda chosen, rejected: torch.log(1 + torch.exp(rejected - chosen)).mean(),
    "gradient-saturates": lambda chosen, rejected: -torch.sigmoid(chosen - rejected).clamp(min=1e-6).log().mean(),
    "loss-detached": lambda chosen, rejected: -F.logsigmoid(chosen.detach() - rejected),
}

MUTANTS = [
    (kind, name, f)
    for kind, table in zip(OURS, (LOGPS, DPO, REWARD), strict=True)
    for name, f in table.items()
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fault", "function"), MUTANTS, ids=[f"{kind}-{name}" for kind, name, _ in MUTANTS])
def test_a_fault_is_named_and_nothing_else(kind: str, fault: str, function: Callable[..., Any]) -> None:
    verdict = check(function, kind)
    assert verdict.faults == (fault,)
    assert not verdict.conforms


def trl_dpo(policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float):
    """A second right form: binary cross-entropy with logits."""
    h = beta * (policy_chosen - policy_rejected - ref_chosen.detach() + ref_rejected.detach())
    rewards = {"rewards/chosen": beta * (policy_chosen - ref_chosen), "rewards/margins": h.mean(), "accuracy": (h > 0)}
    return F.binary_cross_entropy_with_logits(h, torch.ones_like(h)), {k: v.float() for k, v in rewards.items()}


def labelled(logits: Tensor, labels: Tensor) -> Tensor:
    """Labels are -100 where nothing counts."""
    labels = labels[:, 1:]
    values = logits[:, :-1].float().log_softmax(-1).gather(2, labels.clamp(min=0)[..., None]).squeeze(2)
    return torch.where(labels != -100, values, 0.0).sum(-1)


def labels_and_mask(logits: Tensor, labels: Tensor, loss_mask: Tensor) -> Tensor:
    return logps(logits, labels, loss_mask)


def odd_names(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return picked(a, b) * c[:, 1:]


def from_cross_entropy(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    nll = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), input_ids[:, 1:], reduction="none")
    return F.pad(-nll * completion_mask[:, 1:], (1, 0))


@pytest.mark.parametrize(
    ("kind", "function", "bound"),
    [
        ("token_logps", my_dpo.get_logps, "by name"),
        ("token_logps", labelled, "by name"),
        ("token_logps", labels_and_mask, "by name"),
        ("token_logps", odd_names, "by place"),
        ("token_logps", from_cross_entropy, "by name"),
        ("token_logps", rolled, "by name"),
        ("dpo_loss", my_dpo.dpo_loss, "by name"),
        ("dpo_loss", trl_dpo, "by name"),
        ("dpo_loss", loss_of(lambda h, b: F.softplus(-b * h)), "by place"),
        ("reward_loss", lambda rejected, chosen_rewards: F.softplus(rejected - chosen_rewards), "by name"),
        ("reward_loss", lambda chosen, rejected, margin: F.softplus(rejected - chosen + margin).mean(), "by name"),
    ],
)  # fmt: skip
def test_right_functions_conform(kind: str, function: Callable[..., Any], bound: str) -> None:
    verdict = check(function, kind)
    assert verdict.faults == () and verdict.conforms and verdict.bound == bound


def own_logps(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The package's own scores, the logits taken for hidden states under a head that changes nothing."""
    rows, at = mask.nonzero(as_tuple=True)
    scores = linear_token_logps(logits[rows, at - 1], Head(torch.eye(logits.shape[2])), ids[rows, at])
    return torch.zeros(len(ids)).index_add(0, rows, scores.logps)


def own_dpo(policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float):
    count = torch.ones_like(policy_chosen)
    return sigmoid(PairLogps(policy_chosen, policy_rejected, count, count, ref_chosen, ref_rejected), beta=beta)


def test_the_package_s_own_functions_conform() -> None:
    for kind, function in zip(OURS, (own_logps, own_dpo, bradley_terry), strict=True):
        assert check(function, kind).faults == ()


def test_trl_s_picking_of_log_probabilities_conforms() -> None:
    selective = pytest.importorskip("trl.trainer.utils").selective_log_softmax
    verdict = check(selective, "token_logps", call="f(logits[:, :-1], ids[:, 1:]) * mask[:, 1:]")
    assert verdict.conforms and verdict.bound == "as stated"
    wrong = check(selective, "token_logps", call="(f(logits, ids) * mask).sum(1)")
    assert wrong.faults == ("no-shift",)


@pytest.mark.parametrize("kind", OURS)
def test_the_cases_tell_every_fault_from_what_is_right_and_from_every_other(kind: str) -> None:
    """Single faults of different names differ on some case; and each of them differs from every right convention."""
    known = KINDS[kind]
    single = [suspect for suspect in known.suspects if not suspect.also]

    def same(a: Any, b: Any, one: str, other: str) -> bool:
        return all(close(np.asarray(a(case.inputs, one)), b(case.inputs, other)) for case in known.cases)

    first = next(iter(known.conventions))
    for suspect in single:
        assert not any(same(suspect.oracle, known.right, first, other) for other in known.conventions), suspect.fault
    for a, b in itertools.combinations(single, 2):
        assert a.fault is b.fault or not same(a.oracle, b.oracle, first, first), (a.fault.name, b.fault.name)


def test_two_faults_are_both_named() -> None:
    assert check(loss_of(lambda h, b: b * F.logsigmoid(h).mean()), "dpo_loss").faults == ("sign", "beta-outside")
    half = check(lambda logits, ids, mask: no_shift(logits, ids, mask) / mask.sum(1), "token_logps")
    assert set(half.faults) == {"no-shift", "mean-not-sum"}


def test_ties_and_a_trained_reference_are_notes() -> None:
    def told(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
        h = beta * margin(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
        return {"loss": -F.logsigmoid(h).mean(), "accuracy": (h >= 0).float().mean()}

    verdict = check(told, "dpo_loss")
    assert verdict.conforms
    assert set(verdict.notes) == {"ties-count-as-right", "gradient-to-reference"}


def test_rounding_of_bfloat16_logits_is_a_note() -> None:
    def narrow(logits, ids, mask):
        return (logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2) * mask[:, 1:]).sum(1)

    assert check(narrow, "token_logps").notes == ("rounds-narrow-logits",)
    assert check(my_dpo.get_logps, "token_logps").notes == ()


def test_the_convention_that_is_meant_can_be_stated() -> None:
    assert check(my_dpo.get_logps, "token_logps", expect={"convention": "sums"}).conforms
    other = check(my_dpo.get_logps, "token_logps", expect={"convention": "per token"})
    assert not other.conforms and "sums" in other.lines[0].text
    with pytest.raises(UserError, match=r"no convention of this kind \(mean; per pair\)"):
        check(my_dpo.dpo_loss, "dpo_loss", expect={"convention": "each"})


def test_unknown_values_show_the_smallest_case() -> None:
    line = check(DPO["unknown-values"], "dpo_loss").lines[0]
    got, expected = (
        float(word) for word in (line.text.split("got ")[1].split(",")[0], line.text.split("expected ")[1])
    )
    assert line.text.startswith("a pair: ")
    assert got - expected == pytest.approx(0.37, abs=1e-4)


def broken(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    raise RuntimeError("out of luck")


def test_failures_are_told_with_their_place() -> None:
    line = broken.__code__.co_firstlineno + 1
    with pytest.raises(UserError, match=rf"test_conformance_dpo\.py:{line}: .*RuntimeError: out of luck"):
        check(broken, "dpo_loss")
    with pytest.raises(UserError, match=r"no parameter for beta .*--call"):
        check(lambda policy_chosen, policy_rejected, ref_chosen, ref_rejected: 0, "dpo_loss")
    with pytest.raises(UserError, match=r"'bta' is not known .*did you mean 'beta'"):
        check(broken, "dpo_loss", call="f(bta)")
    with pytest.raises(UserError, match="has no 'get_logp'; did you mean 'get_logps'"):
        load(f"{my_dpo.__file__}:get_logp")
    with pytest.raises(UserError, match="returns str; a tensor is expected"):
        check(lambda *tensors: "loss", "reward_loss")
