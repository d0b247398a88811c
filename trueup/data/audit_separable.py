"""Can the sides be told apart without reading? A linear model on pieces of text, tried on rows it has not seen.

A model of which pieces of one to five bytes occur knows nothing of the prompt and next to nothing of quality. Where
it ranks most wanted responses over unwanted ones, the sides differ in who or what wrote them, and a preference loss
learns that first. Counts are scaled to unit length per response, so length itself is not among the features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueup.data.audit_sheet import Sheet, Side
from trueup.data.audit_stats import as_dict, cliffs_delta, share
from trueup.stats.intervals import Interval

FOLDS = 5
MOST_FAMILIES = 3000
"""Families of rows looked at; of more, as many are drawn."""
FEWEST_FAMILIES = 50
"""Under this many there is no answer."""

_SIZES = (1, 3, 5)
_BITS = 16
_HEAD, _TAIL = 384, 128  # bytes of a response that are looked at: style shows at the start and at the end
_PENALTY = 0.1  # of the squared weights, over the number of rows; not tuned
_SHOWN = 6
_OWN = 40  # characters from which on two equal responses are a copy; shorter ones (Yes.) are equal by chance
_START, _CUT, _END = b"\x02", b"\x00", b"\x03"


@dataclass(frozen=True)
class _Pieces:
    """Texts as one run of bytes: ``data[i]`` belongs to text ``owner[i]``."""

    data: NDArray[np.uint8]
    owner: NDArray[np.int64]


def separability(sheet: Sheet, seed: int = 0) -> dict[str, Any] | None:
    """How well the model ranks wanted over unwanted, by cross-validation; None where it cannot be tried.

    Rows that share a prompt or a long response are one family: it is never split between training and test.
    ``accuracy`` is the share of held-out pairs ranked right, ties half; for judged rows the chance that a random wanted
    response ranks above a random unwanted one. The interval is clustered by family; it leaves out that the five models
    share training rows: on noise, with 80 families, it covers 83 % instead of 95 %. ``telling`` are pieces of text with
    the share of each side's responses that have them.
    """
    family = _families(sheet)
    chosen = np.random.default_rng(seed).permutation(np.unique(family))[:MOST_FAMILIES]
    good, bad = (_kept(side, np.isin(family, chosen)) for side in (sheet.wanted, sheet.unwanted))
    if len(chosen) < FEWEST_FAMILIES or min(good.rows.size, bad.rows.size) < FEWEST_FAMILIES:
        return None
    pieces = _pieces([*good.texts, *bad.texts])
    features = _features(pieces, good.rows.size + bad.rows.size)
    telling = _telling(features, good.rows.size, pieces)
    groups = np.concatenate([family[good.rows], family[bad.rows]])
    labels = np.repeat([1.0, -1.0], [good.rows.size, bad.rows.size])
    if sheet.kind == "pairs":
        features = features[: good.rows.size] - features[good.rows.size :]
        groups, labels = family[good.rows], np.ones(good.rows.size)
    scores = _held_out_scores(features, labels, groups, intercept=sheet.kind != "pairs")
    return {
        "accuracy": as_dict(_accuracy(scores, labels, groups)),
        "families": len(chosen),
        "responses": int(good.rows.size + bad.rows.size),
        "telling": telling,
    }


def _families(sheet: Sheet) -> NDArray[np.int64]:
    """A number for each row; rows that are linked by a prompt or by a response of some length have one number."""
    from scipy import sparse

    names: dict[str, int] = {}
    prompts = int(sheet.group.max(initial=-1)) + 1
    links = [
        (int(sheet.group[row]), prompts + names.setdefault(text, len(names)))
        for text, row in sheet.responses
        if len(text) >= _OWN
    ]
    ends = np.array(links, dtype=np.int64).reshape(-1, 2)
    size = prompts + len(names)
    graph = sparse.coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(size, size))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    return component[sheet.group].astype(np.int64)


def _kept(side: Side, keep: NDArray[np.bool_]) -> Side:
    texts = tuple(text for text, row in zip(side.texts, side.rows.tolist(), strict=True) if keep[row])
    return Side(texts, side.rows[keep[side.rows]])


def _pieces(texts: Sequence[str]) -> _Pieces:
    raw = [_START + _excerpt(text.encode()) + _END for text in texts]
    owner = np.repeat(np.arange(len(raw)), [len(part) for part in raw])
    return _Pieces(np.frombuffer(b"".join(raw), dtype=np.uint8), owner)


def _excerpt(raw: bytes) -> bytes:
    return raw if len(raw) <= _HEAD + _TAIL else raw[:_HEAD] + _CUT + raw[-_TAIL:]


def _buckets(pieces: _Pieces, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and bucket of every piece of ``size`` bytes inside one text: a polynomial hash, its top bits kept."""
    count = pieces.data.size - size + 1
    code = np.full(count, size, dtype=np.uint32)
    for offset in range(size):
        code = code * np.uint32(0x01000193) + pieces.data[offset : offset + count]
    code *= np.uint32(0x9E3779B1)
    starts = np.flatnonzero(pieces.owner[:count] == pieces.owner[size - 1 :])
    return starts, (code[starts] >> np.uint32(32 - _BITS)).astype(np.int64)


def _features(pieces: _Pieces, texts: int) -> Any:
    """Sparse ``[texts, 2^16]``: log(1 + count) times the rarity of the bucket, each row of length 1."""
    from scipy import sparse

    found = [_buckets(pieces, size) for size in _SIZES]
    rows = np.concatenate([pieces.owner[starts] for starts, _ in found])
    columns = np.concatenate([buckets for _, buckets in found])
    ones = np.ones(rows.size, dtype=np.float32)
    counts = sparse.csr_array((ones, (rows, columns)), shape=(texts, 1 << _BITS))
    counts.sum_duplicates()
    holders = np.bincount(counts.indices, minlength=1 << _BITS)
    rarity = np.log((1 + texts) / (1 + holders)).astype(np.float32)
    counts.data = np.log1p(counts.data) * rarity[counts.indices]
    lengths = np.sqrt(np.asarray((counts * counts).sum(axis=1)).ravel())
    return sparse.diags_array(1 / np.maximum(lengths, 1e-12)).astype(np.float32) @ counts


def _held_out_scores(
    features: Any, labels: NDArray[np.float64], groups: NDArray[np.int64], intercept: bool
) -> NDArray[np.float64]:
    """Score of each row by the model that has seen none of its family."""
    names = np.unique(groups)
    fold = np.random.default_rng(0).permutation(names.size)[np.searchsorted(names, groups)] % FOLDS
    scores = np.empty(labels.size)
    for number in range(FOLDS):
        seen, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        weights = _fit(features[seen], labels[seen], intercept)
        scores[held] = features[held] @ weights[:-1] + weights[-1]
    return scores


def _fit(features: Any, labels: NDArray[np.float64], intercept: bool) -> NDArray[np.float64]:
    """Weights and intercept of the logistic model: least ``mean log(1 + exp(-y (x w + b))) + penalty / 2n |w|^2``.

    Pairs come as differences with label 1 and without intercept: the model of Bradley and Terry (1952).
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    rows, transposed = labels.size, features.T.tocsr()

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = labels * (features @ weights[:-1] + weights[-1])
        slope = -labels * expit(-margin) / rows
        gradient = np.append(transposed @ slope + _PENALTY / rows * weights[:-1], slope.sum() if intercept else 0.0)
        return float(np.logaddexp(0, -margin).mean() + _PENALTY / rows / 2 * (weights[:-1] @ weights[:-1])), gradient

    start = np.zeros(features.shape[1] + 1)
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x


def _accuracy(scores: NDArray[np.float64], labels: NDArray[np.float64], groups: NDArray[np.int64]) -> Interval:
    good, bad = labels > 0, labels < 0
    if not bad.any():
        return share((np.sign(scores) + 1) / 2, groups)
    delta = cliffs_delta(scores[good], groups[good], scores[bad], groups[bad])
    return Interval((1 + delta.estimate) / 2, (1 + delta.low) / 2, (1 + delta.high) / 2, delta.n)


def _telling(features: Any, wanted: int, pieces: _Pieces) -> list[dict[str, Any]]:
    """The pieces whose shares of responses differ most between the sides, in standard errors, by name."""
    total = features.shape[0]
    sizes = wanted, total - wanted
    columns = features.shape[1]
    holders = [np.bincount(part.indices, minlength=columns) for part in (features[:wanted], features[wanted:])]
    good, bad = (count / size for count, size in zip(holders, sizes, strict=True))
    pooled = (holders[0] + holders[1]) / total
    error = np.sqrt(pooled * (1 - pooled) * (1 / sizes[0] + 1 / sizes[1]))
    distance = np.abs(good - bad) / np.maximum(error, 1e-9)
    top = np.argsort(-distance)[:_SHOWN]
    names = _names(top, pieces)
    return [
        {"piece": names[bucket], "wanted": float(good[bucket]), "unwanted": float(bad[bucket])}
        for bucket in top.tolist()
        if bucket in names
    ]


def _names(wanted: NDArray[np.int64], pieces: _Pieces) -> dict[int, str]:
    """The most frequent piece of each bucket."""
    seen: dict[int, Counter[bytes]] = {int(bucket): Counter() for bucket in wanted}
    for size in _SIZES:
        starts, buckets = _buckets(pieces, size)
        for bucket, counter in seen.items():
            counter.update(bytes(pieces.data[i : i + size]) for i in starts[buckets == bucket][:2000].tolist())
    return {bucket: _readable(counter.most_common(1)[0][0]) for bucket, counter in seen.items() if counter}


def _readable(piece: bytes) -> str:
    text = piece.removeprefix(_START).removesuffix(_END).decode(errors="replace")
    return ("(start)" if piece.startswith(_START) else "") + text + ("(end)" if piece.endswith(_END) else "")
