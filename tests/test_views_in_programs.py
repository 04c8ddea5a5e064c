"""What shows an array's elements shows what is written into the array, in programs too."""

import numpy as np
import pytest

import fastad as ad

SHOWN = {
    "T": lambda x: x.T, "transpose": np.transpose, "swapaxes": lambda x: np.swapaxes(x, 0, 1),
    "moveaxis": lambda x: np.moveaxis(x, 0, 1), "rollaxis": lambda x: np.rollaxis(x, 1),
    "flip": np.flip, "fliplr": np.fliplr, "flipud": np.flipud, "rot90": np.rot90,
    "diagonal": np.diagonal, "diag": np.diag, "split": lambda x: np.split(x, 2)[0],
    "array_split": lambda x: np.array_split(x, 2)[0], "hsplit": lambda x: np.hsplit(x, 2)[0],
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 4, 4)),
    "broadcast_arrays": lambda x: np.broadcast_arrays(x, np.zeros((2, 4, 4)))[0],
    "squeeze": lambda x: np.squeeze(x[None]), "expand_dims": lambda x: np.expand_dims(x, 0),
    "reshape": lambda x: np.reshape(x, (2, 8)), "ravel": np.ravel, "atleast_3d": np.atleast_3d,
    "real": np.real, "slices": lambda x: x[::2, 1:], "methods": lambda x: x.swapaxes(0, 1)[1:],
    "views of views": lambda x: np.flip(np.transpose(x)[1:], 0),
}


@pytest.mark.parametrize("name", SHOWN)
def test_writes_show_in_views_of_numpys_in_programs_and_in_ordinary_code(name):
    def f(a):
        x = a * 1.0
        seen = SHOWN[name](x)
        x[0] = 5.0 * a[1, 1]
        return (seen * seen).sum()

    a = np.arange(1.0, 17.0).reshape(4, 4)
    p = ad.compile(f)
    assert f(a) == f(ad.tensor(a)).item() == p(a) == p(a + 0.0)
    np.testing.assert_allclose(ad.grad(f)(a), p.grad(a), rtol=1e-15)


def test_windows_are_copies_in_programs_and_in_ordinary_code():
    def f(a):
        x = a * 1.0
        seen = np.lib.stride_tricks.sliding_window_view(x, 2)
        x[0] = 50.0
        return seen.sum()

    a = np.arange(4.0)
    assert f(ad.tensor(a)).item() == ad.compile(f)(a) == 9.0
