"""Names "a/b/c" of the leaves of a pytree, and rule tables that match every leaf exactly once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves by name, in the order of the tree: {"discriminator/head/logit/bias": ..., ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves}


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Applies `function(name, leaf, *leaves_of_rest)` to every leaf, as `jax.tree.map` does.

    Args:
      function: called with the name of the leaf and the leaves at that place of all trees.
      tree: decides the structure of the result.
      rest: trees with the same structure.
    """
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(_name(path), *leaves), tree, *rest)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


class RuleTable:
    """Rules `(pattern, value)`; a pattern is a regular expression that must match the end of a leaf's name.

    Every leaf must match exactly one rule: a default for the others could hide a mistake.
    """

    def __init__(self, subject: str, rules: Sequence[tuple[str, Any]]):
        """`subject`: what the rules decide, for error messages."""
        self._subject = subject
        self._rules = [(re.compile(rf"(?:^|/)(?:{pattern})$"), pattern, value) for pattern, value in rules]

    def __call__(self, name: str) -> Any:
        """Returns the value of the rule that matches a leaf.

        Raises:
          ValueError: no rule matches, or several do; names the leaf and the rules.
        """
        matches = [(pattern, value) for regex, pattern, value in self._rules if regex.search(name)]
        if len(matches) != 1:
            matched = "no rule" if not matches else f"{len(matches)} rules ({', '.join(p for p, _ in matches)})"
            raise ValueError(f"{self._subject}: {matched} for the leaf {name!r}; wanted exactly one")
        return matches[0][1]


def diff_trees(ours: Any, theirs: Any, our_name: str, their_name: str) -> list[str]:
    """Returns one line for each leaf name or shape in which two trees of arrays differ; an empty list if none does."""
    a, b = named_leaves(ours), named_leaves(theirs)
    lines = [f"{name}: only in {our_name}" for name in a if name not in b]
    lines += [f"{name}: only in {their_name}" for name in b if name not in a]
    lines += [
        f"{name}: {tuple(a[name].shape)} in {our_name}, {tuple(b[name].shape)} in {their_name}"
        for name in a
        if name in b and tuple(a[name].shape) != tuple(b[name].shape)
    ]
    return lines
