"""The page of the conformance kit: its tables name every fault, its commands say what it shows."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from trueup.cli.main import main
from trueup.preflight.conformance.kit import KINDS
from trueup.preflight.conformance.signatures import SIGNATURES

ROOT = Path(__file__).parents[2]
CODE = ROOT / "trueup/preflight/conformance"
PAGE = (ROOT / "docs/is-your-dpo-right.md").read_text(encoding="utf-8")
SECTIONS = {
    "token_logps": "token_*.py",
    "dpo_loss": "dpo_*.py",
    "dpo_loss and reward_loss": "pair_*.py",
    "reward_loss": "reward_*.py",
    "grpo_loss": "grpo_*.py",
    "gae": "gae*.py",
    "kl": "kl*.py",
    "every kind": "",
}
"""Heading of the page -> the files whose faults its table has; the last has those of all other files."""


def files(section: str) -> list[Path]:
    if not SECTIONS[section]:
        others = {path for pattern in SECTIONS.values() if pattern for path in CODE.glob(pattern)}
        return sorted(set(CODE.glob("*.py")) - others)
    return sorted(CODE.glob(SECTIONS[section]))


def made(section: str) -> dict[str, str]:
    """Name and meaning of every fault that a section's files define (``NAME = Fault(...)``)."""
    out = {}
    for path in files(section):
        module = importlib.import_module(f"trueup.preflight.conformance.{path.stem}")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("Fault("):
                fault = getattr(module, ast.unparse(node.targets[0]))
                out[fault.name] = fault.wrong
    return out


@pytest.mark.parametrize("section", SECTIONS)
def test_the_tables_name_every_fault(section: str) -> None:
    part = PAGE.split(f"\n### {section}\n")[1].split("\n#")[0]
    assert dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|", part, re.MULTILINE)) == made(section)


def test_every_suspect_is_in_a_table() -> None:
    assert set(KINDS) == set(SIGNATURES)
    told = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE))
    for kind in KINDS.values():
        assert {suspect.fault.name for suspect in kind.suspects} <= told


SHOWN = re.findall(r"```text\n\$ (trueup conformance .*)\n((?:.*\n)*?)```", PAGE)


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_commands_say_what_the_page_shows(
    command: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code = main(shlex.split(command)[1:])
    said = capsys.readouterr().out
    assert code == (0 if "It conforms" in shown else 3)
    assert [line.rstrip() for line in said.splitlines()] == shown.splitlines()


def test_the_page_shows_commands() -> None:
    assert len(SHOWN) >= 3
