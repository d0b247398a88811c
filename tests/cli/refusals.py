"""What the tests of bad input share: how a refusal must look, and a model that speaks another tongue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_lab import CONTEXT, rows

from trueup.cli.main import main
from trueup.models import hub
from trueup.models.tokenizer import train_bpe


def one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run the command line on bad input and return the one line it says."""
    capsys.readouterr()
    code = main(arguments)
    said = capsys.readouterr()
    assert code == 2, said.err
    assert said.out == ""
    assert said.err.count("\n") == 1 and said.err.startswith("trueup: "), said.err
    return said.err


def foreign(files: Path, make: Callable[..., Any]) -> str:
    """A model of the same size whose tokenizer gives the ids another meaning."""
    texts = [text[::-1] for row in rows(60) for text in row.values()]
    tokenizer = hub.wrap_tokenizer(train_bpe(texts, 300))
    hub.save(make("tiny", len(tokenizer), tokenizer, CONTEXT), tokenizer, files / "foreign")
    return str(files / "foreign")
