"""``numpy.fft`` over tensors: values, derivatives, every norm, lengths that cut and pad, errors."""

import inspect

import numpy as np
import pytest
from directional import assert_derivatives, vector

import fastad as ad

NORMS = (None, "backward", "ortho", "forward")
REAL_INPUT = ("rfft", "ihfft", "rfft2", "rfftn")
ONE_AXIS = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
MORE_AXES = ("fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn")


def calls():
    """Yield title, function, shape of the input and keywords of the call."""
    for name in ONE_AXIS:
        for n in (None, 1, 2, 3, 4, 5, 6, 7, 8, 11):
            yield f"{name} of {n}", name, (5,), {"n": n}
        for norm in NORMS:
            yield f"{name} {norm}, odd", name, (2, 6), {"n": 7, "norm": norm}
            yield f"{name} {norm}, even", name, (2, 6), {"norm": norm, "n": 4}
        yield f"{name} along an axis", name, (2, 5, 3), {"axis": 1}
        yield f"{name} along an axis, cut", name, (5, 2), {"axis": -2, "n": 3}
        yield f"{name} of two points", name, (2,), {}
    for name in MORE_AXES:
        yield name, name, (2, 3, 4), {}
        yield f"{name} of s", name, (3, 4), {"s": (4, 3), "axes": (0, 1)}
        yield f"{name} of whole axes", name, (3, 4), {"s": (-1, 6), "axes": (1, 0)}
        for norm in NORMS[2:]:
            yield f"{name} {norm}", name, (3, 4), {"norm": norm, "axes": (-1, 0)}
        yield f"{name} along one axis", name, (3, 4), {"axes": (0,)}
        yield f"{name} twice along an axis", name, (5, 4), {"axes": (0, 0)}
    for name in ("fftshift", "ifftshift"):
        yield name, name, (4, 3), {}
        yield f"{name} of an axis", name, (4, 3), {"axes": -1}
        yield f"{name} of axes", name, (4, 3, 2), {"axes": (0, 1)}


CALLS = {title: call for title, *call in calls()}


def each_call(kinds="fc"):
    for title, (name, shape, options) in CALLS.items():
        for kind in kinds:
            if kind == "f" or name not in REAL_INPUT:
                yield title, name, vector(*shape)(np.random.default_rng(len(title)), kind), options


def test_values_are_numpys_in_every_dtype_and_layout():
    for title, name, x, options in each_call():
        if "twice" in title and name == "rfftn" and np.__version__ < "2.1":
            continue                    # transformed in another order then
        for dtype in (x.dtype, np.dtype(x.dtype.char.lower() if x.dtype == float else "F"),
                      np.dtype("float32") if x.dtype == float else x.dtype):
            y = x.astype(dtype)
            wide = np.repeat(y, 2, 0)[::2]
            for values in (y, np.asfortranarray(y), wide):
                expected = getattr(np.fft, name)(values, **options)
                t = ad.tensor(values, requires_grad=True)
                for xp in (ad, np):
                    found = getattr(xp.fft, name)(t, **options)
                    assert type(found) is ad.Tensor and found.requires_grad, title
                    found = found.detach().numpy()
                    assert found.dtype == expected.dtype and found.shape == expected.shape, title
                    assert found.tobytes() == expected.tobytes(), (title, dtype)


def test_integers_and_lists_are_transformed_as_numpy_does():
    for values in ([1, 2, 3], np.arange(4), [[True, False]]):
        assert np.array_equal(ad.fft.fft(values).numpy(), np.fft.fft(values))
        assert np.array_equal(ad.fft.rfftn(values).numpy(), np.fft.rfftn(values))
    x = ad.tensor(2.0, requires_grad=True)
    ad.sum(ad.real(ad.fft.fft([x, 3.0 * x, 1.0]))).backward()
    assert x.grad.item() == pytest.approx(3.0)


def test_derivatives_are_those_of_differences():
    for title, name, x, options in each_call():
        try:
            assert_derivatives(
                lambda xp, z, name=name, options=options: getattr(xp.fft, name)(z, **options), [x])
        except AssertionError as error:
            raise AssertionError(f"{title} of {x.dtype}: {error}") from error


def test_the_check_of_derivatives_finds_a_wrong_one():
    with pytest.raises(AssertionError):
        assert_derivatives(lambda xp, x: xp.fft.rfft(x) if xp is np else xp.fft.rfft(x) * 1.00001,
                           [np.arange(5.0)])


def test_a_real_input_has_a_real_gradient_and_tangent():
    x = ad.tensor(np.arange(4.0), requires_grad=True)
    ad.sum(ad.abs(ad.fft.fft(x)) ** 2).backward()
    assert x.grad.dtype == np.float64
    assert np.allclose(x.grad.numpy(), 8 * np.arange(4.0))
    x = ad.tensor(np.arange(4.0, dtype="f"), requires_grad=True)
    ad.sum(ad.real(ad.fft.ifftn(x))).backward()
    assert x.grad.dtype == np.float32


def test_the_adjoint_of_a_transform_is_its_transpose_as_a_matrix():
    rng = np.random.default_rng(3)
    for title, name, x, options in each_call():
        t = ad.tensor(x, requires_grad=True)
        y = getattr(ad.fft, name)(t, **options)
        g = vector(*y.shape)(rng, y.dtype.kind)
        y.backward(g)
        d = vector(*x.shape)(rng, x.dtype.kind)
        pushed = getattr(np.fft, name)(d, **options)
        left, right = np.vdot(g, pushed).real, np.vdot(t.grad.numpy(), d).real
        assert abs(left - right) < 1e-12 * (1 + abs(left)), title


def test_transforms_of_nothing_raise_or_are_empty_as_numpys():
    x = ad.tensor(np.zeros((0, 3)), requires_grad=True)
    y = ad.fft.fft(x)
    assert y.shape == (0, 3)
    ad.sum(ad.real(y)).backward()
    assert x.grad.shape == (0, 3)
    for name in ONE_AXIS:
        with pytest.raises(ValueError, match="Invalid number of FFT data points"):
            getattr(ad.fft, name)(np.zeros((3, 0)))
        with pytest.raises(ValueError, match="Invalid number of FFT data points"):
            getattr(ad.fft, name)(np.zeros(3), n=0)


def test_frequencies_are_numpys_and_have_a_gradient_in_the_spacing():
    for n in range(1, 9):
        for d in (1.0, 0.3):
            assert ad.fft.fftfreq(n, d).tolist() == np.fft.fftfreq(n, d).tolist()
            assert ad.fft.rfftfreq(n, d).tolist() == np.fft.rfftfreq(n, d).tolist()
    d = ad.tensor(0.5, requires_grad=True)
    ad.fft.rfftfreq(4, d)[2].backward()
    assert d.grad.item() == pytest.approx(-0.5 / 0.5**2)
    with pytest.raises(ValueError, match="fftfreq: n should be an integer"):
        ad.fft.fftfreq(2.0)
    with pytest.raises(ValueError, match="device"):
        ad.fft.rfftfreq(2, device="gpu")


ERRORS = {
    "a wrong norm": (ValueError, "Invalid norm value", lambda f, x: f.fft(x, norm="no")),
    "a wrong norm of two axes": (ValueError, "ifft2: Invalid norm value",
                                 lambda f, x: f.ifft2(x, norm="no")),
    "an axis that is not there": (IndexError, "fft: axis 2", lambda f, x: f.fft(x, axis=2)),
    "an axis among several that is not there": (IndexError, "fftn: axis 5",
                                                lambda f, x: f.fftn(x, axes=(0, 5))),
    "lengths that do not fit": (ValueError, "different lengths",
                                lambda f, x: f.rfftn(x, s=(2,), axes=(0, 1))),
    "complex input of a real transform": (TypeError, "rfft: ", lambda f, x: f.rfft(x * 1j)),
    "no points": (ValueError, "data points", lambda f, x: f.irfft(x, n=0)),
}


@pytest.mark.parametrize("title", ERRORS)
def test_errors_are_of_numpys_kind_and_name_the_function(title):
    kind, text, call = ERRORS[title]
    x = np.ones((3, 4))
    with pytest.raises(kind):
        call(np.fft, x)
    with pytest.raises(kind, match=text) as caught:
        call(ad.fft, ad.tensor(x, requires_grad=True))
    assert "fft" in str(caught.value)


def test_out_takes_the_transform():
    x = ad.tensor(np.arange(12.0).reshape(3, 4), requires_grad=True)
    for name in (*ONE_AXIS, *MORE_AXES):
        function = getattr(ad.fft, name)
        expected = function(x)
        y = ad.zeros(expected.shape, dtype=expected.dtype)
        assert function(x, out=y) is y and np.array_equal(y.detach(), expected.detach())
        assert y.requires_grad
        with pytest.raises(ValueError, match=f"{name}: a result of shape .* does not fit out="):
            function(x, out=np.zeros(1))


def test_s_without_axes_warns():
    x = ad.tensor(np.ones((3, 4)), requires_grad=True)
    with pytest.warns(DeprecationWarning, match="axes"):
        y = ad.fft.fftn(x, s=(2, 2))
    for name in MORE_AXES:
        with pytest.warns(DeprecationWarning, match="None in `s`|None` values"):
            found = getattr(ad.fft, name)(x, s=(4, None), axes=(0, 1))
        ad.sum(ad.real(found)).backward()
        with pytest.warns(DeprecationWarning):
            z = getattr(np.fft, name)(x.detach().numpy(), s=(4, None), axes=(0, 1))
        assert np.array_equal(found.detach().numpy(), z)
    with pytest.warns(DeprecationWarning):
        assert np.array_equal(y.detach().numpy(), np.fft.fftn(x.detach().numpy(), s=(2, 2)))


def test_programs_replay_transforms_and_their_gradients():
    def loss(x):
        z = ad.fft.rfft(x, n=6, norm="ortho")
        w = ad.fft.ifft(z * z, axis=-1)
        return ad.sum(ad.abs(w) ** 2) + ad.sum(ad.fft.hfft(w, n=5))

    program = ad.compile(loss)
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=7)
        value, gradient = program.value_and_grad(x)
        again, expected = ad.value_and_grad(loss)(x)
        assert float(value) == float(again) == float(program(x))
        assert np.array_equal(np.asarray(gradient), np.asarray(expected))
    assert "1 recorded" in repr(program)


def test_arguments_are_named_ordered_and_given_as_numpys():
    for name in set(ad.fft.__all__) & set(np.fft.__all__):
        found = inspect.signature(getattr(ad.fft, name)).parameters.values()
        expected = inspect.signature(getattr(np.fft, name)).parameters.values()
        # the array API standard has a dtype for the frequencies, NumPy does not
        found = [(p.name, p.kind) for p in found if (p.name, name[-4:]) != ("dtype", "freq")]
        assert found == [(p.name, p.kind) for p in expected], name
