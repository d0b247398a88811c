"""A chat endpoint in the manner of OpenAI's, asked with the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from threading import Event
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from trueup.errors import RunError

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that another try may mend."""

_LONGEST_WAIT = 60.0
_SHOWN = 300


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry prompts and key to another host than the one that was configured."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""
        return None


_OPENER = build_opener(_NoRedirect)


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and how often.

    Attributes:
        url: the base, such as ``http://localhost:8000/v1``; requests go to ``url/chat/completions``.
        key: sent as a bearer token; None sends none. It is in no error and no representation.
        timeout: seconds that one try may take to connect, and between two pieces of its answer.
        retries: tries after the first.
        backoff: seconds before the second try, twice as many before each further one, at most 60; an endpoint that
            says ``Retry-After`` is waited for as long as it says, within the same limit.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    retries: int = 4
    backoff: float = 1.0

    def ask(self, body: Mapping[str, Any], stop: Event) -> str:
        """Return the text of the first choice.

        Args:
            body: the request.
            stop: when set, no further try is made.

        Raises:
            RunError: the endpoint refuses, or does not answer, or answers with something else than a chat completion.
        """
        wait, problem = self.backoff, ""
        for tries in range(self.retries + 1):
            if tries and stop.wait(min(wait, _LONGEST_WAIT)):
                break
            wait = self.backoff * 2**tries
            try:
                return _content(self._post(body), self.url)
            except HTTPError as error:
                with error:
                    said = error.read(_SHOWN).decode("utf-8", "replace")
                problem = f"HTTP {error.code}: {said}"
                if error.code not in _PASSING:
                    raise RunError(f"judge {self.url}: {problem}") from None
                wait = _seconds(error.headers.get("Retry-After")) or wait
            except (URLError, HTTPException, OSError) as error:
                problem = str(getattr(error, "reason", None) or error) or type(error).__name__
        raise RunError(f"judge {self.url}: no answer in {self.retries + 1} tries; the last: {problem}")

    def _post(self, body: Mapping[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = Request(address, json.dumps(body).encode(), headers, method="POST")
        with _OPENER.open(request, timeout=self.timeout) as answer:
            return answer.read()


def _content(answer: bytes, url: str) -> str:
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        content = None
    if not isinstance(content, str):
        shown = answer[:_SHOWN].decode("utf-8", "replace")
        raise RunError(f"judge {url}: the answer is no chat completion: {shown}")
    return content


def _seconds(header: str | None) -> float:
    """A ``Retry-After`` in seconds; 0 for none, or for a date."""
    return float(header) if header is not None and header.isdecimal() else 0.0
