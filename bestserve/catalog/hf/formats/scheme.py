"""A quantisation section, read: formats, rules for single modules, and how readers take them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.formats import weights
from bestserve.catalog.hf.formats.rules import MOST_RULES, Rule
from bestserve.catalog.hf.formats.weights import KEPT
from bestserve.models.step.device import WeightFormat

Ruled = tuple[Rule, WeightFormat]


@dataclass(frozen=True, slots=True)
class Scheme:
    """A quantisation section, read.

    default : format of every linear layer of the decoder that no rule names
    rules : (rule, format); the first that names a module decides
    only : where not empty, `default` is for modules that one of these names
    ends : the default holds for embedding and head too
    unserved : no engine here loads it; the reason
    beside : what each matrix of the default format takes besides: its codebooks [B]
    notes : what was left out or assumed
    """

    default: WeightFormat = KEPT
    rules: tuple[Ruled, ...] = ()
    only: tuple[Rule, ...] = ()
    ends: bool = False
    unserved: str = ""
    beside: float = 0.0
    notes: tuple[str, ...] = ()


SKIPPED = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")
"""Keys of lists of modules that stay 16 bit."""


def kept(part: Config, keys: Iterable[str], how: Callable[[str], Iterable[Rule]]) -> list[Ruled]:
    """Return rules that keep 16 bits for all modules listed under `keys`."""
    texts = [text for key in keys for text in part.strings(key)]
    if len(texts) > MOST_RULES:
        raise part.error(
            next(k for k in keys if part.has(k)),
            f"lists {len(texts)} modules, more than models have",
        )
    return [(rule, KEPT) for text in dict.fromkeys(texts) for rule in how(text)]


def loose(text: str) -> tuple[Rule, ...]:
    """Return the ways in which Transformers and vLLM between them read an entry of a list."""
    if text.startswith("re:"):
        return (Rule("match", text[3:]),)
    expression = not text.startswith("*") and any(
        c in text for c in ("\\", ".*", "^", "$", "(", "|", "+")
    )
    if expression:
        return (Rule("match", text), *shell(text))
    return shell(text) or (Rule("name", text),)


def shell(text: str) -> tuple[Rule, ...]:
    """Return a rule for a shell pattern; none if the text has no wildcard."""
    return (Rule("glob", text),) if any(c in text for c in "*?[") else ()


def block_of(part: Config, key: str) -> tuple[int, int] | None:
    """Return the two sides of a block of weights that share a scale, or None."""
    value = part.values.get(key)
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(v, int) and not isinstance(v, bool) and 0 < v < 10**6 for v in value)
    ):
        raise part.error(key, "is not two whole numbers, e.g. [128, 128]")
    return value[0], value[1]


def bits_of(part: Config, *keys: str, allowed: tuple[int, ...], default: int | None = None) -> int:
    """Return the bits per weight under the first of `keys` present; one of `allowed`."""
    bits = part.integer(*keys, default=default, maximum=64)
    if bits not in allowed:
        known = ", ".join(map(str, allowed))
        key = next(k for k in keys if part.has(k))
        raise part.error(key, f"is {bits}; known are {known}")
    return bits


def group_of(part: Config, *keys: str, default: int = 128) -> int:
    """Return how many weights share a scale; −1: a whole row."""
    return part.integer(*keys, default=default, minimum=-1, maximum=weights.MOST_GROUP)


def overridden(part: Config, key: str, name: str, override: object) -> Config:
    """Return the settings that a section gives one module."""
    if not isinstance(override, Mapping):
        raise part.error(key, f"gives {name[:40]!r} no object of settings")
    return Config(override, part.where, f"{part.prefix}{key}.{name[:60]}.")


def flat(part: Config, key: str) -> tuple[str, ...]:
    """Return names under `key`: a list, a list of lists, or a text with commas."""
    value = part.values.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(v.strip() for v in value.split(",") if v.strip())
    if isinstance(value, list):
        lists = [v if isinstance(v, list) else [v] for v in value]
        if all(isinstance(v, str) for each in lists for v in each):
            return tuple(dict.fromkeys(v for each in lists for v in each))
    raise part.error(key, "is no list of module names")
