"""Calibration records on disk, as `bestserve measure` and `bestserve calibrate` write them."""

from __future__ import annotations

from pathlib import Path

from bestserve.catalog.models import find_model
from bestserve.errors import DataError, InputError
from bestserve.host.writing import write_text
from bestserve.readers.mappings import read_mapping
from bestserve.readers.paths import user_path
from bestserve.specs.calibration import Calibration
from bestserve.specs.model import Model

WHAT = "calibration record"


def load_calibration(path: str | Path) -> Calibration:
    """Return the record in a TOML file; DataError says what is wrong with it."""
    file = user_path(path)
    tables = read_mapping(file, WHAT, "toml")
    layout, end = tables.pop("layout", 1), tables.pop("end", None)
    try:
        record = Calibration(**tables)
        if layout != 1 and end != _end(record):
            raise InputError("cut off: its end does not count what stands above; write it again")
        return record
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
    tables = {"layout": 2, **calibration.record(), "end": _end(calibration)}
    return write_text(file, tomli_w.dumps(tables))


def _end(record: Calibration) -> dict[str, int]:
    """Return the last table of a file, by which one that was cut off is known.

    A file of layout 2 ends with it; one written by hand states no layout and needs none.
    """
    return {"constants": len(record.constants), "observed": len(record.observed)}


def name_for(record: Calibration, model: Model) -> str:
    """Return the name under which a record knows a model, or else the model's own.

    Spellings differ ("gpt-oss-120b", "openai/gpt-oss-120b"); the same layers in the same formats
    are the same model.
    """
    for name in record.provenance.models:
        known = find_model(name)
        if known is None:  # fitted with a config.json of the user's
            continue
        same = (known.architecture, known.weights, known.experts)
        if same == (model.architecture, model.weights, model.experts):
            return name
    return model.name
