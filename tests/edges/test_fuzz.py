"""The quick form of the fuzz run: a few thousand hostile inputs over every surface."""

from __future__ import annotations

from bestserve.errors import BestserveError


def names(kind: type[BestserveError]) -> set[str]:
    return {kind.__name__}.union(*(names(k) for k in kind.__subclasses__()))


def test_hostile_inputs_end_in_an_answer_or_in_one_line(script):
    fuzz = script("tests/edges/fuzz.py")
    found, examples = fuzz.fuzz(3000, seed=20)
    assert examples == {}
    assert {said for _, said in found} <= names(BestserveError) | {"answered"}
    assert {surface for surface, _ in found} == {s.name for s in fuzz.surfaces()}


def test_equal_seeds_give_equal_inputs(script):
    fuzz = script("tests/edges/fuzz.py")
    assert fuzz.fuzz(300, seed=1)[0] == fuzz.fuzz(300, seed=1)[0]


def test_a_crash_and_a_long_message_are_found(script):
    fuzz = script("tests/edges/fuzz.py")

    def crash(raw: bytes, folder: object) -> object:
        return {}[raw]

    surface = fuzz.Surface("x", (b"",), crash)
    assert fuzz.outcome(surface, b"a", None).startswith("FINDING KeyError at test_fuzz.py")
