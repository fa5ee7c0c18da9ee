"""Where bestserve runs: read-only packages, no home, no network, other threads' BLAS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import threadpoolctl

from bestserve.host import compiled
from bestserve.host.threads import one_blas_thread

PREDICT = [
    "predict", "1m-tp1", "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm",
    "--input-len", "500", "--output-len", "50", "--request-rate", "2", "--format", "json",
]  # fmt: skip


def blas() -> list[int]:
    return [
        pool["num_threads"]
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]


def test_threads_that_overlap_leave_blas_as_it_was():
    before = blas()
    first, second = threading.Event(), threading.Event()

    def early() -> None:
        with one_blas_thread():
            first.set()
            second.wait(30)

    def late() -> None:
        first.wait(30)
        with one_blas_thread():
            second.set()
            one.join(30)
            assert set(blas()) <= {1}

    one, two = threading.Thread(target=early), threading.Thread(target=late)
    one.start()
    two.start()
    one.join()
    two.join()
    assert blas() == before


def test_the_folder_of_others_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled.tempfile, "gettempdir", lambda: str(tmp_path))
    own = compiled.private_folder()
    assert own.parent == tmp_path
    own.chmod(0o777)
    with pytest.raises(PermissionError, match="somebody else"):
        compiled.private_folder()
    own.rmdir()
    (tmp_path / "elsewhere").mkdir()
    own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="somebody else"):
        compiled.private_folder()


IMPORT = "import bestserve.simulator.heap as h; print(h.pack(1, 2, 0))"


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a process that imports compiled loops of the package in a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", IMPORT],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_loops_are_compiled_once_and_again_after_an_edit(root, tmp_path):
    """Of processes that start at once, one compiles; then none, until a source changes."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "data")
    shutil.copytree(root / "bestserve", tmp_path / "bestserve", ignore=ignored)
    ends = [process.communicate(timeout=300) for process in [start(tmp_path) for _ in range(6)]]
    assert {out for out, _ in ends} == {f"{(1 << 32) | (2 << 2)}\n"}
    assert sum("compiling its inner loops" in err for _, err in ends) == 1
    assert start(tmp_path).communicate()[1] == ""
    heap = tmp_path / "bestserve" / "simulator" / "heap.py"
    heap.write_text(heap.read_text().replace("ITERATION_SHIFT = 32", "ITERATION_SHIFT = 33"))
    out, err = start(tmp_path).communicate(timeout=300)
    assert out == f"{(1 << 33) | (2 << 2)}\n"
    assert "compiling its inner loops" in err


def test_without_a_compiler_loops_run_as_python(root, tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "data")
    shutil.copytree(root / "bestserve", tmp_path / "bestserve", ignore=ignored)
    out, err = start(tmp_path, CC="/nonexistent/cc").communicate(timeout=60)
    assert out == f"{(1 << 32) | (2 << 2)}\n"
    assert "SlowStartWarning" in err
    assert "no compiler" in err


CONTAINER = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/python /mnt/packages /mnt/source
mount --bind {python} /mnt/python
mount --bind {packages} /mnt/packages
mount --bind {source} /mnt/source
mount -o remount,bind,ro /mnt/source
mount -t tmpfs {temporary} tmpfs /tmp
mount -t tmpfs -o ro tmpfs /var/tmp
cd /
exec setpriv --reuid {user} --regid {user} --clear-groups env -i PATH=/usr/bin:/bin LC_ALL=C \\
  {home} PYTHONPATH=/mnt/source:/mnt/packages \\
  /mnt/python/bin/{name} -m bestserve {command}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("temporary", "library", "user", "said"),
    [
        ("-o ro", True, "65534", ""),
        ("", False, "65534", "compiling its inner loops"),
        ("-o ro", False, "65534", "as Python"),
        ("-o ro", False, "12345", "no folder for them can be written"),
    ],
    ids=["as installed", "with /tmp", "nowhere to write", "nor a name"],
)
def test_in_a_container(root, tmp_path, temporary, library, user, said):
    """Read-only package, no home, no network, an unprivileged user, LC_ALL=C: an answer."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("needs root to become somebody else in a namespace of its own")
    trial = ["unshare", "--mount", "--net", "setpriv", "--reuid", "65534", "true"]
    if shutil.which("unshare") is None or subprocess.run(trial, check=False).returncode:
        pytest.skip("needs unshare and setpriv, and may make no namespaces here")
    no_caches = shutil.ignore_patterns("__pycache__", *([] if library else ["*.so"]))
    source = tmp_path / "source"
    shutil.copytree(root / "bestserve", source / "bestserve", ignore=no_caches)
    source.chmod(0o755)
    script = CONTAINER.format(
        python=sys.base_prefix,
        packages=Path(threadpoolctl.__file__).parent,
        source=source,
        temporary=temporary,
        user=user,
        home="HOME=/nonexistent" if user == "65534" else "",
        name=f"python{sys.version_info.major}.{sys.version_info.minor}",
        command=" ".join(PREDICT),
    )
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-c", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"ttft"' in done.stdout
    assert said in done.stderr
    assert sum("loops" in line for line in done.stderr.splitlines()) == bool(said), done.stderr
