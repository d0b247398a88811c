"""What a study folder holds: the shape of ``study.json``, the columns of ``items.parquet``, and how both are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from trueup.errors import UserError, nearest

Number = float | None  # None: not available, shown as a dash
Verdict = Literal["better", "worse", "equivalent", "inconclusive"]
Severity = Literal["note", "warning", "fatal"]


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
    """What a health rule saw in one run."""

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
_REMEDY = "build the folder again with 'trueup study'"


def read_study(folder: Path) -> Study:
    """Read and check ``study.json``; NaN and infinity count as not available.

    Raises:
        UserError: the file is missing or not JSON, a key is missing or of another kind, or an arm is not listed.
    """
    path = folder / "study.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        study = TypeAdapter(Study).validate_python(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is this a study folder?") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}); {_REMEDY}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not a study ({error}); {_REMEDY}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {field}: {first['msg'][0].lower() + first['msg'][1:]}; {_REMEDY}") from error
    _check_arms(study, path)
    return study


def _check_arms(study: Study, path: Path) -> None:
    names = [arm["name"] for arm in study["arms"]]
    if not names:
        raise UserError(f"{path}: arms: empty, there is nothing to report; {_REMEDY}")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: arms: a name occurs twice; {_REMEDY}")
    used = {
        "contrasts": [side for c in study["contrasts"] for side in (c["a"], c["b"])],
        "rank_sets": [name for ranks in study["rank_sets"].values() for name in ranks],
        "families": [row["arm"] for row in study["families"]],
        "frontier": [point["arm"] for point in study["frontier"]],
        "curves": list(study["curves"]),
    }
    for field, mentioned in used.items():
        for name in mentioned:
            if name not in names:
                raise UserError(f"{path}: {field}: arm {name!r} is not among the arms{nearest(name, names)}; {_REMEDY}")


def read_items(folder: Path) -> pa.Table:
    """Read ``items.parquet``: one row per arm, seed, prompt and draw, with the columns of ``ITEM_COLUMNS``.

    Raises:
        UserError: the file is missing or damaged, or a column is missing or of another kind.
    """
    path = folder / "items.parquet"
    try:
        table = pq.ParquetFile(path).read()
    except OSError as error:
        reason = error.strerror or "truncated or not Parquet"
        raise UserError(f"{path}: cannot be read ({reason}); {_REMEDY}") from error
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a Parquet file that can be read ({error}); {_REMEDY}") from error
    missing = [name for name in ITEM_COLUMNS.names if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing; {_REMEDY}")
    try:
        return table.select(ITEM_COLUMNS.names).cast(ITEM_COLUMNS)
    except pa.ArrowException as error:
        raise UserError(f"{path}: a column is of another kind ({error}); {_REMEDY}") from error


def baseline(study: Study) -> Arm:
    """Return the arm that the others are held against: the first SFT arm, or the first arm where there is none."""
    return next((arm for arm in study["arms"] if arm["method"] == "sft"), study["arms"][0])


def labels(study: Study) -> dict[str, str]:
    """Return what each arm is called in front of readers."""
    return {arm["name"]: arm["label"] for arm in study["arms"]}


def mean_of(arm: Arm, metric: str) -> Number:
    """Return an arm's mean of a metric, or None where it was not measured."""
    return arm["metrics"][metric]["mean"] if metric in arm["metrics"] else None
