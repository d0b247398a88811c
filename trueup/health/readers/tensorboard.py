"""TensorBoard event files: the scalars of a folder, read by the tensorboard package where it is installed."""

from __future__ import annotations

from pathlib import Path

from trueup.errors import UserError
from trueup.health.readers.found import Found

_EVENTS = "*tfevents*"


def recognises(path: Path) -> bool:
    """Does the folder hold event files, itself or one level down, or is it one?"""
    return "tfevents" in path.name if path.is_file() else any(path.glob(_EVENTS)) or any(path.glob(f"*/{_EVENTS}"))


def read(path: Path) -> tuple[Found, ...]:
    """Read the scalars of each folder that has event files as one log."""
    try:
        from tensorboard.backend.event_processing import event_accumulator  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{path}: TensorBoard event files are read with the tensorboard package: pip install tensorboard"
        ) from None
    sources = [path] if path.is_file() else sorted({file.parent for file in path.rglob(_EVENTS)})
    logs = []
    for source in sources:
        events = event_accumulator.EventAccumulator(str(source), size_guidance={event_accumulator.SCALARS: 0})
        events.Reload()
        series = {
            tag: sorted({event.step: float(event.value) for event in events.Scalars(tag)}.items())
            for tag in events.Tags()["scalars"]
        }
        if series:
            logs.append(Found(series, "" if source == path else str(source.relative_to(path))))
    if not logs:
        raise UserError(f"{path}: its event files have no scalars")
    return tuple(logs)
