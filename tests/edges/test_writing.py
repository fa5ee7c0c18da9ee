"""Files are written whole or not at all, and their targets are checked before the work."""

from __future__ import annotations

import importlib
import os
import stat
import tomllib
from pathlib import Path

import pytest

from bestserve.catalog.calibration import load_calibration, save_calibration
from bestserve.cli import run
from bestserve.errors import DataError, InputError
from bestserve.host import writing
from bestserve.host.writing import check_target, write_text
from bestserve.specs.calibration import Calibration, Constant, Provenance, units

FULL = Path("/dev/full")


def test_what_is_written_replaces_what_was_there(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("old")
    file.chmod(0o640)
    assert write_text(file, "néw\n") == file
    assert file.read_text(encoding="utf-8") == "néw\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_keeps_pointing_at_the_new_text(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fails):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "record.toml"
    file.write_text("old")
    monkeypatch.setattr(writing.os, fails, full)
    with pytest.raises(DataError, match=r"record\.toml: cannot be written: No space left"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_a_device_is_written_to_and_its_error_names_it():
    with pytest.raises(DataError, match="/dev/full: cannot be written"):
        write_text(FULL, "x" * 100_000)
    write_text(os.devnull, "gone")


@pytest.mark.parametrize(("name", "why"), [
    ("", "empty path"), ("nowhere/page.html", "no folder"), (".", "empty path"),
    ("folder", "is a folder"), ("a\0b", "cannot be written"), ("x" * 300, "cannot be written"),
])  # fmt: skip
def test_bad_targets_are_named(tmp_path, monkeypatch, name, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=why):
        check_target(name, "page")


PROBLEM = [
    "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "1",
    "--input-len", "100", "--output-len", "10", "--goodput", "ttft:1000", "tpot:50",
]  # fmt: skip


@pytest.mark.parametrize("command", [
    ["simulate", "1m-tp1", *PROBLEM, "--request-rate", "1", "--save-detailed", "nowhere/x.json"],
    ["report", *PROBLEM, "--output", "nowhere/x.html"],
    ["report", *PROBLEM, "--figures", "taken/figures"],
    ["curves", "1m-tp1", *PROBLEM, "--plot", "nowhere/x.csv"],
    ["validate", "there-is-no-log.json", "--plot", "nowhere/x.html"],
    ["calibrate", "there-is-no-log.json", "--output", "nowhere/x.toml"],
    ["allocate", "fleet.toml", "--page", "nowhere/x.html"],
])  # fmt: skip
def test_no_command_works_for_a_file_that_cannot_be_written(capsys, tmp_path, monkeypatch, command):
    """The target is refused before anything else is looked at: the logs do not even exist."""
    from bestserve.cli import talk

    # loaded before, or it would keep the stand-in for the tests that follow
    module = importlib.import_module(f"bestserve.cli.{command[0]}")

    def work(message: str) -> None:
        raise AssertionError(f"{message} before the target was checked")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file, no folder")
    (tmp_path / "fleet.toml").write_text(FLEET)
    monkeypatch.setattr(talk, "progress", work)
    monkeypatch.setattr(module, "progress", work, raising=False)
    code = run(command)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert command[-1].split("/")[0] in err
    assert len(err.splitlines()) == 1


FLEET = """
objective = "min_cost"
[[gpus]]
hardware = "h100-sxm"
count = 2
price_per_hour = 2.5
[[models]]
model = "meta-llama/Llama-3.1-8B"
[[models.classes]]
name = "chat"
input_len = 500
output_len = 50
slo = "ttft:500 tpot:40"
rate = 5
"""


def record() -> Calibration:
    known = units()
    constants = {
        name: Constant(value=0.12345, unit=known[name], kind="measured", source="x", sd=0.01234)
        for name in list(known)[:12]
    }
    return Calibration(provenance=Provenance(device="H100", date="2026-01-01"), constants=constants)


def test_a_cut_calibration_record_is_refused_wherever_it_was_cut(tmp_path):
    whole = save_calibration(record(), tmp_path / "whole.toml")
    raw = whole.read_bytes()
    loaded = load_calibration(whole)
    assert dict(loaded.constants) == dict(record().constants)
    cut = tmp_path / "cut.toml"
    for length in range(len(raw)):
        cut.write_bytes(raw[:length])
        try:
            part = load_calibration(cut)
        except DataError:
            continue
        assert (part.constants, part.observed) == (loaded.constants, loaded.observed), length


def test_a_record_written_by_hand_needs_no_end(tmp_path):
    tables = tomllib.loads(save_calibration(record(), tmp_path / "x.toml").read_text())
    assert tables["layout"] == 2
    file = tmp_path / "hand.toml"
    file.write_text(
        '[provenance]\ndevice = "H100"\ndate = "2026-01"\n'
        '[constants."engine.a_step"]\nvalue = 1e-3\nunit = "s"\nkind = "assumed"\nsource = "me"\n'
    )
    assert len(load_calibration(file).constants) == 1
