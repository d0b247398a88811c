"""A user's own function: what it is called with, whom its errors name, and that it gives what it gives under TRL."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from answers import answer
from trl_peer import QUIET

from trueup.data.records import Message
from trueup.errors import RunError, UserError
from trueup.rewards.custom import load_function
from trueup.rewards.protocol import Answer, TextReward

pytestmark = QUIET

ANSWERS = [answer("a b", tokens=3, answer="a b"), answer("b a", ended=False, answer=None), answer("", tokens=1)]
CHAT = [replace(a, prompt=(Message("system", "brief"), Message("user", "sort"))) for a in ANSWERS]
Load = Callable[..., TextReward]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a file whose function is ``f`` and load it."""

    def loaded(text: str, columns: tuple[str, ...] = ("answer",), conversational: bool = False) -> TextReward:
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        return load_function(f"{tmp_path / 'mine.py'}:f", columns, conversational)

    return loaded


def seen(load: Load, parameters: str, answers: list[Answer], conversational: bool = False) -> dict[str, Any]:
    """What a function with these parameters is called with."""
    text = f"CALLS = []\ndef f({parameters}):\n    CALLS.append(locals())\n    return [0.0] * {len(answers)}\n"
    reward = load(text, conversational=conversational)
    reward.score(answers)
    (call,) = reward.score.function.__globals__["CALLS"]  # type: ignore[attr-defined]
    return call


def test_it_gets_what_it_asks_for_and_no_more(load: Load) -> None:
    assert seen(load, "responses, ended", ANSWERS) == {"responses": ["a b", "b a", ""], "ended": [True, False, True]}
    assert seen(load, "answer, colour='red'", ANSWERS) == {"answer": ["a b", None, None], "colour": "red"}
    assert seen(load, "answer='none'", ANSWERS)["answer"] == ["a b", None, None]


def test_everything_is_given_to_keyword_arguments(load: Load) -> None:
    given = seen(load, "**rest", ANSWERS)["rest"]
    names = {"prompts", "completions", "completion_ids", "responses", "ended", "id", "answer"}
    assert set(given) == names and all(len(column) == 3 for column in given.values())
    assert given["completion_ids"] == [[0, 1, 2], [0, 1], [0]]


def test_text_data_and_conversations_come_in_trl_s_forms(load: Load) -> None:
    text = seen(load, "prompts, completions, responses", ANSWERS)
    assert text["prompts"][0] == "sort: b a" and text["completions"] == text["responses"] == ["a b", "b a", ""]
    chat = seen(load, "prompts, completions, responses", CHAT, conversational=True)
    assert chat["prompts"][0] == [{"role": "system", "content": "brief"}, {"role": "user", "content": "sort"}]
    assert chat["completions"][1] == [{"role": "assistant", "content": "b a"}]
    assert chat["responses"] == ["a b", "b a", ""]


def test_numbers_of_any_kind_and_none(load: Load) -> None:
    assert load("def f(responses): return (True, 2, None)").score(ANSWERS) == [1.0, 2.0, None]
    assert load("import numpy\ndef f(ended): return numpy.array(ended) * 0.5").score(ANSWERS) == [0.5, 0.0, 0.5]
    assert load("import torch\ndef f(ended): return torch.tensor(ended)").score(ANSWERS) == [1.0, 0.0, 1.0]
    assert load("async def f(ended): return [len(ended)] * 3").score(ANSWERS) == [3.0, 3.0, 3.0]
    assert load("class C:\n    def __call__(self, ended): return [1] * 3\nf = C()").score(ANSWERS) == [1.0] * 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [1 / len(r) for r in responses]", r"ZeroDivisionError: division by zero \(mine.py:2\); response ''"),
        ("return [x == 'b a' and float('nan') for x in responses]", "gave nan, .*None where.*; response 'b a'"),
        ("return [float('inf') if not r else 1 for r in responses]", "gave inf, which is no finite.*; response ''"),
        ("return [1e300] * len(responses)", "gave 1e.300, .*; response 'a b'"),
        ("return ['1'] * len(responses)", "gave '1', .*; response 'a b'"),
        ("return [1 for r in responses if r != 'b a']", "gave 0 numbers for 1 responses; .*; response 'b a'"),
        ("return 1.0", "TypeError: 'float' object is not iterable .*; response 'a b'"),
        ("return", "'NoneType' object is not iterable .*; response 'a b'"),
        (
            "return [len(responses) < 3 or 1 / 0] * len(responses)",
            "division by zero.*; each of the 3 .* alone goes thr",
        ),
        (
            "return [1.0] if len(responses) > 1 else [2.0]",
            "gave 1 numbers for 3 .*; each of the 3 .* the first is .*'a b'",
        ),
    ],
)
def test_errors_name_the_function_and_the_culprit(load: Load, body: str, said: str) -> None:
    with pytest.raises(RunError, match=said) as error:
        load(f"def f(responses):\n    {body}").score(ANSWERS)
    assert "mine.py:f: " in str(error.value)
    assert "to prompt 'sort: b a' (prompts.jsonl:3)" in str(error.value)
    assert "\n" not in str(error.value)


def test_long_texts_are_shortened(load: Load) -> None:
    with pytest.raises(RunError) as error:
        load("def f(ended): return [None + 1]").score([answer("a" * 5000 + "\n" + "z" * 5000)])
    assert len(str(error.value)) < 600 and "aaa ... zzz" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def g(): pass", "has no function 'f'"),
        ("f = 3", "has no function 'f'"),
        ("def f(anwser): pass", "asks for 'anwser', which there is not; did you mean 'answer'?"),
        ("def f(responses, /): pass", "asks for 'responses', which there is not"),
        ("import nowhere_at_all", "failed while loading: ModuleNotFoundError"),
        ("def f(:", "failed while loading: SyntaxError"),
    ],
)
def test_what_cannot_be_loaded(load: Load, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(text)


def test_a_missing_file() -> None:
    with pytest.raises(UserError, match=r"nowhere.py: no such file"):
        load_function("nowhere.py:f")


def test_the_folder_of_the_file_is_not_importable_afterwards(load: Load, tmp_path: Path) -> None:
    """A user's ``random.py`` beside the file must not stand in for Python's."""
    (tmp_path / "json.py").write_text("raise RuntimeError('not me')", encoding="utf-8")
    before = list(sys.path)
    load(
        "import json\nfrom dataclasses import dataclass\n@dataclass\nclass C:\n    x: int\ndef f(ended): return [1] * 3"
    )
    assert sys.path == before and "mine" not in sys.modules


def test_identity_is_that_of_the_text(load: Load) -> None:
    one, other = load("def f(ended): return [1] * 3"), load("def f(ended): return [2] * 3")
    assert one.identity != other.identity == load("def f(ended): return [2] * 3").identity


TRL_STYLE = """
import re
def f(prompts, completions, completion_ids, answer, **kwargs):
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    asked = [p if isinstance(p, str) else p[-1]["content"] for p in prompts]
    return [
        None if a is None else 0.1 * len(ids) + float(t == a) + 0.01 * len(p)
        for t, a, ids, p in zip(texts, answer, completion_ids, asked)
    ]
"""


def trl_rewards(monkeypatch: pytest.MonkeyPatch, function: Any, answers: list[Answer], chat: bool) -> Any:
    """What TRL's trainer makes of a reward function, by its own method."""
    trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is a peer of the tests alone")
    monkeypatch.setattr(trainer, "gather", lambda values: values)  # one process
    monkeypatch.setattr(trainer, "profiling_context", lambda *_: nullcontext())
    monkeypatch.setattr(trainer, "logger", Mock())  # warns of responses without a number

    me = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cpu"), is_main_process=True),
        reward_funcs=[function],
        reward_processing_classes=[None],
        reward_func_names=["f"],
        state=None,
        environments=None,
        _log_completion_extra=None,
        _log_metric=None,
    )
    turns = [[{"role": t.role, "content": t.content} for t in a.prompt] for a in answers]
    prompts = turns if chat else [a.prompt[-1].content for a in answers]
    said = [[{"role": "assistant", "content": a.response}] if chat else a.response for a in answers]
    inputs = [{"prompt": p, "answer": a.meta.get("answer")} for p, a in zip(prompts, answers, strict=True)]
    ids = [list(a.tokens) for a in answers]
    return trainer.GRPOTrainer._calculate_rewards(me, inputs, prompts, said, ids)[:, 0]


@pytest.mark.parametrize("chat", [False, True])
def test_a_function_for_trl_gives_what_it_gives_there(load: Load, monkeypatch: pytest.MonkeyPatch, chat: bool) -> None:
    answers = CHAT if chat else ANSWERS
    reward = load(TRL_STYLE, conversational=chat)
    theirs = trl_rewards(monkeypatch, reward.score.function, answers, chat)  # type: ignore[attr-defined]
    ours = reward.score(answers)
    assert [None if value != value else value for value in theirs.tolist()] == pytest.approx(ours)
    assert ours[1:] == [None, None] and ours[0] is not None and ours[0] > 1


@pytest.mark.parametrize("chat", [False, True])
def test_functions_that_trl_ships(load: Load, chat: bool) -> None:
    pytest.importorskip("trl", reason="TRL is a peer of the tests alone")
    long = load("from trl.rewards import get_soft_overlong_punishment\nf = get_soft_overlong_punishment(3, 2)")
    assert long.score([answer("", tokens=n) for n in (1, 2, 3, 4)]) == [0.0, -0.5, -1.0, -1.0]
    if chat:
        think = load("from trl.rewards import think_format_reward as f", conversational=True)
        assert think.score([answer("<think>a</think> b"), answer("b")]) == [1.0, 0.0]
