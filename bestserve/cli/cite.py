"""`bestserve cite`."""

from __future__ import annotations


def cite(*methods: str) -> int:
    """Print BibTeX for the methods behind an answer; all of them without a name.

    Parameters
    ----------
    methods
        ranking, prediction, analytic, simulated, allocation, sensitivity
    """
    from bestserve.errors import UnknownNameError
    from bestserve.results.citations import bibtex
    from bestserve.results.citations import methods as known

    for method in methods:
        if method not in known():
            raise UnknownNameError("method", method, known(), f"known: {', '.join(known())}")
    print(bibtex(*methods))
    return 0
