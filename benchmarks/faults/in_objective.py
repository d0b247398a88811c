"""Faults of preference objectives: formulas, signs, settings that do nothing, and objectives pushed too far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from faults.fault import Fault
from faults.in_data import swap
from faults.in_optimisation import faster, steps
from faults.stage import Stage
from trueup.data import mismatch
from trueup.losses.elementary import per_token
from trueup.losses.pairs import PairLoss
from trueup.train import unpaired
from trueup.train.objectives import preference
from trueup.train.objectives.preference import PreferenceObjective


def _losses(change: Callable[[Any, Any, dict[str, Any]], dict[str, Any]]) -> Callable[[Stage, float], None]:
    """A fault of a pair's loss: (the loss's settings, the pairs, its values) -> its values."""

    def inject(stage: Stage, _: float) -> None:
        def wrap(old: Any) -> Any:
            return lambda self, pairs, *rest: change(self, pairs, old(self, pairs, *rest))

        stage.wrap(PairLoss, "values", wrap)

    return inject


def _seen(change: Callable[[Any], Any]) -> Callable[[Stage, float], None]:
    """A fault in what the loss is given, which the metrics do not see."""

    def inject(stage: Stage, _: float) -> None:
        stage.wrap(PairLoss, "values", lambda old: lambda self, pairs, *rest: old(self, change(pairs), *rest))

    return inject


def _means(pairs: Any) -> Any:
    return replace(
        pairs,
        chosen=per_token(pairs.chosen, pairs.chosen_count),
        rejected=per_token(pairs.rejected, pairs.rejected_count),
        ref_chosen=per_token(pairs.ref_chosen, pairs.chosen_count),
        ref_rejected=per_token(pairs.ref_rejected, pairs.rejected_count),
    )


def _beta_twice(stage: Stage, _: float) -> None:
    """Log the margin multiplied by beta once more."""

    def wrap(old: Any) -> Any:
        def metrics(pairs: Any, beta: float) -> Any:
            out = old(pairs, beta)
            total, count = out["rewards/margins"]
            return {**out, "rewards/margins": (total * beta, count)}

        return metrics

    stage.wrap(preference, "_pair_metrics", wrap)


def ignored_beta(stage: Stage, beta: float) -> None:
    """The loss takes its default beta whatever the settings say."""

    def values(old: Any) -> Any:
        def made(self: Any, *arguments: Any) -> Any:
            parts = tuple(replace(part, settings={**part.settings, "beta": beta}) for part in self.parts)
            return old(replace(self, parts=parts), *arguments)

        return made

    stage.wrap(PairLoss, "values", values)


def swapped_metrics(stage: Stage, _: float) -> None:
    """Two metrics are logged under each other's name."""

    def wrap(old: Any) -> Any:
        def call(self: Any, model: Any, batch: Any) -> Any:
            tally = old(self, model, batch)
            found = dict(tally.metrics)
            found["rewards/chosen"], found["rewards/rejected"] = found["rewards/rejected"], found["rewards/chosen"]
            return replace(tally, metrics=found)

        return call

    stage.wrap(PreferenceObjective, "__call__", wrap)


def matched_kl(stage: Stage, _: float) -> None:
    """KTO's reference point is measured on the rows' own responses."""
    stage.replace(mismatch, "_partner", lambda data, row, limit: row)


def point_from_last(stage: Stage, _: float) -> None:
    """KTO's reference point is that of the last response alone."""

    def wrap(old: Any) -> Any:
        def made(*arguments: Any) -> Any:
            point = old(*arguments)
            return lambda model, rows: point(model, list(rows)[-1:])

        return made

    stage.wrap(unpaired, "mismatched_kl", wrap)


def _without_nll(loss: Any, pairs: Any, values: dict[str, Any]) -> dict[str, Any]:
    """ORPO: the likelihood of the chosen response is taken out again."""
    return {name: value + pairs.chosen / pairs.chosen_count for name, value in values.items()}


def tiny_beta(stage: Stage, beta: float) -> None:
    """Hardly any pull to the reference, and three times the steps."""
    stage.set("preference.beta", beta)
    steps(stage, 2.0)
    faster(stage, 5.0)


def noisy_and_long(stage: Stage, _: float) -> None:
    """A fifth of the labels is wrong, beta is small, and the run is long."""
    swap(stage, 0.2)
    tiny_beta(stage, 0.02)


FAULTS = (
    Fault(
        "F29",
        "mean instead of sum in the loss alone",
        ("dpo",),
        "objective",
        _seen(_means),
        also=("log-probabilities",),
    ),
    Fault(
        "F41",
        "logged margin has beta twice",
        ("dpo",),
        "objective",
        _beta_twice,
        also=("numbers",),
        invalid="what is reported is not the margin",
    ),
    Fault(
        "F54",
        "beta ignored",
        ("dpo",),
        "objective",
        ignored_beta,
        (0.03,),
        "beta used",
        invalid="not the method that was asked for",
    ),
    Fault("F56", "margin explodes", ("dpo",), "objective", tiny_beta, (0.01,), "beta", also=("optimisation",)),
    Fault(
        "F57",
        "fluency lost",
        ("dpo",),
        "optimisation",
        faster,
        (30.0,),
        "times",
        also=("objective",),
    ),
    Fault(
        "F62", "over-optimised on noisy labels", ("dpo",), "objective", noisy_and_long, also=("data", "optimisation")
    ),
    Fault(
        "F63",
        "KL on the rows' own responses",
        ("kto",),
        "objective",
        matched_kl,
        also=("reference",),
        invalid="not the method that was asked for",
    ),
    Fault("F64", "KL of the last row", ("kto",), "objective", point_from_last, also=("reference",)),
    Fault(
        "F65",
        "sides exchanged in the loss",
        ("dpo", "orpo"),
        "objective",
        _seen(
            lambda p: replace(
                p,
                chosen=p.rejected,
                rejected=p.chosen,
                ref_chosen=p.ref_rejected,
                ref_rejected=p.ref_chosen,
                chosen_count=p.rejected_count,
                rejected_count=p.chosen_count,
            )
        ),
        also=("data",),
    ),
    Fault(
        "F65",
        "reference of the other side",
        ("dpo",),
        "objective",
        _seen(lambda p: replace(p, ref_chosen=p.ref_rejected, ref_rejected=p.ref_chosen)),
        also=("reference",),
    ),
    Fault("F66", "ORPO without likelihood", ("orpo",), "objective", _losses(_without_nll)),
    Fault(
        "F66",
        "ORPO divides by the length twice",
        ("orpo",),
        "objective",
        _seen(lambda p: replace(p, chosen=p.chosen / p.chosen_count, rejected=p.rejected / p.rejected_count)),
        also=("log-probabilities",),
    ),
    Fault(
        "F94",
        "loss negated",
        ("dpo",),
        "objective",
        _losses(lambda loss, pairs, values: {name: -value for name, value in values.items()}),
    ),
    Fault(
        "F142",
        "metrics exchanged",
        ("dpo",),
        "numbers",
        swapped_metrics,
        also=("objective",),
        invalid="what is reported is something else",
    ),
)
