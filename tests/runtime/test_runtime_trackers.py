"""Trackers hold what the journal holds, every step once, however often the run was stopped or killed.

TensorBoard is the real one where it is installed. The others are stand-ins that keep and lose data the way the real
packages were seen to, and whose signatures are compared with the real ones where those are installed.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.config.load import leaves, parse_value, validate
from trueup.config.schema import RECIPES, RunSection
from trueup.errors import GateError, Interrupted, UserError
from trueup.runtime.journal import Journal
from trueup.runtime.trackers import TRACKERS, Tracked
from trueup.runtime.tracking import Trackers, check_trackers

SETTINGS = {"optim": {"learning_rate": 1e-6, "betas": [0.9, 0.999]}, "model": {"path": None}, "run": {"resume": False}}
DOTTED = {"optim.learning_rate": 1e-6, "optim.betas": [0.9, 0.999], "model.path": None, "run.resume": False}
FINDING = {"rule": "saturation", "severity": "warning", "first_step": 2, "message": "It is so.", "remedy": "Stop."}
SENTENCE = "warning since step 2: It is so. Stop."

Point = tuple[str, int, float]


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None, origin="stand-in")
    vars(made).update(members)
    return made


@dataclass
class Wandb:
    """Writes a folder of its own for every opening; what is not finished is lost, as a killed run's buffer is."""

    notes: dict[str, str] = field(default_factory=dict)
    endings: list[Any] = field(default_factory=list)
    opened: list[dict[str, Any]] = field(default_factory=list)
    server_step: int = 0

    def init(self, *, project, name, id, resume, dir, config, allow_val_change, mode, settings):
        self.opened.append({**locals(), "self": None})
        kept = Path(dir) / "wandb" / f"{mode}-run-{len(self.opened)}-{id}"
        (kept / "files").mkdir(parents=True)
        lines: list[Point] = []

        def log(data, step):
            lines.extend((name, step, value) for name, value in data.items())

        def finish(exit_code):
            self.endings.append(exit_code)
            (kept / "points.json").write_text(json.dumps(lines))

        return SimpleNamespace(
            log=log,
            finish=finish,
            summary=self.notes,
            url="https://there",
            dir=str(kept / "files"),
            starting_step=self.server_step,
        )

    def modules(self) -> dict[str, ModuleType]:
        return {"wandb": module("wandb", init=self.init, Settings=lambda console, silent: None)}

    def points(self, folder: Path) -> list[Point]:
        return [tuple(p) for file in folder.glob("wandb/*/points.json") for p in json.loads(file.read_text())]


class AlertLevel(enum.Enum):
    INFO, WARN, ERROR = range(3)


@dataclass
class Trackio:
    """A store of runs by name that takes three steps at a time; knows the next step of a run."""

    runs: dict[str, list[Point]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    endings: list[Any] = field(default_factory=list)
    queue: list[list[Point]] = field(default_factory=list)
    current: list[Point] = field(default_factory=list)

    def init(self, project, *, name, config, resume):
        print("it talks")
        assert (name in self.runs) == (resume == "must")
        self.queue, self.current = [], self.runs.setdefault(name, [])
        after = max((step for _, step, _ in self.current), default=-1) + 1
        return SimpleNamespace(log=self.log, alert=self.alert, _next_step=after)

    def log(self, metrics, step):
        self.queue.append([(name, step, value) for name, value in metrics.items()])
        if len(self.queue) == 3:
            self.flush()

    def alert(self, *, title, text, level, step):
        assert level is AlertLevel.WARN and step == 2
        self.notes[f"finding/{title}"] = text

    def flush(self) -> None:
        self.current += [point for entry in self.queue for point in entry]
        self.queue = []

    def finish(self):
        self.flush()
        self.endings.append(None)

    def modules(self) -> dict[str, ModuleType]:
        return {"trackio": module("trackio", init=self.init, finish=self.finish, AlertLevel=AlertLevel)}

    def points(self, folder: Path) -> list[Point]:
        assert len(self.runs) == 1, "a resumed run became another"
        return self.current


@dataclass
class Mlflow:
    """A store of runs that keeps every point it is sent, at once."""

    runs: list[list[Any]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    endings: list[Any] = field(default_factory=list)
    broken: bool = False

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name):
        return "7"

    def create_run(self, experiment_id, *, run_name):
        assert experiment_id == "7"
        self.runs.append([])
        return SimpleNamespace(info=SimpleNamespace(run_id=str(len(self.runs) - 1)))

    def update_run(self, run_id, *, status):
        assert status == "RUNNING"

    def get_metric_history(self, run_id, key):
        return [point for point in self.runs[int(run_id)] if point.key == key]

    def log_batch(self, run_id, metrics=(), params=()):
        if self.broken:
            raise ConnectionError("no route\nto host")
        self.runs[int(run_id)] += metrics
        self.params |= {param.key: param.value for param in params}

    def set_tag(self, run_id, key, value):
        self.notes[key] = value

    def set_terminated(self, run_id, status):
        self.endings.append(status)

    def modules(self) -> dict[str, ModuleType]:
        def metric(key, value, timestamp, step):
            return SimpleNamespace(key=key, value=value, step=step)

        entities = module("mlflow.entities", Metric=metric, Param=lambda key, value: SimpleNamespace(**locals()))
        return {"mlflow": module("mlflow", MlflowClient=lambda: self), "mlflow.entities": entities}

    def points(self, folder: Path) -> list[Point]:
        assert len(self.runs) == 1, "a resumed run became another"
        return [(point.key, point.step, point.value) for point in self.runs[0]]


STAND_INS: Mapping[str, Callable[[], Any]] = {"wandb": Wandb, "trackio": Trackio, "mlflow": Mlflow}


@contextmanager
def installed() -> Iterator[dict[str, Any]]:
    """Stand-ins in place of the packages, and the environment put back."""
    made = {name: make() for name, make in STAND_INS.items()}
    modules = {key: value for one in made.values() for key, value in one.modules().items()}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "MLFLOW_"))}
    with patch.dict(sys.modules, modules), patch.dict(os.environ, clean, clear=True):
        yield made


def metrics_of(step: int) -> dict[str, float]:
    rare = {"eval/loss": 1.0 / step} if step % 3 == 0 else {}
    return {"loss": 2.0 / step, "rewards/margins": step / 7, "num_tokens": 10 * step, **rare}


def leg(
    folder: Path, names: list[str], saved: int, until: int, end: str = "stop", said: list[str] | None = None
) -> None:
    """Go on from the checkpoint ``saved`` to step ``until``, journal first, as a run does; then stop or be killed."""
    folder.mkdir(exist_ok=True)
    metrics, findings = Journal(folder / "metrics.jsonl"), Journal(folder / "findings.jsonl")
    told = max((row["step"] for row in metrics.rows()), default=0)
    metrics.keep_through(saved)
    run = Tracked(folder, "trueup", SETTINGS, saved, told)
    trackers = Trackers(names, run, (said if said is not None else []).append)
    trackers.replay(metrics.rows(), findings.rows())
    known = list(findings.rows())
    for step in range(saved + 1, until + 1):
        report = SimpleNamespace(step=step, metrics=metrics_of(step))
        metrics.append({"step": step, **report.metrics})
        trackers(report)
        if step == 4 and not known:
            findings.append(FINDING)
            trackers.append(FINDING)
    if end != "kill":
        trackers.__exit__(Interrupted if end == "stop" else None)


def journal(upto: int) -> list[Point]:
    return sorted((name, step, value) for step in range(1, upto + 1) for name, value in metrics_of(step).items())


LEGS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.sampled_from(["stop", "kill"])), max_size=4)


@settings(max_examples=60)
@given(LEGS, st.data())
def test_every_step_is_there_once_after_any_stops_and_kills(
    legs: list[tuple[int, int, str]], data: st.DataObject
) -> None:
    """Also in a tracker that joined late or was left out for a while; only the last leg has them all."""
    with tempfile.TemporaryDirectory() as root, installed() as stores:
        folder, saved = Path(root), 0
        for further, back, end in legs:
            names = data.draw(st.lists(st.sampled_from(sorted(STAND_INS)), unique=True))
            reached = saved + further
            leg(folder, names, saved, reached, end)
            saved = reached if end == "stop" else max(saved, reached - back)
        leg(folder, list(STAND_INS), saved, saved + 5, "finish")
        for name, store in stores.items():
            assert sorted(store.points(folder)) == journal(saved + 5), name
            if saved + 5 >= 4:
                assert store.notes == {"finding/saturation": SENTENCE}, name


@settings(max_examples=15)
@given(LEGS)
def test_tensorboard_has_every_step_once(legs: list[tuple[int, int, str]]) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer", reason="tensorboard is optional")
    # Files are read in the order of their names, and legs share a process and a second here: ".10" is before ".9".
    writer._global_uid = writer.AtomicCounter(100)
    with tempfile.TemporaryDirectory() as root:
        folder, saved = Path(root), 0
        for further, back, end in legs:
            leg(folder, ["tensorboard"], saved, saved + further, end)
            saved = saved + further if end == "stop" else max(saved, saved + further - back)
        leg(folder, ["tensorboard"], saved, saved + 5, "finish")
        shown, hyper = displayed(folder / "tensorboard")
    text = shown.pop("finding/saturation/text_summary")
    assert [(step, value.item().decode()) for step, value in text] == [(2, SENTENCE)]
    found = sorted((name, step, value.item()) for name, points in shown.items() for step, value in points)
    wanted = journal(saved + 5)
    assert [point[:2] for point in found] == [point[:2] for point in wanted]
    assert [point[2] for point in found] == pytest.approx([point[2] for point in wanted], rel=2**-23)
    assert set(hyper) == set(DOTTED) and hyper["optim.learning_rate"].number_value == 1e-6


def test_tensorboard_has_a_step_as_soon_as_it_is_told(tmp_path: Path) -> None:
    """Nothing waits in a buffer for a kill to lose it."""
    pytest.importorskip("tensorboard", reason="tensorboard is optional")
    with Trackers(["tensorboard"], Tracked(tmp_path / "run", "p", SETTINGS), lambda line: None) as trackers:
        for step in (1, 2):
            trackers(SimpleNamespace(step=step, metrics={"loss": 1.0}))
            shutil.copytree(tmp_path / "run", tmp_path / f"killed-{step}")
            shown, _ = displayed(tmp_path / f"killed-{step}" / "tensorboard")
            assert [at for at, _ in shown["loss"]] == list(range(1, step + 1))


def displayed(folder: Path) -> tuple[dict[str, list[tuple[int, Any]]], Mapping[str, Any]]:
    """What TensorBoard's own reader makes of a folder: tag -> (step, value) with what was taken back left out."""
    events = importlib.import_module("tensorboard.backend.event_processing.plugin_event_accumulator")
    hparams = importlib.import_module("tensorboard.plugins.hparams.metadata")
    array = importlib.import_module("tensorboard.util.tensor_util").make_ndarray
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every step that was taken back
    read = events.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    shown = {tag: [(e.step, array(e.tensor_proto)) for e in read.Tensors(tag)] for tag in read.Tags()["tensors"]}
    session = read.SummaryMetadata(hparams.SESSION_START_INFO_TAG).plugin_data.content
    shown = {tag: points for tag, points in shown.items() if not tag.startswith("_hparams_")}
    return shown, hparams.parse_session_start_info_plugin_data(session).hparams


def test_settings_are_the_hyper_parameters(tmp_path: Path) -> None:
    with installed() as stores:
        leg(tmp_path, list(STAND_INS), 0, 1)
    assert stores["mlflow"].params == {key: str(value) for key, value in DOTTED.items()}
    assert stores["wandb"].opened[0]["config"] == SETTINGS


def test_nothing_is_sent_unless_the_environment_says_so(tmp_path: Path) -> None:
    with installed() as stores:
        leg(tmp_path / "a", ["wandb", "mlflow"], 0, 1)
        assert (os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["WANDB_ERROR_REPORTING"]) == ("true", "false")
        os.environ["WANDB_MODE"] = "online"
        leg(tmp_path / "b", ["wandb"], 0, 1)
    assert [opened["mode"] for opened in stores["wandb"].opened] == ["offline", "online"]


def test_online_the_server_says_what_it_has_and_nothing_kept_is_removed(tmp_path: Path) -> None:
    with installed() as stores:
        os.environ["WANDB_MODE"] = "online"
        store = stores["wandb"]
        leg(tmp_path, ["wandb"], 0, 5)
        store.server_step = 4  # the first step it lacks
        leg(tmp_path, ["wandb"], 5, 7, "finish")
        first, second = (json.loads(f.read_text()) for f in sorted(tmp_path.glob("wandb/*/points.json")))
    assert {step for _, step, _ in first} == {1, 2, 3, 4, 5} and {step for _, step, _ in second} == {4, 5, 6, 7}
    assert store.opened[0]["id"] == store.opened[1]["id"] and store.opened[1]["resume"] == "allow"


def test_what_was_synced_is_neither_removed_nor_written_again(tmp_path: Path) -> None:
    with installed() as stores:
        leg(tmp_path, ["wandb"], 0, 5)
        (kept,) = tmp_path.glob("wandb/offline-run-*")
        (kept / "run-x.wandb.synced").touch()
        leg(tmp_path, ["wandb"], 5, 7, "finish")
        assert kept.exists() and sorted(stores["wandb"].points(tmp_path)) == journal(7)


@pytest.mark.parametrize(
    ("kind", "wandb", "mlflow"),
    [
        (None, 0, "FINISHED"),
        (Interrupted, 1, "KILLED"),
        (KeyboardInterrupt, 1, "KILLED"),
        (GateError, 1, "FAILED"),
        (ValueError, 1, "FAILED"),
    ],
)
def test_a_run_is_closed_as_it_ended(kind: type[BaseException] | None, wandb: int, mlflow: str, tmp_path: Path) -> None:
    with installed() as stores:
        try:
            with Trackers(list(STAND_INS), Tracked(tmp_path, "p", SETTINGS), lambda line: None):
                if kind is not None:
                    raise kind
        except BaseException as error:
            assert type(error) is kind
    assert [stores[name].endings for name in STAND_INS] == [[wandb], [None], [mlflow]]


def test_a_tracker_that_fails_is_told_of_once_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    with installed() as stores:
        trackers = Trackers(["mlflow", "trackio"], Tracked(tmp_path, "p", SETTINGS), said.append)
        for step in range(1, 5):
            stores["mlflow"].broken = step >= 2
            trackers(SimpleNamespace(step=step, metrics=metrics_of(step)))
        trackers.__exit__(None)
        assert sorted(stores["trackio"].points(tmp_path)) == journal(4)
    (warning,) = [line for line in said if "warning" in line]
    assert "tracker mlflow failed at step 2" in warning and "ConnectionError: no route to host" in warning
    assert {step for _, step, _ in stores["mlflow"].points(tmp_path)} == {1}


def test_a_failed_tracker_gets_what_it_missed_when_the_run_is_resumed(tmp_path: Path) -> None:
    with installed() as stores:
        leg(tmp_path, ["mlflow"], 0, 3)
        stores["mlflow"].broken = True
        leg(tmp_path, ["mlflow"], 3, 8)
        stores["mlflow"].broken = False
        leg(tmp_path, ["mlflow"], 8, 10, "finish")
        assert sorted(stores["mlflow"].points(tmp_path)) == journal(10)
        assert stores["mlflow"].notes == {"finding/saturation": SENTENCE}


def test_a_tracker_that_cannot_be_opened_stops_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        installed() as stores,
        patch.object(stores["mlflow"], "get_experiment_by_name", side_effect=OSError("refused")),
    ):
        leg(tmp_path, ["mlflow", "wandb"], 0, 3, said=said)
        assert sorted(stores["wandb"].points(tmp_path)) == journal(3)
    assert "tracker mlflow failed at step 0" in said[0] and "OSError: refused" in said[0] and len(said) == 2
    assert {row["tracker"] for row in Journal(tmp_path / "trackers.jsonl").rows()} == {"wandb"}


def test_what_a_tracker_prints_is_not_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is for results; trackio writes there."""
    with installed():
        leg(tmp_path, ["trackio"], 0, 3)
    assert capsys.readouterr().out == ""


def test_numbers_that_are_not_finite_are_left_out_as_in_the_journal(tmp_path: Path) -> None:
    with installed() as stores, Trackers(["mlflow"], Tracked(tmp_path, "p", SETTINGS), lambda line: None) as trackers:
        trackers(SimpleNamespace(step=1, metrics={"loss": 1.0, "a": float("nan"), "b": float("inf")}))
        trackers.replay([{"step": 2, "loss": 2.0, "a": None}], [])
    assert stores["mlflow"].points(tmp_path) == [("loss", 1, 1.0), ("loss", 2, 2.0)]


def test_no_tracker_leaves_no_trace(tmp_path: Path) -> None:
    leg(tmp_path, [], 0, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl"}


def test_a_tracker_named_twice_is_one(tmp_path: Path) -> None:
    with installed() as stores:
        leg(tmp_path, ["mlflow", "mlflow"], 0, 2)
        assert sorted(stores["mlflow"].points(tmp_path)) == journal(2)


def test_what_is_not_installed_is_refused_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed():
        check_trackers(list(STAND_INS))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match=r"run\.trackers: wandb is not installed; pip install wandb"):
        check_trackers(["wandb"])
    (tmp_path / "wandb").mkdir()  # what the package leaves in a working directory looks like a package
    importlib.invalidate_caches()
    with pytest.raises(UserError, match="wandb is not installed"):
        check_trackers(["wandb"])


def test_the_setting_names_the_table_s_entries() -> None:
    allowed = get_args(get_args(RunSection.model_fields["trackers"].annotation)[0])
    assert set(allowed) == set(TRACKERS)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tensorboard", ("tensorboard",)),
        ("tensorboard,wandb", ("tensorboard", "wandb")),
        ("mlflow, trackio", ("mlflow", "trackio")),
        ("[wandb]", ("wandb",)),
        ("[]", ()),
    ],
)
def test_the_flag_takes_names_with_commas(text: str, names: tuple[str, ...]) -> None:
    value = parse_value(text, leaves(RECIPES["sft"])["run.trackers"].annotation)
    section = validate(RunSection, {"out": "o", "trackers": value}, "here")
    assert section.trackers == names


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(UserError, match=r"here: trackers\.1: Input should be 'tensorboard', .* \(got 'wanbd'\)"):
        validate(RunSection, {"out": "o", "trackers": ["wandb", "wanbd"]}, "here")


METHODS = ["get_experiment_by_name", "create_experiment", "create_run", "update_run", "get_metric_history", "log_batch"]
METHODS += ["set_tag", "set_terminated"]
REAL = {
    "wandb.init": Wandb.init,
    "wandb.sdk.wandb_run.Run.log": lambda data, step: None,
    "wandb.sdk.wandb_run.Run.finish": lambda exit_code: None,
    "trackio.init": Trackio.init,
    "trackio.finish": Trackio.finish,
    "trackio.Run.log": Trackio.log,
    "trackio.Run.alert": Trackio.alert,
    **{f"mlflow.MlflowClient.{name}": getattr(Mlflow, name) for name in METHODS},
    "mlflow.entities.Metric": lambda key, value, timestamp, step: None,
    "mlflow.entities.Param": lambda key, value: None,
}
"""What is called of a package -> the stand-in for it."""


@pytest.mark.parametrize("name", REAL)
@pytest.mark.filterwarnings("ignore")
def test_stand_ins_take_what_the_real_packages_take(name: str) -> None:
    """By position where we give it by position; nothing that the real one requires is left out."""
    package = name.partition(".")[0]
    pytest.importorskip(package, reason=f"{package} is optional")
    owner, _, last = name.rpartition(".")
    try:
        real = getattr(importlib.import_module(owner), last)
    except ModuleNotFoundError:
        real = getattr(getattr(importlib.import_module(owner.rpartition(".")[0]), owner.rpartition(".")[2]), last)
    theirs = {n: p for n, p in inspect.signature(real).parameters.items() if n != "self"}
    ours = {n: p for n, p in inspect.signature(REAL[name]).parameters.items() if n != "self"}
    assert set(ours) <= set(theirs)
    assert {n for n, p in theirs.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD} <= set(ours)
    placed = [n for n, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert list(theirs)[: len(placed)] == placed
