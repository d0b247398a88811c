"""One optimiser step equals TRL's: the same ids from the same texts, the same weights before, the same weights after.

TRL runs its own training loop for one step; ours is ``train_step`` with the optimiser that the recipes use. AdamW's
first step hardly depends on the size of a gradient, so what scales one (the division, clipping) is compared under SGD.

One difference: TRL divides the sum of the micro-batches' means by their number, so where they hold different numbers of
pairs, as at the end of an epoch, a pair of the smaller one weighs more. Here every pair of a step weighs the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trl_peer import QUIET, as_rows, draw_pairs, moved, tiny_llama, tokenizer, trainer

from trueup.config.schema import OptimSection
from trueup.data.encode import Bounds, encode_pairs
from trueup.data.read import read_pairs
from trueup.data.template import make_encoder
from trueup.data.trees import Tree, collate
from trueup.losses.pairs import choose
from trueup.models.adapters import attach, without_adapters
from trueup.models.forward import TokenLogps, frozen_scorer
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.optim import make_optimizer
from trueup.train.sources import DataBatch
from trueup.train.step import TrainState, train_step

pytest.importorskip("trl", reason="TRL is a peer of the tests alone: pip install '.[peers]'")
pytestmark = QUIET

PAIRS = draw_pairs([(4, 7, 6), (1, 5, 9), (8, 9, 2), (3, 3, 1), (5, 2, 8), (2, 6, 5), (6, 1, 4), (1, 8, 3)])
REFERENCE = tiny_llama()
POLICY = moved(REFERENCE, 0.05)
BETA, NEVER = 0.4, 1e9

Weights = Mapping[str, Tensor]
Metrics = Mapping[str, float]
Cut = Sequence[Sequence[Tree]]
"""The micro-batches of a step."""


def trainable(model: Any) -> Weights:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def their_step(model: Any, trees: Sequence[Tree], out: Path, **settings: Any) -> tuple[Weights, Metrics]:
    """Let TRL train for one step, 4 pairs a micro-batch, on just these ids; the weights after it and what it logged.

    ``weights`` are put into the model before, where they are not the model's own.
    """
    start = settings.pop("weights", None)
    plan = {"max_steps": 1, "lr_scheduler_type": "constant", "train_sampling_strategy": "sequential"}
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": -(-len(trees) // 4)}
    peer = trainer("dpo", model, as_rows(trees), out, beta=BETA, logging_steps=1, **plan, **sizes, **settings)
    if start is not None:
        peer.model.load_state_dict(start)
    ids = [(tuple(r["prompt_ids"]), (tuple(r["chosen_ids"]), tuple(r["rejected_ids"]))) for r in peer.train_dataset]
    assert ids == [(tree.prompt, tree.responses) for tree in trees]
    peer.train()
    assert peer.state.global_step == 1
    return trainable(peer.model), peer.state.log_history[0]


def our_step(state: TrainState, reference: TokenLogps, cut: Cut, clip: float = 1.0) -> tuple[Weights, Metrics]:
    """One ``train_step`` over these micro-batches."""
    trees = [collate(part) for part in cut]
    objective = PreferenceObjective(choose("sigmoid", beta=BETA))
    metrics = train_step(state, objective, [DataBatch(batch, reference(batch)) for batch in trees], clip)
    return trainable(state.model), metrics


ADAMW: Mapping[str, Any] = {"learning_rate": 1e-3, "weight_decay": 0.1, "max_grad_norm": 1.0}
DESCENT: Mapping[str, Any] = {"learning_rate": 1.0, "optim": "sgd"}
"""The rate is large so that a change is large beside the rounding of the weights."""


def adamw(model: Any) -> TrainState:
    section = OptimSection(schedule="constant", warmup=0.0, **ADAMW)
    return TrainState(model, *make_optimizer([p for p in model.parameters() if p.requires_grad], section, steps=1))


def our_descent(cut: Cut, clip: float = NEVER) -> Weights:
    model = copy.deepcopy(POLICY)
    optimizer = torch.optim.SGD(model.parameters(), lr=DESCENT["learning_rate"])
    state = TrainState(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0))
    return our_step(state, frozen_scorer(REFERENCE), cut, clip)[0]


def their_descent(out: Path, trees: Sequence[Tree], clip: float = NEVER) -> Weights:
    reference = copy.deepcopy(REFERENCE)
    return their_step(copy.deepcopy(POLICY), trees, out, ref_model=reference, max_grad_norm=clip, **DESCENT)[0]


def change(after: Weights, before: Weights) -> Tensor:
    return torch.cat([(after[name] - before[name]).flatten() for name in before])


def assert_same_change(ours: Weights, theirs: Weights, before: Weights) -> None:
    """Every weight to 1e-5, and the change as a whole to a share of its size."""
    assert ours.keys() == theirs.keys() == before.keys()
    found, expected = change(ours, before), change(theirs, before)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5)
    assert (found - expected).norm() < 1e-5 * expected.norm()


LOGGED = {
    *("loss", "grad_norm", "learning_rate", "entropy", "logps/chosen", "logps/rejected"),
    *("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"),
}
"""Metrics of one name and one definition in both."""


def assert_same_metrics(ours: Metrics, theirs: Metrics) -> None:
    for name in LOGGED:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), name


def test_the_same_texts_become_the_same_ids(tmp_path: Path) -> None:
    """The reader and the encoder of the recipes; ``their_step`` compares TRL's preparation with the same ids."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in as_rows(PAIRS)), encoding="utf-8")
    data = encode_pairs(read_pairs(file), make_encoder(tokenizer()), Bounds(context=64))
    assert list(data.trees) == PAIRS
    assert all(len(chosen) != len(rejected) for chosen, rejected in (tree.responses for tree in PAIRS))


def test_adamw_step_and_metrics(tmp_path: Path) -> None:
    four, reference = PAIRS[:4], copy.deepcopy(REFERENCE)
    theirs, logged = their_step(copy.deepcopy(POLICY), four, tmp_path, ref_model=reference, **ADAMW)
    ours, metrics = our_step(adamw(copy.deepcopy(POLICY)), frozen_scorer(REFERENCE), [four])
    assert_same_change(ours, theirs, trainable(POLICY))
    assert_same_metrics(metrics, logged)
    assert logged["grad_norm"] > 2.0 > abs(logged["rewards/margins"]) > 0.05


def test_clipped_step(tmp_path: Path) -> None:
    ours, before = our_descent([PAIRS[:4]], clip=1.0), trainable(POLICY)
    assert_same_change(ours, their_descent(tmp_path, PAIRS[:4], clip=1.0), before)
    torch.testing.assert_close(change(ours, before).norm(), torch.tensor(1.0), rtol=1e-4, atol=0.0)


def test_accumulation_over_equal_micro_batches(tmp_path: Path) -> None:
    """TRL takes 4 and 4 pairs; how ours are cut makes no difference."""
    theirs, before = their_descent(tmp_path, PAIRS), trainable(POLICY)
    for cut in ([PAIRS], [PAIRS[:4], PAIRS[4:]], [PAIRS[:1], PAIRS[1:]]):
        assert_same_change(our_descent(cut), theirs, before)


def test_trl_weighs_the_pairs_of_a_smaller_micro_batch_more(tmp_path: Path) -> None:
    """Of 4 and 2 pairs TRL takes the mean of the two means; here the step has the mean of six."""
    first, last, before = PAIRS[:4], PAIRS[4:6], trainable(POLICY)
    alone, rest = our_descent([first]), our_descent([last])
    theirs = their_descent(tmp_path, PAIRS[:6])
    assert_same_change({name: (alone[name] + rest[name]) / 2 for name in before}, theirs, before)
    ours = our_descent([first, last])
    assert_same_change(ours, {name: (4 * alone[name] + 2 * rest[name]) / 6 for name in before}, before)
    assert change(ours, theirs).norm() > 0.1 * change(theirs, before).norm()


def test_step_of_adapters(tmp_path: Path) -> None:
    """The reference is the model without its adapters, which have moved here already; they alone are trained."""
    peft = pytest.importorskip("peft", reason="adapters are PEFT's")
    four, base, same_base = PAIRS[:4], *(copy.deepcopy(REFERENCE) for _ in range(2))
    base.name_or_path = "tiny"
    adapted = moved(attach(base, "tiny", rank=4), 0.1)
    untouched = {name: p.clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    before = trainable(adapted)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    settings = {"peft_config": config, "weights": dict(adapted.state_dict()), **ADAMW}
    theirs, logged = their_step(same_base, four, tmp_path, **settings)
    ours, metrics = our_step(adamw(adapted), without_adapters(adapted), [four])
    assert_same_change(ours, theirs, before)
    assert_same_metrics(metrics, logged)
    assert abs(logged["rewards/margins"]) > 0.05
    assert all(torch.equal(p, untouched[name]) for name, p in adapted.named_parameters() if name in untouched)
