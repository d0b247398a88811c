"""The front door: quick help that is true, near misses named, one exit code for each kind of end."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import trueup
from trueup.cli import main as entry
from trueup.cli.main import VERBS, main
from trueup.config.load import leaves, load_config
from trueup.config.schema import RECIPES
from trueup.errors import GateError, Interrupted, RunError, TrueupError, UserError

ROOT = Path(__file__).parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT)


def test_help_answers_in_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = run("-m", "trueup", "--help")
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0 and all(verb in done.stdout for verb in VERBS)
    assert min(seconds) < 0.5, seconds


PROBE = """
import contextlib, io, sys
from trueup.cli.main import VERBS, main
commands = [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)]
# Settings are judged before anything slow is loaded, too.
commands += [["dpo", "--model", "m", "--data", "d", "--optim.learning_rate", "-1"], ["dpo", "--bta", "1"], ["dppo"]]
for command in commands:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            main(command)
    heavy = {"torch", "transformers", "tokenizers", "pyarrow", "scipy", "plotly"} & set(sys.modules)
    if heavy:
        raise SystemExit(f"{command} loads {sorted(heavy)}")
"""


def test_help_and_wrong_settings_load_nothing_heavy() -> None:
    done = run("-c", PROBE)
    assert done.returncode == 0, done.stderr


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def parser_of(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    importlib.import_module(VERBS[verb].module).add_arguments(parser, verb)
    return parser


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_examples_that_it_would_take(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(verb, capsys)
    examples = [line.split() for line in text.splitlines() if line.strip().startswith(f"trueup {verb} ")]
    assert "example" in text and examples
    for _, _, *arguments in examples:
        args = parser_of(verb).parse_args(arguments)
        if verb in RECIPES:
            given = {key: value for key in leaves(RECIPES[verb]) if (value := getattr(args, key)) is not None}
            load_config(RECIPES[verb], None, given)


@pytest.mark.parametrize("verb", VERBS)
def test_results_can_be_had_for_machines(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--json" in help_of(verb, capsys)


def test_the_first_help_names_every_verb_and_only_files_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for verb, known in VERBS.items():
        assert re.search(rf"^ +{verb} +{re.escape(known.help)}$", text, re.MULTILINE)
    for line in text.splitlines():
        if line.startswith("  trueup "):
            _, verb, *arguments = shlex.split(line)
            parser_of(verb).parse_args(arguments)
            assert all((ROOT / word).exists() for word in arguments if word.startswith("configs/"))


MINIMAL = {"model.path": "m", "data.path": "d", "run.out": "o", "rollout.reward": "r"}


@pytest.mark.parametrize("verb", RECIPES)
def test_the_help_of_a_recipe_names_every_setting_with_the_default_it_has(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default in the help is the value that a run without the flag gets (DPO's learning rate is not SFT's)."""
    schema = RECIPES[verb]
    text = " ".join(help_of(verb, capsys).split())
    config = load_config(schema, None, {key: value for key, value in MINIMAL.items() if key in leaves(schema)})
    for key in leaves(schema):
        assert f"--{key} VALUE" in text
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        told = re.search(rf"--{re.escape(key)} VALUE (?:(?! --).)*?\(default: (.*?)\)(?= --| \w+:|$| example)", text)
        if told and key not in MINIMAL:
            assert told[1] == str(value), key
    assert f"--optim.learning_rate VALUE peak learning rate (default: {config.optim.learning_rate})" in text


def test_near_misses_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, near in (
        (["dop"], "'dpo'"),
        (["stduy"], "'study'"),
        (["dpo", "--preference.bta", "1"], "'--preference.beta'"),
        (["dpo", "--beta", "1"], "'--preference.beta'"),
        (["sft", "--modle=x"], "'--model'"),
        (["study", "x.yaml", "--wokers", "2"], "'--workers'"),
        (["report", "x", "--jsno"], "'--json'"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and f"did you mean {near}?" in said.err and said.out == ""


def test_help_is_not_what_anybody_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dpo", "--lr", "1"]) == 2
    assert "did you mean '--help'" not in capsys.readouterr().err


def test_no_verb_shows_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "verbs:" in said.err


def test_flags_before_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"trueup {trueup.__version__}\n"
    assert main(["--vresion"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (None, 0),
        (RunError("the loss is not finite"), 1),
        (TrueupError("whatever else"), 1),
        (UserError("no such file"), 2),
        (GateError("no held-out pairs"), 3),
        (Interrupted("stopped after step 3"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: BaseException | None, code: int
) -> None:
    def execute(verb: str, args: argparse.Namespace) -> int:
        if end is not None:
            raise end
        return 0

    fake = SimpleNamespace(add_arguments=lambda parser, verb: None, execute=execute)
    monkeypatch.setattr(entry.importlib, "import_module", lambda name: fake)
    assert main(["dpo"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    if end is None:
        assert said.err == ""
    elif isinstance(end, TrueupError):
        assert said.err == f"trueup: {end}\n"
    else:
        assert said.err == "trueup: stopped\n"


def test_an_error_of_several_lines_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(verb: str, args: argparse.Namespace) -> int:
        raise UserError("a path with\na line end: no such file\n")

    fake = SimpleNamespace(add_arguments=lambda parser, verb: None, execute=execute)
    monkeypatch.setattr(entry.importlib, "import_module", lambda name: fake)
    assert main(["dpo"]) == 2
    assert capsys.readouterr().err == "trueup: a path with a line end: no such file\n"


def test_our_own_mistakes_are_not_dressed_up_as_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug keeps its traceback."""

    def execute(verb: str, args: argparse.Namespace) -> int:
        raise ZeroDivisionError

    fake = SimpleNamespace(add_arguments=lambda parser, verb: None, execute=execute)
    monkeypatch.setattr(entry.importlib, "import_module", lambda name: fake)
    with pytest.raises(ZeroDivisionError):
        main(["dpo"])


def test_a_reader_that_leaves_ends_nothing(tmp_path: Path, lab: Any) -> None:
    """``trueup ... | head``: the run goes on to its end in silence, and results that nobody takes are no error."""
    start = ["-m", "trueup", "dpo", "--model", lab.model, "--data", lab.pairs__jsonl, "--optim.steps", "2"]
    for stream in ("stdout", "stderr"):
        ends = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: subprocess.PIPE}
        command = [sys.executable, *start, "--run.threads", "1", "--out", str(tmp_path / stream)]
        with subprocess.Popen(command, cwd=ROOT, **ends) as process:  # type: ignore[call-overload]
            pipe = process.stdout or process.stderr
            assert pipe is not None
            pipe.close()
        assert process.returncode == 0
        assert (tmp_path / stream / "final" / "model.safetensors").exists()
