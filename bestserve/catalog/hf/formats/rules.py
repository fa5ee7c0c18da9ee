"""Which modules a rule of a quantisation section names, whatever way it names them.

Checkpoints name modules by full name or a part of it made of whole components ("self_attn"), by
any part of the text (AWQ), by shell patterns (ModelOpt, Quark) and by regular expressions that
must match from the start (compressed-tensors, GPTQModel) or anywhere (AutoRound).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

How = Literal["name", "part", "glob", "match", "search"]

LONGEST = 400
MOST_RULES = 20_000
MOST_EXPRESSIONS = 1_000
"""Above any published list; more is a broken or hostile file."""

_LAYER = re.compile(r"^(?P<root>.*?)(?:^|\.)(?:layers|h|blocks|decoder_layers)\.(?P<rest>\d.*)$")
_TOWER = re.compile(
    r"vision|visual|audio|tower|projector|multi_modal|mm_|mtp|eagle|talker|code2wav|encoder\.l|image",
)
_NOT_LAYERS = re.compile(
    r"head|embed|norm|router|conv|bias|rotary|scale|nextn|merger|adapter|^gate$|[.*_]gate(\W|$)",
)
_ENDS = ("lm_head", "head", "output", "embed_tokens", "embed_out", "wte", "embed")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its text, and how it is compared with module names.

    "name" compares whole dotted components, anywhere in the name; the name of a module covers
    what lies inside it. The other ways compare with the full name.
    """

    how: How
    text: str


def speaks_of_layers(rule: Rule, layers: int) -> bool:
    """Whether a rule is about decoder layers, not about towers, heads, norms or draft layers."""
    text = rule.text.removesuffix(".weight")
    if _TOWER.search(text) or _NOT_LAYERS.search(text):
        return False
    found = re.search(r"layers\W{1,2}(\d+)", text)
    return not (found and len(found[1]) < 9 and int(found[1]) >= layers)


class ModuleNames:
    """The spellings of every module, prepared so that thousands of rules are compared quickly.

    spellings : per module its full names (own, and those of fused or nested forms)
    """

    def __init__(self, spellings: Sequence[tuple[str, ...]]) -> None:
        self.spellings = spellings
        self._runs: dict[str, set[int]] = {}
        for index, names in enumerate(spellings):
            for name in {_plain(name) for name in names}:
                parts = name.split(".")
                for start in range(len(parts)):
                    for end in range(start + 1, len(parts) + 1):
                        self._runs.setdefault(".".join(parts[start:end]), set()).add(index)

    def covered(self, rule: Rule) -> frozenset[int] | None:
        """Return the modules that a rule names, or None if it cannot be interpreted.

        >>> names = ModuleNames([("model.layers.0.mlp.up_proj",), ("model.layers.0.mlp.gate",)])
        >>> sorted(names.covered(Rule("name", "mlp"))), sorted(names.covered(Rule("name", "mlp.g")))
        ([0, 1], [])
        """
        if len(rule.text) > LONGEST:
            return None
        if rule.how == "name":
            return frozenset(self._runs.get(_plain(rule.text), ()))
        if rule.how == "part":
            return self._where(lambda name: rule.text in name)
        if rule.how == "glob":
            return self._glob(rule.text)
        expression = rule.text
        if not runnable(expression):
            return None
        compiled = re.compile(expression)
        test = compiled.match if rule.how == "match" else compiled.search
        return self._where(lambda name: test(name) is not None)

    def _glob(self, pattern: str) -> frozenset[int]:
        if pattern.endswith("*") and not set(pattern[:-1]) & set("*?["):
            # ModelOpt writes "path*" for the tree at path, so layers.1* is not layers.10.
            tree = frozenset(self._runs.get(_plain(pattern[:-1].rstrip(".")), ()))
            return tree or self._where(lambda name: name.startswith(pattern[:-1]))
        shell = re.compile(fnmatch.translate(pattern)).match
        inside = re.compile(fnmatch.translate(pattern + ".*")).match
        return self._where(lambda name: bool(shell(name) or inside(name)))

    def _where(self, test: object) -> frozenset[int]:
        assert callable(test)
        return frozenset(
            index for index, names in enumerate(self.spellings) if any(test(name) for name in names)
        )


def _plain(name: str) -> str:
    """Return a name from its layer on: files and engines differ in what stands before."""
    name = name.removesuffix(".weight")
    found = _LAYER.match(name)
    if found:
        return name if _TOWER.search(found["root"] + ".") else f"layers.{found['rest']}"
    last = name.rsplit(".", 1)[-1]
    return last if last in _ENDS and not _TOWER.search(name) else name


_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")
_COUNTED = re.compile(r"\{\d+(,\d*)?\}")
MOST_UNBOUNDED = 4


def runnable(expression: str) -> bool:
    """Whether a stranger's expression is safe to run: no repeat of what itself repeats or chooses.

    Those take exponential time; a few plain repeats take polynomial time on a short name.

    >>> runnable(r".*layers\\.[0-9]+\\.(q|k)_proj$"), runnable("(a+)+$")
    (True, False)
    """
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError):
        return False
    text = re.sub(r"(\.\*)+\??", ".*", expression)
    text = re.sub(r"\\.", "e", text)
    text = re.sub(r"\[\^?\]?[^\]]*\]", "c", text)
    if re.search(r"\(\?P=|\(\?\(|\(\?[aiLmsux-]", text):
        return False
    unbounded, nested, position = 0, [False], 0
    closed_group = (
        False  # whether what a quantifier would repeat is a group that repeats or chooses
    )
    while position < len(text):
        quantifier = _UNBOUNDED.match(text, position) or _COUNTED.match(text, position)
        char = text[position]
        if char == "(":
            nested.append(False)
            opener = re.compile(r"\(\?(:|=|!|<=|<!|P<\w+>)").match(text, position)
            position = opener.end() if opener else position + 1
            closed_group = False
            continue
        if char == ")" and len(nested) > 1:
            closed_group = nested.pop()
            nested[-1] = nested[-1] or closed_group
        elif char == "|":
            nested[-1] = True
        elif quantifier:
            if closed_group:
                return False
            unbounded += _UNBOUNDED.match(text, position) is not None
            nested[-1] = True
            position = quantifier.end()
            continue
        elif char != "?":
            closed_group = False
        position += 1
    return unbounded <= MOST_UNBOUNDED
