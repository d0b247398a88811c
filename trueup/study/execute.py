"""Running a study's jobs in worker processes: in order of need, resumable, with live progress."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from trueup.errors import Interrupted, RunError, TrueupError
from trueup.runtime.signals import STOPS, on_stop
from trueup.study.plan import DONE, Job
from trueup.study.timing import ELAPSED, add_elapsed, peak_memory_gb


@dataclass(frozen=True)
class Event:
    """What a display learns: a job started, moved on, said something, ended."""

    kind: str
    job: str
    step: int = 0
    steps: int = 0
    metrics: Mapping[str, float] | None = None
    text: str = ""


Listener = Callable[[Event], None]


def run_jobs(jobs: Sequence[Job], folder: Path, workers: int, listen: Listener) -> None:
    """Run all jobs that are not finished yet, ``workers`` at a time.

    Ctrl-C lets the running jobs stop at a checkpoint; running the study again goes on from there. A job that fails is
    reported, and so are the jobs that cannot run without it, after everything else has been run.

    Raises:
        Interrupted: stopped by the user.
        RunError: jobs failed; names them.
    """
    done = {job.id for job in jobs if (folder / job.id / DONE).exists()}
    for job in jobs:
        if job.id in done:
            listen(Event("done", job.id))
    pending = [job for job in jobs if job.id not in done]
    if not pending:
        return
    context = mp.get_context("spawn")
    events = context.Queue()
    failed: dict[str, str] = {}
    with (
        _forwarded(events, listen),
        _deferred_interrupt() as stopped,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(events,)) as pool,
    ):
        running: dict[Future[None], Job] = {}
        while (pending or running) and not (stopped.is_set() and not running):
            ready = [] if stopped.is_set() else [job for job in pending if done.issuperset(job.needs)]
            for job in ready[: workers - len(running)]:
                pending.remove(job)
                running[pool.submit(_work, job, folder)] = job
            if not running:
                break
            finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                error = future.exception()
                if error is None:
                    done.add(job.id)
                    listen(Event("done", job.id))
                elif not isinstance(error, Interrupted):
                    failed[job.id] = str(error) if isinstance(error, TrueupError) else repr(error)
                    listen(Event("failed", job.id, text=failed[job.id]))
    if stopped.is_set():
        raise Interrupted(f"stopped with {len(done)} of {len(jobs)} jobs done; the same command goes on from there")
    if failed:
        told = "; ".join(f"{job}: {why}" for job, why in failed.items())
        raise RunError(f"{len(failed)} jobs failed ({told}); {len(pending)} others need them")


def _work(job: Job, folder: Path) -> None:
    """One job, in a worker process."""
    from trueup.study.jobs import CALLS

    voice = _WorkerVoice(job.id)
    _EVENTS.put(Event("start", job.id))
    began, out = time.perf_counter(), folder / job.id
    out.mkdir(parents=True, exist_ok=True)
    try:
        with on_stop(_raise_interrupted):  # the training loop replaces this by a flag: it stops at a checkpoint instead
            CALLS[job.call](folder, out, voice, **job.arguments)
    finally:  # kept outside the job's folder, which a recipe wants empty until it begins
        seconds = add_elapsed(folder / ELAPSED / job.id, time.perf_counter() - began)
    facts = {"seconds": seconds, "peak_memory_gb": peak_memory_gb()}
    (out / DONE).write_text(json.dumps(facts), encoding="utf-8")


def _raise_interrupted(*_: object) -> None:
    raise Interrupted("stopped by the user")


_EVENTS: Any = None
"""The queue to the display, set once in every worker process."""


def _start_worker(events: Any) -> None:
    global _EVENTS  # noqa: PLW0603 - a worker process has one queue for its whole life
    _EVENTS = events
    threading.Thread(target=_die_with_parent, daemon=True).start()
    for number in STOPS:  # between two jobs a worker has nothing to stop; the parent hands out no more
        signal.signal(number, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)


def _die_with_parent() -> None:
    """A study that is killed outright must not leave workers behind."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _WorkerVoice:
    """A recipe's voice that sends events to the parent, a few a second at most."""

    def __init__(self, job: str) -> None:
        self.job, self.steps, self.sent = job, 0, 0.0

    def say(self, text: str) -> None:
        _EVENTS.put(Event("say", self.job, text=text))

    def prepare(self, what: str, done: int, total: int) -> None:
        _EVENTS.put(Event("step", self.job, done, total))

    def begin(self, steps: int, done: int) -> None:
        self.steps = steps
        _EVENTS.put(Event("step", self.job, done, steps))

    def __call__(self, report: Any) -> None:
        if time.monotonic() - self.sent > 0.3 or report.step == self.steps:
            self.sent = time.monotonic()
            _EVENTS.put(Event("step", self.job, report.step, self.steps, dict(report.metrics)))


@contextmanager
def _forwarded(events: Any, listen: Listener) -> Iterator[None]:
    """Hand the workers' events to the display from a thread of the parent."""
    over = threading.Event()

    def forward() -> None:
        while not over.is_set():
            try:
                listen(events.get(timeout=0.2))
            except Empty:
                continue

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM sets a flag here and is handed on to the workers, which stop at their next checkpoint."""
    flag = threading.Event()

    def stop(number: int, frame: Any) -> None:
        flag.set()
        for child in mp.active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)

    with on_stop(stop):
        yield flag
