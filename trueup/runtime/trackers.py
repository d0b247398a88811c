"""Experiment trackers: copies of the journal in TensorBoard, Weights & Biases, trackio or MLflow, for those who ask.

A tracker is an entry of ``TRACKERS``: a function that opens a run there and returns what can be done with it. Nothing
leaves the machine unless the tracker's own environment variables say where to (docs/trackers.md).
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

Ending = Literal["finished", "failed", "stopped"]
Metrics = Mapping[str, float]
Finding = Mapping[str, Any]


@dataclass(frozen=True)
class Tracked:
    """The run that is to be tracked.

    Attributes:
        folder: its run folder.
        project: what related runs are gathered under (project, experiment).
        settings: the resolved configuration, plain values in nested sections.
        step: the optimiser step it goes on after; 0 at a start.
        told: the last step that trackers were told before the run stopped, ``step`` or later.
        identity: what the tracker calls this run; None where it does not know it yet.
    """

    folder: Path
    project: str
    settings: Mapping[str, Any]
    step: int = 0
    told: int = 0
    identity: str | None = None


@dataclass(frozen=True)
class Tracker:
    """A run that is open in a tracker.

    Attributes:
        identity: given back as ``Tracked.identity`` when the run is resumed.
        place: where a person finds it, for the terminal.
        last: the last step it has already, None for a new run. Later steps alone are sent, so that none is there twice.
        log: takes a step and its metrics, by the names of the journal.
        note: takes a line of ``findings.jsonl``.
        close: ends the run there.
    """

    identity: str
    place: str
    last: int | None
    log: Callable[[int, Metrics], Any]
    note: Callable[[Finding], Any]
    close: Callable[[Ending], Any]


def tensorboard(run: Tracked) -> Tracker:
    """Event files in ``RUN/tensorboard``; values are float32 there.

    A resumed run writes a new file that takes back the steps after its checkpoint. Every step is flushed, so that a
    killed run leaves no gap before them.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    known = run.identity is not None
    # The first file marks a start as well: TensorBoard takes back nothing at the first mark it meets.
    writer: Any = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)
    if not known:
        for summary in hparams({key: _number_or_text(value) for key, value in _flat(run.settings).items()}, {}):
            writer.file_writer.add_summary(summary)

    def log(step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def note(finding: Finding) -> None:
        writer.add_text(f"finding/{finding['rule']}", _sentence(finding), finding["first_step"])

    place = f"tensorboard --logdir {run.folder}"
    return Tracker("tensorboard", place, run.step if known else None, log, note, lambda ending: writer.close())


def wandb(run: Tracked) -> Tracker:
    """A Weights & Biases run: kept in ``RUN/wandb`` for ``wandb sync``, or sent at once where ``WANDB_MODE=online``.

    Offline it cannot be told what a killed run left in its buffer, so a resumed run writes all steps again, in place of
    what was not sent yet.
    """
    # Even offline it looks its makers' host up to report its own errors to, unless told not to.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    package: Any = import_module("wandb")
    identity, mode = run.identity or uuid.uuid4().hex[:8], os.environ.get("WANDB_MODE", "offline")
    sent = mode != "offline" or _drop_unsent(run.folder / "wandb", identity)
    opened = package.init(
        project=run.project,
        name=run.folder.name,
        id=identity,
        resume="allow" if run.identity else None,
        dir=str(run.folder),
        config=dict(run.settings),
        allow_val_change=True,
        mode=mode,
        # The terminal belongs to the display, which is not to be captured and not to be written over.
        settings=package.Settings(console="off", silent=True),
    )
    place = f"wandb sync {Path(opened.dir).parent}" if mode == "offline" else opened.url or mode
    last = run.told if mode == "offline" else opened.starting_step - 1

    def note(finding: Finding) -> None:
        opened.summary[f"finding/{finding['rule']}"] = _sentence(finding)

    return Tracker(
        identity,
        place,
        last if run.identity and sent else None,
        lambda step, metrics: opened.log(dict(metrics), step=step),
        note,
        lambda ending: opened.finish(exit_code=0 if ending == "finished" else 1),
    )


def _drop_unsent(folder: Path, identity: str) -> bool:
    """Remove what is kept of a run and was never sent; says whether anything was."""
    kept = list(folder.glob(f"offline-run-*-{identity}"))
    unsent = [path for path in kept if not list(path.glob("*.synced"))]
    for path in unsent:
        shutil.rmtree(path)
    return len(unsent) < len(kept)


def trackio(run: Tracked) -> Tracker:
    """A trackio run in its own local database, or where ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` say.

    Runs are found again by their name there, so a part of it is random.
    """
    package: Any = import_module("trackio")
    identity = run.identity or f"{run.folder.name}-{uuid.uuid4().hex[:8]}"
    resume = "must" if run.identity else "never"
    opened = package.init(run.project, name=identity, config=_flat(run.settings), resume=resume)
    # A killed run loses what trackio had not written yet, and only trackio knows how far it came.
    last = getattr(opened, "_next_step", run.told + 1) - 1
    levels = {"note": package.AlertLevel.INFO, "warning": package.AlertLevel.WARN, "fatal": package.AlertLevel.ERROR}

    def note(finding: Finding) -> None:
        level = levels[finding["severity"]]
        opened.alert(title=finding["rule"], text=_sentence(finding), level=level, step=finding["first_step"])

    return Tracker(
        identity,
        f"trackio show --project {run.project}, run {identity}",
        last if run.identity else None,
        lambda step, metrics: opened.log(dict(metrics), step=step),
        note,
        lambda ending: package.finish(),
    )


def mlflow(run: Tracked) -> Tracker:
    """An MLflow run in the store of ``MLFLOW_TRACKING_URI``, else in MLflow's default below the working directory."""
    # MLflow reports its use to its makers unless told not to, whatever store it writes to.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    entities: Any = import_module("mlflow.entities")
    client: Any = import_module("mlflow").MlflowClient()
    if run.identity:
        identity = run.identity
        client.update_run(identity, status="RUNNING")
        last = max((point.step for point in client.get_metric_history(identity, "loss")), default=0)
    else:
        found = client.get_experiment_by_name(run.project)
        experiment = found.experiment_id if found else client.create_experiment(run.project)
        identity, last = client.create_run(experiment, run_name=run.folder.name).info.run_id, None
        params = [entities.Param(key, str(value)) for key, value in _flat(run.settings).items()]
        client.log_batch(identity, params=params)

    def log(step: int, metrics: Metrics) -> None:
        now = int(time.time() * 1000)
        client.log_batch(identity, [entities.Metric(name, value, now, step) for name, value in metrics.items()])

    def note(finding: Finding) -> None:
        client.set_tag(identity, f"finding/{finding['rule']}", _sentence(finding))

    states = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
    place = f"experiment {run.project}, run {identity}"
    return Tracker(identity, place, last, log, note, lambda ending: client.set_terminated(identity, states[ending]))


TRACKERS: Mapping[str, Callable[[Tracked], Tracker]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "trackio": trackio,
    "mlflow": mlflow,
}
"""Name, which is also that of the package to import and to install -> what opens a run in it."""


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys, as on the command line."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return out


def _number_or_text(value: Any) -> bool | float | str:
    return value if isinstance(value, bool | int | float) else str(value)


def _sentence(finding: Finding) -> str:
    return f"{finding['severity']} since step {finding['first_step']}: {finding['message']} {finding['remedy']}"
