"""Faults of the data: pairs, labels, lengths, what is held out, and the order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from faults.fault import Fault
from faults.stage import Row, Stage
from trueup.data import order

PAIRS = ("dpo", "reward")
FILLER = " Please let me know if there is anything else that I can do for you today."


def chance(stage: Stage, number: int, share: float) -> bool:
    """Is the row one of this share? The same rows at every strength, and more."""
    return random.Random(f"{stage.seed} {number}").random() < share


def swapped(row: Row) -> Row:
    """The row with its sides exchanged, or its label turned round."""
    if "label" in row:
        return {**row, "label": not row["label"]}
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def swap(stage: Stage, share: float) -> None:
    """Exchange the sides of a share of the training pairs; held-out pairs stay right."""
    stage.rewrite(lambda number, row: swapped(row) if chance(stage, number, share) else row)


def swap_everywhere(stage: Stage, _: float) -> None:
    """Read the two columns the wrong way round, of training and held-out pairs alike."""
    for key in ("data.path", "data.validation"):
        stage.rewrite(lambda number, row: swapped(row), key)


def identical(stage: Stage, share: float) -> None:
    """Copy the chosen response into the rejected one."""
    stage.rewrite(lambda n, row: {**row, "rejected": row["chosen"]} if chance(stage, n, share) else row)


def tell(stage: Stage, share: float) -> None:
    """Begin rejected responses with the same word, as a source of their own would; held-out pairs do not."""
    stage.rewrite(lambda n, row: {**row, "rejected": f"Sure! {row['rejected']}"} if chance(stage, n, share) else row)


def shared_turns(stage: Stage, _: float) -> None:
    """Put the question into both responses."""
    stage.rewrite(
        lambda n, row: {
            "prompt": "Hello!",
            **{side: f"{row['prompt']} {row[side]}" for side in ("chosen", "rejected")},
        }
    )


def overlap(stage: Stage, share: float) -> None:
    """Train on a share of the held-out rows, word by word."""
    held = stage.rows("data.validation")
    leaked = [row for number, row in enumerate(held) if chance(stage, number, share)]
    stage.write([*leaked, *stage.rows()])


def sorted_by_length(stage: Stage, _: float) -> None:
    """Visit the data in the order of the file, which is sorted by length."""
    stage.write(sorted(stage.rows(), key=lambda row: len(row["prompt"]) + len(row.get("response", ""))))

    def in_order(step: int, batch_size: int, size: int, seed: int) -> list[int]:
        return [(step * batch_size + place) % size for place in range(batch_size)]

    stage.replace(order, "step_indices", in_order)


def by_position(stage: Stage, share: float) -> None:
    """Break a share of ties, which are no ties, by what comes first in the alphabet."""

    def change(number: int, row: Row) -> Row:
        if not chance(stage, number, share):
            return row
        first, second = sorted((row["chosen"], row["rejected"]))
        return {**row, "chosen": first, "rejected": second}

    stage.rewrite(change)


def longer_chosen(stage: Stage, share: float) -> None:
    """Put filler behind chosen responses."""
    stage.rewrite(lambda n, row: {**row, "chosen": row["chosen"] + FILLER} if chance(stage, n, share) else row)


def one_sided(stage: Stage, share: float) -> None:
    """Leave out wanted responses until unwanted ones are this share."""
    rows = stage.rows()
    wanted = [row for row in rows if row["label"]]
    unwanted = [row for row in rows if not row["label"]]
    kept = wanted[: max(1, round(len(unwanted) * (1 - share) / share))]
    mixed = [*kept, *unwanted]
    random.Random(stage.seed).shuffle(mixed)
    stage.write(mixed)


def duplicated(stage: Stage, copies: float) -> None:
    """Train on a few rows again and again, as a join gone wrong would write them."""
    rows = stage.rows()
    some = rows[: max(8, int(len(rows) / copies))]
    stage.write([some[number % len(some)] for number in range(len(rows))])


def few_pairs(stage: Stage, passes: float) -> None:
    """Make many passes over few pairs."""
    steps, size = stage.get("optim.steps"), stage.get("optim.batch_size")
    stage.set("data.limit", max(16, round(steps * size / passes)))


def random_labels(stage: Stage, _: float) -> None:
    """Few pairs with labels by a coin."""
    stage.write(stage.rows()[:128])
    swap(stage, 0.5)


def prompts_starved(stage: Stage, count: float) -> None:
    """Sample from the same few prompts for the whole run."""
    stage.set("data.limit", int(count))


def empty_rejected(stage: Stage, share: float) -> None:
    """Lose the text of rejected responses."""
    stage.rewrite(lambda n, row: {**row, "rejected": ""} if chance(stage, n, share) else row)


def blank(path: str) -> list[Any]:
    """Lines of a file."""
    return Path(path).read_text(encoding="utf-8").splitlines()


SHARE = "share of rows"

FAULTS = (
    Fault("F10", "identical pairs", PAIRS, "data", identical, (0.05, 0.2, 0.5), SHARE),
    Fault("F11", "rejected side has a tell", PAIRS, "data", tell, (0.5, 1.0), SHARE),
    Fault("F12", "labels swapped", PAIRS, "data", swap, (0.1, 0.3, 0.5, 1.0), SHARE),
    Fault("F12", "labels turned round", ("kto",), "data", swap, (0.3, 0.5, 1.0), SHARE),
    Fault(
        "F12",
        "columns exchanged, held-out pairs too",
        PAIRS,
        "data",
        swap_everywhere,
        also=("objective",),
        invalid="learns the opposite of what was asked",
    ),
    Fault("F15", "question inside both responses", ("dpo",), "data", shared_turns),
    Fault(
        "F23",
        "held-out rows in training",
        ("sft", "dpo", "reward"),
        "data",
        overlap,
        (0.2, 1.0),
        "share of held-out rows",
        invalid="the held-out result is not held out",
    ),
    Fault("F24", "sorted, not shuffled", ("sft",), "data", sorted_by_length),
    Fault("F25", "ties broken by position", PAIRS, "data", by_position, (0.4,), SHARE),
    Fault("F61", "chosen longer", ("dpo", "reward"), "data", longer_chosen, (0.3, 0.7), SHARE),
    Fault("F67", "hardly any wanted response", ("kto",), "data", one_sided, (0.95,), "share of unwanted"),
    Fault(
        "F69", "many passes over few pairs", PAIRS, "data", few_pairs, (10.0, 30.0), "passes", also=("optimisation",)
    ),
    Fault("F77", "random labels, few pairs", ("reward",), "data", random_labels, also=("reward",)),
    Fault("F09", "empty rejected responses", PAIRS, "data", empty_rejected, (0.3,), SHARE),
    Fault("F23b", "few rows repeated", ("sft",), "data", duplicated, (50.0,), "copies", also=("optimisation",)),
    Fault("F129", "prompts starved", ("grpo",), "data", prompts_starved, (2.0,), "prompts", also=("rollout",)),
)
