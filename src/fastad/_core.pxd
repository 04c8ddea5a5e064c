"""What other Cython code may `cimport`: the Tensor type and recording on the tape.

Compile with ``include_dirs=[fastad.get_include(), numpy.get_include()]``.
"""
from fastad.cfad cimport fad_array, fad_handle


cdef class Tensor:
    cdef fad_handle h           # node and leaf slot
    cdef double value           # the primal of a 0-d float64 tensor (arr is NULL)
    cdef fad_array *arr         # anything else
    cdef unsigned char leaf_requires    # a leaf that collects .grad
    cdef unsigned char gc_tracked       # the cycle collector knows this object
    cdef unsigned char aliased          # what `alias` is, see views.pxi; 0: nothing
    cdef int born               # the trace in which it was made; 0: in none
    cdef object grad_           # Tensor or None
    cdef object hooks           # HookList or None
    cdef object alias           # NULL, Views or View


cdef Tensor scalar_constant(double value)
cdef Tensor scalar_leaf(double value)
cdef Tensor record_unary(str name, Tensor x)
cdef Tensor record_binary(str name, Tensor a, Tensor b)
