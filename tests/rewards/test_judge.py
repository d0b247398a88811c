"""A judge behind an endpoint on this machine: what is sent, what is kept, and what stops a run."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from answers import answer

from trueup.data.records import Message
from trueup.errors import RunError, UserError
from trueup.rewards.judge import make_judge
from trueup.rewards.options import make
from trueup.rewards.protocol import Answer, TextReward

Reply = Callable[[str, int], tuple[int, Any]]
"""(question, how often it was asked) -> status and body; a text becomes a chat completion, None takes too long."""


class Desk:
    """The other side: remembers what it was asked, and answers as ``reply`` says."""

    def __init__(self) -> None:
        self.reply: Reply = lambda question, times: (200, f"Fine.\nScore: {question.count('a')}")
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.together = self.most = 0
        self.lock = threading.Lock()

    @property
    def questions(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]

    def take(self, request: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        with self.lock:
            self.requests.append(request)
            self.headers.append(headers)
            self.together += 1
            self.most = max(self.most, self.together)
            question = request["messages"][0]["content"]
            times = self.questions.count(question)
        try:
            return self.reply(question, times)
        finally:
            with self.lock:
                self.together -= 1


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, said = desk.take(body, dict(self.headers))
            if said is None:
                time.sleep(0.6)
                return
            content = {"choices": [{"message": {"content": said}}]} if isinstance(said, str) else said
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{desk.url}/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    desk.url = f"http://127.0.0.1:{server.server_port}/v1"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield desk
    server.shutdown()
    server.server_close()
    thread.join()


def judge(desk: Desk, **options: Any) -> TextReward:
    given = {"judge": desk.url, "model": "j", "prompt": "{response}", "backoff": 0.01, **options}  # type: ignore[attr-defined]
    return make("judge", make_judge, given)


def answers(*texts: str) -> list[Answer]:
    return [answer(text) for text in texts]


def test_scores_come_in_order_and_on_the_scale(desk: Desk) -> None:
    texts = ["a" * n for n in (3, 0, 10, 7, 1, 3)]
    assert judge(desk).score(answers(*texts)) == [0.3, 0.0, 1.0, 0.7, 0.1, 0.3]
    assert sorted(desk.questions) == sorted(set(texts)), "one question was asked twice"
    assert judge(desk, scale=[-5, 5]).score(answers("aaa")) == [0.8]


def test_the_request(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1\n")
    asked = answer("{prompt} a", prompt="sort {answer}", answer=7)
    options = {"prompt": 'P {prompt} R {response} A {answer} {"score": 3} {}', "key_variable": "MY_KEY"}
    assert judge(desk, **options, body={"temperature": 0.5, "seed": 1}).columns == ("answer",)
    judge(desk, **options, body={"temperature": 0.5, "seed": 1}).score([asked])
    content = 'P sort {answer} R {prompt} a A 7 {"score": 3} {}'
    message = {"role": "user", "content": content}
    assert desk.requests == [{"model": "j", "temperature": 0.5, "seed": 1, "messages": [message]}]
    assert desk.headers[0]["Authorization"] == "Bearer secret-1"


def test_without_a_key_none_is_sent(desk: Desk) -> None:
    judge(desk).score(answers("a"))
    assert "Authorization" not in desk.headers[0]
    assert desk.requests[0]["temperature"] == 0


def test_a_conversation_is_told_with_its_roles(desk: Desk) -> None:
    turns = (Message("system", "brief"), Message("user", "hi"))
    judge(desk, prompt="{prompt}|{response}").score([Answer(turns, "a")])
    assert desk.questions == ["system: brief\n\nuser: hi|a"]


def test_rows_without_a_column_are_left_out(desk: Desk) -> None:
    rows = [answer("a", answer=None), answer("aa", answer="x")]
    assert judge(desk, prompt="{answer} {response}").score(rows) == [None, 0.2]
    assert desk.questions == ["x aa"]


def test_what_was_answered_once_is_not_asked_again(desk: Desk) -> None:
    first = judge(desk).score(answers("a", "aa"))
    assert judge(desk, score=r": (\d+)").score(answers("a", "aa")) == first and len(desk.requests) == 2
    judge(desk, model="other").score(answers("a"))
    judge(desk, body={"temperature": 1}).score(answers("a"))
    judge(desk, prompt="So: {response}").score(answers("a"))
    assert len(desk.requests) == 5


def test_the_last_number_counts(desk: Desk) -> None:
    desk.reply = lambda question, times: (200, "Score: 9 would be too much. Score: 4.5")
    assert judge(desk).score(answers("x")) == [0.45]
    assert judge(desk, score=r"\d+\.\d+").score(answers("x")) == [0.45]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(desk: Desk, status: int) -> None:
    desk.reply = lambda question, times: (status, {}) if times < 3 else (200, "Score: 5")
    assert judge(desk, retries=2).score(answers("x", "y")) == [0.5, 0.5]
    assert sorted(desk.questions) == ["x"] * 3 + ["y"] * 3


def test_a_lasting_failure_stops_after_so_many_tries(desk: Desk) -> None:
    desk.reply = lambda question, times: (500, {"error": "out of memory"})
    with pytest.raises(RunError, match=r"no answer in 3 tries; the last: HTTP 500: .*out of memory.*response 'x'"):
        judge(desk, retries=2).score(answers("x"))
    assert len(desk.requests) == 3


def test_a_silent_endpoint_is_given_up(desk: Desk) -> None:
    desk.reply = lambda question, times: (200, None)
    start = time.monotonic()
    with pytest.raises(RunError, match=r"no answer in 2 tries; the last: .*timed out"):
        judge(desk, retries=1, timeout=0.1).score(answers("x"))
    assert time.monotonic() - start < 1.0 and len(desk.requests) == 2


def test_nobody_listens() -> None:
    options = {"judge": "http://127.0.0.1:9/v1", "model": "j", "retries": 1, "backoff": 0.01}
    with pytest.raises(RunError, match=r"127.0.0.1:9/v1: no answer in 2 tries"):
        make("judge", make_judge, options).score(answers("x"))


def test_a_refusal_is_not_tried_again_and_shows_no_key(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1")
    desk.reply = lambda question, times: (401, {"error": "who are you?"})
    reward = judge(desk, key_variable="MY_KEY")
    with pytest.raises(RunError, match=r"HTTP 401: .*who are you") as error:
        reward.score(answers("x"))
    assert len(desk.requests) == 1
    assert "secret-1" not in str(error.value) + repr(reward) + reward.identity


def test_no_redirect_is_followed(desk: Desk) -> None:
    """Another host would get prompts and key."""
    desk.reply = lambda question, times: (302, {})
    with pytest.raises(RunError, match="HTTP 302"):
        judge(desk).score(answers("x"))
    assert len(desk.requests) == 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("I would rather not.", "the answer has no number where .*: 'I would rather not.'"),
        ("Score: 11", "11 is not from 0 to 10, in the answer 'Score: 11'"),
        ("Score: -1", "-1 is not from 0 to 10"),
        ({"choices": []}, 'no chat completion: {"choices": \\[\\]}'),
        ({"choices": [{"message": {"content": None}}]}, "no chat completion: .*null"),
        (b"<html>proxy", "no chat completion: <html>proxy"),
    ],
    ids=str,
)
def test_a_malformed_answer_stops_the_run_and_is_shown(desk: Desk, said: Any, told: str) -> None:
    fine = desk.reply
    desk.reply = lambda question, times: (200, said) if question == "x" else fine(question, times)
    with pytest.raises(RunError, match=told) as error:
        judge(desk).score(answers("a", "x", "aa"))
    assert "response 'x' to prompt 'sort: b a' (prompts.jsonl:3)" in str(error.value)
    # It is not kept: once the judge has come to its senses, the run goes on.
    desk.reply = fine
    assert judge(desk).score(answers("x", "a")) == [0.0, 0.1]


def test_the_failure_that_came_first_is_told_and_stops_the_rest(desk: Desk) -> None:
    desk.reply = lambda question, times: (401, {}) if question == "bad" else (500, {})
    start = time.monotonic()
    with pytest.raises(RunError, match=r"HTTP 401.*response 'bad'"):
        judge(desk, workers=2, backoff=30.0).score(answers("slow", "bad", *"abcdefgh"))
    assert time.monotonic() - start < 5.0 and len(desk.requests) <= 4


@pytest.mark.parametrize("workers", [1, 4])
def test_questions_are_asked_side_by_side(desk: Desk, workers: int) -> None:
    def slow(question: str, times: int) -> tuple[int, str]:
        time.sleep(0.05)
        return 200, "Score: 1"

    desk.reply = slow
    judge(desk, workers=workers).score(answers(*"abcdefgh"))
    assert desk.most == workers


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"judge": "localhost:80"}, "option judge"),
        ({"modle": "x"}, "did you mean 'model'"),
        ({"prompt": "how good is {prompt}?"}, "must hold {response}"),
        ({"score": "("}, "not a regular expression"),
        ({"scale": [1, 1]}, "lowest, then highest"),
        ({"timeout": 0}, "option timeout"),
        ({"workers": 0}, "option workers"),
        ({"key_variable": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
    ],
)
def test_refusals(desk: Desk, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        judge(desk, **options)
    assert desk.requests == []


def test_a_key_in_place_of_its_variable_is_not_repeated(desk: Desk) -> None:
    with pytest.raises(UserError, match="name of an environment variable") as error:
        judge(desk, key_variable="sk-very-secret")
    assert "secret" not in str(error.value)


def test_nothing_is_sent_before_there_is_something_to_judge(desk: Desk) -> None:
    assert judge(desk).score([]) == [] and desk.requests == []
