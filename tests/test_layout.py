"""What a user imports and installs: names, weight, layers of the house."""

from __future__ import annotations

import ast
import graphlib
import json
import re
import subprocess
import sys
import tomllib

import pytest

import bestserve

HEAVY = {
    "numpy", "scipy", "pandas", "cvxpy", "sympy", "plotly", "matplotlib", "pydantic",
    "cyclopts", "rich", "yaml", "joblib", "torch", "starlette", "uvicorn",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Return the top-level modules loaded by a fresh interpreter that runs `code`."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_importing_bestserve_loads_nothing_heavy():
    assert not modules_after("import bestserve") & HEAVY


QUESTION = (
    "--model meta-llama/Llama-3.1-8B --hardware h100-sxm --input-len lognormal:500,1 "
    "--output-len 100 --format json"
)


@pytest.mark.parametrize(("asked", "needed"), [
    ("--help", set()),
    (f"predict 1m-tp1 --request-rate 2 {QUESTION}", {"numpy", "pydantic", "cyclopts"}),
    (f"rank --gpus 2 --goodput ttft:500 tpot:50 {QUESTION}", {"numpy", "pydantic", "cyclopts"}),
])  # fmt: skip
def test_a_command_loads_only_what_it_needs(asked, needed):
    """SciPy takes longer to load than a prediction takes, tables are not in JSON."""
    code = (
        "import sys, io, bestserve.cli as cli\n"
        "out, sys.stdout = sys.stdout, io.StringIO()\n"
        f"code = cli.run({asked.split()!r})\n"
        "sys.stdout = out\n"
        "assert code == 0, code"
    )
    assert modules_after(code) & HEAVY == needed


@pytest.mark.parametrize("module", ["bestserve.lowering", "bestserve.solvers.ranking"])
def test_a_ranking_needs_no_solver_and_no_frame(module):
    loaded = modules_after(f"import {module}")
    assert not loaded & {"cvxpy", "sympy", "pandas", "plotly", "matplotlib", "torch"}


@pytest.mark.parametrize("name", [n for n in bestserve.__all__ if n != "__version__"])
def test_every_public_name_exists_and_is_documented(name):
    assert getattr(bestserve, name).__doc__


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="rankk"):
        _ = bestserve.rankk


def test_version_is_stated_once_more_in_pyproject(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["version"] == bestserve.__version__


def test_every_dependency_says_why(root):
    lines = (root / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    for line in lines[start + 1 : lines.index("]", start)]:
        assert "#" in line, line


def test_evidence_folders_are_no_packages(root):
    for folder in ("models", "solvers", "validation"):
        assert not (root / folder / "__init__.py").exists()


@pytest.mark.slow
def test_the_wheel_holds_bestserve_and_its_data_only(root, tmp_path):
    import shutil
    import zipfile

    source = tmp_path / "source"
    wanted = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "bestserve")
    source.mkdir()
    for name in wanted:
        path = root / name
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"bestserve"}
    assert "bestserve/py.typed" in names
    assert "bestserve/_loops.abi3.so" in names
    assert "-cp311-abi3-" in wheel.name
    for folder, suffix in (("hardware", ".toml"), ("models", "config.json"), ("engines", ".toml")):
        on_disk = list((root / "bestserve/data" / folder).rglob(f"*{suffix}"))
        in_wheel = [
            n for n in names if n.startswith(f"bestserve/data/{folder}/") and n.endswith(suffix)
        ]
        assert len(in_wheel) == len(on_disk) > 0


def test_the_package_root_holds_few_files(root):
    """A subject has a folder; loose are only the interface, the launch and what all share."""
    assert len(list((root / "bestserve").glob("*.py"))) <= 8


def test_the_layers_name_every_room(root):
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (c for c in contracts["contracts"] if c["name"] == "layers")
    assert layers["exhaustive"]
    named = {room for layer in layers["layers"] for room in re.split(" [|:] ", layer)}
    here = {p.stem for p in (root / "bestserve").iterdir() if p.suffix in ("", ".py")}
    assert named == {name for name in here if name not in ("__init__", "data", "__pycache__")}


def imports(source: str, known: set[str]) -> set[str]:
    """Return the modules of the package that a source imports, lazily or not; types excepted."""
    tree, found = ast.parse(source), set()
    typing = [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    ]
    skipped = {id(n) for block in typing for n in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= inside or {node.module}
    return found & known


def test_no_module_imports_itself_by_a_detour(root):
    files = sorted((root / "bestserve").rglob("*.py"))
    names = {
        ".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p
        for p in files
    }
    graph = {n: imports(p.read_text(), set(names)) for n, p in names.items()}
    graphlib.TopologicalSorter(graph).prepare()
