"""``trueup eval``: the evaluation suite on one model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from trueup.cli.console import open_console
from trueup.errors import UserError
from trueup.runtime.folder import check_writable

SHOWN = 5
"""Responses printed in full."""


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = (
        "examples:\n  trueup eval runs/dpo --suite sixteen\n"
        "  trueup eval path/to/model --suite prompts.jsonl --draws 4 --reference path/to/start --out runs/eval"
    )
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL", help="run folder (its final/ is taken), model folder or .gguf file"
    )
    parser.add_argument(
        "--suite", required=True, metavar="NAME_OR_FILE", help="sixteen, a world's name, or a file of prompts"
    )
    parser.add_argument("--world", metavar="NAME", help="world that scores the prompts of a file")
    parser.add_argument(
        "--reference", metavar="MODEL", help="measure the exact KL to this model (default: a run's own start)"
    )
    parser.add_argument("--reward-model", metavar="MODEL", help="score the responses with this reward model")
    parser.add_argument("--draws", type=int, default=1, metavar="K", help="responses a prompt (default: 1)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N prompts")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0 = greedy (default: 1)")
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="keep the K most probable tokens (default: all)"
    )
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="nucleus (default: 1, all)")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="cap of a response, its terminator included (default: half the model's context, at most 128)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the sampling (default: 0)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--out", metavar="DIR", help="write items.jsonl and summary.json there")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")


def execute(verb: str, args: argparse.Namespace) -> int:
    """Sample, score, print; keep every item with ``--out``."""
    counts = [n for n in (args.draws, args.limit, args.max_new_tokens) if n is not None]
    if min(counts) < 1 or args.temperature < 0 or not 0 < args.top_p <= 1 or args.top_k < 0:
        raise UserError(
            "--draws, --limit and --max-new-tokens must be positive, --temperature and --top-k not negative, "
            "--top-p in (0, 1]"
        )
    out = _free(args.out)
    items = _items(args)
    from trueup.evaluate.policy import summarise

    summary = summarise(items)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        (out / "items.jsonl").write_text(text, encoding="utf-8")
        (out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    if args.json:
        print(json.dumps(summary))
    else:
        _show(summary, items)
    return 0


def _items(args: argparse.Namespace) -> list[dict[str, Any]]:
    from trueup.data.batching import Batching
    from trueup.data.template import make_encoder
    from trueup.evaluate.policy import EvaluationProtocol, evaluate_policy
    from trueup.evaluate.prompts import MOST, default_cap, encode_with_room
    from trueup.evaluate.suites import load_suite
    from trueup.models import hub
    from trueup.recipes.reference import require_same_vocabulary
    from trueup.recipes.rewards import load_reward
    from trueup.rewards.learned import LearnedReward
    from trueup.runtime.device import prepare
    from trueup.types import Decoding
    from trueup.worlds.registry import load_world

    suite = load_suite(args.suite, load_world(args.world) if args.world else None, args.limit)
    device = prepare("auto", args.threads)
    path, start = _locate(args.model)
    tokenizer = hub.load_tokenizer(path)
    encoder, policy = make_encoder(tokenizer), hub.load_causal(path).to(device)
    anchor = args.reference or start
    reference = hub.load_causal(anchor).to(device).eval() if anchor else None
    if anchor:
        require_same_vocabulary("--reference", anchor, tokenizer)
    batching = Batching("shared", 4096, device)
    scorer = None
    if args.reward_model:
        scorer = load_reward("--reward-model", args.reward_model, "float32", tokenizer).to(device)
    context = hub.context_length(policy)
    cap = args.max_new_tokens or default_cap(context)
    remedy = "Shorten the prompt, or give a smaller --max-new-tokens"
    encoded = encode_with_room(suite.prompts, encoder, context, cap, remedy)
    if args.max_new_tokens is None:
        told = f"responses of at most {cap} tokens: half the model's context, at most {MOST}; see --max-new-tokens"
        open_console(stderr=True).print(told, soft_wrap=True)
    decoding = Decoding(args.temperature, args.top_k, args.top_p, cap)
    reward = LearnedReward(scorer, batching) if scorer is not None else None
    protocol = EvaluationProtocol(decoding, args.draws, args.seed)
    return evaluate_policy(policy, suite, encoded, encoder, batching, protocol, reference, reward)


def _locate(path: str) -> tuple[str, str | None]:
    """The model of a run folder and the model it started from; any other path is taken as it is."""
    run = Path(path)
    if not (run / "final").is_dir():
        return path, None
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) if (run / "config.yaml").exists() else {}
    start = config.get("model", {}).get("path")
    return str(run / "final"), start if start and Path(start).exists() else None


def _free(out: str | None) -> Path | None:
    if out is None:
        return None
    if Path(out).exists():
        raise UserError(f"{out}: exists; give another --out")
    return check_writable(out)


def _show(summary: Mapping[str, float], items: Sequence[Mapping[str, Any]]) -> None:
    console = open_console()
    for item in items[:SHOWN]:
        console.print(Text(f"> {item['prompt']}", style="bold"))
        console.print(Text(item["response"]), end="\n\n")
    table = Table("metric", "mean", title=f"{len(items)} responses")
    for name, value in summary.items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)
