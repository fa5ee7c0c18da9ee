"""Builds the library of compiled loops; all else is stated in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).parent))  # the package's own translator


class BuildLoops(build_ext):
    """Makes the library; without a compiler there is none, and the loops run as Python."""

    def build_extension(self, ext: Extension) -> None:
        """Compile the loops where setuptools wants them."""
        from bestserve.host.native.build import BuildError, build

        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            build(target)
        except BuildError as error:
            print(f"warning: inner loops will run as Python, a hundred times slower: {error}")


class StableWheel(bdist_wheel):
    """One wheel for all Pythons from 3.11 on."""

    def finalize_options(self) -> None:
        """Take the stable ABI's tag."""
        self.py_limited_api = "cp311"
        super().finalize_options()


setup(
    ext_modules=[Extension("bestserve._loops", sources=[], py_limited_api=True, optional=True)],
    cmdclass={"build_ext": BuildLoops, "bdist_wheel": StableWheel},
)
