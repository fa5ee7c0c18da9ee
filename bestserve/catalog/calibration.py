"""Calibration records on disk, as `bestserve measure` and `bestserve calibrate` write them."""

from __future__ import annotations

from pathlib import Path

from bestserve.catalog.models import load_model
from bestserve.errors import BestserveError, DataError, InputError
from bestserve.readers.records import read_toml, user_path
from bestserve.specs.calibration import Calibration
from bestserve.specs.model import Model

WHAT = "calibration record"


def load_calibration(path: str | Path) -> Calibration:
    """Return the record in a TOML file; DataError says what is wrong with it."""
    file = user_path(path)
    tables = read_toml(file, WHAT)
    try:
        return Calibration(**tables)
    except InputError as error:
        reason = str(error).removeprefix("Calibration: ")
        raise DataError(f"{WHAT} {file}: {reason}") from None
    except TypeError:  # keys that are no names
        raise DataError(f"{WHAT} {file}: holds no tables provenance and constants") from None


def save_calibration(calibration: Calibration, path: str | Path) -> Path:
    """Write a record as TOML and return its path."""
    import tomli_w

    file = user_path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(tomli_w.dumps(calibration.record()), encoding="utf-8")
    return file


def name_for(record: Calibration, model: Model) -> str:
    """Return the name under which a record knows a model, or else the model's own.

    Spellings differ ("gpt-oss-120b", "openai/gpt-oss-120b"); the same layers in the same formats
    are the same model.
    """
    for name in record.provenance.models:
        try:
            known = load_model(name)
        except BestserveError:  # fitted with a config.json that is not here
            continue
        same = (known.architecture, known.weights, known.experts)
        if same == (model.architecture, model.weights, model.experts):
            return name
    return model.name
