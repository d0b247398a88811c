"""How good a finished model is, by what the laboratory knows: the damage of a fault is the difference to its twin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from trueup.data.batching import Batching, map_responses, map_tokens
from trueup.data.encode import Bounds, EncodedSet, encode_examples, encode_pairs
from trueup.data.read import read_examples, read_pairs
from trueup.data.template import Encoder, make_encoder
from trueup.evaluate.policy import EvaluationProtocol, evaluate_policy, summarise
from trueup.evaluate.prompts import encode_with_room
from trueup.evaluate.suites import load_suite
from trueup.models import hub
from trueup.models.forward import scorer
from trueup.models.scoring import response_scores
from trueup.ops.logprobs import sum_by_branch
from trueup.types import Decoding
from trueup.worlds.registry import load_world

PROMPTS, DRAWS = 80, 2
HELD = 200
"""Held-out rows that a model is measured on."""
BATCHING = Batching("shared", 4096, torch.device("cpu"))
PAIRED = frozenset({"dpo", "orpo", "kto"})


def measure(lab: Path, method: str, final: Path) -> dict[str, float]:
    """Named measures of a finished model, all such that higher is better.

    Gold score of samples for policies, and what the method itself is about on held-out data: the log-likelihood of a
    token after SFT, the share of pairs that were moved in the right direction after preference tuning, the accuracy
    of a reward model. A model that cannot be sampled from or scored has none.
    """
    try:
        return dict(_reward_model(lab, final) if method == "reward" else _policy(lab, method, final))
    except Exception as error:
        return {"unusable": float("-inf")} if "finite" in str(error) else {}


def _reward_model(lab: Path, final: Path) -> Mapping[str, float]:
    model = hub.load_scorer(str(final)).eval()
    data = _pairs(lab, make_encoder(hub.load_tokenizer(str(lab / "start"))))
    with torch.no_grad():
        scores = map_responses(data.trees, lambda trees: response_scores(model, trees), BATCHING)
    return {"accuracy": _share(scores[0::2] - scores[1::2])}


def _policy(lab: Path, method: str, final: Path) -> Mapping[str, float]:
    model = hub.load_causal(str(final)).eval()
    # The tokenizer of the laboratory, not the one that the run saved: what is measured is the model.
    encoder = make_encoder(hub.load_tokenizer(str(lab / "start")))
    out = {"gold": _gold(lab, model, encoder)}
    if method == "sft":
        held = encode_examples(
            read_examples(str(lab / "held_demonstrations.jsonl"), limit=HELD), encoder, Bounds(128, 128)
        )
        out["log-likelihood"] = float(map_tokens(held.trees, scorer(model), BATCHING).mean())
    if method in PAIRED:
        start = hub.load_causal(str(lab / "start"))
        data = _pairs(lab, encoder)
        moved = _totals(model, data) - _totals(start, data)
        out["pairs"] = _share(moved[0::2] - moved[1::2])
    return out


def _gold(lab: Path, model: object, encoder: Encoder) -> float:
    suite = load_suite(str(lab / "world/test.jsonl"), load_world("errands"), PROMPTS)
    prompts = encode_with_room(suite.prompts, encoder, 128, 40, "")
    protocol = EvaluationProtocol(Decoding(max_new_tokens=40), DRAWS, 0)
    return summarise(evaluate_policy(model, suite, prompts, encoder, BATCHING, protocol))["gold"]


def _pairs(lab: Path, encoder: Encoder) -> EncodedSet:
    return encode_pairs(read_pairs(str(lab / "heldout.jsonl"), limit=HELD), encoder, Bounds(128, 128))


def _totals(model: torch.nn.Module, data: EncodedSet) -> torch.Tensor:
    score = scorer(model)
    return map_responses(data.trees, lambda t: sum_by_branch(score(t), t.branch, t.num_branches).total, BATCHING)


def _share(differences: torch.Tensor) -> float:
    return float(((differences > 0).float() + 0.5 * (differences == 0).float()).mean())
