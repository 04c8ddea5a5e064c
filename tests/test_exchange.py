"""Arrays of other libraries in and out: DLPack, buffers, pickles and copies."""

import copy
import pickle

import numpy as np
import pytest

import fastad as ad

LARGE = np.arange(1000.0)       # above the size up to which contents are copied


def address(values):
    return np.asarray(values).ctypes.data


class Foreign:
    """An array of some library that knows DLPack alone."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


# ---- in -----------------------------------------------------------------------------------------


def test_from_dlpack_shares_the_memory_of_a_foreign_array():
    x = LARGE.copy()
    t = ad.from_dlpack(Foreign(x))
    assert address(t) == address(x) and t.dtype == np.float64 and t.shape == (1000,)
    assert x.flags.writeable


def test_from_dlpack_copies_when_asked_to():
    x = LARGE.copy()
    assert address(ad.from_dlpack(Foreign(x), copy=True)) != address(x)


def test_from_dlpack_copies_what_is_not_contiguous_and_refuses_where_it_may_not():
    x = Foreign(np.arange(2000.0)[::2])
    assert np.array_equal(ad.from_dlpack(x).numpy(), x.values)
    with pytest.raises(ValueError, match="from_dlpack: copy=False, but values that are not cont"):
        ad.from_dlpack(x, copy=False)


def test_from_dlpack_names_what_is_no_array():
    with pytest.raises((TypeError, AttributeError), match="__dlpack__"):
        ad.from_dlpack([1.0])


def test_gradients_flow_through_computations_on_shared_memory():
    x = ad.from_dlpack(Foreign(LARGE)).requires_grad_()
    (x * x).sum().backward()
    assert np.array_equal(x.grad.numpy(), 2 * LARGE)


def test_a_tensor_keeps_shared_memory_alive():
    t = ad.from_dlpack(Foreign(np.arange(5000.0)))
    junk = [np.zeros(5000) for _ in range(20)]
    assert np.array_equal(t.numpy(), np.arange(5000.0)) and len(junk) == 20


def test_updating_a_tensor_over_shared_memory_leaves_the_memory_alone():
    x = LARGE.copy()
    t = ad.from_dlpack(Foreign(x))
    t += 1.0
    assert np.array_equal(x, LARGE) and np.array_equal(t.numpy(), LARGE + 1.0)


def test_asarray_without_copy_shares_the_memory_of_an_ndarray_and_leaves_it_writable():
    x = LARGE.copy()
    assert address(ad.asarray(x, copy=False)) == address(x) and x.flags.writeable


def test_asarray_copies_an_ndarray_unless_told_otherwise():
    x = LARGE.copy()
    t = ad.asarray(x)
    x[0] = 7.0
    assert t[0].item() == 0.0


@pytest.mark.parametrize("obj, dtype", [
    ([1.0], None), (3.0, None), (LARGE, np.float32), (ad.tensor([1.0]), np.float32),
    (LARGE[::2], None),
])
def test_asarray_without_copy_refuses_what_needs_one(obj, dtype):
    with pytest.raises(ValueError, match="asarray: copy=False, but .* a copy"):
        ad.asarray(obj, dtype, copy=False)


def test_asarray_without_copy_returns_a_tensor_itself():
    t = ad.tensor([1.0], requires_grad=True)
    assert ad.asarray(t, copy=False) is t and ad.asarray(t, ad.float64, copy=False) is t


# ---- out ----------------------------------------------------------------------------------------


def test_numpy_takes_a_tensor_by_dlpack_without_a_copy_and_cannot_write_to_it():
    t = ad.tensor(LARGE)
    a = np.from_dlpack(t)
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        assert address(a) == address(t.numpy()) and not a.flags.writeable
    assert np.array_equal(a, LARGE)


@pytest.mark.parametrize("values", [3.0, [1, 2], [True, False], np.float32(2.5), np.ones((2, 3)),
                                    np.ones((0, 3)), np.arange(6, dtype=np.int16).reshape(2, 3)])
def test_every_dtype_and_shape_goes_out_and_comes_back(values):
    t = ad.tensor(values)
    back = ad.from_dlpack(t)
    assert back.dtype == t.dtype and back.shape == t.shape and back.tolist() == t.tolist()


def test_a_consumer_that_knows_no_read_only_memory_gets_a_copy():
    t = ad.tensor(LARGE)
    capsule = t.__dlpack__()

    class Old:
        def __dlpack__(self, **options):
            return capsule

        def __dlpack_device__(self):
            return t.__dlpack_device__()

    a = np.from_dlpack(Old())
    assert address(a) != address(t.numpy()) and np.array_equal(a, LARGE)


def test_a_tensor_on_the_tape_is_not_exported():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    for t in (x, x * 2):
        with pytest.raises(BufferError, match=r"__dlpack__: .* use .detach\(\)"):
            np.from_dlpack(t)
        with pytest.raises(BufferError, match=r"buffer: .* use .detach\(\)"):
            memoryview(t)


def test_dlpack_refuses_streams():
    with pytest.raises(BufferError, match="no streams"):
        ad.tensor([1.0]).__dlpack__(stream=1)


def test_a_buffer_is_the_memory_of_the_values_and_cannot_be_written():
    t = ad.tensor(LARGE)
    m = memoryview(t)
    assert (m.format, m.shape, m.readonly) == ("d", (1000,), True)
    assert address(m) == address(t.numpy())
    with pytest.raises((BufferError, ValueError)):
        np.frombuffer(t).__setitem__(0, 1.0)


@pytest.mark.parametrize("values", [3.0, [1, 2], [True, False], np.float32(2.5), [[1.0, 2.0]]])
def test_buffers_of_all_dtypes_hold_the_values(values):
    assert memoryview(ad.tensor(values)).tolist() == ad.tensor(values).tolist()


def test_a_buffer_keeps_the_values_when_the_tensor_changes_or_goes():
    t = ad.tensor([1.0, 2.0])
    s = ad.tensor(5.0)
    m, n = memoryview(t), memoryview(s)
    t += 1.0
    s += 1.0
    assert m.tolist() == [1.0, 2.0] and n.tolist() == 5.0
    del t, s
    assert m.tolist() == [1.0, 2.0] and n.tolist() == 5.0


def test_a_compiled_function_that_exports_a_value_still_sees_it_change():
    @ad.compile
    def f(x):
        return x.sum() * memoryview(x.detach())[0]

    for first in (2.0, 3.0):
        assert f(np.array([first, 1.0])) == (first + 1.0) * first


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_other_libraries_take_and_give_arrays(library):
    module = pytest.importorskip(library)
    t = ad.tensor(LARGE, dtype=ad.float32)
    theirs = module.from_dlpack(t)
    assert np.array_equal(np.asarray(theirs), t.numpy())
    back = ad.from_dlpack(theirs)
    assert address(back) == address(np.asarray(theirs)) and np.array_equal(back.numpy(), t.numpy())


# ---- pickles and copies --------------------------------------------------------------------------


@pytest.mark.parametrize("values", [3.0, [1, 2], np.float32([1.5]), np.ones((2, 0))])
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy,
                                   lambda t: pickle.loads(pickle.dumps(t))])
def test_pickles_and_copies_keep_values_dtypes_and_whether_gradients_are_required(values, clone):
    for requires in {False, np.asarray(values).dtype.kind == "f"}:
        t = ad.tensor(values, requires_grad=requires)
        made = clone(t)
        assert made is not t and made.dtype == t.dtype and made.shape == t.shape
        assert made.tolist() == t.tolist() and made.requires_grad is requires


# ---- the standard's small attributes ------------------------------------------------------------


def test_mt_transposes_matrices_and_refuses_less():
    x = ad.arange(6.0).reshape(1, 2, 3)
    assert np.array_equal(x.mT.numpy(), x.numpy().mT)
    with pytest.raises(ValueError, match=r"at least two axes, got shape \(3,\)"):
        _ = ad.arange(3.0).mT


def test_integer_tensors_change_in_place_by_bits():
    for symbol in ("&=", "|=", "^=", "<<=", ">>="):
        t, a = ad.tensor([6, 3]), np.array([6, 3])
        names = {"t": t, "a": a}
        exec(f"t {symbol} 1; a {symbol} 1", names)
        assert names["t"] is t and t.tolist() == a.tolist()


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [1.0, np.nan, 2.0], [[1, 3], [3, 1]]])
def test_descending_sorts_are_stable_and_put_nan_first(values):
    a = np.array(values)
    expected = np.flip(np.sort(a), -1)
    assert np.array_equal(ad.sort(a, descending=True).numpy(), expected, equal_nan=True)
    ties = ad.argsort([1.0, 2.0, 1.0, 2.0], descending=True)
    assert ties.tolist() == [1, 3, 0, 2]
    x = ad.tensor([1.0, 3.0, 2.0], requires_grad=True)
    (ad.sort(x, descending=True) * np.array([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [3.0, 1.0, 2.0]
