"""Typed access to a Hugging Face config.json whose every refusal names file and key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bestserve.errors import DataError, shown

LARGEST = 10_000_000
"""Above any width, vocabulary or head count in use; larger numbers are a broken or hostile file."""
MOST_LAYERS = 2000
QUANTISATION = ("quantization_config", "compression_config", "quantization", "quant_config")
"""Keys under which files keep the quantisation; the last two are MLX's and of older tools."""
MOST = 1e16
"""Above any count of parameters."""


class Config:
    """A config.json (or the part of it that describes the language model).

    where : how messages name the file
    prefix : where inside the file the keys are ("text_config." for multimodal models)
    """

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = "") -> None:
        self.values = values
        self.where = where
        self.prefix = prefix

    def error(self, key: str, problem: str) -> DataError:
        """Build the one-line refusal for `key`."""
        return DataError(f"{self.where}: key {self.prefix + key!r} {problem}")

    def has(self, key: str) -> bool:
        """Whether `key` is present and not null."""
        return self.values.get(key) is not None

    def integer(
        self, *keys: str, default: int | None = None, minimum: int = 1, maximum: int = LARGEST
    ) -> int:
        """Return the first of `keys` that is present; `default` if none is."""
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if not isinstance(value, int) or isinstance(value, bool):
                raise self.error(key, f"is {_short(value)}, expected a whole number")
            if not minimum <= value <= maximum:
                raise self.error(key, f"is {_short(value)}, expected {minimum} to {maximum}")
            return value
        if default is None:
            raise self.error(keys[0], "is missing; is the file complete?")
        return default

    def number(self, key: str) -> float:
        """Return a finite number that is not negative."""
        value = self.values.get(key)
        if value is None:
            raise self.error(key, "is missing; is the file complete?")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, f"is {_short(value)}, expected a number")
        if not 0 <= value <= MOST:
            raise self.error(key, f"is {_short(value)}, expected a number from 0 to {MOST:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return a true/false value."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, f"is {_short(value)}, expected true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Return a short string."""
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise self.error(key, "is missing; is the file complete?")
            return default
        if not isinstance(value, str):
            raise self.error(key, f"is {_short(value)}, expected a string")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; empty if absent."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.error(key, f"is {_short(value)}, expected a list of strings")
        return tuple(value)

    def part(self, key: str) -> Config:
        """Return the object under `key`, empty if absent."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.error(key, f"is {_short(value)}, expected an object {{...}}")
        return Config(value, self.where, f"{self.prefix}{key}.")

    def layers(self) -> int:
        """Return the number of decoder layers."""
        return self.integer("num_hidden_layers", maximum=MOST_LAYERS)

    def layer_types(self, allowed: Mapping[str, Any]) -> tuple[str, ...]:
        """Return `layer_types`, one per layer and all `allowed`; empty if absent."""
        types = self.strings("layer_types")
        if not types:
            return ()
        if len(types) != self.layers():
            raise self.error(
                "layer_types", f"has {len(types)} entries for {self.layers()} hidden layers"
            )
        for name in types:
            if name not in allowed:
                known = ", ".join(allowed)
                raise self.error("layer_types", f"contains {_short(name)}, known are {known}")
        return types


def key_name(key: object) -> str:
    """Return a stranger's key or word as a note may quote it: printable, at most 60 characters."""
    return ascii(str(key))[1:-1][:60]


def _short(value: object) -> str:
    return shown(value, 40) if not isinstance(value, (dict, list)) else type(value).__name__
