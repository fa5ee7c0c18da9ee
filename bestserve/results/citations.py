"""Sources of the methods, as BibTeX: an answer cites exactly those it used."""

from __future__ import annotations

_BIBTEX = {
    "bestserve": """@misc{bestserve2025,
  title = {{BestServe}: Serving Strategies with Optimal Goodput in Collocation and
           Disaggregation Architectures},
  eprint = {2506.05871}, archivePrefix = {arXiv}, year = {2025}
}""",
    "roofline": """@article{williams2009roofline,
  author = {Williams, Samuel and Waterman, Andrew and Patterson, David},
  title = {Roofline: An Insightful Visual Performance Model for Multicore Architectures},
  journal = {Communications of the ACM}, volume = {52}, number = {4}, pages = {65--76},
  year = {2009}, doi = {10.1145/1498765.1498785}
}""",
    "insensitivity": """@article{cohen1979multiple,
  author = {Cohen, J. W.},
  title = {The Multiple Phase Service Network with Generalized Processor Sharing},
  journal = {Acta Informatica}, volume = {12}, pages = {245--284}, year = {1979}
}""",
    "vacations": """@article{fuhrmann1985stochastic,
  author = {Fuhrmann, S. W. and Cooper, Robert B.},
  title = {Stochastic Decompositions in the {M/G/1} Queue with Generalized Vacations},
  journal = {Operations Research}, volume = {33}, number = {5}, pages = {1117--1129}, year = {1985}
}""",
    "tijms": """@book{tijms2003first,
  author = {Tijms, Henk C.}, title = {A First Course in Stochastic Models},
  publisher = {Wiley}, year = {2003}
}""",
    "distserve": """@inproceedings{zhong2024distserve,
  author = {Zhong, Yinmin and others},
  title = {{DistServe}: Disaggregating Prefill and Decoding for Goodput-optimized Large Language
           Model Serving},
  booktitle = {OSDI}, year = {2024}
}""",
    "taichi": """@misc{taichi2025,
  title = {Prefill-Decode Aggregation or Disaggregation? Unifying Both for Goodput-Optimized {LLM}
           Serving},
  eprint = {2508.01989}, archivePrefix = {arXiv}, year = {2025}
}""",
    "highs": """@article{huangfu2018parallelizing,
  author = {Huangfu, Qi and Hall, J. A. Julian},
  title = {Parallelizing the dual revised simplex method},
  journal = {Mathematical Programming Computation}, volume = {10}, pages = {119--142}, year = {2018}
}""",
    "cvxpy": """@article{diamond2016cvxpy,
  author = {Diamond, Steven and Boyd, Stephen},
  title = {{CVXPY}: A {P}ython-Embedded Modeling Language for Convex Optimization},
  journal = {Journal of Machine Learning Research}, volume = {17}, number = {83}, year = {2016}
}""",
    "sobol": """@article{saltelli2010variance,
  author = {Saltelli, Andrea and others},
  title = {Variance based sensitivity analysis of model output. Design and estimator for the total
           sensitivity index},
  journal = {Computer Physics Communications}, volume = {181}, pages = {259--270}, year = {2010}
}""",
}

_USES = {
    "ranking": ("bestserve", "roofline", "distserve"),
    "prediction": ("bestserve", "roofline"),
    "analytic": ("insensitivity", "vacations", "tijms"),
    "simulated": ("bestserve",),
    "allocation": ("bestserve", "cvxpy", "highs"),
    "sensitivity": ("sobol",),
    "hybrid": ("taichi",),
}


def bibtex(*uses: str) -> str:
    """Return the BibTeX entries behind the named methods; all entries for no name."""
    keys = list(_BIBTEX) if not uses else [k for u in uses for k in _USES[u]]
    return "\n".join(_BIBTEX[k] for k in dict.fromkeys(keys))


def methods() -> tuple[str, ...]:
    """Return the names `bibtex` accepts."""
    return tuple(_USES)
