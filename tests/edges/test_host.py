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
    own = Path(compiled.private_folder())
    assert own.parent == tmp_path
    own.chmod(0o777)
    assert compiled.private_folder() == ""
    own.rmdir()
    (tmp_path / "elsewhere").mkdir()
    own.symlink_to(tmp_path / "elsewhere")
    assert compiled.private_folder() == ""


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
exec setpriv --reuid 65534 --regid 65534 --clear-groups env -i PATH=/usr/bin:/bin LC_ALL=C \\
  HOME=/nonexistent PYTHONPATH=/mnt/source:/mnt/packages \\
  /mnt/python/bin/{name} -m bestserve {command}
"""


@pytest.mark.slow
@pytest.mark.parametrize("temporary", ["", "-o ro"], ids=["with /tmp", "nowhere to write"])
def test_in_a_container(root, tmp_path, temporary):
    """Read-only package, no home, no network, an unprivileged user, LC_ALL=C: an answer."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("needs root to become somebody else in a namespace of its own")
    trial = ["unshare", "--mount", "--net", "setpriv", "--reuid", "65534", "true"]
    if shutil.which("unshare") is None or subprocess.run(trial, check=False).returncode:
        pytest.skip("needs unshare and setpriv, and may make no namespaces here")
    no_caches = shutil.ignore_patterns("__pycache__")
    source = tmp_path / "source"
    shutil.copytree(root / "bestserve", source / "bestserve", ignore=no_caches)
    source.chmod(0o755)
    script = CONTAINER.format(
        python=sys.base_prefix,
        packages=Path(threadpoolctl.__file__).parent,
        source=source,
        temporary=temporary,
        name=f"python{sys.version_info.major}.{sys.version_info.minor}",
        command=" ".join(PREDICT),
    )
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-c", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"ttft"' in done.stdout
    (line,) = (line for line in done.stderr.splitlines() if "compiled loops" in line)
    assert "NUMBA_CACHE_DIR" in line
    assert ("kept in" in line) == (temporary == "")
