"""Programs that were written for NumPy by others run unchanged, and gradients come out.

FilterPy (a Kalman filter: assignment, products, inverses), seawater (the equation of
state) and transforms3d (rotations: `math`, and assignment element by element).
"""

import numpy as np
import pytest

import fastad as ad

pytestmark = pytest.mark.filterwarnings("ignore:The seawater library:UserWarning")
SEEN = [1.0, 2.1, 2.9, 4.2, 5.1, 5.8]


def kalman_likelihood(x):
    """Minus twice the log likelihood of a trend, in its time step and two noises."""
    kalman = pytest.importorskip("filterpy.kalman")
    f = kalman.KalmanFilter(dim_x=2, dim_z=1)
    f.F = ad.array([[1.0, x[0]], [0.0, 1.0]])
    f.H = np.array([[1.0, 0.0]])
    f.Q = x[1] * np.eye(2)
    f.R = x[2].reshape(1, 1)
    f.P = 10.0 * np.eye(2)
    total = 0.0
    for z in SEEN:
        f.predict()
        f.update(z)
        total = total + (f.y.T @ np.linalg.inv(f.S) @ f.y)[0, 0] + np.log(f.S[0, 0])
    return total


def density(x):
    """Of sea water, from salinity, temperature and pressure."""
    return pytest.importorskip("seawater").dens(x[0], x[1], x[2])


def speed_of_sound(x):
    seawater = pytest.importorskip("seawater")
    return seawater.svel(x[0], x[1], x[2]) + seawater.cp(x[0], x[1], x[2])


def rotation(x):
    euler = pytest.importorskip("transforms3d.euler")
    return (euler.euler2mat(x[0], x[1], x[2]) * np.arange(9.0).reshape(3, 3)).sum()


def quaternion(x):
    quaternions = pytest.importorskip("transforms3d.quaternions")
    return (quaternions.quat2mat(x) ** 2 * np.arange(9.0).reshape(3, 3)).sum()


PROGRAMS = {
    "filterpy": [(kalman_likelihood, [0.9, 0.1, 0.5])],
    "seawater": [(density, [35.0, 12.0, 1000.0]), (speed_of_sound, [35.0, 12.0, 1000.0])],
    "transforms3d": [(rotation, [0.3, 0.1, 0.2]), (quaternion, [0.9, 0.1, 0.2, 0.3])],
}


def differences(f, at):
    slopes = np.empty_like(at)
    for i in range(at.size):
        step = np.zeros_like(at)
        step[i] = 1e-6 * max(1.0, abs(at[i]))
        above, below = f(ad.tensor(at + step)).item(), f(ad.tensor(at - step)).item()
        slopes[i] = (above - below) / (2 * step[i])
    return slopes


@pytest.mark.parametrize("package, f, at", [
    (package, f, at) for package, cases in PROGRAMS.items() for f, at in cases
])
def test_a_program_of_others_gives_gradients(package, f, at):
    pytest.importorskip(package)
    at = np.array(at)
    with ad.adapt(package):
        x = ad.tensor(at, requires_grad=True)
        f(x).backward()
        expected = differences(f, at)
    assert np.allclose(x.grad.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_the_filter_and_the_equation_of_state_run_in_programs_too():
    pytest.importorskip("filterpy")
    pytest.importorskip("seawater")
    for f, at in (PROGRAMS["filterpy"][0], PROGRAMS["seawater"][0]):
        at = np.array(at)
        with ad.adapt("filterpy", "seawater"):
            p = ad.compile(f)
            for x in (at, at * 1.01):
                y, slope = p.value_and_grad(x)
                expected = ad.value_and_grad(f)(x)
                assert y == pytest.approx(expected[0], rel=1e-13)
                assert np.allclose(slope, expected[1], rtol=1e-12)
