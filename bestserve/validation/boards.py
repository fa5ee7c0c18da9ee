"""Which GPU record a row means: its name, and the evidence where the name fits several boards."""

from __future__ import annotations

import re

from bestserve.catalog import resolve_hardware
from bestserve.readers.tidy import TidyRow
from bestserve.specs.hardware import Hardware
from bestserve.validation.outcome import Noted, Outcome, UnpredictableError

NODE = 8
"""SXM boards are sold as nodes of eight; whole nodes name the form factor."""

_HARDWARE_NOTE = re.compile(r"^hw '(.{1,200}?)'?$")
_BOARD = re.compile(r"\b(SXM\d?|PCIe|NVL|NVLink)\b", re.IGNORECASE)
_MEMORY = re.compile(r"\b(\d{2,3}) ?GB\b", re.IGNORECASE)


def hardware_of(row: TidyRow) -> Noted[Hardware]:
    """Return the GPU from its name, then from what else the row says about the board.

    Notes the rule that decided between boards. Raises `UnpredictableError`.
    """
    if row.gpu is None:
        raise UnpredictableError(Outcome.GPU_UNKNOWN, "not stated; give --gpu")
    found = resolve_hardware(row.gpu)
    if found.hardware is not None:
        return Noted(found.hardware)
    if row.gpu_canonical and row.gpu_canonical != row.gpu:
        canonical = resolve_hardware(row.gpu_canonical)
        if canonical.hardware is not None:
            return Noted(canonical.hardware)
        found = canonical if canonical.candidates and not found.candidates else found
    if not found.candidates:
        raise UnpredictableError(Outcome.GPU_UNKNOWN, row.gpu[:80])
    narrowed = _narrowed(row, found.candidates)
    if narrowed is None:
        raise UnpredictableError(
            Outcome.GPU_AMBIGUOUS,
            f"{row.gpu[:60]}: say which with --gpu: {', '.join(found.candidates)}",
        )
    return narrowed


def _narrowed(row: TidyRow, candidates: tuple[str, ...]) -> Noted[Hardware] | None:
    """Return the one candidate that the rest of the row points to, or None.

    In order: a hardware note that names the board, a cloud's own label of it, whole nodes of
    eight GPUs (only SXM boards come so), and the memory that remains among those.
    """
    evidence = ""
    left = candidates
    for note in row.notes:
        match = _HARDWARE_NOTE.match(note.strip())
        if not match:
            continue
        board, memory = _BOARD.search(match[1]), _MEMORY.search(match[1])
        if board:
            left = _with_form(left, board[1])
            evidence = f"the row's hardware note says {board[1]}"
        if memory:
            left = _with_memory(left, float(memory[1]))
    if not evidence and re.fullmatch(r"nvidia-[a-z0-9]+-\d+gb", row.gpu or ""):
        left = _with_form(left, "SXM")
        evidence = f"{row.gpu} is a cloud's accelerator label, of SXM machines"
    if not evidence and (row.num_gpus or 0) >= NODE and (row.num_gpus or 0) % NODE == 0:
        left = _with_form(left, "SXM")
        evidence = f"{row.num_gpus} GPUs are whole nodes, which have SXM boards"
    if evidence and len(left) > 1:
        # The larger memory is the later and by far the commoner board of a chip.
        records = [_record(name) for name in left]
        largest = max(r.memory_bytes.value for r in records)
        left = tuple(r.name for r in records if r.memory_bytes.value == largest)
        evidence += "; its larger memory assumed"
    if len(left) != 1 or not evidence:
        return None
    return Noted(_record(left[0]), (f"GPU taken as {left[0]}: {evidence}",))


def _record(name: str) -> Hardware:
    found = resolve_hardware(name).hardware
    assert found is not None, name
    return found


def _with_form(names: tuple[str, ...], form: str) -> tuple[str, ...]:
    wanted = re.sub(r"\d", "", form.lower()).replace("nvlink", "sxm")
    return tuple(n for n in names if _record(n).form_factor.lower() == wanted)


def _with_memory(names: tuple[str, ...], gigabytes: float) -> tuple[str, ...]:
    return tuple(
        n for n in names if abs(_record(n).memory_bytes.value / (gigabytes * 1e9) - 1) < 0.1
    )
