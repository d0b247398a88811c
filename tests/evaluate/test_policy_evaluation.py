"""Evaluating a policy: items, exact KL, summaries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trueup.data.batching import Batching
from trueup.data.encode import Bounds, encode_prompts
from trueup.data.template import make_encoder
from trueup.data.trees import Tree
from trueup.evaluate.policy import EvaluationProtocol, evaluate_policy, sequence_kl, summarise
from trueup.evaluate.suites import load_suite
from trueup.models import hub
from trueup.models.tokenizer import train_bpe
from trueup.types import Decoding

BATCHING = Batching("shared", 64, torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return hub.wrap_tokenizer(train_bpe(["one two three four"] * 3, 280))


def model(tokenizer: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    return hub.new_causal("seed", len(tokenizer), tokenizer, 64).eval()


def test_items_have_one_row_a_draw_and_say_how_they_ended(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    rows = [{"id": name, "prompt": f"{name} one", "family": name} for name in ("a", "b", "c")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite, encoder = load_suite(str(file)), make_encoder(tokenizer)
    prompts = encode_prompts(suite.prompts, encoder, Bounds(64, None, 5))
    protocol = EvaluationProtocol(Decoding(max_new_tokens=5), 3, 0)
    policy = model(tokenizer, 0)
    items = evaluate_policy(policy, suite, prompts, encoder, BATCHING, protocol, reference=policy)
    assert [(item["prompt_id"], item["draw"]) for item in items] == [(p, d) for p in "abc" for d in range(3)]
    assert all(item["truncated"] is not item["ended"] and 1 <= item["length"] <= 5 for item in items)
    assert all(item["kl"] == pytest.approx(0, abs=1e-5) for item in items)  # a model is at no distance from itself
    again = evaluate_policy(policy, suite, prompts, encoder, BATCHING, protocol, reference=policy)
    assert again == items  # the same protocol gives the same samples


def test_sequence_kl_is_the_sum_of_exact_divergences_at_every_state(tokenizer: Any) -> None:
    policy, reference = model(tokenizer, 0), model(tokenizer, 1)
    trees = [Tree((5, 6, 7), ((8, 9, 10, 2), (11, 2))), Tree((5,), ((12, 13, 2),))]
    expected = []
    for tree in trees:
        for response in tree.responses:
            ids = torch.tensor([tree.prompt + response])
            with torch.no_grad():
                p, q = (m(input_ids=ids).logits[0].double().log_softmax(-1) for m in (policy, reference))
            states = slice(len(tree.prompt) - 1, len(tree.prompt) - 1 + len(response))
            expected.append((p.exp() * (p - q)).sum(-1)[states].sum())
    found = sequence_kl(policy, reference, trees, BATCHING)
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_summary_weighs_tokens_for_kl_per_token_and_items_for_the_rest() -> None:
    items = [
        {"gold": 1.0, "gold/form": 1.0, "kl": 2.0, "length": 10, "ended": True},
        {"gold": 3.0, "gold/form": 0.0, "kl": 4.0, "length": 2, "ended": False},
    ]
    summary = summarise(items)
    assert summary["gold"] == 2.0 and summary["gold/form"] == 0.5
    assert summary["kl/sequence"] == 3.0 and summary["kl/token"] == pytest.approx(6.0 / 12)
    assert summary["eos_rate"] == summary["truncation_rate"] == 0.5
