"""What could be otherwise in a run: each factor is one change to its settings or its data, and the words for it.

A factor is a function of the run's facts that returns a ``Factor``, or the reason why it is not tried. The change goes
towards what would be the remedy if the factor were the cause: a larger batch, a stronger tie to the reference, a lower
rate, a less over-fitted reference, both sides of a pair from one source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trueup.config.load import validate
from trueup.config.schema import RECIPES, DecodingSection, DpoConfig, RecipeConfig
from trueup.errors import UserError
from trueup.losses.overrides import resolve
from trueup.losses.pairs import choose

Variant = Literal["as is", "no preference", "capped"]
"""Which rows are trained on: the run's; both sides sampled from the reference; responses cut to ``Facts.cap``."""

LARGER, FIRMER = 8, 3
"""By what a batch, and a coefficient, is multiplied or divided."""

TOGETHER = 3
"""Factors that are changed together at most."""

_SOURCE = "where the rejected responses come from"


@dataclass(frozen=True)
class Facts:
    """What factors are functions of.

    Attributes:
        verb, config: the run's.
        lengths: median tokens of the chosen and of the rejected responses; zeros where the data are no pairs.
        longest: tokens of the longest response.
        reference: a less over-fitted model to start from and to be compared with, or None.
        about_reference: in words what that model is, or why there is none.
    """

    verb: str
    config: RecipeConfig
    lengths: tuple[float, float] = (0.0, 0.0)
    longest: int = 0
    reference: str | None = None
    about_reference: str = ""

    @property
    def cap(self) -> int:
        """Tokens that responses are cut to: what a rejected response typically has."""
        return max(1, round(self.lengths[1]))


@dataclass(frozen=True)
class Factor:
    """One change.

    Attributes:
        name: identifier.
        noun: what it is called in a sentence.
        label: what is changed, from and to.
        changes: dotted setting -> value.
        rows: which rows are trained on.
        candidate: could it be a cause? A control is run for comparison and never named as one.
        cost: arithmetic of a step, in steps of the run.
        note: what must be known to read its effect.
    """

    name: str
    noun: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    rows: Variant = "as is"
    candidate: bool = True
    cost: float = 1.0
    note: str = ""

    def fits(self, other: Factor) -> bool:
        """Can both be changed at once?"""
        return not set(self.changes) & set(other.changes) and "as is" in (self.rows, other.rows)


Maker = Callable[[Facts], Factor | str]


def batch_size(facts: Facts) -> Factor | str:
    """Eight times as many examples a step, or an eighth of them, at the same number of updates."""
    return _scaled_batch("optim.batch_size", facts.config.optim.batch_size, "batch size")


def rollout_size(facts: Facts) -> Factor | str:
    """The same for methods that sample: prompts of a rollout."""
    return _scaled_batch("rollout.prompts_per_rollout", _at(facts.config, "rollout.prompts_per_rollout"), "prompts")


def learning_rate(facts: Facts) -> Factor | str:
    """A third of the learning rate."""
    rate = facts.config.optim.learning_rate
    label = f"learning rate {rate:g} → {rate / FIRMER:.2g}"
    return Factor("learning_rate", "the learning rate", label, {"optim.learning_rate": rate / FIRMER})


def beta(facts: Facts) -> Factor | str:
    """Three times the beta."""
    now = _beta(facts.config)
    if now is None:
        return "the loss has no single beta"
    return Factor("beta", "beta", f"beta {now:g} → {FIRMER * now:g}", {"preference.beta": FIRMER * now})


def reference(facts: Facts) -> Factor | str:
    """A less over-fitted start and reference."""
    if facts.reference is None:
        return facts.about_reference
    own = _at(facts.config, "preference.reference")
    changes = {"preference.reference": facts.reference} if own else {"model.path": facts.reference}
    note = "" if own else "The policy starts from this model as well, since the run's reference is its own start."
    return Factor("reference", "the reference", f"reference → {facts.about_reference}", changes, note=note)


def rejected_source(facts: Facts) -> Factor | str:
    """Rejected responses sampled from the reference where they came from the file, and the other way round."""
    if _at(facts.config, "preference.rejected") == "reference":
        changes: dict[str, Any] = {"preference.rejected": "file", "decoding": _default_decoding()}
        return Factor(
            "rejected_source", _SOURCE, "rejected responses: sampled from the reference → the file's", changes
        )
    if _at(facts.config, "preference.sync_every") is not None:
        return "the reference moves, and would be sampled from as it moves"
    decoding = {**_default_decoding(), "max_new_tokens": facts.longest}
    changes = {"preference.rejected": "reference", "decoding": decoding}
    return Factor("rejected_source", _SOURCE, "rejected responses: the file's → sampled from the reference", changes)


def no_preference(facts: Facts) -> Factor | str:
    """A control: both sides sampled from the reference, so that nothing is there to be preferred."""
    changes = {"preference.rejected": "file", "decoding": _default_decoding()}
    note = "A control: what is left without any preference. It lowers every margin, a healthy one as well."
    label = "both sides sampled from the reference"
    return Factor("no_preference", "the preference", label, changes, "no preference", False, note=note)


def length_normalisation(facts: Facts) -> Factor | str:
    """Margins per token, with a beta that keeps the first gradient's size."""
    now = _beta(facts.config)
    if now is None or _at(facts.config, "preference.loss") != "sigmoid":
        return "the loss is not sigmoid, whose length-normalised form is known"
    length = sum(facts.lengths) / 2
    changes = {"preference.loss": "sigmoid_norm", "preference.beta": now * length}
    return Factor(
        "length_normalisation", "the sum over tokens", f"loss per token, beta {now:g} x {length:g} tokens", changes
    )


def response_cap(facts: Facts) -> Factor | str:
    """Chosen responses cut to the length of rejected ones."""
    if facts.lengths[0] < 1.5 * facts.lengths[1]:
        return "chosen responses are not much longer than rejected ones"
    return Factor("response_cap", "the length of the responses", f"responses cut to {facts.cap} tokens", rows="capped")


def kl_coef(facts: Facts) -> Factor | str:
    """Three times the weight of the KL penalty."""
    section = facts.verb
    now = _at(facts.config, f"{section}.kl_coef")
    if now is None:
        given = _at(facts.config, section).model_dump(exclude={"variant", "group_size"})
        now = resolve(_at(facts.config, f"{section}.variant"), given).kl_coef
    to = FIRMER * now or 0.1
    return Factor("kl_coef", "the KL coefficient", f"KL coefficient {now:g} → {to:g}", {f"{section}.kl_coef": to})


def group_size(facts: Facts) -> Factor | str:
    """Twice as many responses to a prompt, at the same number of responses."""
    now, prompts = _at(facts.config, f"{facts.verb}.group_size"), _at(facts.config, "rollout.prompts_per_rollout")
    if prompts < 2:
        return "a rollout has one prompt only"
    changes = {f"{facts.verb}.group_size": 2 * now, "rollout.prompts_per_rollout": max(1, prompts // 2)}
    return Factor("group_size", "the group size", f"group size {now} → {2 * now}, half the prompts", changes)


def temperature(facts: Facts) -> Factor | str:
    """Sampling at temperature 1, where it was not."""
    now = _at(facts.config, "rollout.decoding.temperature")
    if now == 1.0:
        return "it is 1 already"
    return Factor("temperature", "the temperature", f"temperature {now:g} → 1", {"rollout.decoding.temperature": 1.0})


_OFFLINE: tuple[Maker, ...] = (batch_size, learning_rate)
_ONLINE: tuple[Maker, ...] = (rollout_size, learning_rate, kl_coef, temperature)

FACTORS: Mapping[str, tuple[Maker, ...]] = {
    "dpo": (
        *(reference, batch_size, beta, learning_rate),
        *(rejected_source, length_normalisation, response_cap, no_preference),
    ),
    "sft": _OFFLINE,
    "reward": _OFFLINE,
    "ppo": _ONLINE,
    "grpo": (*_ONLINE, group_size),
    "rloo": (*_ONLINE, group_size),
}
"""Verb -> its factors, in the order in which they are tried."""


def factors_of(facts: Facts, only: tuple[str, ...] = ()) -> tuple[list[Factor], dict[str, str]]:
    """The factors that apply to a run, and name -> reason for those that do not.

    Args:
        facts: about the run.
        only: names to keep; all if empty.
    """
    made = {make.__name__: make(facts) for make in FACTORS[facts.verb] if not only or make.__name__ in only}
    tried = [factor for factor in made.values() if isinstance(factor, Factor)]
    return tried, {name: why for name, why in made.items() if isinstance(why, str)}


def check_names(verb: str, names: Iterable[str]) -> None:
    """Refuse names of factors that a method does not have."""
    known = [make.__name__ for make in FACTORS[verb]]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--only: '{unknown[0]}' is no factor of {verb}; known: {', '.join(known)}")


def changed(verb: str, config: RecipeConfig, changes: Mapping[str, Any]) -> RecipeConfig:
    """The settings with some replaced (dotted key -> value), validated as a file would be."""
    values = config.model_dump(mode="json")
    for key, value in changes.items():
        *sections, name = key.split(".")
        inner = values
        for section in sections:
            inner = inner[section]
        inner[name] = value
    return validate(RECIPES[verb], values, "a counterfactual of the run")


def _scaled_batch(key: str, now: int, word: str) -> Factor:
    to = now * LARGER if now <= LARGER else now // LARGER
    times = f"{LARGER} times" if to > now else f"1/{LARGER} of"
    note = f"The number of updates is the same, so the run sees {times} the examples."
    return Factor("batch_size", "the batch size", f"{word} {now} → {to}", {key: to}, cost=to / now, note=note)


def _beta(config: RecipeConfig) -> float | None:
    """The beta in force, if the loss is a single one that has a beta."""
    assert isinstance(config, DpoConfig)
    section = config.preference
    if not isinstance(section.loss, str):
        return None
    loss = choose(section.loss, beta=section.beta, options=section.options)
    return loss.beta if len(loss.parts) == 1 and loss.beta else None


def _default_decoding() -> dict[str, Any]:
    default: DecodingSection = DpoConfig.model_fields["decoding"].default
    return default.model_dump()


def _at(config: RecipeConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part, None)
    return value
