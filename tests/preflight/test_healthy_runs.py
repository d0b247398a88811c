"""Sound runs of every method pass every check, and the numbers that are told are those of sound runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trueup.preflight.run import run_checks
from trueup.preflight.subject import Subject

Prepare = Callable[..., Subject]

VARIANTS = (
    *("sft", "reward-causal", "reward-encoder", "orpo", "kto", "kto-bco"),
    *("dpo", "dpo-lora", "dpo-bfloat16", "dpo-sampled", "dpo-mixture", "dpo-moving", "dpo-online"),
    *("ppo-separate", "ppo-shared", "grpo", "grpo-dapo", "rloo"),
)

TRUE_OF_THE_LABORATORY = {
    "identical-pairs",  # its last pair
    "source-separable",  # its sides have different writers
    "label-balance",  # two wanted responses for each unwanted one
    "rollouts-cut",  # a cap of six tokens
    "reward-constant",  # rewards of whole numbers on sixteen responses
    "dropout-on",  # in its encoder and before its adapters
}

EVERYWHERE = {"one rendering of prompts", "terminator and stops", "reach of the gradient", "repeated forward pass"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sound_run_passes(prepare: Prepare, variant: str) -> None:
    report = run_checks(prepare(variant), "full")
    assert {finding.rule for finding in report.findings} <= TRUE_OF_THE_LABORATORY
    assert not report.fatal
    status = {outcome.check: outcome.status for outcome in report.outcomes}
    assert status.keys() >= EVERYWHERE
    assert not [outcome.told for outcome in report.outcomes if "could not be made" in outcome.told]
    assert status["direction of a tiny step"] == "passed" or variant in ("dpo-bfloat16", "dpo-sampled", "dpo-mixture")


@pytest.mark.parametrize("layout", ["plain", "shared", "flat"])
def test_a_sound_run_passes_in_every_layout(prepare: Prepare, layout: str) -> None:
    report = run_checks(prepare("dpo", model={"layout": layout}), "full")
    assert not report.fatal
    told = {outcome.check: outcome for outcome in report.outcomes}
    assert told["garbage in padding"].status == ("skipped" if layout == "flat" else "passed")


@pytest.mark.parametrize("loss", ["ipo", "simpo", "apo_down", "nca_pair", "exo_pair", "sppo_hard", "cpo", "aot"])
def test_losses_that_differ_most_pass(prepare: Prepare, loss: str) -> None:
    """Losses of lengths, of absolute rewards, of a target, of ranks: each moves something else."""
    report = run_checks(prepare("dpo", preference={"loss": loss}), "full")
    assert not report.fatal and "inert-knob" not in {finding.rule for finding in report.findings}


@pytest.mark.parametrize("name", ["dr_grpo", "bnpo", "gspo", "cispo", "rloo", "reinforce++"])
def test_variants_of_grpo_pass(prepare: Prepare, name: str) -> None:
    report = run_checks(prepare("grpo", grpo={"variant": name}), "full")
    assert not report.fatal and "inert-knob" not in {finding.rule for finding in report.findings}
    told = {outcome.check: outcome.told for outcome in report.outcomes}
    assert ("sum to 0" in told["advantages"]) == (name != "reinforce++")


def test_quick_is_part_of_full(prepare: Prepare) -> None:
    subject = prepare("dpo")
    quick, full = (run_checks(subject, level) for level in ("quick", "full"))
    names = [{outcome.check for outcome in report.outcomes} for report in (quick, full)]
    assert names[0] < names[1]
    assert {"garbage in padding", "micro-batches", "settings that must matter"} == names[1] - names[0]
