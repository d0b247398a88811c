"""Who may use a run folder, found out before anything slow and without leaving a trace."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from trueup.errors import UserError
from trueup.runtime.device import prepare
from trueup.runtime.folder import check_run, create_run, now, write_manifest


def refused(out: Path | str, resume: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        check_run(str(out), resume)
    assert str(out) in str(caught.value)
    return str(caught.value)


def test_a_new_folder_is_fine_and_not_created(tmp_path: Path) -> None:
    assert check_run(str(tmp_path / "a" / "b"), resume=False) == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_fine(tmp_path: Path) -> None:
    assert check_run(str(tmp_path), resume=False) == tmp_path


def test_a_folder_with_something_in_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine", encoding="utf-8")
    assert "--resume" in refused(tmp_path)
    assert "nothing to resume" in refused(tmp_path, resume=True)
    (tmp_path / "config.yaml").write_text("", encoding="utf-8")
    assert check_run(str(tmp_path), resume=True) == tmp_path


def test_nothing_to_resume_where_nothing_is(tmp_path: Path) -> None:
    assert "nothing to resume" in refused(tmp_path / "none", resume=True)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "is a file" in refused(tmp_path / "file")
    assert "is a file" in refused(tmp_path / "file" / "below")
    assert "cannot be written" in refused("/proc/trueup-run")
    assert "cannot be written" in refused(tmp_path / ("x" * 300))


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        create_run(tmp_path / "file" / "run", "model: x")


def test_the_manifest_names_versions_and_takes_facts(tmp_path: Path) -> None:
    create_run(tmp_path / "run", "seed: 1\n")
    write_manifest(tmp_path / "run", {"seed": 4})
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["seed"] == 4 and manifest["torch"] == torch.__version__
    assert (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8") == "seed: 1\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", now())


def test_devices() -> None:
    assert prepare("cpu", 1) == torch.device("cpu") and torch.get_num_threads() == 1
    with pytest.raises(UserError, match=r"run\.device: 'gpu' is not a device"):
        prepare("gpu", None)
    if not torch.cuda.is_available():
        assert prepare("auto", None) == torch.device("cpu")
        with pytest.raises(UserError, match="no CUDA device"):
            prepare("cuda:1", None)
