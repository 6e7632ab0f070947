"""Tests of leaf names, and of rules that match each leaf exactly once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from electramed_jax.common import tree_rules


class Moments(NamedTuple):
    mu: Any


TREE = {"head": {"bias": 1, "output_bias": 2}, "state": (Moments({"head": {"bias": 3}}), [4])}


def test_leaves_are_named_through_dicts_tuples_and_named_tuples():
    assert tree_rules.named_leaves(TREE) == {
        "head/bias": 1,
        "head/output_bias": 2,
        "state/0/mu/head/bias": 3,
        "state/1/0": 4,
    }


def test_mapping_by_name_keeps_the_shape_of_the_tree():
    assert tree_rules.map_named(lambda name, leaf: f"{name}={leaf}", {"a": {"b": 1}, "c": [2]}) == {
        "a": {"b": "a/b=1"},
        "c": ["c/0=2"],
    }


def test_a_rule_matches_the_end_of_a_name_at_a_slash():
    rules = tree_rules.RuleTable("decay", ((r"bias", "short"), (r"output_bias", "long")))
    assert rules("head/bias") == rules("state/0/mu/head/bias") == "short"
    assert rules("head/output_bias") == "long"


def test_a_leaf_without_a_rule_is_named():
    rules = tree_rules.RuleTable("sharding", ((r"bias", 0),))
    for name in ("head/output_bias", "bias/kernel"):
        with pytest.raises(ValueError, match=f"sharding: no rule for the leaf '{name}'"):
            rules(name)


def test_a_leaf_with_two_rules_is_named_with_both():
    rules = tree_rules.RuleTable("sharding", ((r"head/.*", 0), (r"bias", 1), (r"kernel", 2)))
    with pytest.raises(ValueError, match=r"2 rules \(head/\.\*, bias\) for the leaf 'head/bias'"):
        rules("head/bias")


def test_differences_name_leaves_and_shapes():
    ours = {"a": np.zeros(2), "b": np.zeros((2, 3)), "c": np.zeros(1)}
    theirs = {"a": np.zeros(2), "b": np.zeros((3, 2)), "d": np.zeros(1)}
    assert tree_rules.diff_trees(ours, theirs, "the run", "the file") == [
        "c: only in the run",
        "d: only in the file",
        "b: (2, 3) in the run, (3, 2) in the file",
    ]
    assert tree_rules.diff_trees(ours, ours, "the run", "the file") == []
