"""Evaluation suites: fixed prompts from a file, from a world's test set, or the sixteen that ship with the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trueup.data.read import read_prompts
from trueup.data.records import Loaded, Message, PromptOnly
from trueup.errors import UserError, nearest
from trueup.worlds.protocol import World, WorldPrompt
from trueup.worlds.registry import BUILT_IN, load_world

_SHIPPED = Path(__file__).parent / "suites"


@dataclass(frozen=True)
class Suite:
    """Prompts to answer, and the gold score where the truth is known.

    Attributes:
        name: how reports call it.
        prompts: the prompts, with their metadata (family, template, content).
        gold: (prompt, response text, ended) -> named parts whose sum is the gold score; None where nobody knows.
    """

    name: str
    prompts: Loaded[PromptOnly]
    gold: Callable[[PromptOnly, str, bool], Mapping[str, float]] | None = None


def shipped() -> dict[str, Path]:
    """Name -> file of the suites inside the package."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.jsonl"))}


def load_suite(name_or_file: str, world: World | None = None, limit: int | None = None) -> Suite:
    """Load a suite.

    Args:
        name_or_file: a shipped suite (``sixteen``), the name of a world (its test prompts and gold score), or a file.
        world: scores the prompts of a file that carry its metadata (family, template, content).
        limit: only the first prompts.
    """
    if name_or_file in BUILT_IN and not Path(name_or_file).exists():
        return _world_suite(load_world(name_or_file), limit)
    path = shipped().get(name_or_file, Path(name_or_file))
    if not path.exists() and "/" not in name_or_file and "." not in name_or_file:
        known = [*shipped(), *BUILT_IN]
        raise UserError(
            f"--suite: '{name_or_file}' is neither a file nor a suite ({', '.join(known)})"
            + nearest(name_or_file, known)
        )
    prompts = read_prompts(str(path), limit=limit).whole()
    return Suite(path.stem, prompts, _gold_of(world) if world is not None else None)


def _world_suite(world: World, limit: int | None) -> Suite:
    records = tuple(
        PromptOnly(
            prompt=(Message("user", prompt.text),),
            where=f"{world.name}[{index}]",
            id=prompt.id,
            meta={"family": prompt.family, "template": prompt.template, "content": prompt.content},
        )
        for index, prompt in enumerate(world.prompts("test")[:limit])
    )
    loaded = Loaded(records, "the world's test prompts", world.name, "")
    return Suite(world.name, loaded, _gold_of(world))


def _gold_of(world: World) -> Callable[[PromptOnly, str, bool], Mapping[str, float]]:
    def gold(prompt: PromptOnly, response: str, ended: bool) -> Mapping[str, float]:
        missing = [key for key in ("family", "template", "content") if key not in prompt.meta]
        if missing:
            raise UserError(f"{prompt.where}: the world's gold score needs the field '{missing[0]}', which is missing")
        text = prompt.prompt[-1].content
        meta = prompt.meta
        known = WorldPrompt(
            prompt.id, text, meta["family"], meta["template"], meta.get("split", "test"), meta["content"]
        )
        return world.gold(known, response, ended)

    return gold
