"""The entry point: find the verb, load only what it needs, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from trueup import __version__
from trueup.errors import GateError, Interrupted, TrueupError, UserError, nearest


@dataclass(frozen=True)
class Verb:
    """A command: one line of help, and the module that has ``add_arguments(parser)`` and ``execute(args, extra)``."""

    help: str
    module: str


VERBS: dict[str, Verb] = {
    "sft": Verb("fine-tune a model on prompts and responses", "trueup.cli.train"),
    "reward": Verb("train a reward model on preference pairs", "trueup.cli.train"),
    "dpo": Verb("tune a model on preference pairs (DPO and its relatives)", "trueup.cli.train"),
    "kto": Verb("tune a model on single responses marked wanted or unwanted (KTO, BCO)", "trueup.cli.train"),
    "orpo": Verb("fine-tune and prefer in one stage on preference pairs, without a reference", "trueup.cli.train"),
    "online-dpo": Verb("tune a model on pairs of its own responses, ranked by a reward", "trueup.cli.train"),
    "ppo": Verb("tune a model against a reward model with PPO", "trueup.cli.train"),
    "grpo": Verb("tune a model against a reward model with GRPO or a relative of it", "trueup.cli.train"),
    "rloo": Verb("tune a model against a reward model with RLOO", "trueup.cli.train"),
    "study": Verb("train and compare several methods on equal terms, and report", "trueup.cli.study"),
    "eval": Verb("run the evaluation suite on one model", "trueup.cli.evaluate"),
    "preflight": Verb("check a run before its first update; trains nothing", "trueup.cli.preflight"),
    "conformance": Verb(
        "say what is wrong with a function of yours: log-probabilities, a loss", "trueup.cli.conformance"
    ),
    "explain": Verb("find a run's cause of trouble by short reruns with one thing changed", "trueup.cli.explain"),
    "data": Verb("look at a data set: what is trained on, and what is wrong with it", "trueup.cli.data"),
    "doctor": Verb("say what is wrong with a finished run: ours, or the log of another tool", "trueup.cli.doctor"),
    "report": Verb("build a study's report again from its files", "trueup.cli.report"),
}

EXAMPLES = """examples:
  trueup study configs/study-demo.yaml --out runs/demo
  trueup dpo --model path/to/model --data pairs.jsonl --out runs/dpo
  trueup dpo --config configs/dpo.yaml --preference.beta 0.3

exit codes: 0 done, 1 the run failed, 2 the input, 3 a gate was not met, 130 stopped (resumable)"""

_EXIT = ((UserError, 2), (GateError, 3), (Interrupted, 130), (TrueupError, 1))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line like every other error; argparse's own way prints the usage as well and exits."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Loading a model draws no bars of its own into our display. Read when tqdm is first imported, which torch does.
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()  # here, not when Python ends: it may find that the reader has gone
        return code
    except TrueupError as error:
        print(f"trueup: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return next(code for kind, code in _EXIT if isinstance(error, kind))
    except KeyboardInterrupt:
        print("trueup: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # what read our results has seen enough (`| head`)
        from trueup.cli.console import silence

        silence(sys.stdout)
        return 0


def _dispatch(arguments: list[str]) -> int:
    parser = _Parser(
        prog="trueup",
        description="Tune language models on preferences, and know whether it worked.",
        epilog="verbs:\n" + "\n".join(f"  {name:11} {verb.help}" for name, verb in VERBS.items()) + "\n\n" + EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=True,
    )
    parser.add_argument("--version", action="version", version=f"trueup {__version__}")
    parser.add_argument("verb", metavar="VERB", nargs="?", help="what to do; trueup VERB --help tells more")
    known = parser.parse_args(arguments[:1])
    if known.verb is None:
        parser.print_help(sys.stderr)
        return 2
    if known.verb not in VERBS:
        raise UserError(f"'{known.verb}' is not a verb ({', '.join(VERBS)}){nearest(known.verb, VERBS)}")
    module = importlib.import_module(VERBS[known.verb].module)
    verb_parser = _Parser(
        prog=f"trueup {known.verb}",
        description=VERBS[known.verb].help[0].upper() + VERBS[known.verb].help[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(verb_parser, known.verb)
    parsed, unknown = verb_parser.parse_known_args(arguments[1:])
    if unknown:
        raise _unknown_argument(unknown[0].split("=")[0], verb_parser)
    return module.execute(known.verb, parsed)


def _unknown_argument(wrong: str, parser: argparse.ArgumentParser) -> UserError:
    options = [option for part in _with_parts(parser) for action in part._actions for option in action.option_strings]
    # "--beta" lacks its section: the flag that ends so is meant, not one that is spelt alike.
    moved = [option for option in options if option.rpartition(".")[2] == wrong.lstrip("-")]
    hint = f"; did you mean '{moved[0]}'?" if moved else nearest(wrong, [o for o in options if o != "--help"])
    return UserError(f"unknown argument '{wrong}'{hint} ({parser.prog} --help)")


def _with_parts(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parser, and those of its parts if it has any (``data show``, ``data audit``)."""
    groups = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(part for group in groups for part in group.values())]
