"""The rooms of the package, who may import whom, the single doors, and the yardsticks of size.

Everything is read from the source with `ast`, lazy and type-checking imports included, so nothing is imported here. A
module that breaks a rule on purpose is a line in ``DEBTS`` with what would repay it; a debt that is repaid must be
removed there, so the list cannot outlive its reasons.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "trueup"
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


@dataclass(frozen=True)
class Room:
    """A floor, the rooms it may import (itself always), and why where it differs from the house plan."""

    floor: int
    may_import: str
    because: str = ""


ROOMS = {
    "__init__": Room(0, "", "the version alone"),
    "errors": Room(1, ""),
    "types": Room(1, "", "names tensors under TYPE_CHECKING only: config reads it without torch"),
    "stats": Room(1, "errors", "a wrong argument gets the same one-line error as a wrong file"),
    "ops": Room(2, "types errors", "a mistyped environment variable is the user's error"),
    "config": Room(2, "errors"),
    "runtime": Room(2, "errors __init__", "one floor lower than planned: data needs its seeds, and it needs nobody"),
    "data": Room(2, "errors types stats ops runtime", "the shift is in ops, the seeds of the order in runtime"),
    "health": Room(2, "errors stats", "a log that cannot be read is the user's error"),
    "losses": Room(3, "ops types errors", "an unknown loss or option is the user's error"),
    "models": Room(3, "ops types errors"),
    "worlds": Room(3, "data errors", "a third party's world file can be wrong"),
    "rewards": Room(4, "errors types ops data models runtime", "a user's function can be wrong; judges keep a cache"),
    "train": Room(5, "errors types stats ops config data losses models runtime worlds rewards"),
    "evaluate": Room(
        5, "errors types stats ops data models runtime worlds rewards health", "a reward model's card ends in findings"
    ),
    "preflight": Room(
        5,
        "errors types stats ops data models losses runtime health rewards train",
        "it runs the very step that training will run, and asks its reward",
    ),
    "recipes": Room(
        6,
        "errors types stats ops config data health losses models runtime rewards train evaluate preflight worlds",
        "explain compares its reruns with intervals; the manifest says who computes products",
    ),
    "study": Room(
        7,
        "errors types stats config health data models runtime worlds rewards train evaluate recipes",
        "its jobs run recipes, so it lies above them; analysis, charts and report stay without torch",
    ),
    "cli": Room(
        8,
        "__init__ errors types config data health models runtime rewards train evaluate preflight recipes study worlds",
    ),
    "integrations": Room(
        7, "errors types health losses preflight runtime", "a loss's value at the reference; random streams put back"
    ),
    "__main__": Room(9, "cli"),
}

DEBTS: dict[tuple[str, str, str], str] = {}


@dataclass(frozen=True)
class Module:
    """One file: its name inside the package (``data.read``; ``data`` for a package), its text and its tree."""

    name: str
    path: Path
    lines: int
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


@cache
def modules() -> dict[str, Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, text.count("\n"), ast.parse(text))
    return found


def named_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Dotted names of what the import statements among ``nodes`` name (``torch.nn``, ``trueup.data.read.Pair``)."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."
            yield from (f"{node.module or '.'}.{alias.name}" for alias in node.names)


@cache
def imports(name: str) -> frozenset[str]:
    """Everything a module imports, anywhere in it."""
    return frozenset(named_in(ast.walk(modules()[name].tree)))


def own_imports(module: Module) -> set[str]:
    """Modules of the package that a module imports; a string that names one (``importlib``) counts."""
    names = {name for name in imports(module.name) if name.split(".")[0] == "trueup"}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("trueup."):
            names.add(node.value)
    inside = {name.removeprefix("trueup").lstrip(".") or "__init__" for name in names}
    if "trueup.__version__" in names:
        inside.add("__init__")
    return {name for name in inside if name in modules()} - {module.name}


def unpaid(kind: str, broken: set[tuple[str, str]]) -> list[str]:
    """Breaches that are no known debt, and debts that no longer exist."""
    known = {(a, b) for group, a, b in DEBTS if group == kind}
    new = [f"{a} -> {b}" for a, b in sorted(broken - known)]
    return new + [f"repaid, remove it from DEBTS: {a} -> {b}" for a, b in sorted(known - broken)]


def test_every_room_is_in_the_table_and_the_table_runs_down() -> None:
    assert {module.room for module in modules().values()} == set(ROOMS)
    for name, room in ROOMS.items():
        for other in room.may_import.split():
            assert ROOMS[other].floor <= room.floor, f"the table itself runs up: {name} -> {other}"


def test_imports_keep_to_the_table() -> None:
    broken = set()
    for module in modules().values():
        allowed = {module.room, *ROOMS[module.room].may_import.split()}
        broken |= {(module.name, other) for other in own_imports(module) if modules()[other].room not in allowed}
    assert not unpaid("import", broken)


def test_no_import_circle() -> None:
    graph = {name: own_imports(module) for name, module in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_no_relative_imports() -> None:
    assert [name for name in modules() if any(found.startswith(".") for found in imports(name))] == []


def test_every_folder_of_modules_is_a_package() -> None:
    """A folder without ``__init__.py`` imports from a checkout all the same, and is missing from a built wheel."""
    bare = {str(m.path.parent.relative_to(PACKAGE)) for m in modules().values()}
    assert [folder for folder in sorted(bare) if not (PACKAGE / folder / "__init__.py").exists()] == []


def test_packages_say_what_they_hold_and_hold_nothing_else() -> None:
    for module in modules().values():
        assert ast.get_docstring(module.tree), f"{module.path}: no docstring"
        if module.is_package and module.name != "__init__":
            assert len(module.tree.body) == 1, f"{module.path}: a package's __init__ is its docstring alone"


def importers(package: str) -> set[str]:
    """Modules that import ``package`` or something inside it."""
    return {
        module
        for module in modules()
        if any(name == package or name.startswith(f"{package}.") for name in imports(module))
    }


def test_transformers_has_one_door() -> None:
    assert importers("transformers") == {"models.hub", "integrations.trl"}


def test_no_other_framework_is_imported() -> None:
    """A door for TRL's users gets their trainer: it needs nothing of TRL itself."""
    assert importers("trl") == set()


def test_torch_distributed_is_in_runtime_only() -> None:
    assert {name for name in importers("torch.distributed") if modules()[name].room != "runtime"} == set()


def test_rooms_that_need_no_torch_do_not_import_it() -> None:
    dry = {"stats", "config", "health", "study", "errors", "worlds"}
    wet = {name for name in importers("torch") if modules()[name].room in dry}
    # Jobs are the one module of a study that worker processes run; execute imports torch inside such a process.
    assert wet == {"study.jobs", "study.execute"}
    top = [node for node in modules()["study.execute"].tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("torch" in ast.unparse(node) for node in top)


def test_the_judgement_of_numbers_reaches_no_torch_through_others() -> None:
    """Follow the imports that run when a module is loaded: config, stats, health and the report must arrive dry."""
    starts = [n for n, m in modules().items() if m.room in {"config", "stats", "health"}]
    starts += [n for n, m in modules().items() if m.room == "study" and n != "study.jobs"]
    starts += ["cli.main", "cli.train", "cli.study", "cli.report"]
    for start in starts:
        seen, front = set(), [start]
        while front:
            name = front.pop()
            if name in seen:
                continue
            seen.add(name)
            loaded = set(_loaded_at_import(modules()[name].tree.body))
            wet = [n for n in loaded if n.split(".")[0] in ("torch", "transformers")]
            assert not wet, f"{start} loads {wet[0]} by way of {name}"
            front += [n.removeprefix("trueup.") for n in loaded if n.removeprefix("trueup.") in modules()]


def _loaded_at_import(body: list[ast.stmt]) -> Iterator[str]:
    """Imports at the top level of a module, those under TYPE_CHECKING left out."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from _loaded_at_import(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from _loaded_at_import(node.body)
        else:
            yield from named_in([node])


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Dotted names of what is called, with the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_only_the_command_line_prints() -> None:
    talkers = {
        (module.name, name)
        for module in modules().values()
        for name, _ in calls(module.tree)
        if name in ("print", "sys.stdout.write", "sys.stderr.write") and module.room != "cli"
    }
    assert talkers == set()


def test_only_runtime_reads_the_clock() -> None:
    """The command line's displays and the timing of a study's jobs are the two readers outside ``runtime``."""
    allowed = {"study.execute"}
    readers = {
        (module.name, clock)
        for module in modules().values()
        for clock in ("time", "datetime")
        if module.name in importers(clock) and module.room not in ("runtime", "cli") and module.name not in allowed
    }
    assert not unpaid("clock", readers)


DRAWS = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "normal", "bernoulli", "multinomial"}


def _draws_globally(name: str, call: ast.Call) -> bool:
    """Is this a call that reads or sets the state of a generator shared by the whole process?"""
    owner, _, last = name.rpartition(".")
    if owner == "torch":
        return last in ("manual_seed", "seed") or (last in DRAWS and "generator" not in {k.arg for k in call.keywords})
    if owner in ("np.random", "numpy.random"):
        return last != "default_rng" or not (call.args or call.keywords)
    if owner == "random":
        return last != "Random" or not call.args
    return name in ("os.urandom", "uuid.uuid4") or owner == "secrets"


def test_only_runtime_touches_global_randomness() -> None:
    """A stream of one's own (``random.Random(seed)``, ``default_rng(seed)``, ``generator=``) is allowed anywhere."""
    sinners = {
        f"{module.path}:{call.lineno}: {name}"
        for module in modules().values()
        for name, call in calls(module.tree)
        if module.room != "runtime" and _draws_globally(name, call)
    }
    assert sinners == set()


@pytest.mark.parametrize(
    ("code", "global_state"),
    [
        ("torch.manual_seed(0)", True),
        ("torch.randperm(4)", True),
        ("torch.randperm(4, generator=g)", False),
        ("np.random.seed(0)", True),
        ("np.random.default_rng()", True),
        ("np.random.default_rng(3)", False),
        ("random.random()", True),
        ("random.Random(3)", False),
        ("rng.random()", False),
    ],
)
def test_the_randomness_detector_sees(code: str, global_state: bool) -> None:
    ((name, call),) = calls(ast.parse(code))
    assert _draws_globally(name, call) == global_state


def _shifts_by_one(node: ast.AST) -> bool:
    """``x[:, :-1]``, ``x[..., 1:, :]`` on anything; ``x[1:]``, ``x[:-1]`` on what is called tokens, logits; a roll."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).endswith(".roll")
    if not isinstance(node, ast.Subscript):
        return False
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    name = ast.unparse(node.value).rpartition(".")[2].lower()
    tokenish = any(word in name for word in ("logit", "token", "label", "target", "input_ids", "logps"))
    return (len(parts) > 1 or tokenish) and any(ast.unparse(part) in (":-1", "1:") for part in parts)


def test_the_one_token_shift_is_in_one_place() -> None:
    found = {
        f"{module.path}:{node.lineno}: {ast.unparse(node)}"  # type: ignore[attr-defined]
        for module in modules().values()
        if module.name != "ops.logprobs"
        for node in ast.walk(module.tree)
        if _shifts_by_one(node)
    }
    assert found == set()


@pytest.mark.parametrize(
    ("code", "shift"),
    [
        ("logits[:, :-1]", True),
        ("logits[..., :-1, :]", True),
        ("labels[..., 1:]", True),
        ("input_ids[1:]", True),
        ("batch.tokens[:-1]", True),
        ("torch.roll(x, 1)", True),
        ("experience.branch[1:]", False),
        ("rows[:, :4]", False),
    ],
)
def test_the_shift_detector_sees(code: str, shift: bool) -> None:
    assert _shifts_by_one(ast.parse(code, mode="eval").body) == shift


def functions() -> Iterator[tuple[str, int]]:
    """(where, lines) of every function, decorators and docstring included."""
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module.name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_yardsticks(capsys: pytest.CaptureFixture[str]) -> None:
    """No file above 400 lines, no function above 60; what is longest is printed."""
    files = sorted(((module.lines, module.name) for module in modules().values()), reverse=True)
    long = sorted(((lines, name) for name, lines in functions()), reverse=True)
    with capsys.disabled():
        print(f"\nyardsticks: longest file {files[0][1]} ({files[0][0]} lines), ", end="")
        print(f"longest function {long[0][1]} ({long[0][0]} lines), circles 0, debts {len(DEBTS)}")
    assert [f for f in files if f[0] > LONGEST_FILE] == []
    assert [f for f in long if f[0] > LONGEST_FUNCTION] == []


def test_our_own_code_does_not_inherit_from_our_own_code() -> None:
    """Composition only. The hierarchy of errors, frozen bundles, and groups of settings are the three exceptions."""
    bases = {"TrueupError", "Bundle", "Section", "RecipeConfig", "PairLossSection", "Protocol"}  # the last is typing's
    ours = {n.name for m in modules().values() for n in ast.walk(m.tree) if isinstance(n, ast.ClassDef)}
    heirs = {
        f"{module.name}.{node.name}({ast.unparse(base)})"
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if ast.unparse(base) in ours - bases
    }
    assert heirs == set()
