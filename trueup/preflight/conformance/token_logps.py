"""Kind ``token_logps``: log-probabilities of a response's tokens, each under the logits of the position before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trueup.preflight.conformance.forms import Change, suspects
from trueup.preflight.conformance.protocol import Case, Fault, Inputs, Kind, Oracle
from trueup.preflight.conformance.signatures import SIGNATURES
from trueup.preflight.conformance.token_probes import PROBES

CONVENTIONS = {
    "sums": "the sum over each response [B]",
    "per token": "one value for each token but the first [B,T-1], 0 where the mask is False",
    "per token, 0 first": "one value for each token [B,T], 0 for the first and where the mask is False",
    "per token, 0 last": "one value for each position that predicts [B,T], 0 for the last and where nothing counts",
    "per token, unmasked": "one value for each token but the first [B,T-1], the caller masks",
}


@dataclass(frozen=True)
class Form:
    """The parts in which such functions differ. The defaults are right.

    Attributes:
        source: the position whose logits score the token at t, counted from t.
        mask_at: the position whose mask counts the token at t, counted from t.
        wrap: positions beyond the ends are taken from the other end, as ``roll`` does.
        cut: the last position is left out.
        counted: which tokens count.
        scores: what is picked from the logits.
        reduce: how a response's values become one.
        sign: -1 for the negative log-likelihood.
    """

    source: int = -1
    mask_at: int = 0
    wrap: bool = False
    cut: bool = False
    counted: str = "response"
    scores: str = "log_softmax"
    reduce: str = "sum"
    sign: int = 1


def _log_softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    logits = logits - logits.max(axis, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis, keepdims=True))


SCORES = {
    "log_softmax": lambda logits: _log_softmax(logits, 2),
    "raw": lambda logits: logits,
    "softmax": lambda logits: np.exp(_log_softmax(logits, 2)),
    "over positions": lambda logits: _log_softmax(logits, 1),
    "over the batch": lambda logits: _log_softmax(logits, 0),
}


def _counted(mask: np.ndarray, which: str) -> np.ndarray:
    """The mask with a fault; a row is prompt, response, padding."""
    after_start = np.maximum.accumulate(mask, axis=1)
    before_end = np.maximum.accumulate(mask[:, ::-1], axis=1)[:, ::-1]
    order = np.cumsum(mask, axis=1)
    return {
        "response": mask,
        "prompt too": before_end,
        "padding too": after_start,
        "everything": np.ones_like(mask),
        "inverted": ~mask,
        "not the last": mask & (order < order.max(1, keepdims=True)),
        "not the first": mask & (order > 1),
    }[which]


def _values(inputs: Inputs, form: Form, masked: bool) -> np.ndarray:
    """One value for each token [B,T], the first and what does not count 0."""
    ids, mask = inputs["ids"], _counted(inputs["mask"], form.counted)
    rows, length = ids.shape
    at = np.arange(length)
    source, mask_at = at + form.source, at + form.mask_at
    inside = (source >= 0) & (source < length) & (mask_at >= 0) & (mask_at < length)
    scores = SCORES[form.scores](inputs["logits"])
    values = scores[np.arange(rows)[:, None], source % length, ids]
    kept = (inside | form.wrap) & ~(form.cut & (at == length - 1))
    if masked:
        kept = kept & mask[:, mask_at % length]
    return form.sign * values * kept


def oracle(**parts: object) -> Oracle:
    """What a function of a form returns."""
    form = Form(**parts)  # type: ignore[arg-type]

    def returned(inputs: Inputs, convention: str) -> np.ndarray:
        values = _values(inputs, form, masked=convention != "per token, unmasked")
        at = np.arange(values.shape[1])
        if convention == "per token, 0 first":
            return values
        if convention == "per token, 0 last":
            return values[:, (at + 1) % len(at)]
        if convention != "sums":
            return values[:, at[at > 0]]
        counts = _counted(inputs["mask"], form.counted).sum(1)
        means = values.sum(1) / np.maximum(counts, 1)
        total = values.sum()
        reduced = {
            "sum": values.sum(1),
            "mean": means,
            "mean over columns": values.sum(1) / (len(at) - 1),
            "all summed": total,
            "all averaged": total / counts.sum(),
            "sums averaged": values.sum(1).mean(),
        }
        return np.asarray(reduced[form.reduce])

    return returned


NO_SHIFT = Fault(
    "no-shift",
    "A token is scored by the logits of its own position, which predict the token after it.",
    "Both sides of a pair are wrong alike, the loss starts at log 2 and falls; the model learns to copy.",
    "logits[:, :-1] with ids[:, 1:] and mask[:, 1:].",
)
DOUBLE_SHIFT = Fault(
    "double-shift",
    "A token is scored by the logits of two positions before it: shifted twice.",
    "The loss starts at log 2 and falls; the model learns to skip a token.",
    "Shift once: models that take labels shift inside, logits do not.",
)
SHIFTED_BACK = Fault(
    "shifted-backwards",
    "A token is scored by the logits of the position after it.",
    "The model has seen the token there: log-probabilities are of ordinary size, and mean nothing.",
    "logits[:, :-1] with ids[:, 1:], not the other way round.",
)
MASK_UNSHIFTED = Fault(
    "mask-unshifted",
    "The mask is cut as mask[:, :-1] beside ids[:, 1:]: the first response token is lost, one after the end counts.",
    "One token of many on both sides; with padding the end-of-text is followed by a token nobody chose.",
    "mask[:, 1:], like the ids.",
)
MASK_AHEAD = Fault(
    "mask-shifted-twice",
    "The mask is one position ahead: the last prompt token counts, and the end-of-text does not.",
    "One token of many on both sides; the model never learns to stop.",
    "mask[:, 1:], once.",
)
ROLLED = Fault(
    "rolled",
    "The shift is a roll: the last position is scored against the first token of its row.",
    "Where every row ends in padding the values are right.",
    "Cut the last position off, or mask it.",
)
PROMPT = Fault(
    "prompt-counted",
    "Tokens of the prompt count.",
    "The prompt is the same on both sides and cancels from the margin at first, and not from the gradient of a sum.",
    "Mask with the response alone.",
)
PADDING = Fault(
    "padding-counted",
    "Padding counts.",
    "Values move with the longest row of the batch; longer responses look likelier.",
    "Mask from lengths, not with attention that is all ones.",
)
EVERYTHING = Fault(
    "mask-ignored",
    "Prompt and padding count as well as the response.",
    "The loss falls all the same.",
    "Multiply by mask[:, 1:] before the sum.",
)
INVERTED = Fault(
    "mask-inverted",
    "What the mask marks is left out, and the rest counts.",
    "The loss falls on prompts and padding.",
    "mask is True where a token counts: do not negate it.",
)
LAST_LOST = Fault(
    "last-token-lost",
    "The last response token, the end-of-text, does not count.",
    "One token of many; the model never learns to stop.",
    "Mask from lengths: where padding is the end-of-text, a mask made of ids drops both.",
)
FIRST_LOST = Fault(
    "first-token-lost",
    "The first response token does not count.",
    "One token of many; the choice that decides the most is not trained.",
    "It is predicted by the last prompt position: cut the mask as the ids are cut, once.",
)
MEAN = Fault(
    "mean-not-sum",
    "The mean over a response's tokens in place of the sum.",
    "The loss starts at log 2; beta means another thing, by the length. IPO and SimPO want the mean, DPO the sum.",
    "Sum over tokens, without a division.",
)
REDUCED = Fault(
    "batch-reduced",
    "One number for the whole batch.",
    "The margin of sums is one margin: the loss does not see single pairs.",
    "Reduce over tokens (dim 1) alone.",
)
RAW = Fault(
    "no-log-softmax",
    "Logits are taken without log-softmax.",
    "The difference of two logits is of the size of a difference of log-probabilities.",
    "logits.log_softmax(-1) before the gather.",
)
PROBABILITIES = Fault(
    "probabilities-not-logs",
    "Probabilities are summed in place of their logarithms.",
    "The loss starts at log 2 and moves slowly.",
    "log_softmax in place of softmax.",
)
AXIS = Fault(
    "wrong-axis",
    "The softmax is over another axis than the vocabulary.",
    "The values are negative and of ordinary size.",
    "log_softmax(-1) of logits [B,T,V].",
)
SIGN = Fault(
    "sign",
    "The negative log-likelihood: the sign is wrong.",
    "With all four alike, chosen and rejected have changed places in the loss.",
    "cross_entropy gives -log p: negate it.",
)

CHANGES: list[Change] = [
    (MASK_UNSHIFTED, {"mask_at": -1}),
    (NO_SHIFT, {"source": 0}),
    (NO_SHIFT, {"source": 0, "cut": True}),
    (DOUBLE_SHIFT, {"source": -2}),
    (SHIFTED_BACK, {"source": 1}),
    (SHIFTED_BACK, {"source": 1, "mask_at": 1}),
    (MASK_AHEAD, {"mask_at": 1}),
    (ROLLED, {"mask_at": -1, "wrap": True}),
    (PROMPT, {"counted": "prompt too"}),
    (PADDING, {"counted": "padding too"}),
    (EVERYTHING, {"counted": "everything"}),
    (INVERTED, {"counted": "inverted"}),
    (LAST_LOST, {"counted": "not the last"}),
    (FIRST_LOST, {"counted": "not the first"}),
    (MEAN, {"reduce": "mean"}),
    (MEAN, {"reduce": "mean over columns"}),
    (REDUCED, {"reduce": "all summed"}),
    (REDUCED, {"reduce": "all averaged"}),
    (REDUCED, {"reduce": "sums averaged"}),
    (RAW, {"scores": "raw"}),
    (PROBABILITIES, {"scores": "softmax"}),
    (AXIS, {"scores": "over positions"}),
    (AXIS, {"scores": "over the batch"}),
    (SIGN, {"sign": -1}),
]


def _case(name: str, seed: int, prompts: list[int], responses: list[int], padding: int) -> Case:
    rng = np.random.default_rng(seed)
    starts, ends = np.array(prompts)[:, None], np.array(prompts)[:, None] + np.array(responses)[:, None]
    at = np.arange(int(ends.max()) + padding)
    ids = rng.integers(0, 9, (len(prompts), len(at)))
    mask = (at >= starts) & (at < ends)
    logits = 2 * rng.standard_normal((*ids.shape, 9))
    return Case(name, {"logits": logits, "ids": ids, "mask": mask, "labels": np.where(mask, ids, -100)})


CASES = (
    _case("a row that fills its width", 0, [2, 1], [3, 2], 0),
    _case("padding after every row", 1, [2, 4, 1], [3, 2, 5], 2),
)
KIND = Kind(SIGNATURES["token_logps"], CASES, oracle(), CONVENTIONS, suspects(CHANGES, oracle), PROBES)
