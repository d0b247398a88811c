"""Reading a study folder, with one clear line for whatever is missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from trueup.errors import UserError, nearest
from trueup.study.schema import ITEM_COLUMNS, Study

_REMEDY = "build the folder again with 'trueup study'"


def read_study(folder: Path) -> Study:
    """Read and check ``study.json``; NaN and infinity count as not available.

    Raises:
        UserError: the file is missing or not JSON, a key is missing or of another kind, or an arm is not listed.
    """
    path = folder / "study.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        study = TypeAdapter(Study).validate_python(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is this a study folder?") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}); {_REMEDY}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not a study ({error}); {_REMEDY}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {field}: {first['msg'][0].lower() + first['msg'][1:]}; {_REMEDY}") from error
    _check_arms(study, path)
    return study


def _check_arms(study: Study, path: Path) -> None:
    names = [arm["name"] for arm in study["arms"]]
    if not names:
        raise UserError(f"{path}: arms: empty, there is nothing to report; {_REMEDY}")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: arms: a name occurs twice; {_REMEDY}")
    used = {
        "contrasts": [side for c in study["contrasts"] for side in (c["a"], c["b"])],
        "rank_sets": [name for ranks in study["rank_sets"].values() for name in ranks],
        "families": [row["arm"] for row in study["families"]],
        "frontier": [point["arm"] for point in study["frontier"]],
        "curves": list(study["curves"]),
    }
    for field, mentioned in used.items():
        for name in mentioned:
            if name not in names:
                raise UserError(f"{path}: {field}: arm {name!r} is not among the arms{nearest(name, names)}; {_REMEDY}")


def read_items(folder: Path) -> pa.Table:
    """Read ``items.parquet``: one row per arm, seed, prompt and draw, with the columns of ``ITEM_COLUMNS``.

    Raises:
        UserError: the file is missing or damaged, or a column is missing or of another kind.
    """
    path = folder / "items.parquet"
    try:
        table = pq.ParquetFile(path).read()
    except OSError as error:
        reason = error.strerror or "truncated or not Parquet"
        raise UserError(f"{path}: cannot be read ({reason}); {_REMEDY}") from error
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a Parquet file that can be read ({error}); {_REMEDY}") from error
    missing = [name for name in ITEM_COLUMNS.names if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing; {_REMEDY}")
    try:
        return table.select(ITEM_COLUMNS.names).cast(ITEM_COLUMNS)
    except pa.ArrowException as error:
        raise UserError(f"{path}: a column is of another kind ({error}); {_REMEDY}") from error
