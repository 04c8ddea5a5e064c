# cython: language_level=3
"""A module of somebody else's: loops of its own, recorded on fastad's tape."""
from fastad._core cimport Tensor, record_binary, record_unary, scalar_constant, scalar_leaf


def horner(list coefficients, Tensor x):
    """A polynomial of x, highest power first."""
    cdef Tensor y = scalar_constant(coefficients[0])
    for c in coefficients[1:]:
        y = record_binary("add", record_binary("multiply", y, x), scalar_constant(c))
    return y


def through(str name, Tensor x):
    """A primitive by its name in the op table."""
    return record_unary(name, x)


def slope_of_sine(double at):
    """cos(at), by a leaf that only this function knows."""
    cdef Tensor x = scalar_leaf(at)
    cdef Tensor y = record_unary("sin", x)
    y.backward()
    return (<Tensor>x.grad).value
