"""One DPO step, ours against TRL's: pairs per second, arithmetic, peak memory, and whether the gradients are equal.

python benchmarks/dpo_vs_trl.py --model SmolLM2-135M-Instruct.Q4_1.gguf --data DATA_FOLDER

Both take the same token ids in batches of 8 pairs and make their gradients in float32 on one thread, taking turns in
one process, so a slow moment of the machine hits both. Times are CPU seconds; those of clipping and AdamW, the same
code for both, are measured once and added to each. Peak memory is that of a fresh process which makes one whole step
on the batch with the longest pair, model and libraries included.

TRL's settings, all with bf16=False (its default would make gradients incomparable):
- default: the reference runs beside the policy, activations are computed again in backward;
- best: precompute_ref_log_probs=True, gradient_checkpointing=False;
- one pair at a time: best, with per_device_train_batch_size=1 and gradient_accumulation_steps=8: nothing is padded but
  the shorter side of a pair.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from harness import (
    as_transformers_has_it,
    counted,
    cpu_seconds,
    gradient_difference,
    high_water_mark,
    measure_apart,
    memory,
    other_results,
    spread,
    write_result,
)
from rich.console import Console
from rich.table import Table

from trueup.config.schema import OptimSection
from trueup.data.batching import Batching
from trueup.data.trees import Tree
from trueup.losses.pairs import choose
from trueup.models import hub
from trueup.models.forward import head_of, scorer
from trueup.models.tokenizer import train_bpe
from trueup.runtime.folder import now
from trueup.train.master import MasterWeights
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.optim import make_optimizer
from trueup.train.reference import live
from trueup.train.sources import DataBatch, DataSource
from trueup.train.step import TrainState, train_step

PAIRS = 8
BETA = 0.1
STILL = 1e-30
"""A learning rate that leaves the weights as they are, so that every turn of a race does the same work."""


@dataclass(frozen=True)
class Setting:
    """One way to run TRL."""

    name: str
    options: dict[str, Any]
    at_once: int = PAIRS


PEERS = (
    Setting("default", {"gradient_checkpointing": True, "precompute_ref_log_probs": False}),
    Setting("best", {"gradient_checkpointing": False, "precompute_ref_log_probs": True}),
    Setting("one pair at a time", {"gradient_checkpointing": False, "precompute_ref_log_probs": True}, 1),
)


@dataclass(frozen=True)
class Case:
    """A model and a data set."""

    name: str
    file: str | None
    max_length: int | None
    tokens: int
    at_once: int = PAIRS


# Tokens of our forward passes: a few trees keep a CPU core busy, and memory follows this number. Nothing else is tuned.
# Pairs of TRL's forward passes: all 8, or what fits in 24 GiB; the rest is accumulated.
CASES = (
    Case("hh", "hh_harmless_base_test.jsonl.gz", None, 1024),
    Case("dpo_en_demo", "dpo_en_demo.json", 1024, 1024, 2),
    Case("alpacaeval_pairs", "alpacaeval_pairs.jsonl.gz", None, 1024),
    Case("tiny", None, None, 2048),
)


def main() -> None:
    """Run the cases that were asked for, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder or .gguf")
    parser.add_argument("--data", required=True, help="folder with the data files")
    parser.add_argument("--cases", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--batches", type=int, default=1, help="batches of 8 pairs, each run by every contender")
    parser.add_argument("--peers", nargs="*", default=[setting.name for setting in PEERS], help="TRL's settings")
    parser.add_argument("--without-memory", action="store_true", help="race only")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if args.measure:
        print(json.dumps(_one_peak(args)))
        return
    results = other_results("dpo_vs_trl", "cpu", args.cases, args.peers)
    for case in CASES:
        if case.name in args.cases:
            results += _run_case(case, args)
            print(write_result("dpo_vs_trl", "cpu", results))
    _print(results)


def _run_case(case: Case, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Race ours against each setting of TRL over the batches, then measure each one's memory alone."""
    measured = [] if args.without_memory else ["ours", *args.peers]
    peaks = {who: _peak(args, case.name, who) for who in measured}
    trees, model = _load(case, args)
    batches = _batches(trees, args.batches)
    ours = Ours(model, case.tokens)
    update = _update_seconds(ours, batches[0])
    rows = []
    for setting in (setting for setting in PEERS if setting.name in args.peers):
        peer = Peer(setting, model, min(setting.at_once, case.at_once))
        row = _race(ours, peer, batches, update, apart=case.file is None)
        facts = {
            "date": now(),
            "model": "SmolLM2-135M-Instruct" if case.file else "2x128",
            "data": case.name,
            "pairs": PAIRS * len(batches),
            "peer": f"trl {version('trl')}, {setting.name}",
            "settings": {**setting.options, "per_device_train_batch_size": peer.at_once},
        }
        rows.append({**facts, **row, **memory(peaks, setting.name)})
        del peer
        gc.collect()
    return rows


def _update_seconds(ours: Ours, batch: list[Tree]) -> float:
    """CPU seconds of clipping and AdamW; the first update, which makes the moments, is not counted."""
    ours.step(batch)
    seconds = max(0.0, cpu_seconds(partial(ours.step, batch)) - cpu_seconds(partial(ours.gradients, batch)))
    ours.model.zero_grad()
    return seconds


def _race(ours: Ours, peer: Peer, batches: Sequence[list[Tree]], update: float, apart: bool) -> dict[str, Any]:
    """Take turns over the batches.

    Counting arithmetic costs a little time in Python, more of it for us, who make more calls: nothing beside seconds
    of matrix products, but much for a tiny model, whose time is taken ``apart``. ``update`` is the seconds of clipping
    and AdamW, the same for all.
    """
    times: list[list[float]] = [[], [], []]
    for batch in batches:
        for runner in (ours, peer):  # reference values that are read, not computed, are prepared outside the time
            runner.inputs(batch)
            runner.model.zero_grad()
        flops = []
        for column, runner in ((0, ours), (2, peer)):
            seconds, count = counted(partial(cpu_seconds, partial(runner.gradients, batch)))
            if apart:
                seconds = cpu_seconds(partial(runner.gradients, batch))
            times[column].append(seconds + update)
            flops.append(count)
        difference = gradient_difference(ours.model, peer.model)  # of gradients made once, or twice by both
        ours.model.zero_grad()
        times[1].append(cpu_seconds(partial(ours.cold_gradients, batch)) + update)
        print(f"{peer.setting.name}: " + ", ".join(f"{column[-1]:.2f} s" for column in times), file=sys.stderr)
    warm, cold, theirs = times
    least = _least_flops(ours.model, batches[-1])
    return {
        "ratio_pairs_per_second": spread([b / a for a, b in zip(warm, theirs, strict=True)]),
        "ratio_pairs_per_second_cold_store": spread([b / a for a, b in zip(cold, theirs, strict=True)]),
        "pairs_per_second": {"ours": PAIRS / statistics.median(warm), "peer": PAIRS / statistics.median(theirs)},
        "update_seconds": update,
        "ratio_flops": flops[1] / flops[0],
        "flops_over_minimum": {"ours": flops[0] / least, "peer": flops[1] / least},
        "max_relative_gradient_difference": difference,
    }


def _load(case: Case, args: argparse.Namespace) -> tuple[list[Tree], Any]:
    if case.file is None:
        return _random_trees(PAIRS * args.batches * 2), _tiny()
    from trueup.data.encode import Bounds, encode_pairs
    from trueup.data.read import read_pairs
    from trueup.data.template import make_encoder

    model = hub.load_causal(args.model)
    loaded = read_pairs(Path(args.data) / case.file, limit=400)
    encoder = make_encoder(hub.load_tokenizer(args.model))
    return list(encode_pairs(loaded, encoder, Bounds(hub.context_length(model), case.max_length)).trees), model


def _tiny() -> Any:
    torch.manual_seed(0)
    tokenizer = hub.wrap_tokenizer(train_bpe(["a b c d e f g"], 300))
    return hub.new_causal("seed", 512, tokenizer)


def _random_trees(count: int) -> list[Tree]:
    """Pairs of the laboratory's lengths: prompts of 12 to 40 tokens, responses of 4 to 40."""
    rng = torch.Generator().manual_seed(0)

    def draw(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high + 1, (), generator=rng))
        return tuple(torch.randint(3, 500, (length,), generator=rng).tolist())

    return [Tree(draw(12, 40), (draw(4, 40), draw(4, 40))) for _ in range(count)]


def _batches(trees: Sequence[Tree], count: int) -> list[list[Tree]]:
    """Batches of pairs spread evenly over the file, as shuffling would."""
    order = torch.randperm(len(trees), generator=torch.Generator().manual_seed(0)).tolist()
    return [[trees[i] for i in order[start : start + PAIRS]] for start in range(0, PAIRS * count, PAIRS)]


def _longest(tree: Tree) -> int:
    return len(tree.prompt) + max(map(len, tree.responses))


class Ours:
    """A step of trueup, with the reference's log-probabilities read (warm) or computed first (cold)."""

    name = "ours"

    def __init__(self, model: Any, tokens: int) -> None:
        self.model = copy.deepcopy(model)
        self.batching = Batching("flat", tokens, torch.device("cpu"))
        self.objective = PreferenceObjective(choose("sigmoid", beta=BETA))
        optimizer, scheduler = make_optimizer(
            MasterWeights(self.model).masters, OptimSection(learning_rate=STILL, schedule="constant", warmup=0), 100
        )
        self.state = TrainState(self.model, optimizer, scheduler)
        self.known: dict[int, list[DataBatch]] = {}

    def _prepared(self, batch: list[Tree]) -> list[DataBatch]:
        source = DataSource(batch, PAIRS, 0, self.batching, live(scorer(self.model)))
        return list(source.sweep())

    def inputs(self, batch: list[Tree]) -> list[DataBatch]:
        """The batch with its reference values, computed at the first call only."""
        if id(batch) not in self.known:
            self.known[id(batch)] = self._prepared(batch)
        return self.known[id(batch)]

    def gradients(self, batch: list[Tree]) -> None:
        """Forward and backward of a step."""
        self._backward(self.inputs(batch))

    def _backward(self, parts: Sequence[DataBatch]) -> None:
        for part in parts:
            terms = self.objective(self.model, part).terms.values()
            torch.stack([term.total * (term.weight / PAIRS) for term in terms]).sum().backward()

    def step(self, batch: list[Tree]) -> None:
        """A whole step with a warm store."""
        train_step(self.state, self.objective, self.inputs(batch), 1.0)

    def cold_gradients(self, batch: list[Tree]) -> None:
        """Forward and backward of a step that has to compute the reference first."""
        self._backward(self._prepared(batch))


class Peer:
    """A step of TRL's ``DPOTrainer``: its collator, its loss, its backward, its optimiser."""

    def __init__(self, setting: Setting, model: Any, at_once: int) -> None:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        self.setting, self.at_once = setting, at_once
        config = DPOConfig(
            output_dir=tempfile.mkdtemp(),
            use_cpu=True,
            bf16=False,
            beta=BETA,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=PAIRS // at_once,
            max_length=None,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **setting.options,
        )
        tokenizer = hub.wrap_tokenizer(train_bpe(["a b"], 300))
        rows = Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " a"}])
        reference = None if config.precompute_ref_log_probs else as_transformers_has_it(model)
        self.trainer = DPOTrainer(
            as_transformers_has_it(model), reference, config, train_dataset=rows, processing_class=tokenizer
        )
        self.model = self.trainer.model
        if config.gradient_checkpointing:  # what `Trainer.train` does first
            self.model.activation_checkpointing_enable(config.gradient_checkpointing_kwargs)
        self.trainer.create_optimizer()
        self.trainer.current_gradient_accumulation_steps = PAIRS // at_once
        self.known: dict[int, list[dict[str, Any]]] = {}

    def inputs(self, batch: list[Tree]) -> list[dict[str, Any]]:
        """TRL's own collation of the same ids, with precomputed reference values where the setting has them."""
        if id(batch) in self.known:
            return self.known[id(batch)]
        rows = [
            {"prompt_ids": list(t.prompt), "chosen_ids": list(t.responses[0]), "rejected_ids": list(t.responses[1])}
            for t in batch
        ]
        size = self.at_once
        parts = [self.trainer.data_collator(rows[start : start + size]) for start in range(0, PAIRS, size)]
        if self.setting.options["precompute_ref_log_probs"]:
            for part in parts:
                chosen, rejected = self.trainer.compute_ref_log_probs(self.model, part)
                part |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        self.known[id(batch)] = parts
        return parts

    def gradients(self, batch: list[Tree]) -> None:
        """Forward and backward of a step."""
        for part in self.inputs(batch):
            self.trainer.training_step(self.model, dict(part))

    def step(self, batch: list[Tree]) -> None:
        """What ``Trainer`` does for one optimiser step."""
        self.gradients(batch)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.trainer.optimizer.step()
        self.model.zero_grad()


def _least_flops(model: Any, batch: list[Tree]) -> float:
    """Forward and backward with every prompt once, nothing padded, the head on response positions only."""
    head = head_of(model).weight.numel()
    linear = sum(
        layer.weight.numel()
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not model.get_output_embeddings()
    )
    responses = sum(len(response) for tree in batch for response in tree.responses)
    return 6.0 * (linear * sum(tree.size for tree in batch) + head * responses)


def _peak(args: argparse.Namespace, case: str, who: str) -> float:
    """Peak resident memory of a fresh process that makes one step, bytes."""
    given = ["--model", args.model, "--data", args.data, "--batches", str(args.batches), "--measure"]
    return measure_apart(__file__, *given, json.dumps([case, who]))["peak"]


def _one_peak(args: argparse.Namespace) -> dict[str, float]:
    name, who = json.loads(args.measure)
    case = next(case for case in CASES if case.name == name)
    trees, model = _load(case, args)
    batch = max(_batches(trees, args.batches), key=lambda batch: max(map(_longest, batch)))
    if who == "ours":
        runner = Ours(model, case.tokens)
    else:
        setting = next(setting for setting in PEERS if setting.name == who)
        runner = Peer(setting, model, min(setting.at_once, case.at_once))
    del model, trees
    runner.step(batch)
    return {"peak": high_water_mark()}


def _print(results: Sequence[dict[str, Any]]) -> None:
    table = Table("data", "peer", "x pairs/s (min..max)", "cold", "x FLOPs", "ours/least", "memory", "gradient")
    for row in results:
        speed = row["ratio_pairs_per_second"]
        table.add_row(
            row["data"],
            row["peer"],
            f"{speed['median']:.2f} ({speed['min']:.2f}..{speed['max']:.2f})",
            f"{row['ratio_pairs_per_second_cold_store']['median']:.2f}",
            f"{row['ratio_flops']:.2f}",
            f"{row['flops_over_minimum']['ours']:.3f}",
            "-" if row["ratio_peak_memory"] is None else f"{row['ratio_peak_memory']:.2f}",
            f"{row['max_relative_gradient_difference']:.1e}",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
