"""Every check is shown a fault of its kind, put into a sound run where such faults are made, and must name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

import trueup.data.trees as trees_module
import trueup.preflight.pull as pull_module
import trueup.preflight.settings as settings_module
import trueup.train.objectives.preference as preference_module
from trueup.losses.pairs import PairLoss
from trueup.models.forward import frozen_scorer
from trueup.models.generate import sample as sample_responses
from trueup.ops.logprobs import sum_by_branch
from trueup.preflight.outcome import Report
from trueup.preflight.run import SIZES, run_checks, take_sample
from trueup.preflight.settings import check_rate
from trueup.preflight.subject import Subject
from trueup.rewards.protocol import Scores
from trueup.train.experience import Credit
from trueup.train.lessons import by_credit
from trueup.train.objectives.grpo import GrpoObjective
from trueup.train.objectives.ppo import PpoObjective
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.objectives.reward import RewardObjective
from trueup.train.objectives.sft import SftObjective
from trueup.train.objectives.unpaired import UnpairedObjective
from trueup.types import SequenceLogps

Prepare = Callable[..., Subject]


def found(subject: Subject) -> dict[str, str]:
    """Rule -> severity of everything that is found."""
    return severities(run_checks(subject, "full"))


def severities(report: Report) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in report.findings}


# Log-probabilities


@pytest.mark.parametrize("off", [-1, 1])
def test_a_shift_by_one(prepare: Prepare, monkeypatch: pytest.MonkeyPatch, off: int) -> None:
    right = trees_module.predicting_positions
    subject = prepare("sft")
    monkeypatch.setattr(trees_module, "predicting_positions", lambda *args: np.maximum(right(*args) + off, 0))
    assert found(subject)["logps-misaligned"] == "fatal"


def test_a_mask_that_hides_the_terminator(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding is the terminator, and the mask leaves out what is padding: nothing teaches the model to stop (F06)."""
    right, subject = trees_module.collate, prepare("sft")

    def without_terminator(*args: Any, **options: Any) -> Any:
        laid = right(*args, **options)
        kept = laid.target != subject.encoder.terminator
        return replace(laid, source=laid.source[kept], target=laid.target[kept], branch=laid.branch[kept])

    assert "mask-read-back" not in found(subject)
    monkeypatch.setattr("trueup.data.batching.collate", without_terminator)
    assert found(subject)["mask-read-back"] == "fatal"


def test_a_prompt_that_does_not_predict_the_first_token(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second response of a tree read from the end of the first, as if they followed each other."""
    subject = prepare("dpo")
    monkeypatch.setattr(
        trees_module, "predicting_positions", lambda last, first, n: np.arange(first - 1, first - 1 + n)
    )
    assert found(subject)["logps-misaligned"] == "fatal"


def test_a_mean_over_the_wrong_number_of_tokens(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    def counts_one_more(*args: Any) -> SequenceLogps:
        right = sum_by_branch(*args)
        return SequenceLogps(right.total, right.count + 1)

    subject = prepare("dpo")
    monkeypatch.setattr(preference_module, "sum_by_branch", counts_one_more)
    assert found(subject)["logps-miscounted"] == "fatal"


@pytest.mark.parametrize(("variant", "severity"), [("dpo", "warning"), ("grpo", "warning"), ("sft", "note")])
def test_dropout_in_attention(prepare: Prepare, variant: str, severity: str) -> None:
    subject = prepare(variant)
    for module in subject.policy.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.2
    assert found(subject)["dropout-on"] == severity


def test_dropout_before_adapters_that_are_still_zero(prepare: Prepare) -> None:
    """It was asked for, and does not show at the start; other noise beside it is told from it."""
    assert found(prepare("dpo-lora"))["dropout-on"] == "note"
    assert "dropout-on" not in found(prepare("dpo-lora", lora={"rank": 2, "dropout": 0.0}))
    subject = prepare("dpo-lora")
    for module in subject.policy.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.2
    assert found(subject)["dropout-on"] == "warning"


@pytest.mark.parametrize("variant", ["dpo", "reward-causal", "grpo"])
def test_an_embedding_that_sees_its_whole_row(prepare: Prepare, variant: str) -> None:
    subject = prepare(variant, model={"layout": "plain"})
    subject.policy.get_input_embeddings().register_forward_hook(
        lambda module, given, out: out + 0.1 * out.mean(dim=1, keepdim=True)
    )
    rules = found(subject)
    assert rules["padding-leak"] == rules["batch-dependent"] == "fatal"


def test_a_layout_whose_trees_see_each_other(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a flat row under one causal mask: packing without separation."""

    def causal(trees: Any, config: Any) -> torch.Tensor:
        length = trees.tokens.shape[1]
        return torch.ones(1, 1, length, length, dtype=torch.bool).tril()

    subject = prepare("sft")
    monkeypatch.setattr("trueup.models.forward.attention_mask", causal)
    assert found(subject)["batch-dependent"] == "fatal"


# Gradients


@dataclass(frozen=True)
class Careless:
    """Fine-tuning that takes the mean of each micro-batch by itself: the fault of many trainers (F43)."""

    right: SftObjective = field(default_factory=SftObjective)

    def units(self, batch: Any) -> dict[str, float]:
        return {"micro-batch": 1.0}

    def __call__(self, model: Any, batch: Any) -> Any:
        tally = self.right(model, batch)
        mean = tally.terms["nll"].total / self.right.units(batch)["token"]
        return replace(tally, terms={"nll": replace(tally.terms["nll"], total=mean, unit="micro-batch")})


def test_a_mean_of_means_of_micro_batches(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = prepare("sft")
    monkeypatch.setitem(pull_module._PULLS, Careless, pull_module._sft)  # type: ignore[index]
    assert found(replace(subject, objective=Careless()))["cut-dependent"] == "fatal"


def test_a_frozen_model(prepare: Prepare) -> None:
    subject = prepare("dpo")
    subject.trained.requires_grad_(False)
    assert found(subject)["gradient-lost"] == "fatal"


def test_a_part_that_is_frozen(prepare: Prepare) -> None:
    subject = prepare("sft")
    assert "gradient-missing" not in found(subject)
    next(subject.trained.parameters()).requires_grad_(False)
    assert found(subject)["gradient-missing"] == "warning"


def test_adapters_over_a_frozen_model(prepare: Prepare) -> None:
    """Nearly everything is frozen, as it should be."""
    assert "gradient-missing" not in found(prepare("dpo-lora"))


def test_a_graph_that_is_cut(prepare: Prepare) -> None:
    subject = prepare("dpo")
    subject.policy.model.layers[0].register_forward_hook(lambda module, given, out: out.detach())
    rules = found(subject)
    assert rules["gradient-missing"] == "warning" and "gradient-lost" not in rules


def test_a_gradient_that_is_no_number(prepare: Prepare) -> None:
    subject = prepare("sft")
    subject.policy.model.norm.register_full_backward_hook(lambda module, given, grads: (given[0] * torch.nan,))
    assert found(subject)["gradient-not-finite"] == "fatal"


@pytest.mark.parametrize("alias", ["itself", "one tensor"])
def test_a_reference_that_is_the_policy(prepare: Prepare, alias: str) -> None:
    subject = prepare("grpo")
    if alias == "itself":
        subject = replace(subject, reference=subject.policy)
    else:
        assert isinstance(subject.reference, torch.nn.Module)
        subject.reference.model.norm.weight = torch.nn.Parameter(  # type: ignore[union-attr]
            subject.policy.model.norm.weight.detach(), requires_grad=False
        )
    assert found(subject)["reference-aliased"] == "fatal"


@pytest.mark.parametrize(
    ("variant", "kind"),
    [
        *(("sft", SftObjective), ("reward-causal", RewardObjective), ("reward-encoder", RewardObjective)),
        *(("dpo", PreferenceObjective), ("dpo-moving", PreferenceObjective), ("dpo-online", PreferenceObjective)),
        *(("orpo", PreferenceObjective), ("kto", UnpairedObjective), ("kto-bco", UnpairedObjective)),
        *(("ppo-separate", PpoObjective), ("ppo-shared", PpoObjective)),
        *(("grpo", GrpoObjective), ("grpo-dapo", GrpoObjective), ("rloo", GrpoObjective)),
    ],
)
def test_a_loss_of_the_wrong_sign(prepare: Prepare, monkeypatch: pytest.MonkeyPatch, variant: str, kind: type) -> None:
    subject, right = prepare(variant), kind.__call__

    def flipped(self: Any, model: Any, batch: Any) -> Any:
        tally = right(self, model, batch)
        return replace(tally, terms={n: replace(t, total=-t.total) for n, t in tally.terms.items()})

    monkeypatch.setattr(kind, "__call__", flipped)
    assert found(subject)["wrong-direction"] == "fatal"


def test_sides_that_are_swapped(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradient agree with each other, and both are about the wrong side."""
    right = preference_module.pair_logps

    def swapped(logps: Any, ref_logps: Any, trees: Any) -> Any:
        p = right(logps, ref_logps, trees)
        return replace(p, chosen=p.rejected, rejected=p.chosen, ref_chosen=p.ref_rejected, ref_rejected=p.ref_chosen)

    subject = prepare("dpo")
    for module in (preference_module, pull_module):
        monkeypatch.setattr(module, "pair_logps", swapped)
    assert found(subject)["wrong-direction"] == "fatal"


def test_labels_that_are_swapped_in_the_loss(prepare: Prepare) -> None:
    subject = prepare("kto")
    loss = subject.objective.loss  # type: ignore[attr-defined]

    def swapped(policy: Any, frozen: Any, desirable: Any, point: Any, **settings: Any) -> Any:
        return loss.function(policy, frozen, ~desirable, point, **settings)

    objective = replace(subject.objective, loss=replace(loss, function=swapped))  # type: ignore[type-var]
    assert found(replace(subject, objective=objective))["wrong-direction"] == "fatal"


def test_a_beta_that_is_not_used(prepare: Prepare) -> None:
    subject = prepare("dpo", preference={"beta": 0.3, "label_smoothing": 0.1})
    loss = subject.objective.loss  # type: ignore[attr-defined]
    (part,) = loss.parts

    def deaf(pairs: Any, beta: float, **options: float) -> Any:
        return part.loss.function(pairs, beta=0.1, **options)

    parts = (replace(part, loss=replace(part.loss, function=deaf)),)
    objective = replace(subject.objective, loss=replace(loss, parts=parts))  # type: ignore[type-var]
    report = run_checks(replace(subject, objective=objective), "full")
    (finding,) = [finding for finding in report.findings if finding.rule == "inert-knob"]
    assert finding.evidence == {"knobs": ["beta"]} and finding.severity == "warning"


# Data, prompts, stops


def test_prompts_without_the_place_to_answer(prepare: Prepare) -> None:
    subject = prepare("dpo")
    asked = [(turns, ids[:-1]) for turns, ids in subject.asked(4)]
    assert found(replace(subject, asked=lambda n: asked))["prompts-differ"] == "fatal"


def test_a_template_of_its_own_in_training(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder agrees with itself; only the tokenizer's own template tells."""
    subject, tokenizer = prepare("sft"), prepare("sft").encoder.tokenizer
    right = tokenizer.apply_chat_template
    monkeypatch.setattr(
        subject.encoder.tokenizer, "apply_chat_template", lambda turns, **rest: right(turns, **rest)[1:]
    )
    rules = found(subject)
    assert rules["prompts-differ"] == "fatal"


def test_a_beginning_of_text_twice(prepare: Prepare) -> None:
    subject = prepare("sft")
    begin = subject.encoder.tokenizer.bos_token_id
    asked = [(turns, (begin, begin, *ids)) for turns, ids in subject.asked(4)]
    assert found(replace(subject, asked=lambda n: asked))["begins-twice"] == "warning"


@pytest.mark.parametrize("variant", ["sft", "grpo"])
def test_a_sampler_that_does_not_stop_at_the_terminator(prepare: Prepare, variant: str) -> None:
    subject = prepare(variant)
    encoder = replace(subject.encoder, stops=frozenset({0}))
    assert found(replace(subject, encoder=encoder))["never-stops"] == "fatal"


def test_a_model_whose_own_settings_stop_elsewhere(prepare: Prepare) -> None:
    subject = prepare("sft")
    subject.policy.generation_config.eos_token_id = [0]
    assert found(subject)["stops-elsewhere"] == "warning"


def test_rows_that_were_left_out(prepare: Prepare) -> None:
    subject = prepare("sft")
    few, many = ({"longer than 48 tokens": n, "no response": 50} for n in (1, 2))
    assert "rows-too-long" not in found(replace(subject, data=replace(subject.data, dropped=few)))
    assert found(replace(subject, data=replace(subject.data, dropped=many)))["rows-too-long"] == "warning"


def test_a_rate_of_another_method(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = prepare("dpo")  # its rate is 3e-3, which only so small a model stands
    monkeypatch.setattr(settings_module, "LARGE", 0)
    sample = take_sample(subject, SIZES["quick"])
    assert [finding.rule for finding in check_rate(subject, sample).findings] == ["unusual-rate"]
    assert not check_rate(replace(subject, learning_rate=1e-6), sample).findings


# The reference


@pytest.mark.parametrize("gap", [1e-3, float("nan")])
def test_a_reference_that_is_off_at_step_0(prepare: Prepare, gap: float) -> None:
    subject = prepare("dpo")
    right = subject.source.reference
    source = replace(subject.source, reference=lambda rows, batch: right(rows, batch) + gap)
    assert found(replace(subject, source=source))["step0-identity"] == "fatal"


@pytest.mark.parametrize("taken", ["none", "the other side's"])
def test_a_loss_that_does_not_compare_with_its_reference(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """Policy and reference agree token by token, and so does the loss with itself; only its value is wrong."""
    right = PairLoss.values

    def wrong(self: Any, pairs: Any, *rest: Any) -> Any:
        chosen, rejected = pairs.ref_rejected, pairs.ref_chosen
        if taken == "none":
            chosen, rejected = torch.zeros_like(chosen), torch.zeros_like(rejected)
        return right(self, replace(pairs, ref_chosen=chosen, ref_rejected=rejected), *rest)

    subject = prepare("dpo")
    assert "loss-value" not in found(subject)
    monkeypatch.setattr(PairLoss, "values", wrong)
    assert found(subject)["loss-value"] == "fatal"


@pytest.mark.parametrize("variant", ["dpo-mixture", "dpo-moving", "orpo", "dpo-bfloat16"])
def test_other_losses_have_the_value_that_the_catalog_says(prepare: Prepare, variant: str) -> None:
    assert "loss-value" not in found(prepare(variant))


@pytest.mark.parametrize(("share", "fires"), [(0.7, False), (0.9, True)])
def test_a_reference_that_cannot_read_the_text(prepare: Prepare, share: float, fires: bool) -> None:
    subject = prepare("kto")
    level = share * float(np.log(subject.policy.config.vocab_size))
    source = replace(subject.source, reference=lambda rows, batch: torch.full(batch.target.shape, -level))
    assert (found(replace(subject, source=source)).get("reference-unsupported") == "fatal") == fires


def test_sides_that_the_reference_cannot_tell_apart(prepare: Prepare) -> None:
    subject = prepare("dpo")
    rng = torch.Generator().manual_seed(0)
    source = replace(subject.source, reference=lambda rows, batch: -1 - torch.rand(batch.target.shape, generator=rng))
    rules = found(replace(subject, source=source))
    assert "source-separable" not in rules and "reference-unsupported" not in rules


# Rollouts


def colder(model: Any, prompts: Any, draws: int, decoding: Any, *rest: Any) -> Any:
    return sample_responses(model, prompts, draws, replace(decoding, temperature=0.6), *rest)


@pytest.mark.parametrize("variant", ["grpo", "ppo-separate", "dpo-online"])
def test_a_sampler_at_another_temperature(prepare: Prepare, variant: str) -> None:
    subject = prepare(variant)
    rules = found(replace(subject, source=replace(subject.source, sampler=colder)))
    assert rules["rehearsal-mismatch"] == "fatal"
    assert rules.get("rehearsal-ratio") == (None if variant == "dpo-online" else "fatal")


def test_a_reference_at_another_temperature(prepare: Prepare) -> None:
    subject = prepare("grpo")
    assert subject.reference is not None
    source = replace(subject.source, reference=frozen_scorer(subject.reference, 0.6))
    rules = found(replace(subject, source=source))
    assert rules["rehearsal-kl"] == "fatal" and "rehearsal-mismatch" not in rules
    assert "rehearsal-kl" not in found(replace(subject, source=source, same_model=False))


def test_advantages_over_the_whole_rollout(prepare: Prepare) -> None:
    def ungrouped(model: Any, lived: Any) -> Credit:
        return Credit((lived.rewards - lived.rewards.mean())[lived.branch])

    subject = prepare("grpo")
    source = replace(subject.source, use=by_credit(ungrouped))
    assert found(replace(subject, source=source))["ungrouped-advantage"] == "fatal"


def paying(value: float) -> Callable[[Any], Scores]:
    return lambda completions: Scores(torch.full((sum(len(t.responses) for t in completions.trees),), value))


def test_a_reward_that_is_no_number(prepare: Prepare) -> None:
    subject = prepare("rloo")
    rules = found(replace(subject, source=replace(subject.source, reward=paying(float("nan")))))
    assert rules["reward-not-finite"] == rules["ungrouped-advantage"] == "fatal"


def test_a_reward_that_is_always_the_same(prepare: Prepare) -> None:
    """Penalties off: the responses are then paid the same, and nothing else is wrong."""
    subject = prepare("rloo", rollout={"missing_eos_penalty": 0.0}, rloo={"kl_coef": 0.0})
    rules = found(replace(subject, source=replace(subject.source, reward=paying(1.0))))
    assert rules["reward-constant"] == "note"  # twelve responses
    assert not {"gradient-lost", "wrong-direction", "cut-dependent"} & rules.keys()


# The checks themselves


def test_a_check_that_fails_by_itself_is_skipped(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA out of memory\nand more")

    subject = prepare("sft")
    monkeypatch.setattr("trueup.preflight.stubs.token_scores", broken)
    outcomes = {outcome.check: outcome for outcome in run_checks(subject, "quick").outcomes}
    stubs = outcomes["log-probabilities of known models"]
    assert stubs.status == "skipped" and stubs.told.endswith("RuntimeError: CUDA out of memory")
    assert outcomes["direction of a tiny step"].status == "passed"
