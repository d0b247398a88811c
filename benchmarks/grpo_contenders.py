"""The two sides of ``grpo_vs_trl``: a GRPO step of trueup and one of TRL, each in two halves, rollout and update."""

from __future__ import annotations

import copy
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from harness import as_transformers_has_it, cpu_seconds, timed

from trueup.config.schema import OptimSection
from trueup.data.batching import Batching
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.losses.overrides import resolve
from trueup.models.forward import frozen_scorer
from trueup.models.generate import sample
from trueup.rewards.protocol import Completions, Scores
from trueup.train.lessons import by_credit
from trueup.train.master import MasterWeights
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit
from trueup.train.optim import make_optimizer
from trueup.train.protocols import Work
from trueup.train.rollout import RolloutPlan, RolloutSource
from trueup.train.step import TrainState, count_units, train_step
from trueup.types import Decoding

LOSSES = ("dapo", "grpo")
"""TRL's names, ours too; the first is TRL's default and the one that is raced."""

STILL = 1e-30
"""A learning rate that leaves the weights as they are, so that every turn of a race does the same work."""


@dataclass(frozen=True)
class Case:
    """What is rolled out.

    Attributes:
        name: of the case.
        data: file of prompts; None for the laboratory's model and lengths.
        prompts: of a rollout.
        cap: most tokens of a response.
        fixed: every response is as long as the cap, on both sides.
        beta: weight of the KL term; TRL has no reference at 0.
        tokens: of our forward passes. A few trees keep a CPU core busy, and memory follows this number.
        group_size: responses to each prompt; 8 is TRL's default.
        most: responses of a forward pass of TRL that fit in 24 GiB; settings with more are left out. None for all.
    """

    name: str
    data: str | None
    prompts: int
    cap: int
    fixed: bool
    beta: float
    tokens: int
    group_size: int = 8
    most: int | None = None

    @property
    def responses(self) -> int:
        """Responses of a rollout."""
        return self.prompts * self.group_size


@dataclass(frozen=True)
class Setting:
    """One way to run TRL: its options, and the responses of a forward pass (None for all of the rollout)."""

    name: str
    options: dict[str, Any]
    at_once: int | None

    def fits(self, case: Case) -> bool:
        """Whether memory is large enough for it."""
        return case.most is None or (self.at_once or case.responses) <= case.most


def worth(response: Sequence[int]) -> float:
    """The reward on both sides: how many different tokens a response has. It differs in a group, and costs nothing."""
    return float(len(set(response)))


class Spans:
    """CPU seconds by name, of whatever was wrapped."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function; what it takes is added under ``name``."""

        def run(*args: Any, **options: Any) -> Any:
            out, seconds = timed(partial(function, *args, **options))
            self.seconds[name] += seconds
            return out

        return run

    def take(self) -> dict[str, float]:
        """What has been measured since the last time."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


class Ours:
    """A step of trueup.

    Attributes:
        spans: of a rollout: ``generation``, and ``reference`` where there is a KL term.
        drawn: the last rollout.
    """

    def __init__(
        self, case: Case, model: Any, prompts: Sequence[Tree], encoder: Encoder, checkpointing: bool = False
    ) -> None:
        self.model, self.spans = copy.deepcopy(model), Spans()
        if checkpointing:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        kl = {"kl_coef": case.beta, "kl_corrected": True if case.beta else None}
        variants = {name: resolve(name, {**kl, "clip_high": 0.2}) for name in LOSSES}
        share = 1.0 if case.beta else 0.0
        self.objectives = {name: GrpoObjective(variant, 1.0, case.cap) for name, variant in variants.items()}
        self.source = RolloutSource(
            prompts=prompts,
            encoder=replace(encoder, stops=frozenset()) if case.fixed else encoder,
            plan=RolloutPlan(
                case.prompts, case.group_size, Decoding(max_new_tokens=case.cap), 1, 1, 0.0, seed=0, kl_share=share
            ),
            batching=Batching("flat", case.tokens, torch.device("cpu")),
            policy_of=lambda model: model,
            reference=self.spans.timed("reference", frozen_scorer(copy.deepcopy(model))) if case.beta else None,
            reward=_reward,
            use=by_credit(grpo_credit(variants[LOSSES[0]])),
            sampler=self.spans.timed("generation", self._sample),
        )
        optimizer, scheduler = make_optimizer(
            MasterWeights(self.model).masters, OptimSection(learning_rate=STILL, schedule="constant", warmup=0), 100
        )
        self.state = TrainState(self.model, optimizer, scheduler)
        self.drawn: list[Tree] = []

    def _sample(self, model: Any, prompts: Sequence[tuple[int, ...]], *args: Any) -> Any:
        samples = sample(model, prompts, *args)
        self.drawn = [Tree(p, tuple(s.tokens for s in group)) for p, group in zip(prompts, samples, strict=True)]
        return samples

    def rollout(self, turn: int) -> Work:
        """Sample, score under the reference, reward, assign credit, cut."""
        return self.source.draw(self.model, turn)

    def gradients(self, work: Work, loss: str = LOSSES[0]) -> float:
        """Forward and backward of a step; its loss."""
        objective, total = self.objectives[loss], 0.0
        self.model.train()
        counts = count_units(objective, work.batches)
        for batch in work.batches:
            terms = objective(self.model, batch).terms.values()
            part = torch.stack([term.total * (term.weight / counts[term.unit]) for term in terms]).sum()
            part.backward()
            total += float(part.detach())
        return total

    def step(self, work: Work) -> None:
        """Forward, backward, clipping, AdamW."""
        train_step(self.state, self.objectives[LOSSES[0]], work.batches, 1.0)


def _reward(completions: Completions) -> Scores:
    return Scores(torch.tensor([worth(response) for tree in completions.trees for response in tree.responses]))


class Peer:
    """A step of TRL's ``GRPOTrainer``: its generation, its scoring, its loss, its backward, its optimiser.

    Attributes:
        spans: ``generation``, with TRL's padding of prompts and cutting at the terminator.
        drawn: tokens of the last rollout's responses, in all.
    """

    def __init__(self, setting: Setting, case: Case, model: Any, tokenizer: Any) -> None:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        self.setting, self.case, self.spans, self.drawn = setting, case, Spans(), 0
        self.at_once = setting.at_once or case.responses
        self.parts = case.responses // self.at_once
        words = copy.deepcopy(tokenizer)
        words.padding_side = "left"
        policy = as_transformers_has_it(model)
        policy.set_attn_implementation("sdpa")
        with tempfile.TemporaryDirectory() as folder:
            if case.beta:  # TRL loads its reference from where the policy says it comes from
                policy.save_pretrained(folder)
                policy.config._name_or_path = folder
            self.trainer: Any = GRPOTrainer(
                model=policy,
                reward_funcs=lambda completion_ids, **_: [worth(ids) for ids in completion_ids],
                args=GRPOConfig(output_dir=folder, **self._options()),
                train_dataset=Dataset.from_list([{"prompt": "a"}] * case.responses),
                processing_class=words,
            )
        self.model: Any = self.trainer.model
        if self.trainer.args.gradient_checkpointing:  # what `Trainer.train` does first
            self.model.activation_checkpointing_enable(self.trainer.args.gradient_checkpointing_kwargs)
        self.trainer.create_optimizer()
        self.trainer.current_gradient_accumulation_steps = self.parts
        self.trainer._generate_single_turn = self.spans.timed("generation", self.trainer._generate_single_turn)

    def _options(self) -> dict[str, Any]:
        case = self.case
        return {
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "per_device_train_batch_size": self.at_once,
            "gradient_accumulation_steps": self.parts,
            "num_generations": case.group_size,
            "max_completion_length": case.cap,
            "generation_kwargs": {"min_new_tokens": case.cap} if case.fixed else None,
            "beta": case.beta,
            "loss_type": LOSSES[0],
            **self.setting.options,
        }

    def rollout(self, trees: Sequence[Tree]) -> dict[str, Any]:
        """Sample responses to the prompts of these trees, score them under a reference if there is one, reward."""
        ids = [list(tree.prompt) for tree in trees for _ in tree.responses]
        with _replaced(self.trainer, "_tokenize_prompts", lambda prompts: (ids, None, {})):
            out = self._scored()
        self.drawn = int(out["completion_mask"].sum())
        return out

    def given(self, trees: Sequence[Tree]) -> dict[str, Any]:
        """The same of responses that it did not sample."""
        pairs = [(list(tree.prompt), list(response)) for tree in trees for response in tree.responses]
        prompts, responses = [p for p, _ in pairs], [r for _, r in pairs]
        generated = (prompts, responses, None, ["?"] * len(pairs), None, {}, None, None)
        with _replaced(self.trainer, "_generate", lambda prompts: generated):
            return self._scored()

    def _scored(self) -> dict[str, Any]:
        self.model.train()
        return self.trainer._generate_and_score_completions(self._rows)

    @property
    def _rows(self) -> list[dict[str, str]]:
        return [{"prompt": "?"} for _ in range(self.case.responses)]

    def gradients(self, rollout: dict[str, Any], loss: str = LOSSES[0]) -> float:
        """TRL's training steps on a rollout, which it shuffles and cuts first; the loss."""
        self.trainer.loss_type = loss
        with _replaced(self.trainer, "_generate_and_score_completions", lambda rows: rollout):
            parts = [self.trainer.training_step(self.model, self._rows, None) for _ in range(self.parts)]
        self.trainer._buffered_inputs = None
        return float(torch.stack(parts).sum())

    def step(self, rollout: dict[str, Any]) -> None:
        """Forward, backward, clipping, AdamW."""
        self.gradients(rollout)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.trainer.optimizer.step()
        self.model.zero_grad()


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put ``value`` in the place of a method for a while."""
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)


def finish_seconds(ours: Ours) -> float:
    """CPU seconds of clipping and AdamW on the gradients at hand, after a first time that makes the moments.

    They are the same code on both sides.
    """

    def finish() -> None:
        torch.nn.utils.clip_grad_norm_(ours.model.parameters(), 1.0, foreach=True)
        ours.state.optimizer.step()

    finish()
    return cpu_seconds(finish)
