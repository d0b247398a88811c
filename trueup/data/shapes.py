"""The shapes of data that people have: which columns make a shape, and how a row of it splits into its parts.

A shape says nothing about what the parts are used for: Alpaca with a ``label`` column is judged data, and the prompts
of any shape can be read alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from trueup.data import dialogue
from trueup.data.records import Dropped, Message, Prompt
from trueup.data.rows import Row, checked_text, number, optional_text, text


@dataclass(frozen=True, slots=True)
class Parts:
    """A prompt and its responses: none, one, or chosen before rejected with the margin between them, if told."""

    prompt: Prompt
    responses: tuple[str, ...] = ()
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """One way of laying out a row.

    Attributes:
        name: for people.
        columns: required column -> what its cells are, in the words of `rows.describe`.
        split: row -> its parts; the presence and kind of the required cells has been checked.
        optional: columns that are used where present.
        without: columns whose presence makes the row something else.
    """

    name: str
    columns: Mapping[str, str]
    split: Callable[[Row], Parts | Dropped]
    optional: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """The name with the columns: ``Alpaca (instruction, output, input?)``."""
        return f"{self.name} ({', '.join([*self.columns, *(f'{name}?' for name in self.optional)])})"


def _alpaca_prompt(row: Row) -> Prompt:
    """Instruction, and after a blank line the input, if there is one."""
    instruction, extra = text(row, "instruction"), optional_text(row, "input")
    return dialogue.one_turn(f"{instruction}\n\n{extra}" if extra.strip() else instruction)


def _question_prompt(row: Row) -> Prompt:
    """The question, after the system's turn if the ``system`` cell holds any text."""
    system, question = optional_text(row, "system"), dialogue.one_turn(text(row, "question"))
    return (Message("system", system), *question) if system.strip() else question


def _plain_prompt(row: Row) -> Prompt:
    return dialogue.one_turn(text(row, "prompt"))


def _texts(prompt: Callable[[Row], Prompt], *responses: str) -> Callable[[Row], Parts]:
    """Prompt made of plain columns, plain responses in the named ones."""

    def split(row: Row) -> Parts:
        return Parts(prompt(row), tuple(text(row, name) for name in responses))

    return split


def _turns_then(prompt: str, *responses: str) -> Callable[[Row], Parts]:
    """Prompt as a list of turns, each response as one assistant turn in its own column."""

    def split(row: Row) -> Parts:
        turns = dialogue.prompt(row, prompt, dialogue.messages(row, prompt))
        return Parts(turns, tuple(dialogue.reply(row, name) for name in responses))

    return split


def _whole_dialogue(column: str) -> Callable[[Row], Parts]:
    """One list of turns; the last reply, if it ends with one, is the response."""

    def split(row: Row) -> Parts:
        prompt, reply = dialogue.split_reply(row, column, dialogue.messages(row, column))
        return Parts(prompt, () if reply is None else (reply,))

    return split


def _two_dialogues(row: Row) -> Parts | Dropped:
    """Whole dialogues in chosen and rejected: what they share up to the last reply is the prompt."""
    sides = [dialogue.split_reply(row, name, dialogue.messages(row, name)) for name in ("chosen", "rejected")]
    (prompt, chosen), (other, rejected) = sides
    if chosen is None or rejected is None:
        name = "chosen" if chosen is None else "rejected"
        raise row.refusal(name, "ends with the user's turn", "end it with the assistant's reply or remove the row")
    return Parts(prompt, (chosen, rejected)) if prompt == other else Dropped("dialogues differ before the last reply")


def _two_dialogues_and_prompt(row: Row) -> Parts | Dropped:
    """As above, with the prompt's text told once more (``HuggingFaceH4/ultrafeedback_binarized``)."""
    parts = _two_dialogues(row)
    if isinstance(parts, Parts) and row.cells["prompt"] not in [turn.content for turn in parts.prompt]:
        remedy = "remove the prompt column if the dialogues are right"
        raise row.refusal("prompt", "is not a turn of the dialogues in chosen and rejected", remedy)
    return parts


def _hh(row: Row) -> Parts | Dropped:
    """Anthropic HH strings. The published files have rows that cannot be used; they are counted, not refused."""
    chosen, rejected = (dialogue.hh_dialogue(row, name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        return Dropped("dialogues differ before the last reply")
    if any(not turn.content.strip() for turn in (*chosen, rejected[-1])):
        return Dropped("empty turn in a dialogue")
    speakers = [turn.role for turn in (*chosen[-2:], rejected[-1])]
    if speakers != ["user", "assistant", "assistant"]:
        return Dropped("dialogue does not end with a human turn and a reply")
    return Parts(chosen[:-1], (chosen[-1].content, rejected[-1].content))


def _scored(row: Row) -> Parts | Dropped:
    """Best response against worst by score, the first of each where several have that score."""
    responses, scores = row.cells["responses"], row.cells["scores"]
    if len(responses) != len(scores) or len(responses) < 2:
        problem = f"has {len(scores)} scores for {len(responses)} responses"
        raise row.refusal("scores", problem, "give two responses or more, each with its score")
    texts = [checked_text(row, "responses", value, f"responses[{i}]") for i, value in enumerate(responses)]
    values = [number(row, "scores", value) for value in scores]
    best, worst = max(values), min(values)
    if best == worst:
        return Dropped("tied scores")
    sides = (texts[values.index(best)], texts[values.index(worst)])
    return Parts(_plain_prompt(row), sides, best - worst)


_PAIR = ("chosen", "rejected")
_TOLD = frozenset({"prompt", "conversations"})
_TOLD_IN_TEXT = _TOLD | {"question", "instruction"}

_ANSWERED = (
    Shape("Alpaca", {"instruction": "text", "output": "text"}, _texts(_alpaca_prompt, "output"), optional=("input",)),
    Shape("prompt and completion", {"prompt": "text", "completion": "text"}, _texts(_plain_prompt, "completion")),
    Shape(
        "chat prompt and completion", {"prompt": "a list", "completion": "a list"}, _turns_then("prompt", "completion")
    ),
    Shape("prompt and response", {"prompt": "text", "response": "text"}, _texts(_plain_prompt, "response")),
    Shape("messages", {"messages": "a list"}, _whole_dialogue("messages")),
    Shape("ShareGPT", {"conversations": "a list"}, _whole_dialogue("conversations")),
)

EXAMPLE_SHAPES = tuple(replace(shape, without=frozenset({*_PAIR, "label"})) for shape in _ANSWERED)

JUDGED_SHAPES = tuple(
    replace(
        shape,
        name=f"judged {shape.name}",
        columns={**shape.columns, "label": "true or false"},
        without=frozenset(_PAIR),
    )
    for shape in _ANSWERED
)

PAIR_SHAPES = (
    Shape("pair of responses", {"prompt": "text", "chosen": "text", "rejected": "text"}, _texts(_plain_prompt, *_PAIR)),
    Shape(
        "question and pair of responses",  # Intel/orca_dpo_pairs
        {"question": "text", "chosen": "text", "rejected": "text"},
        _texts(_question_prompt, *_PAIR),
        optional=("system",),
    ),
    Shape(
        "Alpaca pair",  # LLaMA-Factory's preference data
        {"instruction": "text", "chosen": "text", "rejected": "text"},
        _texts(_alpaca_prompt, *_PAIR),
        optional=("input",),
    ),
    Shape(
        "chat prompt and pair of responses",
        {"prompt": "a list", "chosen": "a list", "rejected": "a list"},
        _turns_then("prompt", *_PAIR),
    ),
    Shape(
        "pair of dialogues with the prompt repeated",
        {"prompt": "text", "chosen": "a list", "rejected": "a list"},
        _two_dialogues_and_prompt,
    ),
    Shape(
        "ShareGPT pair",
        {"conversations": "a list", "chosen": "an object", "rejected": "an object"},
        _turns_then("conversations", *_PAIR),
    ),
    Shape("pair of dialogues", {"chosen": "a list", "rejected": "a list"}, _two_dialogues, without=_TOLD),
    Shape("Anthropic HH dialogues", {"chosen": "text", "rejected": "text"}, _hh, without=_TOLD_IN_TEXT),
    Shape("scored responses", {"prompt": "text", "responses": "a list", "scores": "a list"}, _scored),
)

_ANSWERS = frozenset({"completion", "response", "responses", "messages", "conversations", *_PAIR})

PROMPT_SHAPES = (
    Shape("prompts", {"prompt": "text"}, _texts(_plain_prompt), without=_ANSWERS),
    Shape("chat prompts", {"prompt": "a list"}, _turns_then("prompt"), without=_ANSWERS),
    Shape(
        "instructions",
        {"instruction": "text"},
        _texts(_alpaca_prompt),
        optional=("input",),
        without=_ANSWERS | {"output"},
    ),
    *EXAMPLE_SHAPES,
    *PAIR_SHAPES,
    *JUDGED_SHAPES,
)
