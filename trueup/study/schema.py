"""What a study folder holds: the shape of ``study.json`` and the columns of ``items.parquet``."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from typing_extensions import TypedDict

Number = float | None  # None: not available, shown as a dash
Verdict = Literal["better", "worse", "equivalent", "inconclusive"]
Severity = Literal["note", "warning", "fatal"]

REWARD_MODEL = "reward model"
"""The ``arm`` of findings about a seed's reward model, which all arms of that seed share; no arm's name has a space."""


class World(TypedDict):
    """Where prompts and gold scores come from."""

    name: str
    description: str


class Decoding(TypedDict):
    """How responses were sampled; the same for every arm."""

    temperature: Number
    top_k: Number
    top_p: Number
    max_new_tokens: Number


class Design(TypedDict):
    """What was repeated, and on what. ``seed_scope``: does a seed redo the whole pipeline or the alignment only?"""

    seeds: list[int]
    seed_scope: Literal["pipeline", "alignment"]
    prompts: int
    draws: int
    decoding: Decoding


class Model(TypedDict):
    """The network that every arm trains."""

    preset: str
    parameters: Number
    vocabulary: Number


class Stage(TypedDict):
    """Wall seconds and peak memory (GB) of one stage."""

    name: str
    seconds: Number
    peak_memory_gb: Number


class Seconds(TypedDict):
    """Wall seconds of the study and of its stages."""

    total: Number
    stages: list[Stage]


class Rate(TypedDict):
    """A share with its interval and the number of cases."""

    estimate: Number
    low: Number
    high: Number
    n: Number


class RewardModelSeed(TypedDict):
    """How far one reward model can be trusted. ``label_ceiling``: the accuracy that perfect knowledge would reach."""

    seed: int
    train_accuracy: Number
    heldout_accuracy: Rate
    ece: Number
    label_ceiling: Number
    length_correlation: Number


class ReliabilityBin(TypedDict):
    """Pairs of similar predicted confidence, and how often the reward model was right about them."""

    confidence: Number
    accuracy: Number
    count: Number


class RewardModel(TypedDict):
    """The reward models of all seeds, and their pooled reliability."""

    per_seed: list[RewardModelSeed]
    reliability: list[ReliabilityBin]


class Budgets(TypedDict):
    """What an arm consumed."""

    labels: Number
    prompts: Number
    tokens: Number
    flops: Number
    seconds: Number


class Metric(TypedDict):
    """Mean over seeds with its interval, and the seeds themselves."""

    mean: Number
    low: Number
    high: Number
    per_seed: list[Number]


class Arm(TypedDict):
    """One method in one setting."""

    name: str
    label: str
    method: str
    setting: str
    config_hash: str
    seeds: list[int]
    settings: dict[str, Any]
    budgets: Budgets
    metrics: dict[str, Metric]


class Contrast(TypedDict):
    """The difference ``a - b`` on the same prompts and seeds."""

    a: str
    b: str
    metric: str
    estimate: Number
    low: Number
    high: Number
    p: Number
    p_holm: Number
    verdict: Verdict
    n_needed: int | None


class FamilyScore(TypedDict):
    """Gold score of one arm on one task family."""

    arm: str
    family: str
    mean: Number
    low: Number
    high: Number
    n: Number


class FrontierPoint(TypedDict):
    """One checkpoint: what it scores, and how far it is from the reference (``kl``, nats per sequence)."""

    arm: str
    method: str
    seed: int
    step: int | None
    coefficient: Number
    kl: Number
    gold: Number
    proxy: Number


class StudyFinding(TypedDict):
    """What a health rule saw in one run: that of an arm, or of the reward model of a seed (``REWARD_MODEL``)."""

    arm: str
    seed: int | None
    rule: str
    severity: Severity
    first_step: int | None
    evidence: Any
    message: str
    remedy: str
    reference: str | None


CurvePoint = tuple[float, Number, Number, Number]  # step, mean over seeds, smallest, largest


class Study(TypedDict):
    """The whole of ``study.json``. Lists may be empty; every key is present."""

    schema: int
    name: str
    question: str
    date: str
    command: str
    world: World
    primary_metric: str
    smallest_effect: Number
    design: Design
    environment: dict[str, str]
    model: Model
    seconds: Seconds
    reward_model: RewardModel
    arms: list[Arm]
    contrasts: list[Contrast]
    rank_sets: dict[str, dict[str, tuple[int, int]]]
    families: list[FamilyScore]
    frontier: list[FrontierPoint]
    curves: dict[str, dict[str, list[CurvePoint]]]
    findings: list[StudyFinding]
    verdicts: list[str]
    cautions: list[str]


ITEM_COLUMNS = pa.schema(
    [
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("prompt_id", pa.string()),
        ("draw", pa.int64()),
        ("family", pa.string()),
        ("template", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("gold", pa.float64()),
        ("proxy", pa.float64()),
        ("kl", pa.float64()),
        ("length", pa.float64()),
        ("ended", pa.bool_()),
        ("truncated", pa.bool_()),
    ]
)


def baseline(study: Study) -> Arm:
    """Return the arm that the others are held against: the first SFT arm, or the first arm where there is none."""
    return next((arm for arm in study["arms"] if arm["method"] == "sft"), study["arms"][0])


def labels(study: Study) -> dict[str, str]:
    """Return what each arm is called in front of readers."""
    return {arm["name"]: arm["label"] for arm in study["arms"]}


def mean_of(arm: Arm, metric: str) -> Number:
    """Return an arm's mean of a metric, or None where it was not measured."""
    return arm["metrics"][metric]["mean"] if metric in arm["metrics"] else None
