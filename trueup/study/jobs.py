"""The work of a study's jobs, each a function of (study folder, job folder, voice, arguments).

Only worker processes import this module, and torch with it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from trueup.config.load import validate
from trueup.config.schema import RECIPES
from trueup.data.batching import Batching
from trueup.data.read import read_prompts
from trueup.data.template import Encoder, make_encoder
from trueup.evaluate.policy import EvaluationProtocol, evaluate_policy, summarise
from trueup.evaluate.prompts import encode_with_room
from trueup.evaluate.suites import load_suite
from trueup.models import hub
from trueup.models.generate import sample
from trueup.models.tokenizer import train_bpe
from trueup.recipes.bench import Voice
from trueup.recipes.table import recipe
from trueup.rewards.learned import LearnedReward
from trueup.runtime.seeding import generator, python_random, seed_globally
from trueup.study.plan import DONE
from trueup.types import Decoding
from trueup.worlds.labels import agreement
from trueup.worlds.protocol import SPLITS
from trueup.worlds.registry import load_world

_TOKENS = 4096
"""Tokens of a forward pass in evaluation."""

_REMEDY = "Raise model.context of the study, or lower {}.decoding.max_new_tokens"
"""What to do about prompts that leave no room for a response, by section of the study file."""


def make_world(study: Path, out: Path, voice: Voice, *, world: str, vocabulary: int) -> None:
    """Write a world's prompts and demonstrations as data files, and train the tokenizer on them."""
    source = load_world(world)
    for split in SPLITS:
        prompts = source.prompts(split)
        rows = [
            {"id": p.id, "prompt": p.text, "family": p.family, "template": p.template, "content": dict(p.content)}
            for p in prompts
        ]
        _write_rows(out / f"{split}.jsonl", rows)
    demonstrations = [
        {"prompt": p.text, "response": source.demonstrate(p, python_random(0, "demonstration", p.id))}
        for p in source.prompts("sft")
    ]
    _write_rows(out / "demonstrations.jsonl", demonstrations)
    texts = (text for row in demonstrations for text in row.values())
    hub.wrap_tokenizer(train_bpe(texts, vocabulary)).save_pretrained(out / "tokenizer")
    facts = {"name": source.name, "description": source.description}
    (out / "world.json").write_text(json.dumps(facts), encoding="utf-8")


def train(study: Path, out: Path, voice: Voice, *, verb: str, config: Mapping[str, Any]) -> None:
    """Run a recipe; a run that was stopped before goes on."""
    resume = (out / "config.yaml").exists()
    values = {**config, "run": {**config["run"], "resume": resume}}
    recipe(verb)(validate(RECIPES[verb], values, verb), voice)


def make_pairs(
    study: Path,
    out: Path,
    voice: Voice,
    *,
    world: str,
    policy: str,
    prompts: Mapping[str, int],
    decoding: Mapping[str, Any],
    seed: int,
) -> None:
    """Sample two responses of the SFT model for each prompt and let the world's annotator choose.

    Both sides come from one policy, so a pair tells the preference apart, not its source. Identical and empty samples,
    and those with a NUL byte (which readers refuse), are left out and counted. ``pairs.json`` records the label
    ceiling: how often the noisy labels agree with the scores they were drawn from (ties as half), which no reward
    model can beat in expectation.
    """
    source, model, encoder = load_world(world), *_policy(policy)
    splits = {"train": "preference", "heldout": "validation"}
    facts: dict[str, Any] = {}
    for name, split in splits.items():
        known = {p.id: p for p in source.prompts(split)}
        loaded = read_prompts(str(study / f"world/{split}.jsonl"), limit=prompts[name]).whole()
        context, cap = hub.context_length(model), decoding["max_new_tokens"]
        encoded = encode_with_room(loaded, encoder, context, cap, _REMEDY.format("pairs"))
        rng = generator(seed, "pairs", name)
        drawn = sample(model, [t.prompt for t in encoded.trees], 2, Decoding(**decoding), encoder.stops, rng)
        rows, agree, unusable = [], 0.0, 0
        for record, (first, second) in zip(loaded.pick(encoded.row_numbers), drawn, strict=True):
            prompt = known[record.id]
            texts = [encoder.text(answer.tokens) for answer in (first, second)]
            if texts[0] == texts[1] or not all(texts) or any("\0" in text for text in texts):
                unusable += 1
                continue
            rng_label = python_random(seed, "label", name, prompt.id)
            chosen, rejected = texts if source.prefers_first(prompt, texts[0], texts[1], rng_label) else texts[::-1]
            agree += agreement(source, prompt, chosen, rejected)
            rows.append({"prompt": prompt.text, "chosen": chosen, "rejected": rejected})
        _write_rows(out / f"{name}.jsonl", rows)
        facts[name] = {"pairs": len(rows), "unusable": unusable, "label_ceiling": agree / max(1, len(rows))}
    (out / "pairs.json").write_text(json.dumps(facts), encoding="utf-8")


def train_candidate(
    study: Path, out: Path, voice: Voice, *, verb: str, config: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> None:
    """Train one candidate setting and score it on validation prompts (``tuning.json``)."""
    if not (out / "final").exists():
        train(study, out, voice, verb=verb, config=config)
    items = _items(study, **evaluation)
    (out / "tuning.json").write_text(json.dumps(summarise(items)), encoding="utf-8")


def train_tuned(
    study: Path,
    out: Path,
    voice: Voice,
    *,
    verb: str,
    key: str,
    candidates: Mapping[str, str],
    configs: Mapping[str, Mapping[str, Any]],
    tuned_seed: int,
) -> None:
    """Train with the candidate setting that had the highest mean gold on validation prompts.

    On the seed that the candidates were trained with, the winner's run is taken over as it is.
    """
    scores = {
        value: json.loads((study / folder / "tuning.json").read_text())["gold"] for value, folder in candidates.items()
    }
    best = max(scores, key=lambda value: scores[value])
    config = configs[best]
    seconds = None
    if config["run"]["seed"] == tuned_seed:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(study / candidates[best], out)
        seconds = json.loads((study / candidates[best] / DONE).read_text())["seconds"]
    else:
        train(study, out, voice, verb=verb, config=config)
    chosen = {"key": key, "value": float(best), "scores": scores, "seconds": seconds}
    (out / "chosen.json").write_text(json.dumps(chosen), encoding="utf-8")


def evaluate(study: Path, out: Path, voice: Voice, **arguments: Any) -> None:
    """Run the suite on a finished model; every item goes to ``items.jsonl``."""
    _write_rows(out / "items.jsonl", _items(study, **arguments))


def evaluate_untrained(
    study: Path,
    out: Path,
    voice: Voice,
    *,
    study_world: str,
    preset: str,
    context: int,
    decoding: Mapping[str, Any],
    seed: int,
    prompts: int = 50,
) -> None:
    """Score the model as it is before any training, on a few test prompts: the floor of the gold scale."""
    tokenizer = hub.load_tokenizer(str(study / "world/tokenizer"))
    seed_globally(seed, "weights")
    model, encoder = hub.new_causal(preset, len(tokenizer), tokenizer, context), make_encoder(tokenizer)
    suite = load_suite(str(study / "world/test.jsonl"), load_world(study_world), prompts)
    cap, remedy = decoding["max_new_tokens"], _REMEDY.format("evaluation")
    encoded = encode_with_room(suite.prompts, encoder, context, cap, remedy)
    batching = Batching("shared", _TOKENS, torch.device("cpu"))
    items = evaluate_policy(model, suite, encoded, encoder, batching, EvaluationProtocol(Decoding(**decoding), 1, seed))
    (out / "untrained.json").write_text(json.dumps(summarise(items)), encoding="utf-8")


def _items(
    study: Path,
    *,
    world: str,
    model: str,
    reference: str,
    reward: str,
    suite: str,
    prompts: int,
    draws: int,
    decoding: Mapping[str, Any],
    seed: int,
) -> list[dict[str, Any]]:
    policy, encoder = _policy(str(study / model))
    anchor = hub.load_causal(str(study / reference))
    batching = Batching("shared", _TOKENS, torch.device("cpu"))
    scorer = LearnedReward(hub.load_scorer(str(study / reward), tokenizer=encoder.tokenizer), batching)
    loaded = load_suite(str(study / suite), load_world(world), prompts)
    context, cap = hub.context_length(policy), decoding["max_new_tokens"]
    encoded = encode_with_room(loaded.prompts, encoder, context, cap, _REMEDY.format("evaluation"))
    protocol = EvaluationProtocol(Decoding(**decoding), draws, seed)
    return evaluate_policy(policy, loaded, encoded, encoder, batching, protocol, anchor, scorer)


def _policy(folder: str) -> tuple[Any, Encoder]:
    return hub.load_causal(folder), make_encoder(hub.load_tokenizer(folder))


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


CALLS: Mapping[str, Callable[..., None]] = {
    function.__name__: function
    for function in (make_world, train, make_pairs, train_candidate, train_tuned, evaluate, evaluate_untrained)
}
"""What a job may call."""
