"""Power-function averages in closed form: published values, numerical integrals, the equations solved."""

import numpy as np
import pytest

from darkroom.objectives.power_function import (
    Profiles,
    coefficients,
    exponent_of,
    inner_products,
    update_weight,
    width_of,
)


@pytest.mark.parametrize(("width", "exponent"), [(0.05, 16.97), (0.10, 6.94)])
def test_exponents_are_those_that_edm2_publishes(width, exponent):
    # Section 3.1 of arXiv 2312.02696 names both.
    assert exponent_of(width) == pytest.approx(exponent, abs=0.005)


def test_a_width_is_the_standard_deviation_of_its_profile_and_comes_back():
    u = (np.arange(200_000) + 0.5) / 200_000
    for width in (0.001, 0.03, 0.1, 0.2, 0.279):
        g = exponent_of(width)
        assert width_of(g) == pytest.approx(width, rel=1e-9)
        if width > 0.01:
            profile = (g + 1) * u**g / len(u)
            mean = (profile * u).sum()
            assert np.sqrt((profile * (u - mean) ** 2).sum()) == pytest.approx(width, rel=1e-4)


def test_inner_products_of_profiles_are_their_integrals():
    profiles = Profiles(np.array([30.0, 70.0, 100.0, 70.0]), np.array([6.94, 16.97, 2.0, 0.5]))
    u = (np.arange(400_000) + 0.5) / 4000
    values = [
        np.where(u <= t, (g + 1) * u**g / t ** (g + 1), 0)
        for t, g in zip(profiles.steps, profiles.exponents, strict=True)
    ]
    expected = [[(one * other).sum() / 4000 for other in values] for one in values]
    np.testing.assert_allclose(inner_products(profiles, profiles), expected, rtol=1e-3)


def test_updates_weigh_each_step_by_the_integral_of_the_profile_over_it():
    g, t = exponent_of(0.1), 50
    shares = np.zeros(t)
    for step in range(1, t + 1):
        weight = update_weight(step, g)
        shares *= 1 - weight
        shares[step - 1] = weight
    edges = (np.arange(t + 1) / t) ** (g + 1)
    np.testing.assert_allclose(shares, np.diff(edges), rtol=1e-12)
    assert update_weight(1, g) == 1


def test_coefficients_solve_the_equations_and_a_stored_profile_is_itself():
    steps = [(t, w) for t in range(10, 101, 10) for w in (0.05, 0.1)]
    stored, wanted = Profiles.of(steps), Profiles.of([(100, 0.05), (100, 0.075)])
    found, errors = coefficients(stored, wanted)
    expected = np.linalg.solve(inner_products(stored, stored), inner_products(stored, wanted))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found[:, 0], [float(of == (100, 0.05)) for of in steps], atol=1e-9)
    assert errors[0] < 1e-6 and 1e-3 < errors[1] < 2e-2


def test_so_many_snapshots_that_profiles_are_nearly_the_same_are_no_trouble():
    steps = [(t, w) for t in range(1000, 100_001, 1000) for w in (0.05, 0.1, 0.2)]
    found, (error,) = coefficients(Profiles.of(steps), Profiles.of([(100_000, 0.12)]))
    # The weights' rounding errors grow by no more than these.
    assert error < 1e-4 and np.abs(found).sum() < 20 and found.sum() == pytest.approx(1, abs=1e-6)
