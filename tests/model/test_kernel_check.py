"""The check of kernels before a run: equal kernels pass, and wrong or broken ones are found and named."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import pytest
import small

from electramed_jax.config.pretrain import ALL_KERNELS, ModelConfig
from electramed_jax.model import kernel_check
from electramed_jax.model.kernels import residual_norm

pytestmark = pytest.mark.slow

ROW_LENGTH = 128


def model(**settings: object) -> ModelConfig:
    sizes = dict(hidden_size=256, num_heads=4, intermediate_size=256, tying="all", kernels=ALL_KERNELS)
    return small.config(ROW_LENGTH, **sizes | dict(dropout=0.1, attention_dropout=0.1) | settings).model


@pytest.mark.parametrize(("platform", "kernels"), [("tpu", "attention,residual_norm"), ("gpu", ALL_KERNELS)])
@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float32"])
def test_the_kernels_of_a_platform_equal_the_plain_form(platform, kernels, compute_dtype, quick_compilation):
    if compute_dtype == "float32":
        kernels = "attention,residual_norm"  # the kernel of GELU is for 16 bits
    checks = kernel_check.check_kernels(
        model(kernels=kernels, compute_dtype=compute_dtype), ROW_LENGTH, 2, interpret=platform
    )
    assert {check.kernel for check in checks} == set(kernels.split(","))
    assert {check.where for check in checks} == {"discriminator, dropout 0", "discriminator, dropout 0.1"}
    assert all(check.is_equal for check in checks), [str(check) for check in checks]
    assert all("equals the plain form" in str(check) for check in checks)


def test_a_kernel_that_drops_other_units_differs(quick_compilation, monkeypatch):
    right = residual_norm.residual_norm

    def wrong(x, y, y_bias, scale, bias, seeds, rate, interpret):
        return right(x, y, y_bias, scale, bias, seeds + 1, rate, interpret)

    monkeypatch.setattr(kernel_check.norm_kernel, "residual_norm", wrong)
    checks = kernel_check.check_kernels(model(kernels="residual_norm"), ROW_LENGTH, 2, interpret="tpu")
    assert {check.where: check.is_equal for check in checks} == {
        "discriminator, dropout 0": True,
        "discriminator, dropout 0.1": False,
    }


def test_a_kernel_with_a_wrong_gradient_or_a_nan_differs(quick_compilation, monkeypatch):
    for change in (lambda h: h * 1.01, lambda h: h + jnp.nan):
        monkeypatch.setattr(kernel_check.norm_kernel, "residual_norm", lambda x, y, *rest, change=change: change(x + y))
        checks = kernel_check.check_kernels(model(kernels="residual_norm"), ROW_LENGTH, 2, interpret="tpu")
        assert not any(check.is_equal for check in checks)
        assert all("differs from the plain form" in str(check) for check in checks)


def test_a_kernel_that_does_not_compile_is_named_with_the_reason(quick_compilation, monkeypatch):
    def broken(*_):
        raise NotImplementedError("no such instruction\nand a long explanation")

    monkeypatch.setattr(kernel_check.norm_kernel, "residual_norm", broken)
    check, *_ = kernel_check.check_kernels(model(kernels="residual_norm"), ROW_LENGTH, 2, interpret="tpu")
    assert not check.is_equal
    assert str(check) == "kernel residual_norm (discriminator, dropout 0): did not run (no such instruction)"


def test_kernels_that_the_run_does_not_use_are_not_checked():
    assert kernel_check.check_kernels(model(kernels="none"), ROW_LENGTH, 2) == []
    assert kernel_check.check_kernels(model(), ROW_LENGTH, 2) == [], "a CPU has no kernels"
    generator = dataclasses.replace(model(), tying="none")
    assert kernel_check.check_kernels(generator, ROW_LENGTH, 2) == []
