# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from edgefl.errors import OptionError
from edgefl.runtime.optimizer import adam, clip_by_norm, proximal, sgd

pytestmark = pytest.mark.device


def arrays(seed: int) -> dict[str, np.ndarray]:
    random = np.random.Generator(np.random.PCG64(seed))
    shapes = {"a": (3, 4), "b": (4,), "scalar": ()}
    return {n: np.asarray(random.normal(size=s), np.float32) for n, s in shapes.items()}


def run(optimizer, steps: int = 5):
    parameters = arrays(0)
    state = optimizer.init(parameters)
    for step in range(steps):
        parameters, state = optimizer.apply(parameters, arrays(10 + step), state)
    return parameters


def test_the_rule_is_the_written_one() -> None:
    p, g, v = arrays(0), arrays(1), arrays(2)

    updated, _ = sgd(0.1, mu=0.5, v=v).apply(p, g, {})

    for n in p:
        np.testing.assert_allclose(updated[n], p[n] - 0.1 * (g[n] + 0.5 * p[n] + v[n]), rtol=1e-6)


@pytest.mark.parametrize("optimizer", [sgd(0.1), sgd(0.1, 0.9, 0.1, arrays(2)), adam(0.1), adam(0.1, mu=0.1)])
def test_inputs_are_left_alone_and_dtypes_and_shapes_kept(optimizer) -> None:
    p, g = arrays(0), arrays(1)
    state = optimizer.init(p)
    before = {key: {n: a.copy() for n, a in table.items()} for key, table in state.items()}

    updated, _ = optimizer.apply(p, g, state)

    for n, value in arrays(0).items():
        np.testing.assert_array_equal(p[n], value)
        np.testing.assert_array_equal(g[n], arrays(1)[n])
        assert isinstance(updated[n], np.ndarray)
        assert (updated[n].dtype, updated[n].shape) == (np.float32, value.shape)
    for key, table in before.items():
        for n, value in table.items():
            np.testing.assert_array_equal(state[key][n], value)


def test_proximal_pulls_to_the_base() -> None:
    base = arrays(3)
    zero = {n: np.zeros_like(p) for n, p in base.items()}
    parameters = arrays(0)
    rule = sgd(0.5, mu=1.0, v=proximal(1.0, base))

    for _ in range(60):
        parameters, _ = rule.apply(parameters, zero, {})

    for n in base:
        np.testing.assert_allclose(parameters[n], base[n], rtol=1e-5, atol=1e-6)


def test_proximal_adds_a_correction_to_what_it_covers() -> None:
    base = arrays(3)

    assert proximal(0.0, base) == {}
    v = proximal(0.5, base, {"a": arrays(4)["a"]})
    np.testing.assert_allclose(v["a"], arrays(4)["a"] - 0.5 * base["a"], rtol=1e-6)
    np.testing.assert_allclose(v["b"], -0.5 * base["b"], rtol=1e-6)


def test_clipping_bounds_the_joint_norm_and_keeps_the_direction() -> None:
    g = arrays(1)
    norm = np.sqrt(sum((a**2).sum() for a in g.values()))

    clipped = clip_by_norm(g, 0.5)

    assert np.sqrt(sum((a**2).sum() for a in clipped.values())) == pytest.approx(0.5, rel=1e-5)
    for n in g:
        np.testing.assert_allclose(clipped[n] * (norm / 0.5), g[n], rtol=1e-5)


def test_clipping_leaves_short_gradients_alone() -> None:
    g = arrays(1)

    assert clip_by_norm(g, 1e6) == g


@pytest.mark.parametrize(
    "make",
    [
        lambda: sgd(0.0),
        lambda: sgd(float("nan")),
        lambda: sgd(0.1, momentum=1.0),
        lambda: sgd(0.1, mu=-1.0),
        lambda: adam(-0.1),
        lambda: adam(0.1, beta1=1.0),
    ],
)
def test_settings_outside_their_range_are_refused(make) -> None:
    with pytest.raises(OptionError, match="allowed"):
        make()
