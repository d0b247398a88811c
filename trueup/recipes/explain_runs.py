"""The reruns of an explanation: each is a run folder that is measured once, then loses its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trueup.config.schema import DpoConfig, RecipeConfig
from trueup.data.records import Pair
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.errors import Interrupted, RunError
from trueup.models import hub
from trueup.models.generate import sample
from trueup.recipes.bench import Silence, Voice
from trueup.recipes.counterfactuals import Factor, Variant, changed
from trueup.recipes.explain_material import Rows, capped, file_of, write_rows
from trueup.recipes.explain_measure import MEASURES, Outcome, reference_path
from trueup.recipes.preference import pair_loss
from trueup.recipes.table import recipe
from trueup.runtime.clock import seconds
from trueup.runtime.device import prepare
from trueup.runtime.seeding import generator
from trueup.types import Decoding

BASE = "as it was"
"""Name of the arm without any change."""

Outcomes = Mapping[str, float]


def arm_name(factors: Sequence[Factor]) -> str:
    """The name of the arm in which these factors are changed."""
    return " + ".join(factor.name for factor in factors) or BASE


@dataclass
class Reruns:
    """Runs arms and remembers what they gave.

    Attributes:
        verb, config: the run's; steps and seed are set here.
        folder: where the reruns lie.
        steps: of every rerun.
        rows: training and held-out records; None for methods that sample from prompts.
        encoder: of the run's model.
        cap: tokens that responses are cut to where they are.
        main: the outcome that is told as reruns finish.
        voice: hears of every rerun.
        total: reruns planned.
    """

    verb: str
    config: RecipeConfig
    folder: Path
    steps: int
    replicates: int
    rows: Rows | None
    encoder: Encoder
    cap: int
    main: Outcome
    voice: Voice
    total: int
    done: int = field(default=0, init=False)
    failed: dict[str, str] = field(default_factory=dict, init=False)

    def arm(self, factors: Sequence[Factor]) -> list[Outcomes] | None:
        """The outcomes of an arm, one for each replicate; None if a rerun of it failed."""
        name = arm_name(factors)
        out = []
        for replicate in range(self.replicates):
            found = self._rerun(factors, replicate)
            if "failed" in found:
                self.failed[name] = str(found["failed"])
                self.done += self.replicates - replicate - 1
                return None
            out.append(found)
        return out

    def _rerun(self, factors: Sequence[Factor], replicate: int) -> dict[str, Any]:
        """Train, measure and forget the weights; what was measured before is read."""
        folder = self.folder / "reruns" / arm_name(factors).replace(" ", "") / str(replicate)
        mark, began = folder / "outcomes.json", seconds()
        if not mark.exists():
            config = self._settings(factors, replicate, folder)
            found = self._measured(config, folder, replicate)
            _write_whole(mark, found)
            shutil.rmtree(folder / "final", ignore_errors=True)
        found = json.loads(mark.read_text(encoding="utf-8"))
        self.done += 1
        value = found.get(self.main.name)
        told = f"{self.main.label} {self.main.amount(value)}" if value is not None else found.get("failed", "")
        took = f" ({seconds() - began:.1f} s)"
        self.voice.say(f"{self.done}/{self.total} {arm_name(factors)}, replicate {replicate + 1}: {told}{took}")
        return found

    def _measured(self, config: RecipeConfig, folder: Path, replicate: int) -> dict[str, Any]:
        if not (folder / "final").exists():
            try:
                recipe(self.verb)(config, Silence())
            except RunError as error:
                return {"failed": str(error)}
            except Interrupted:
                raise Interrupted("stopped between two steps; the same command goes on from there") from None
        held = self._held_trees(config, replicate) if isinstance(config, DpoConfig) else []
        return dict(MEASURES[self.verb](folder, config, held, replicate))

    def _settings(self, factors: Sequence[Factor], replicate: int, folder: Path) -> RecipeConfig:
        """The run's settings with the arm's changes, for one replicate."""
        changes: dict[str, Any] = {key: value for factor in factors for key, value in factor.changes.items()}
        others: list[Variant] = [factor.rows for factor in factors if factor.rows != "as is"]
        rows = others[0] if others else "as is"
        if self.rows is not None:
            changes |= {"data.path": str(self._train_file(rows)), "data.limit": None, "data.validation": None}
            if self.verb != "dpo":
                held = self.folder / "rows" / f"held-{replicate}.jsonl"
                changes["data.validation"] = str(write_rows(held, self.rows.held[replicate]))
        changes |= {
            "optim.steps": self.steps,
            "run.out": str(folder),
            "run.seed": self.config.run.seed + replicate,
            "run.trackers": (),
            "run.save_every": None,
            "run.on_fatal": "continue",
            "run.resume": (folder / "config.yaml").exists(),
        }
        config = changed(self.verb, self.config, changes)
        if isinstance(config, DpoConfig) and _reads_reference(config):
            # Arms that share a reference and rows share its log-probabilities, and leave nothing in the cache.
            return changed(self.verb, config, {"preference.store": str(self.folder / "reference-logps")})
        return config

    def _train_file(self, rows: Variant) -> Path:
        """The training rows of a variant, written when they are first asked for."""
        path = file_of(self.folder, rows)
        assert self.rows is not None
        if path.exists():
            return path
        records = self.rows.train
        if rows == "no preference":
            records = self._without_preference(records[: self.steps * self.config.optim.batch_size])
        text = capped(self.encoder, self.cap) if rows == "capped" else str
        aside = write_rows(path.with_suffix(".partial"), records, text)
        aside.rename(path)
        return path

    def _without_preference(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Both sides sampled from the run's own reference; pairs that come out equal or blank are left out."""
        assert isinstance(self.config, DpoConfig)
        drawn = self._drawn(reference_path(self.config), pairs, 2, "no preference")
        sides = [[self.encoder.text(ids) for ids in answers] for answers in drawn]
        made = [replace(p, chosen=first, rejected=second) for p, (first, second) in zip(pairs, sides, strict=True)]
        return [p for p in made if p.chosen != p.rejected and _usable(p.chosen) and _usable(p.rejected)]

    def _held_trees(self, config: DpoConfig, replicate: int) -> list[Tree]:
        """Held-out pairs of the run's kind: with rejected responses of the file, or sampled from the arm's reference.

        What the arm was trained on does not matter here, so that an arm with another source of pairs is measured like
        the others.
        """
        assert self.rows is not None and isinstance(self.config, DpoConfig)
        pairs = self.rows.held[replicate]
        prompts = self.encoder.prompts([pair.prompt for pair in pairs])
        chosen = self.encoder.responses([pair.chosen for pair in pairs])
        rejected: Sequence[tuple[int, ...]] = self.encoder.responses([pair.rejected for pair in pairs])
        if self.config.preference.rejected == "reference":
            rejected = [answers[0] for answers in self._drawn(reference_path(config), pairs, 1, "held", replicate)]
        return [Tree(p, (c, r)) for p, c, r in zip(prompts, chosen, rejected, strict=True)]

    def _drawn(self, model: str, pairs: Sequence[Pair], draws: int, *stream: object) -> list[list[tuple[int, ...]]]:
        """Responses of a model to the prompts, decoded as the run decodes."""
        assert isinstance(self.config, DpoConfig)
        loaded = hub.load_causal(model).to(prepare(self.config.run.device, self.config.run.threads))
        prompts = self.encoder.prompts([pair.prompt for pair in pairs])
        decoding = self.config.decoding.model_dump()
        room = hub.context_length(loaded) - max(map(len, prompts))
        decoding["max_new_tokens"] = max(1, min(decoding["max_new_tokens"], room))
        rng = generator(self.config.run.seed, "explain", *stream, device=loaded.device)
        drawn = sample(loaded, prompts, draws, Decoding(**decoding), self.encoder.stops, rng)
        return [[answer.tokens for answer in answers] for answers in drawn]


def _reads_reference(config: DpoConfig) -> bool:
    """Does the run read its reference's log-probabilities from a store, as far as its settings tell?"""
    section = config.preference
    return section.rejected == "file" and section.sync_every is None and pair_loss(section).needs_reference


def _usable(text: str) -> bool:
    return bool(text.strip()) and "\0" not in text


def _write_whole(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON so that a killed process leaves it complete or absent."""
    aside = path.with_suffix(".partial")
    aside.parent.mkdir(parents=True, exist_ok=True)
    aside.write_text(json.dumps(value), encoding="utf-8")
    aside.rename(path)
