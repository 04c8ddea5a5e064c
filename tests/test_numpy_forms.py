"""NumPy's forms of a call: dtypes, initial values, masks, axes and shapes in every spelling."""

import numpy as np
import pytest

import fastad as ad

B = np.array([True, True, False])
I8 = np.int8([100, 100, -3])
I64 = np.array([[1, 2, 4], [3, 0, -5]])
F32 = np.array([[1.5, -2.0, 3.25], [0.5, 4.0, 1.0]], np.float32)
F = F32.astype(float)
N = np.float64(2.5)
MASK = np.array([[True, False, True], [True, True, False]])

# name -> (function of an array, the arrays that it is called with)
FORMS = {
    "sum dtype": (lambda x: np.sum(x, dtype=np.int8), [I8, B, I64]),
    "sum bool": (lambda x: np.sum(x, dtype=bool), [B, I64]),
    "sum float": (lambda x: np.sum(x, axis=0, dtype=float), [I8, B, I64, F32]),
    "sum float32": (lambda x: np.sum(x, dtype=np.float32), [F, F32, I64]),
    "prod dtype": (lambda x: np.prod(x, dtype=np.int8), [I8, I64]),
    "cumsum dtype": (lambda x: np.cumsum(x, dtype=np.int8), [I8, I64]),
    "cumsum float": (lambda x: np.cumsum(x, axis=0, dtype=float), [I8, F32]),
    "trace dtype": (lambda x: np.trace(np.reshape(x, (1, 3)), dtype=np.int8), [I8]),
    "mean int": (lambda x: np.mean(x, dtype=int), [I64, I8]),
    "mean float32": (lambda x: np.mean(x, dtype=np.float32), [F, F32, I64]),
    "sum initial": (lambda x: np.sum(x, initial=np.float64(1.0)), [F32, F, I64]),
    "sum initial half": (lambda x: np.sum(x, initial=0.5), [I64, F]),
    "prod initial": (lambda x: np.prod(x, axis=-1, initial=np.float64(2.0)), [F32, F, I64]),
    "max initial": (lambda x: np.max(x, initial=2.5), [I64, F32, F]),
    "min initial": (lambda x: np.min(x, axis=0, initial=np.float64(0.25)), [F32, F]),
    "max of nothing": (lambda x: np.max(x[:0], axis=0, initial=1.0), [F, F32]),
    "sum where": (lambda x: np.sum(x, where=MASK), [I64, F32, F]),
    "sum where initial": (lambda x: np.sum(x, axis=1, where=MASK, initial=3), [I64, F32, F]),
    "prod where": (lambda x: np.prod(x, axis=0, where=MASK), [I64, F32, F]),
    "max where": (lambda x: np.max(x, axis=0, where=MASK, initial=-9), [I64, F32, F]),
    "mean where": (lambda x: np.mean(x, axis=1, where=MASK), [I64, F]),
    "mean where all": (lambda x: np.mean(x, where=MASK, keepdims=True), [F]),
    "var where": (lambda x: np.var(x, axis=1, where=MASK), [F]),
    "std where": (lambda x: np.std(x, where=MASK, ddof=1), [F]),
    "var correction": (lambda x: np.var(x, axis=0, ddof=1), [F, I64]),
    "all where": (lambda x: np.all(x, axis=0, where=MASK), [I64, F]),
    "any where": (lambda x: np.any(x > 3, where=MASK), [I64, F]),
    "no value": (lambda x: np.sum(x, keepdims=np._NoValue, initial=np._NoValue,
                                  where=np._NoValue), [I64, F32, F]),
    "mean no value": (lambda x: np.mean(x, axis=0, keepdims=np._NoValue, where=np._NoValue), [F]),
    "keepdims": (lambda x: np.max(x, axis=(0, 1), keepdims=True), [I64, F]),
    "add dtype None": (lambda x: np.add(x, 1, dtype=None), [I64, F32, F]),
    "add dtype float": (lambda x: np.add(x, 1, dtype=float), [I64, F32, F]),
    "concatenate dtype": (lambda x: np.concatenate([x, x], dtype=np.float32), [F, F32, I8]),
    "reshape by an integer": (lambda x: np.reshape(x, np.int64(6)), [I64, F]),
    "reshape by an array": (lambda x: np.reshape(x, np.array([3, 2])), [I64, F]),
    "reshape in Fortran's order": (lambda x: np.reshape(x, np.array([3, 2]), order="F"), [I64, F]),
    "reshape in any order": (lambda x: np.reshape(x, (3, 2), order="A"), [I64, F]),
    "transpose by an array": (lambda x: x.transpose(np.array([1, 0])), [I64, F]),
    "transpose by None": (lambda x: x.transpose(None), [I64, F]),
    "method reshape": (lambda x: x.reshape(np.int64(6)), [I64, F]),
    "sum of a number": (lambda x: np.sum(x, axis=0), [N]),
    "sum of a number from behind": (lambda x: np.sum(x, axis=-1), [N]),
    "max of a number": (lambda x: np.max(x, axis=0), [N]),
    "min of a number": (lambda x: np.min(x, axis=-1), [N]),
    "prod of a number": (lambda x: np.prod(x, axis=0), [N]),
    "cumsum of a number": (lambda x: np.cumsum(x, axis=0), [N]),
    "squeeze of a number": (lambda x: np.squeeze(x, -1), [N]),
    "take of a number": (lambda x: np.take(x, [0, 0], axis=0), [N]),
    "repeat of a number": (lambda x: np.repeat(x, 2, axis=0), [N]),
    "clip beyond a dtype": (lambda x: np.clip(x, 0, 300), [I8, I64, F]),
    "clip below": (lambda x: x.clip(-1), [I8, F32, F]),
    "norm of order 0": (lambda x: np.linalg.norm(np.ravel(x), 0), [F, F32]),
    "norm of a negative order": (lambda x: np.linalg.norm(np.ravel(x), -3), [F]),
}


def tensor_of(x):
    return ad.tensor(x)


def same(got, want):
    got = got.detach().numpy() if isinstance(got, ad.Tensor) else np.asarray(got)
    want = np.asarray(want)
    return got.dtype == want.dtype and got.shape == want.shape and np.allclose(
        got, want, rtol=1e-6 if want.dtype == np.float32 else 1e-15, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("form, arrays", FORMS.values(), ids=list(FORMS))
def test_a_form_of_a_call_gives_numpys_value_and_dtype(form, arrays):
    for x in arrays:
        try:
            want = form(x)
        except OverflowError:           # a bound beyond the dtype, in some releases of NumPy
            with pytest.raises(OverflowError):
                form(tensor_of(x))
            continue
        assert same(form(tensor_of(x)), want), x.dtype


@pytest.mark.parametrize("form, arrays", FORMS.values(), ids=list(FORMS))
def test_the_gradient_of_a_form_agrees_with_differences(form, arrays):
    for x in arrays:
        if x.dtype != float or np.asarray(form(x)).dtype != float:
            continue
        weights = np.linspace(1.0, 2.0, np.size(form(x))).reshape(np.shape(form(x)))
        g = ad.grad(lambda t: ad.sum(form(t) * weights))(x)      # noqa: B023
        step = 1e-6
        for k in np.ndindex(np.shape(x)):
            moved = [np.array(x), np.array(x)]
            moved[0][k] += step
            moved[1][k] -= step
            slope = np.sum((form(moved[0]) - form(moved[1])) * weights) / (2.0 * step)
            assert np.asarray(g)[k] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_the_comparison_notices_another_dtype_and_another_value():
    assert not same(ad.tensor(F32), F)
    assert not same(ad.tensor(F), F + 1e-9)


BAD = {
    "a cast that loses the gradient": (lambda x: np.add(x, 1, dtype=int), TypeError, "same_kind"),
    "a join that loses the gradient": (lambda x: np.concatenate([x, x], dtype=int), TypeError,
                                       "same_kind"),
    "a sum that loses the gradient": (lambda x: np.sum(x, dtype=int), TypeError, "sum: dtype int"),
    "a mean that loses the gradient": (lambda x: np.mean(x, dtype=int), TypeError, "mean: dtype"),
    "a shape that is not whole": (lambda x: np.reshape(x, (3.9, 2)), TypeError, "float"),
    "a broadcast that is not whole": (lambda x: np.broadcast_to(x, (2.9, 2, 3)), TypeError,
                                      "float"),
    "more elements than there can be": (lambda x: x.reshape((2**62 + 1024, 4)), ValueError,
                                        "more elements than there can be"),
    "an unknown order": (lambda x: np.reshape(x, (6,), order="X"), ValueError, "order must be"),
    "no operands": (lambda x: ad.einsum(), ValueError, "einsum: wants"),
    "a mask that would be lost": (lambda x: x * np.ma.array(F, mask=MASK), TypeError, "masked"),
    "ddof and correction": (lambda x: ad.var(x, ddof=1, correction=1), ValueError, "ddof and"),
    "no initial value": (lambda x: np.sum(x, initial=None), TypeError, "initial"),
    "a number's second axis": (lambda x: np.sum(x[0, 0], axis=1), ValueError, "axis 1"),
}


@pytest.mark.parametrize("call, error, text", BAD.values(), ids=list(BAD))
def test_a_bad_form_is_a_clear_error(call, error, text, tape_unchanged):
    with pytest.raises(error, match=text):
        call(ad.tensor(F, requires_grad=True))


def test_truth_of_a_tensor_that_requires_gradients_takes_a_mask():
    x = ad.tensor(F, requires_grad=True)
    assert np.any(x, where=MASK) and not np.all(x > 0.0, where=MASK[::-1] | True)


def test_a_sum_in_place_into_bools_is_refused_as_numpy_does():
    b = ad.tensor([True])
    with pytest.raises(TypeError, match="cannot put int64 into a tensor of dtype bool"):
        b += 1
    i = ad.tensor([1], dtype=np.int8)
    i += 1
    assert i.dtype == np.int8 and i.tolist() == [2]
