"""Leaf names "a/b/c", and rule tables that match every leaf exactly once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by name, in the tree's order: {"discriminator/head/logit/bias": ..., ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves}


def map_named(function: Callable[..., Any], tree: Any, *alike: Any) -> Any:
    """Applies `function(name, leaf, ...)` to every leaf, and to those in its place in trees that are alike."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(_name(path), *leaves), tree, *alike)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


class RuleTable:
    """Rules `(pattern, value)`; a pattern is a regular expression that must match the end of a leaf's name.

    Every leaf has to be matched by exactly one rule: silence would be a guess.
    """

    def __init__(self, subject: str, rules: Sequence[tuple[str, Any]]):
        self._subject = subject
        self._rules = [(re.compile(rf"(?:^|/)(?:{pattern})$"), pattern, value) for pattern, value in rules]

    def __call__(self, name: str) -> Any:
        """The value for the leaf `name`; a ValueError names the leaf where not exactly one rule matches."""
        matches = [(pattern, value) for regex, pattern, value in self._rules if regex.search(name)]
        if len(matches) != 1:
            found = "no rule" if not matches else f"{len(matches)} rules ({', '.join(p for p, _ in matches)})"
            raise ValueError(f"{self._subject}: {found} for the leaf {name!r}; wanted exactly one")
        return matches[0][1]


def diff_trees(ours: Any, theirs: Any, our_name: str, their_name: str) -> list[str]:
    """Lines saying where two trees of arrays differ in leaf names or shapes; empty where they agree."""
    a, b = named_leaves(ours), named_leaves(theirs)
    lines = [f"{name}: only in {our_name}" for name in a if name not in b]
    lines += [f"{name}: only in {their_name}" for name in b if name not in a]
    lines += [
        f"{name}: {tuple(a[name].shape)} in {our_name}, {tuple(b[name].shape)} in {their_name}"
        for name in a
        if name in b and tuple(a[name].shape) != tuple(b[name].shape)
    ]
    return lines
