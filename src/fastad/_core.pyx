# cython: language_level=3, c_api_binop_methods=True, cdivision=True, boundscheck=False
# cython: initializedcheck=False, binding=False
"""Ownership, conversion and status codes around the C core, and the Tensor type.

The tape is one per process and guarded by the interpreter lock; recording modes are per thread.
The Tensor type lives here and not in a module of its own because its operators must inline the
push onto the tape: across extension modules the same push costs twice the time.
"""
cimport cython
cimport numpy as cnp
from cpython.buffer cimport PyObject_GetBuffer
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.object cimport Py_EQ, Py_GE, Py_GT, Py_LE, Py_LT, Py_NE, PyCallable_Check, PyObject, \
    PyObject_RichCompare
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint16_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from fastad.cfad cimport *

import sys
from types import BuiltinMethodType, MethodType

from _heapq import heapify, heappop, heappush

import numpy as np

cnp.import_array()

cdef extern from "record.h":
    int fad_grad_off, fad_trace_id, fad_watch, fad_quiet, fad_met, fad_told_at

cdef extern from "tensor_object.h":
    enum: FAD_TENSOR_GIVEN_AS_GRAD
    object fad_tensor_new()
    void fad_tensor_track(object o)
    void fad_tensor_set_alias(object o, object alias, int kind)
    int fad_tensor_setup(PyTypeObject *type, fad_tape *tape, Py_ssize_t handle_offset,
                         void (*drain)() noexcept, void (*leave_hooks)(PyObject *) noexcept,
                         void (*lose_hooks)(PyObject *) noexcept)

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        pass
    void PyType_Modified(PyTypeObject *type)
    object PyCFunction_NewEx(PyMethodDef *ml, object self, object module)
    double PyLong_AsDouble(object x) except? -1.0
    object PyNumber_Index(object x)
    Py_ssize_t Py_REFCNT(PyObject *o)
    int PyErr_CheckSignals() except -1
    int PyErr_WarnEx(object category, const char *text, Py_ssize_t level) except -1
    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc
    int METH_FASTCALL, METH_KEYWORDS
    object PyObject_Vectorcall(object f, PyObject *const *args, size_t n, PyObject *names)
    PyObject **PySequence_Fast_ITEMS(object list)

cdef extern from *:
    """
    #include <float.h>
    #include <math.h>
    /* Values of the operators; `op` is a constant where this is called, so one case remains. */
    static inline double fad_inline2(int op, double a, double b)
    {
        switch (op) {
        case FAD_OP_add: return a + b;
        case FAD_OP_subtract: return a - b;
        case FAD_OP_multiply: return a * b;
        case FAD_OP_divide: return a / b;
        default: return fad_eval2(op, a, b);
        }
    }
    static inline int not_finite(double v) { return !(fabs(v) <= DBL_MAX); }
    """
    bint not_finite(double v) nogil
    double fad_inline2(int op, double a, double b) nogil

cdef extern from *:
    bint unlikely(bint condition)       # Cython's own macro

cdef extern from *:
    """
    static inline PyObject *type_dict(PyTypeObject *type) { return type->tp_dict; }
    """
    PyObject *type_dict(PyTypeObject *type)

cdef fad_tape tape
fad_tape_init(&tape)

cdef object True_ = np.True_
cdef object False_ = np.False_
cdef object F64 = np.dtype(np.float64)
cdef object F32 = np.dtype(np.float32)
cdef object BOOL = np.dtype(np.bool_)
cdef tuple NO_SHAPE = ()


# ---- status codes and foreign keepers ---------------------------------------------------------


cdef int fail(fad_status status, str what) except -1:
    """Raise what a status code of the core stands for."""
    if status == FAD_NOMEM:
        raise MemoryError(f"{what}: out of memory; the tape is as it was")
    if status == FAD_FULL:
        raise MemoryError(
            f"{what}: all {tape.max} node indices of the tape are in use; call backward() or drop "
            "results that are no longer needed, or compute under no_grad()")
    if status == FAD_CONSUMED:
        raise RuntimeError(
            f"{what}: this graph, or a part of it, was already consumed by an earlier backward; "
            "record the computation again, or pass retain_graph=True the first time")
    if status == FAD_SHAPE:
        raise ValueError(f"{what}: shapes do not fit")
    raise RuntimeError(f"{what}: status {status}")


cdef void drain() noexcept:
    """Release the Python objects that the core has let go."""
    global fad_dead_arrays, fad_dead_calls
    cdef fad_array *arr
    cdef fad_call *call
    while fad_dead_arrays != NULL or (fad_dead_calls != NULL and tape.sweeping == 0):
        if fad_dead_arrays != NULL:
            arr = fad_dead_arrays
            set_dead_arrays(arr.next)
            Py_DECREF(<object>arr.owner)
            fad_array_free(arr)
        else:
            call = fad_dead_calls
            set_dead_calls(call.next)
            if call.rule != NULL:
                Py_DECREF(<object>call.rule)
            if call.params != NULL:
                Py_DECREF(<object>call.params)
            fad_free(call)


cdef extern from *:
    """
    static inline void set_dead_arrays(fad_array *a) { fad_dead_arrays = a; }
    static inline void set_dead_calls(fad_call *c) { fad_dead_calls = c; }
    """
    void set_dead_arrays(fad_array *a) noexcept
    void set_dead_calls(fad_call *c) noexcept


cdef inline void tidy() noexcept:
    if fad_dead_arrays != NULL or fad_dead_calls != NULL:
        drain()


cdef inline int reserve(fad_index extra) except -1:
    cdef fad_status status
    while True:
        status = fad_reserve(&tape, extra)
        if status:
            fail(status, "tape")
        if fad_dead_arrays == NULL and (fad_dead_calls == NULL or tape.sweeping):
            return 0
        drain()


# ---- arrays in and out ------------------------------------------------------------------------


@cython.final
cdef class Keeper:
    """Holds one reference to a core array on behalf of NumPy views."""
    cdef fad_array *arr

    def __dealloc__(self):
        if self.arr != NULL:
            fad_array_release(self.arr)


cdef inline int type_number(int dtype) noexcept:
    """NumPy's number for a dtype whose bytes the core has."""
    if dtype == FAD_F64:
        return cnp.NPY_DOUBLE
    if dtype == FAD_F32:
        return cnp.NPY_FLOAT
    if dtype == FAD_C128:
        return cnp.NPY_CDOUBLE
    return cnp.NPY_CFLOAT if dtype == FAD_C64 else cnp.NPY_BOOL


cdef tuple dims_of(const fad_array *arr):
    cdef int k
    return tuple([arr.shape[k] for k in range(arr.ndim)])


cdef object view_of(fad_array *arr):
    """Read-only ndarray over a core array."""
    cdef Keeper keeper
    cdef cnp.ndarray out
    cdef cnp.npy_intp dims[64]
    cdef int k
    if arr.hollow:
        raise RuntimeError("internal: a rule reads a value that it did not declare to read")
    if arr.dtype >= FAD_BOOL:
        return <object>arr.owner
    for k in range(arr.ndim):
        dims[k] = arr.shape[k]
    keeper = Keeper.__new__(Keeper)
    keeper.arr = fad_array_share(arr)
    out = cnp.PyArray_New(cnp.ndarray, arr.ndim, dims, type_number(arr.dtype), NULL, arr.data, 0,
                          cnp.NPY_ARRAY_CARRAY_RO, None)
    cnp.set_array_base(out, keeper)
    return out


cdef object value_array(Tensor t):
    cdef cnp.ndarray out
    if t.arr != NULL:
        fresh(t)
        return view_of(t.arr)
    out = cnp.PyArray_SimpleNew(0, NULL, cnp.NPY_DOUBLE)
    (<double *>cnp.PyArray_DATA(out))[0] = t.value
    cnp.PyArray_CLEARFLAGS(out, cnp.NPY_ARRAY_WRITEABLE)
    return out


cdef fad_array *array_from(cnp.ndarray a, bint copy, bint promised=False) except NULL:
    """Core array with the contents of `a`; without `copy` it may keep `a` itself.

    That takes `promised`, the caller's word that nobody writes to `a`, or that nobody can."""
    cdef fad_array *arr
    cdef int64_t shape[64]
    cdef int k, nd = cnp.PyArray_NDIM(a), code, kind = cnp.PyArray_TYPE(a)
    if kind == cnp.NPY_DOUBLE:
        code = FAD_F64
    elif kind == cnp.NPY_FLOAT:
        code = FAD_F32
    elif kind == cnp.NPY_CDOUBLE:
        code = FAD_C128
    elif kind == cnp.NPY_CFLOAT:
        code = FAD_C64
    elif kind == cnp.NPY_BOOL:
        code = FAD_BOOL
    elif cnp.PyTypeNum_ISINTEGER(kind):
        code = FAD_OTHER
    else:
        raise TypeError(
            f"tensor: dtype {a.dtype} is not supported; use float64, float32, complex128, "
            "complex64, an integer type or bool (astype first)")
    if not cnp.PyArray_ISNOTSWAPPED(a):
        a = cnp.PyArray_GETCONTIGUOUS(a.astype(a.dtype.newbyteorder("="), order="C", copy=True))
        copy = False
    for k in range(nd):
        shape[k] = cnp.PyArray_DIMS(a)[k]
    if (code < FAD_BOOL and cnp.PyArray_NBYTES(a) <= 1024) or copy or (
            not cnp.PyArray_ISCARRAY_RO(a)) or not (promised or borrowable(a)):
        if code < FAD_BOOL:
            arr = fad_array_new(code, nd, shape)
            if arr == NULL:
                fail(FAD_NOMEM, "tensor")
            if cnp.PyArray_IS_C_CONTIGUOUS(a):
                memcpy(arr.data, cnp.PyArray_DATA(a), cnp.PyArray_NBYTES(a))
            else:
                fad_copy_strided(cnp.PyArray_DATA(a),
                                 <const intptr_t *>cnp.PyArray_STRIDES(a), arr)
            return arr
        a = cnp.PyArray_NewCopy(a, cnp.NPY_CORDER)
    if cnp.PyArray_CHKFLAGS(a, cnp.NPY_ARRAY_OWNDATA):
        cnp.PyArray_CLEARFLAGS(a, cnp.NPY_ARRAY_WRITEABLE)
    arr = fad_array_borrow(code, nd, shape, cnp.PyArray_DATA(a), <void *>a)
    if arr == NULL:
        fail(FAD_NOMEM, "tensor")
    Py_INCREF(a)
    return arr


cdef bint borrowable(cnp.ndarray a):
    """Whether nobody can write to `a` any more: it owns its data, or views one of our arrays."""
    cdef object base = a
    while type(base) is cnp.ndarray:
        if cnp.PyArray_CHKFLAGS(<cnp.ndarray>base, cnp.NPY_ARRAY_OWNDATA):
            # of another array's data: if only `a` holds it, and `base` here
            return base is a or Py_REFCNT(<PyObject *>base) <= 2
        base = cnp.get_array_base(<cnp.ndarray>base)
    return type(base) is Keeper


cdef Tensor adopt(fad_array *arr):
    """Tensor around a core array whose reference it takes over."""
    cdef Tensor t
    if arr.ndim == 0 and arr.dtype == FAD_F64:
        t = <Tensor>fad_tensor_new()
        t.value = (<double *>arr.data)[0]
        fad_array_release(arr)
        tidy()
        return t
    try:
        t = <Tensor>fad_tensor_new()
    except BaseException:
        fad_array_release(arr)
        raise
    t.arr = arr
    return t


cdef Tensor from_ndarray(object a, bint copy):
    cdef Tensor t
    if isinstance(a, float):        # np.float64 too
        t = <Tensor>fad_tensor_new()
        t.value = PyFloat_AS_DOUBLE(a)
        return t
    if type(a) is not cnp.ndarray:
        a = np.asarray(a)
    if cnp.PyArray_NDIM(<cnp.ndarray>a) == 0 and cnp.PyArray_TYPE(<cnp.ndarray>a) == cnp.NPY_DOUBLE:
        t = <Tensor>fad_tensor_new()
        t.value = <double>float(a)
        return t
    return adopt(array_from(a, copy))


def array(Tensor t not None):
    """Read-only ndarray of the value, whether or not `t` requires gradients (internal use)."""
    return look(t)


def wrap(obj, copy=True):
    """Tensor without gradient from a number or anything NumPy can turn into an array."""
    cdef Tensor t
    if type(obj) is float:
        t = <Tensor>fad_tensor_new()
        t.value = PyFloat_AS_DOUBLE(obj)
        return t
    if type(obj) is cnp.ndarray:
        return from_ndarray(obj, copy)
    if type(obj) in (list, tuple) and holds_tracked(obj):
        raise TypeError("tensor: a list of tensors that require gradients would lose them; use "
                        "stack() or concatenate(), or detach() them first")
    try:
        a = np.asarray(obj)
    except ValueError as error:
        raise ValueError(f"tensor: {error}") from None
    if a.dtype == object:
        raise TypeError(
            f"tensor: cannot make an array of numbers from {type(obj).__name__}; for a list of "
            "tensors use stack or concatenate")
    return from_ndarray(a, copy or isinstance(obj, np.ndarray) or hasattr(obj, "__array__"))


cdef bint holds_tracked(object items):
    for x in items:
        if type(x) is Tensor:
            fresh(<Tensor>x)
            if tracked(<Tensor>x):
                return True
        elif type(x) in (list, tuple) and holds_tracked(x):
            return True
    return False


def borrow(cnp.ndarray a not None):
    """Tensor over the memory of `a`, to which nobody may write from now on (small: a copy)."""
    return adopt(array_from(a, False, True))


def as_tensor(obj):
    """`obj` itself when it is a Tensor, else `wrap(obj)`."""
    if type(obj) is Tensor:
        return obj
    return wrap(obj)


# ---- nodes of tensors -------------------------------------------------------------------------


cdef fad_index node_slow(Tensor t) noexcept:
    """Index of a tensor whose node is missing, old or consumed; -1 for constants.  Reserve 1."""
    cdef fad_slot value
    if fad_trace_id:
        if t.born != fad_trace_id:
            t = shadow_of(t)
        if t.h.idx >= 0:
            return t.h.idx          # a leaf of this trace keeps its node
    if t.h.slot >= 0:
        if not t.leaf_requires:
            return -1
        if t.arr != NULL:
            value.arr = t.arr
        else:
            value.f = t.value
        fad_leaf_push(&tape, &t.h, value, t.arr != NULL)
        return t.h.idx
    if t.h.idx >= 0:
        return t.h.idx
    if t.h.idx == FAD_USED_UP:
        return fad_push(&tape, FAD_OP_FREED, 0, 0, 0.0)
    return -1


cdef inline fad_index node_of(Tensor t) noexcept:
    """As node_slow; only under recording."""
    if t.h.idx >= tape.fresh:
        return t.h.idx
    return node_slow(t)


cdef inline bint active(Tensor t) noexcept:
    """Whether cotangents flow to t: what the user calls ``requires_grad``."""
    return t.leaf_requires or (t.h.idx != FAD_NO_NODE and (
        t.h.idx < 0 or not tape.op[t.h.idx] & FAD_PASSIVE)) or (
        t.aliased == IS_VIEW and stale_active(t))


cdef inline bint tracked(Tensor t) noexcept:
    """Whether operations on t are taken down: it is active, or a trace follows its value."""
    return (t.h.idx != FAD_NO_NODE or t.leaf_requires
            or (fad_trace_id and t.born != fad_trace_id)
            or (t.aliased == IS_VIEW and stale_tracked(t)))


cdef fad_index const_node(Tensor t, bint needed) except -1:
    """Node for a tensor that takes no cotangent.  Reserve 1."""
    cdef fad_array *shell
    if t.arr == NULL:
        return fad_const(&tape, t.value)
    if not needed and t.arr.size > 1024 and not fad_trace_id:   # keep the shape, not the memory
        shell = fad_array_borrow(t.arr.dtype, t.arr.ndim, t.arr.shape, NULL, NULL)
        if shell == NULL:
            fail(FAD_NOMEM, "tape")
        shell.hollow = 1
    else:
        shell = fad_array_share(t.arr)
    return fad_push_array_slow(&tape, FAD_OP_CONST, 0, 0, shell)


cdef inline fad_index parent_of(Tensor t, bint needed) except -1:
    cdef fad_index i = node_of(t)
    if i >= 0:
        return i
    return const_node(t, needed)


# ---- scalar operators -------------------------------------------------------------------------


cdef inline object record2(int op, object left, bint left_tensor, double a,
                           object right, bint right_tensor, double b):
    cdef Tensor out = <Tensor>fad_tensor_new()
    cdef fad_index ia = -1, ib = -1
    cdef unsigned w = op
    out.value = fad_inline2(op, a, b)
    if unlikely(not_finite(out.value)):
        report_number(op, a, b, 0.0)
    if fad_grad_off == 1:
        return out
    if fad_reserve(&tape, 4):
        reserve(4)
    if left_tensor:
        ia = node_of(<Tensor>left)
    if right_tensor:
        ib = node_of(<Tensor>right)
    if ia < 0:
        if ib < 0:
            return out
        ia = fad_const(&tape, a)
        w |= FAD_CA
    elif ib < 0:
        ib = fad_const(&tape, b)
        w |= FAD_CB
    fad_link(&tape, &out.h, fad_push(&tape, w, ia, ib, out.value))
    if fad_grad_off:
        note(out)
    return out


cdef inline object binary(int op, object left, object right):
    cdef double a, b
    cdef bint lt, rt
    if type(left) is Tensor:
        if (<Tensor>left).arr != NULL:
            return binary_general(op, left, right)
        a = (<Tensor>left).value
        lt = True
        if type(right) is Tensor:
            if (<Tensor>right).arr != NULL:
                return binary_general(op, left, right)
            b = (<Tensor>right).value
            rt = True
        elif type(right) is float:
            b = PyFloat_AS_DOUBLE(right)
            rt = False
        elif type(right) is int:
            b = PyLong_AsDouble(right)
            rt = False
        else:
            return binary_general(op, left, right)
    else:
        if type(right) is not Tensor or (<Tensor>right).arr != NULL:
            return binary_general(op, left, right)
        b = (<Tensor>right).value
        rt = True
        lt = False
        if type(left) is float:
            a = PyFloat_AS_DOUBLE(left)
        elif type(left) is int:
            a = PyLong_AsDouble(left)
        else:
            return binary_general(op, left, right)
    return record2(op, left, lt, a, right, rt, b)


cdef inline Tensor record1(int op, Tensor x, double value):
    cdef Tensor out = <Tensor>fad_tensor_new()
    cdef fad_index i
    out.value = value
    if fad_grad_off == 1:
        return out
    if fad_reserve(&tape, 2):
        reserve(2)
    i = node_of(x)
    if i >= 0:
        fad_link(&tape, &out.h, fad_push(&tape, op, i, 0, value))
        if fad_grad_off:
            note(out)
    return out


cdef inline object unary(int op, object x):
    cdef double value
    if type(x) is Tensor and (<Tensor>x).arr == NULL:
        value = fad_eval1(op, (<Tensor>x).value)
        if unlikely(not_finite(value)):
            report_number(op, (<Tensor>x).value, 0.0, 0.0)
        return record1(op, <Tensor>x, value)
    result = array_row(op, 1, x, None)
    return result if result is not None else elementwise(op, (x,))


cdef int plain_operand(object x, fad_operand *src, int *code) noexcept:
    """Take a real tensor or a Python float for an array operation; 0 when it is neither."""
    cdef int d
    if type(x) is Tensor:
        src.arr = (<Tensor>x).arr
        src.number = (<Tensor>x).value
        d = FAD_F64 if src.arr == NULL else src.arr.dtype
        if d > FAD_F32 or (code[0] >= 0 and code[0] != d) or (
                src.arr != NULL and src.arr.hollow):
            return 0
        code[0] = d
        return 1
    src.arr = NULL
    if type(x) is float:
        src.number = PyFloat_AS_DOUBLE(x)
        return 1
    return 0


cdef object array_row(int op, int n, object left, object right):
    """A row over float tensors and Python numbers, one of them an array; None: not that simple."""
    cdef fad_operand src[2]
    cdef fad_array *arr = NULL
    cdef fad_index ia, ib = 0
    cdef int code = -1, reads
    cdef unsigned w = op
    cdef Tensor out = <Tensor>fad_tensor_new()     # first: it may run foreign code
    if not plain_operand(left, &src[0], &code) or (
            n == 2 and not plain_operand(right, &src[1], &code)):
        return None
    if code < 0 or not fad_has_loop(op, code):
        return None
    if code == FAD_F32:
        src[0].number = <double><float>src[0].number
        src[1].number = <double><float>src[1].number if n == 2 else 0.0
    if fad_elementwise(op, code, src, &arr):
        return None             # the general way says what is wrong
    if arr.ndim == 0 and code == FAD_F64:
        fad_array_release(arr)
        return None
    if unlikely(fad_raised):
        report_array(op, arr)
    out.arr = arr
    if fad_grad_off == 1:
        return out
    if fad_reserve(&tape, 4):
        reserve(4)
    ia = node_of(<Tensor>left) if type(left) is Tensor else -1
    if n == 2:
        ib = node_of(<Tensor>right) if type(right) is Tensor else -1
    if ia < 0:
        if n == 1 or ib < 0:
            return out
        w |= FAD_CA
        reads = fad_row_of(op).reads
        ia = (const_node(<Tensor>left, reads & FAD_A) if src[0].arr != NULL
              else fad_const(&tape, src[0].number))
    elif n == 2 and ib < 0:
        w |= FAD_CB
        reads = fad_row_of(op).reads
        ib = (const_node(<Tensor>right, reads & FAD_B) if src[1].arr != NULL
              else fad_const(&tape, src[1].number))
    fad_link(&tape, &out.h, fad_push_array_slow(&tape, w, ia, ib, fad_array_share(arr)))
    if fad_grad_off:
        note(out)
    return out


cdef object binary_general(int op, object left, object right):
    result = array_row(op, 2, left, right)
    if result is not None:
        return result
    if not (operand_like(left) and operand_like(right)):
        return NotImplemented
    return elementwise(op, (left, right))


cdef object power(object left, object right):
    """``left ** right``, where NumPy's operator takes the same short ways for some exponents."""
    cdef double b
    if type(left) is Tensor and (type(right) is int or type(right) is float):
        b = right
        if is_complex(<Tensor>left) and type(right) is float and b != 0.5 and not float_squares():
            return binary(FAD_OP_power, left, right)
        if b == 2.0 and is_float(<Tensor>left):
            return unary(FAD_OP_square, left)
        if (<Tensor>left).arr != NULL and (<Tensor>left).arr.dtype < FAD_BOOL:
            if b == 0.5:
                return unary(FAD_OP_sqrt, left)
            if b == -1.0:
                return unary(FAD_OP_reciprocal, left)
            if b == 1.0:
                return unary(FAD_OP_positive, left)
    return binary(FAD_OP_power, left, right)


cdef bint operand_like(object x):
    if isinstance(x, cnp.ndarray) and type(x) is not cnp.ndarray and hasattr(x, "_mask"):
        raise TypeError("a masked array is not supported: its mask would be lost; use where()")
    return (type(x) is Tensor
            or isinstance(x, (float, int, complex, cnp.ndarray, cnp.generic, list, tuple))
            or hasattr(x, "__array__"))


# ---- elementwise primitives on anything -------------------------------------------------------


cdef list UFUNCS = [None] * FAD_OP_END      # NumPy's function for a row


cdef str op_name(int op):
    cdef const fad_row *row
    if op == FAD_OP_LEAF:
        return "leaf"
    if op == FAD_OP_CONST:
        return "constant"
    if op == FAD_OP_FREED:
        return "consumed"
    row = fad_row_of(op)
    return row.name.decode() if row != NULL else "call"


cdef Tensor operand(object x, object dtype):
    """`x` as a Tensor of a floating `dtype`, by reference where that is possible."""
    if type(x) is Tensor:
        fresh(<Tensor>x)
        return x if (<Tensor>x).dtype is dtype else astype(x, dtype)
    a = np.asarray(x)
    if a.dtype != dtype:
        a = a.astype(dtype)
        return from_ndarray(a, False)
    return from_ndarray(a, True)


cdef object promoted(tuple args, int op):
    """The dtype that NumPy would compute in: a floating, complex or integer type."""
    kinds = []
    for x in args:
        if type(x) is Tensor:
            kinds.append((<Tensor>x).dtype)
        elif type(x) is float or type(x) is int or type(x) is bool or type(x) is complex:
            kinds.append(x)
        else:
            try:
                d = np.asarray(x).dtype
            except ValueError as error:
                raise ValueError(f"{op_name(op)}: {error}") from None
            if d.kind not in "fciub" or d.itemsize > (16 if d.kind == "c" else 8) or (
                    d.kind == "f" and d.itemsize < 4):
                raise TypeError(
                    f"{op_name(op)}: an operand of type {type(x).__name__} has dtype {d}; wanted "
                    "float64, float32, complex128, complex64, an integer type or bool: convert it "
                    "with astype first")
            kinds.append(d)
    return np.result_type(*kinds)


cdef object elementwise(int op, tuple args):
    """Value of a table row on any mix of tensors, numbers and arrays, recorded where it must be."""
    cdef const fad_row *row = fad_row_of(op)
    cdef fad_operand src[3]
    cdef fad_array *arr = NULL
    cdef fad_status status
    cdef int k, n = row.arity, code = -1, d
    cdef bint plain = True
    cdef double number
    cdef list ops = [None] * 3
    if op == FAD_OP_where:
        return where3(args[0], args[1], args[2])
    for k in range(n):
        x = args[k]
        src[k].arr = NULL
        if type(x) is Tensor:
            fresh(<Tensor>x)
            if (<Tensor>x).arr == NULL:
                d = FAD_F64
                src[k].number = (<Tensor>x).value
            else:
                d = (<Tensor>x).arr.dtype
                src[k].arr = (<Tensor>x).arr
            if d > FAD_F32 or (code >= 0 and code != d):
                plain = False
                break
            code = d
            ops[k] = x
        elif type(x) is float:
            src[k].number = PyFloat_AS_DOUBLE(x)
        elif type(x) is int:
            src[k].number = PyLong_AsDouble(x)
        elif type(x) is cnp.ndarray and cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.NPY_DOUBLE:
            if code == FAD_F32:
                plain = False
                break
            code = FAD_F64
            ops[k] = from_ndarray(x, True)
            src[k].arr = (<Tensor>ops[k]).arr
            src[k].number = (<Tensor>ops[k]).value
        else:
            plain = False
            break
    if not plain or code < 0 or (code == FAD_F32 and needs_f64(op)):
        code = common_code(args)
        if code >= FAD_C128:
            return complex_row(op, args, code)
        dtype = promoted(args, op)
        if dtype.kind in "iub":
            result = on_integers(op, args)
            if result is not None:
                return result
            dtype = F64
        if dtype == C128 or dtype == C64:
            return complex_row(op, args, code_of(dtype))
        if dtype.itemsize > 8:
            raise TypeError(
                f"{op_name(op)}: dtype {dtype} is not supported; use float64, float32, complex128 "
                "or complex64")
        dtype = F32 if dtype == F32 and not needs_f64(op) else F64
        code = FAD_F64 if dtype is F64 else FAD_F32
        for k in range(n):
            x = args[k]
            ops[k] = None
            src[k].arr = NULL
            if type(x) is float or type(x) is int or type(x) is bool:
                src[k].number = float(x)
                continue
            ops[k] = operand(x, dtype)
            src[k].arr = (<Tensor>ops[k]).arr
            src[k].number = (<Tensor>ops[k]).value
    for k in range(n):
        if ops[k] is not None:      # conversions above run foreign code
            src[k].arr = (<Tensor>ops[k]).arr
            src[k].number = (<Tensor>ops[k]).value
    if code == FAD_F32:
        for k in range(n):
            if src[k].arr == NULL:
                src[k].number = <double><float>src[k].number
    for k in range(n):
        if src[k].arr != NULL and src[k].arr.hollow:
            view_of((<Tensor>ops[k]).arr)
    if code == FAD_F64 and src[0].arr == NULL and (n < 2 or src[1].arr == NULL) and (
            n < 3 or src[2].arr == NULL):
        if n == 1:
            number = fad_eval1(op, src[0].number)
        elif n == 2:
            number = fad_eval2(op, src[0].number, src[1].number)
        else:
            number = fad_eval3(op, src[0].number, src[1].number, src[2].number)
        if not_finite(number):
            report_number(op, src[0].number, src[1].number if n > 1 else 0.0,
                          src[2].number if n > 2 else 0.0)
        return record_row(op, n, ops, src, NULL, number)
    if UFUNCS[op] is not None and type(UFUNCS[op]) is not np.ufunc:
        # NumPy computes this row by a plain function: bit-equal only through itself
        if code == FAD_F32:
            refuse(f"{op_name(op)} of float32 values is NumPy's own")
        result = UFUNCS[op](*[src[k].number if src[k].arr == NULL else value_array(ops[k])
                              for k in range(n)])
        arr = array_from(np.asarray(result), False)
    else:
        status = fad_elementwise(op, code, src, &arr)
        if status == FAD_SHAPE:
            shapes = [str((<Tensor>ops[k]).shape if ops[k] is not None else ()) for k in range(n)]
            raise ValueError(f"{op_name(op)}: shapes {' and '.join(shapes)} do not broadcast")
        if status:
            fail(status, op_name(op))
        if fad_raised:
            report_array(op, arr)
    return record_row(op, n, ops, src, arr, 0.0)


cdef bint needs_f64(int op):
    return UFUNCS[op] is not None and fad_has_loop(op, FAD_F64) and not fad_has_loop(op, FAD_F32)


cdef object on_integers(int op, tuple args):
    """A row over integers and bools only: NumPy decides; None where it has no such function."""
    f = UFUNCS[op]
    if f is None:
        return None
    return by_numpy(f, args, {})


cdef object record_row(int op, int n, list ops, fad_operand *src, fad_array *arr, double number):
    """Tensor of the result (whose array it takes over), on the tape when an operand is."""
    cdef Tensor out
    cdef fad_index parent[3]
    cdef bint any_tracked = False
    cdef const fad_row *row = fad_row_of(op)
    cdef fad_call *call = NULL
    cdef unsigned w = op
    cdef fad_slot slot
    cdef int k
    if arr != NULL:
        out = adopt(arr)
    else:
        out = <Tensor>fad_tensor_new()
        out.value = number
    if fad_grad_off == 1:
        return out
    for k in range(n):
        any_tracked |= ops[k] is not None and tracked(<Tensor>ops[k])
    if not any_tracked:
        return out
    reserve(n + 1)
    if n == 3:
        call = fad_call_new(3)
        if call == NULL:
            fail(FAD_NOMEM, op_name(op))
    try:
        for k in range(n):
            parent[k] = -1
            if ops[k] is not None:
                parent[k] = node_of(<Tensor>ops[k])
            if parent[k] < 0:
                w |= FAD_CA if k == 0 else FAD_CB if k == 1 else 0
                if ops[k] is None:
                    parent[k] = fad_const(&tape, src[k].number)
                else:
                    parent[k] = const_node(<Tensor>ops[k], (row.reads >> k) & 1)
    except BaseException:
        fad_free(call)
        raise
    if n == 3:
        for k in range(n):
            call.parent[k] = parent[k]
            if (row.reads >> k) & 1:
                tape.op[parent[k]] |= FAD_NEEDED
        if out.arr != NULL:
            slot.arr = fad_array_share(out.arr)
        else:
            slot.f = out.value
        fad_link(&tape, &out.h, fad_push_call(&tape, op, call, slot, out.arr != NULL))
        if row.reads & FAD_Y:
            tape.op[out.h.idx] |= FAD_NEEDED
    elif out.arr != NULL:
        fad_link(&tape, &out.h, fad_push_array_slow(
            &tape, w, parent[0], parent[1] if n == 2 else 0, fad_array_share(out.arr)))
    else:
        fad_link(&tape, &out.h, fad_push(
            &tape, w, parent[0], parent[1] if n == 2 else 0, out.value))
    if fad_grad_off:
        note(out)
    return out


cdef object where3(object c, object a, object b):
    """where(c, a, b): c chooses and takes no cotangent."""
    cdef fad_operand src[3]
    cdef fad_array *arr = NULL
    cdef fad_status status
    cdef list ops = [None, None, None]
    cdef int k
    given = c
    if type(c) is Tensor:
        if (<Tensor>c).arr == NULL or (<Tensor>c).arr.ndim == 0:
            look(c)
        elif fad_trace_id and (<Tensor>c).arr.dtype != FAD_BOOL:
            given = c = compare(c, 0.0, Py_NE)
        c = value_array(c)
    else:
        c = np.asarray(c)
    if c.dtype != BOOL:
        c = c != 0
    k = common_code((a, b))
    dtype = promoted((a, b), FAD_OP_where) if k < 0 else dtype_of(k)
    if dtype.kind in "iub":
        return by_numpy(np.where, (given, a, b), {})
    if dtype.kind == "c":
        k = code_of(dtype)
        chosen = given if type(given) is Tensor else from_ndarray(c, True)
        return COMPLEX_FUNCTIONS[FAD_OP_where](chosen, complex_operand(a, k), complex_operand(b, k))
    dtype = F32 if dtype == F32 else F64
    src[0].arr = NULL
    src[0].number = 1.0 if c.ndim == 0 and c else 0.0
    if c.ndim:
        ops[0] = given if fad_trace_id and type(given) is Tensor else from_ndarray(c, True)
        src[0].arr = (<Tensor>ops[0]).arr
    for k in range(1, 3):
        ops[k] = operand(b if k == 2 else a, dtype)
    for k in range(1, 3):
        src[k].arr = (<Tensor>ops[k]).arr
        src[k].number = (<Tensor>ops[k]).value
    if src[0].arr == NULL and src[1].arr == NULL and src[2].arr == NULL:
        return record_row(FAD_OP_where, 3, ops, src, NULL,
                          fad_eval3(FAD_OP_where, src[0].number, src[1].number, src[2].number))
    status = fad_elementwise(FAD_OP_where, FAD_F64 if dtype is F64 else FAD_F32, src, &arr)
    if status == FAD_SHAPE:
        raise ValueError(
            f"where: shapes {c.shape}, {(<Tensor>ops[1]).shape} and {(<Tensor>ops[2]).shape} do "
            "not broadcast")
    if status:
        fail(status, "where")
    return record_row(FAD_OP_where, 3, ops, src, arr, 0.0)


cdef object call_row(object self, PyObject **args, Py_ssize_t nargs, PyObject *kwnames):
    """Body of every elementwise function; `self` is the opcode."""
    cdef int op = self, arity
    cdef object x
    arity = fad_row_of(op).arity
    if kwnames != NULL or nargs != arity:
        given = f"{nargs} positional" if kwnames == NULL else "keyword"
        raise TypeError(f"{op_name(op)}: takes {arity} positional argument"
                        f"{'s' if arity > 1 else ''}, got {given} arguments")
    x = <object>args[0]
    if arity == 1:
        result = unary(op, x)
    elif arity == 2:
        y = binary(op, x, <object>args[1])
        if y is not NotImplemented:
            return y
        result = elementwise(op, (x, <object>args[1]))
    else:
        result = elementwise(op, (x, <object>args[1], <object>args[2]))
    return result


# ---- structured primitives --------------------------------------------------------------------


cdef class CoreRule:
    """A structured primitive declared here: the same protocol as rules.py, called without Python.

    `compute` gives the result again, recorded, of inputs of the same shapes; it is also the tangent
    of linear rules of one input.  All three are written in operations that record when recording
    is on.
    """
    cdef readonly str name
    cdef readonly bint linear, reads_inputs, reads_output

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        raise NotImplementedError

    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        raise NotImplementedError

    cdef Tensor push(self, tuple tangents, Tensor y, tuple inputs, object params):
        return self.compute(tangents, params, shape_of(y), y.dtype)


cdef fad_call *begin_call(int n) except NULL:
    cdef fad_call *call = fad_call_new(n)
    if call == NULL:
        fail(FAD_NOMEM, "tape")
    return call


cdef inline void fill_call(fad_call *call, object rule, object params) noexcept:
    """Say what a call is of; None for nothing."""
    if rule is not None:
        Py_INCREF(rule)
        call.rule = <void *>rule
    if type(rule) is GetNumber or type(rule) is PutNumber:
        call.at = params
    elif params is not None:
        Py_INCREF(params)
        call.params = <void *>params


cdef inline object params_of(fad_call *call):
    """The parameters of a call; a place where it is about one element."""
    if call.params != NULL:
        params = <object>call.params
        return (<Given>params).params() if type(params) is Given else params
    if (call.rule == <void *>GET_NUMBER or call.rule == <void *>SET_NUMBER
            or call.rule == <void *>ADD_NUMBER):
        return call.at
    return None                     # none, or a row of three operands, which has no rule


cdef int finish_call(Tensor out, fad_call *call, object rule, object params,
                     bint reads_output) except -1:
    """Push a call whose parents are known, and tie `out` to it."""
    cdef fad_slot slot
    cdef fad_index i
    fill_call(call, rule, params)
    if out.arr != NULL:
        slot.arr = fad_array_share(out.arr)
    else:
        slot.f = out.value
    i = fad_push_call(&tape, FAD_OP_CALL, call, slot, out.arr != NULL)
    if reads_output:
        tape.op[i] |= FAD_NEEDED
    fad_link(&tape, &out.h, i)
    if fad_grad_off:
        note(out)
    return 0


cdef int record_pair(Tensor out, CoreRule rule, Tensor a, Tensor b, object params) except -1:
    """As record_call for a core rule of one input, or of two (b is not None)."""
    cdef int k, n = 1 if b is None else 2
    cdef fad_call *call
    cdef fad_index i
    if fad_grad_off == 1 or not (tracked(a) or (n == 2 and tracked(b))):
        return 0
    if out.arr != NULL and out.arr.dtype >= FAD_BOOL and not fad_grad_off & 2:
        return 0
    call = begin_call(n)
    try:
        reserve(3)
        for k in range(n):
            i = parent_of(b if k else a, rule.reads_inputs)
            call.parent[k] = i
            if rule.reads_inputs:
                tape.op[i] |= FAD_NEEDED
    except BaseException:
        fad_free(call)
        raise
    return finish_call(out, call, rule, params, False)


cdef int record_call(Tensor out, object rule, tuple inputs, object params,
                     bint reads_inputs, bint reads_output) except -1:
    """Put `out`, just computed from `inputs`, on the tape when one of them is."""
    cdef int k, n = len(inputs)
    cdef bint any_tracked = False
    cdef fad_call *call
    cdef fad_index i
    if fad_grad_off == 1:
        return 0
    for k in range(n):
        any_tracked |= tracked(<Tensor>inputs[k])
    if not any_tracked or (
            out.arr != NULL and out.arr.dtype >= FAD_BOOL and not fad_grad_off & 2):
        return 0
    call = begin_call(n)
    try:
        reserve(n + 1)
        for k in range(n):
            i = parent_of(<Tensor>inputs[k], reads_inputs)
            call.parent[k] = i
            if reads_inputs:
                tape.op[i] |= FAD_NEEDED
    except BaseException:
        fad_free(call)
        raise
    return finish_call(out, call, rule, params, reads_output)


def apply(rule, tuple inputs, dict params):
    """Compute ``rule.forward`` on the values of `inputs` and record the call.

    See rules.py for what a rule is.  `inputs` are Tensors; anything else belongs in `params`.
    """
    cdef Tensor out
    cdef list values = []
    for t in inputs:
        if type(t) is not Tensor:
            raise TypeError(f"{rule.name}: inputs must be Tensors, got {type(t).__name__}")
        values.append(value_array(<Tensor>t))
    out = from_ndarray(rule.forward(*values, **params), False)
    record_call(out, rule, inputs, params, rule.reads_inputs, rule.reads_output)
    return out


def record(rule, tuple inputs, dict params):
    """Compute and record a primitive; what NumPy raises is made to name it."""
    try:
        return apply(rule, inputs, params)
    except (TypeError, ValueError, IndexError) as error:
        raise named_as(rule.name, error) from None


def record_custom(rule, tuple inputs, Tensor out not None, dict params):
    """A new tensor with `out`'s value, on the tape as a call of `rule` on `inputs`."""
    cdef Tensor y = bare(out)
    refuse(f"{rule.name} is a Function of one's own, whose forward is not taken down")
    record_call(y, rule, inputs, params, True, True)
    return y


cdef Tensor checked_adopt(fad_status status, fad_array *arr, str name, object detail):
    if status == FAD_SHAPE:
        raise ValueError(f"{name}: {detail}")
    if status:
        fail(status, name)
    return adopt(arr)


cdef fad_array *array_of(Tensor t, fad_array **own) except NULL:
    """The core array of a floating tensor; a number gets one of its own, left in `own`."""
    own[0] = NULL
    if t.arr != NULL:
        fresh(t)
        if t.arr.dtype >= FAD_BOOL or t.arr.hollow:
            raise TypeError(f"dtype {t.dtype} has no derivative here; use a floating dtype")
        return t.arr
    own[0] = fad_array_new(FAD_F64, 0, NULL)
    if own[0] == NULL:
        fail(FAD_NOMEM, "tensor")
    (<double *>own[0].data)[0] = t.value
    return own[0]


cdef int read_shape(object shape, int64_t *dims) except -1:
    cdef int k, n
    if isinstance(shape, int):
        dims[0] = shape
        return 1
    n = len(shape)
    if n > FAD_MAXDIM:
        raise ValueError(f"at most {FAD_MAXDIM} dimensions, got {n}")
    for k in range(n):
        dims[k] = length(shape[k])
        if dims[k] < 0:
            raise ValueError(f"negative dimensions are not allowed: {shape}")
    return n


cdef tuple shape_of(Tensor t):
    return NO_SHAPE if t.arr == NULL else dims_of(t.arr)


cdef inline bint alike(Tensor t, const fad_array *arr) noexcept:
    """Whether t has the shape and the dtype of a floating value; arr is NULL for a number."""
    if t.arr == NULL or arr == NULL:
        return t.arr == arr
    return t.arr.dtype == arr.dtype and arr.dtype < FAD_BOOL and fad_same_shape(t.arr, arr)


cdef bint is_float(Tensor t) noexcept:
    return t.arr == NULL or t.arr.dtype < FAD_BOOL


cdef inline Tensor floating(object x):
    """Tensor of `x`, as it is; integers stay integers."""
    if type(x) is Tensor:
        fresh(<Tensor>x)
        return x
    return wrap(x)


@cython.final
cdef class SumTo(CoreRule):
    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        return (c_broadcast_like(g, <Tensor>inputs[0]),)

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return c_sum_to(inputs[0], shape)


@cython.final
cdef class BroadcastTo(CoreRule):
    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        return (c_sum_to(g, shape_of(<Tensor>inputs[0])),)

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return c_broadcast_to(inputs[0], shape)


@cython.final
cdef class Sum(CoreRule):
    """params: (axes, shape with the summed axes kept as 1), or None for all axes."""
    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        if params is not None:
            g = c_reshape(g, params[1])
        return (c_broadcast_like(g, <Tensor>inputs[0]),)

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return c_reshape(c_sum(inputs[0], None if params is None else params[0], False), shape)


@cython.final
cdef class Reshape(CoreRule):
    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        return (c_reshape(g, shape_of(<Tensor>inputs[0])),)

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return c_reshape(inputs[0], shape)


@cython.final
cdef class Transpose(CoreRule):
    """params: (axes, inverse axes)."""
    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        return (c_transpose(g, params[1], params[0]),)

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return c_transpose(inputs[0], params[0], params[1])


@cython.final
cdef class Cast(CoreRule):
    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        return (projected(g, (<Tensor>inputs[0]).dtype),)

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return projected(inputs[0], dtype)


ctypedef struct matrix_product:
    bint tg, tp, g_first        # read g, or the other operand p, transposed; g @ p or p @ g


cdef inline matrix_product cotangent_product(int k, bint ta, bint tb) noexcept:
    """How the cotangent of operand k of a product of matrices comes from g and the other one."""
    cdef matrix_product how
    if k == 0:      # y = a b: a_bar = g b^T;  y = a^T b: a_bar = b g^T
        how.tg, how.tp, how.g_first = ta, tb if ta else not tb, not ta
    else:           # y = a b: b_bar = a^T g;  y = a b^T: b_bar = g^T a
        how.tg, how.tp, how.g_first = tb, ta if tb else not ta, tb
    return how


@cython.final
cdef class Matmul(CoreRule):
    """params: (ta, tb, exact): whether the last two axes of an operand are read transposed, and
    whether the bits are NumPy's."""
    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        return self.pull_some(g, inputs, params, True, True)

    cdef tuple pull_some(self, Tensor g, tuple inputs, object params, bint of_a, bint of_b):
        cdef Tensor a = c_conjugate(<Tensor>inputs[0]), b = c_conjugate(<Tensor>inputs[1])
        cdef Tensor ga = None, gb = None
        cdef int na = a.arr.ndim, nb = b.arr.ndim
        cdef bint ta = params[0], tb = params[1]
        if na == 1 and nb == 1:
            return (binary(FAD_OP_zmul, g, b) if of_a else None,
                    binary(FAD_OP_zmul, g, a) if of_b else None)
        if na == 1:         # y_p = a_n b_np
            if of_a:
                ga = (product(g, b, False, tb, False) if nb == 2 else self.wide(
                    product(c_column(g, False), b, False, not tb, True), a, 1))
            if of_b:
                gb = product(c_column(g, False), c_column(a, True), False, False, False)
                gb = self.wide(c_swap(gb) if tb else gb, b, 0)
            return ga, gb
        if nb == 1:         # y_m = a_mn b_n
            if of_a:
                ga = product(c_column(g, True), c_column(b, False), False, False, True)
                ga = self.wide(c_swap(ga) if ta else ga, a, 0)
            if of_b:
                gb = (product(g, a, False, not ta, False) if na == 2 else self.wide(
                    product(c_column(g, True), a, False, not ta, False), b, 2))
            return ga, gb
        return (self.wide(self.side(0, g, b, ta, tb), a, 0) if of_a else None,
                self.wide(self.side(1, g, a, ta, tb), b, 0) if of_b else None)

    cdef Tensor side(self, int k, Tensor g, Tensor other, bint ta, bint tb):
        cdef matrix_product how = cotangent_product(k, ta, tb)
        return product(g, other, how.tg, how.tp, how.g_first)

    cdef Tensor wide(self, Tensor g, Tensor x, int drop):
        """Fold broadcast batch axes; drop=1 or 2 removes the axis that made x a row or column."""
        if drop:
            shape = list(shape_of(g))
            del shape[len(shape) - (2 if drop == 1 else 1)]
            g = c_reshape(g, tuple(shape))
        if g.arr.ndim == x.arr.ndim and fad_same_shape(g.arr, x.arr):
            return g
        return c_sum_to(g, shape_of(x))

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return c_matmul(inputs[0], inputs[1], params[0], params[1], params[2])

    cdef Tensor push(self, tuple tangents, Tensor y, tuple inputs, object params):
        cdef object left = None, right = None
        if tangents[0] is not None:
            left = product(tangents[0], inputs[1], params[0], params[1], True)
        if tangents[1] is not None:
            right = product(tangents[1], inputs[0], params[1], params[0], False)
        if left is None:
            return right
        return left if right is None else binary(FAD_OP_add, left, right)


cdef object zero_safe_ = None
cdef object scatter_ = None
cdef object stack_ = None
cdef object window_ = None
cdef object put_ = None
cdef object put_values_ = None
cdef object picked_ = None
cdef dict FORMS = {}                # primitive -> how a program computes it without NumPy


def register_rules(zero_safe, scatter, stack, window, put, put_values, picked, dict forms):
    """The floor above supplies products in which a zero cotangent hides inf and nan, the adjoint
    of indexing, the primitives that join numbers to an array, that look at a place in an array and
    that write there (with what does it in an array, and what reads it back), and which of its
    primitives the core can do."""
    global zero_safe_, scatter_, stack_, window_, put_, put_values_, picked_
    zero_safe_ = zero_safe
    scatter_ = scatter
    stack_ = stack
    window_ = window
    put_ = put
    put_values_ = put_values
    picked_ = picked
    FORMS.update(forms)


@cython.final
cdef class Product:
    """``g @ p`` or ``p @ g``, either read transposed, as a function of g and p."""
    cdef bint tg, tp, g_first

    def __call__(self, Tensor g, Tensor p):
        return c_matmul(g, p, self.tg, self.tp) if self.g_first else c_matmul(
            p, g, self.tp, self.tg)


cdef Tensor product(Tensor g, Tensor p, bint tg, bint tp, bint g_first):
    """Matrix product of a cotangent (or tangent) g with an operand p; zeros in g hide inf."""
    cdef Tensor r = (c_matmul(g, p, tg, tp, False) if g_first
                     else c_matmul(p, g, tp, tg, False))
    cdef Product again
    if not holds_nan(r):
        return r
    again = Product.__new__(Product)
    again.tg, again.tp, again.g_first = tg, tp, g_first
    return zero_safe_(again, g, p)


cdef bint has_nan(Tensor t) noexcept:
    return t.value != t.value if t.arr == NULL else fad_has_nan(t.arr)


cdef bint pull_matrices(SweepState state, fad_call *call, tuple params, fad_array *g) except -1:
    """The VJP of a product of two matrices without tensors in between; False: the general way."""
    cdef fad_array *operand[2]
    cdef fad_array *bar[2]
    cdef matrix_product how
    cdef fad_status status = FAD_OK
    cdef bint plain = True
    cdef fad_index p
    cdef int k
    for k in range(2):
        bar[k] = NULL
        p = call.parent[k]
        if not tape.op[p] & FAD_ARRAY or (tape.op[p] & FAD_OPCODE) == FAD_OP_FREED:
            return False
        operand[k] = tape.value[p].arr
        if operand[k].ndim != 2 or operand[k].dtype != g.dtype or fad_is_complex(g.dtype):
            return False
    for k in range(2):
        if is_const(call.parent[k]):
            continue
        how = cotangent_product(k, params[0] is True, params[1] is True)
        if how.g_first:
            status = fad_matmul2(g, how.tg, operand[1 - k], how.tp, 0, &bar[k])
        else:
            status = fad_matmul2(operand[1 - k], how.tp, g, how.tg, 0, &bar[k])
        if status:
            break
        plain = plain and not fad_has_nan(bar[k])
    for k in range(2):
        if bar[k] == NULL:
            continue
        if status or not plain:
            fad_array_release(bar[k])
        else:
            status = fad_contribute_array(&tape, &state.s, call.parent[k], bar[k])
    if status:
        fail(status, "backward")
    return plain


@cython.final
cdef class GetNumber(CoreRule):
    """One element of a float64 array; params: its place in the flat array."""
    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        return (c_put_number(ADD_NUMBER, zeros_like(<Tensor>inputs[0]), g, params),)

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return c_get_number(inputs[0], params)

    cdef Tensor push(self, tuple tangents, Tensor y, tuple inputs, object params):
        return c_get_number(tangents[0], params)


cdef Tensor c_get_number(Tensor x, Py_ssize_t at):
    cdef Tensor y = <Tensor>fad_tensor_new()
    cdef fad_call *call
    cdef fad_slot slot
    y.value = (<double *>x.arr.data)[at]
    if fad_grad_off == 1 or not tracked(x):
        return y
    call = fad_call_new(1)
    if call == NULL:
        fail(FAD_NOMEM, "getitem")
    try:
        if fad_reserve(&tape, 3):
            reserve(3)
        call.parent[0] = parent_of(x, False)
    except BaseException:
        fad_free(call)
        raise
    Py_INCREF(GET_NUMBER)
    call.rule = <void *>GET_NUMBER
    call.at = at
    slot.f = y.value
    fad_link(&tape, &y.h, fad_push_call(&tape, FAD_OP_CALL, call, slot, False))
    if fad_grad_off:
        note(y)
    return y


cdef fad_status pull_number(fad_sweep *s, fad_call *call, double g) noexcept:
    """Add the cotangent of one element into the array's adjoint, where it is."""
    cdef fad_index p = call.parent[0]
    cdef fad_slot *bar
    cdef fad_array *arr = NULL
    if not tape.op[p] & FAD_ARRAY:      # consumed: the sweep will say so
        return fad_contribute(&tape, s, p, 0.0)
    if fad_stops(&tape, p):
        return FAD_OK
    bar = &(s.own if s.own != NULL else tape.bar)[p]
    if bar.bits == FAD_UNTOUCHED or bar.arr.refs > 1 or bar.arr.owner != NULL:
        if fad_fill(FAD_F64, tape.value[p].arr.ndim, tape.value[p].arr.shape, 0.0, &arr):
            return FAD_NOMEM
        (<double *>arr.data)[call.at] = g + 0.0
        return fad_contribute_array(&tape, s, p, arr)
    (<double *>bar.arr.data)[call.at] += g
    return FAD_OK


cdef fad_status push_number(fad_sweep *s, fad_call *call, fad_index i) noexcept:
    """The tangent of one element."""
    return fad_contribute(&tape, s, i, (<double *>s.own[call.parent[0]].arr.data)[call.at])


cdef object number_at(Tensor x, object index):
    """Fast x[i] and x[i, j] by integers alone; None where that is not what is asked."""
    cdef Py_ssize_t offset
    if x.arr == NULL or x.arr.dtype != FAD_F64:
        return None
    offset = offset_of(x, index, NULL)
    if offset < 0:
        return None                 # the general way says what is wrong
    if x.arr.hollow:
        return number_of_stale(x, index)
    return c_get_number(x, offset)


cdef Py_ssize_t offset_of(Tensor t, object index, const int64_t *strides) except? -2:
    """Where in the array of t, or along these strides, an index of integers alone points to; -1
    for another one."""
    cdef Py_ssize_t offset = 0, i, k, n = t.arr.ndim
    if type(index) is int:
        if n != 1:
            return -1
        i = index
        if i < 0:
            i += t.arr.shape[0]
        if i < 0 or i >= t.arr.shape[0]:
            return -1
        return i if strides == NULL else i * strides[0]
    if type(index) is not tuple or len(<tuple>index) != n:
        return -1
    for k in range(n):
        if type((<tuple>index)[k]) is not int:
            return -1
        i = (<tuple>index)[k]
        if i < 0:
            i += t.arr.shape[k]
        if i < 0 or i >= t.arr.shape[k]:
            return -1
        offset = offset * t.arr.shape[k] + i if strides == NULL else offset + i * strides[k]
    return offset


cdef dict CORE_RULES = {}


cdef CoreRule core_rule(type cls, str name, bint linear, bint reads_inputs):
    cdef CoreRule rule = cls()
    CORE_RULES[name] = rule
    rule.name = name
    rule.linear = linear
    rule.reads_inputs = reads_inputs
    rule.reads_output = False
    return rule


cdef CoreRule SUM_TO = core_rule(SumTo, "sum_to", True, False)
cdef CoreRule BROADCAST_TO = core_rule(BroadcastTo, "broadcast_to", True, False)
cdef CoreRule SUM = core_rule(Sum, "sum", True, False)
cdef CoreRule RESHAPE = core_rule(Reshape, "reshape", True, False)
cdef CoreRule TRANSPOSE = core_rule(Transpose, "transpose", True, False)
cdef CoreRule CAST = core_rule(Cast, "astype", True, False)
cdef CoreRule REAL = core_rule(Cast, "real", True, False)
cdef CoreRule GET_NUMBER = core_rule(GetNumber, "getitem", True, False)
cdef CoreRule MATMUL = core_rule(Matmul, "matmul", False, True)
cdef tuple MATMUL_PLAIN = (False, False, True)


cdef Tensor c_sum_to(Tensor x, tuple shape):
    cdef int64_t dims[64]
    cdef fad_array *own
    cdef fad_array *out = NULL
    cdef fad_array *arr
    cdef int n = read_shape(shape, dims)
    if shape == shape_of(x):
        return x
    arr = array_of(x, &own)
    status = fad_sum_to(arr, n, dims, &out)
    if own != NULL:
        fad_array_release(own)
    cdef Tensor y = checked_adopt(status, out, "sum_to",
                                  f"shape {shape_of(x)} does not fold into {shape}")
    record_pair(y, SUM_TO, x, None, None)
    return y


cdef Tensor c_broadcast_to(Tensor x, tuple shape):
    cdef int64_t dims[64]
    cdef fad_array *out = NULL
    cdef fad_status status
    cdef int n = read_shape(shape, dims)
    if n == 0 and x.arr == NULL:
        return x
    fresh(x)
    if x.arr == NULL:
        status = fad_fill(FAD_F64, n, dims, x.value, &out)
    elif x.arr.dtype >= FAD_BOOL:
        return by_numpy(np.broadcast_to, (x, shape), {})
    else:
        if shape == shape_of(x):
            return x
        status = fad_broadcast_to(x.arr, n, dims, &out)
    cdef Tensor y = checked_adopt(status, out, "broadcast_to",
                                  f"shape {shape_of(x)} does not broadcast to {shape}")
    record_pair(y, BROADCAST_TO, x, None, None)
    return y


cdef Tensor c_broadcast_like(Tensor x, Tensor like):
    """As c_broadcast_to, to the shape of a tensor; the short way where nothing is recorded."""
    cdef fad_array *out = NULL
    cdef Tensor y
    if x.arr == NULL and like.arr != NULL and fad_grad_off == 1:
        y = <Tensor>fad_tensor_new()
        if fad_fill(FAD_F64, like.arr.ndim, like.arr.shape, x.value, &out):
            fail(FAD_NOMEM, "broadcast_to")
        y.arr = out
        return y
    return c_broadcast_to(x, shape_of(like))


cdef Tensor c_sum(Tensor x, object axis, bint keepdims):
    cdef double total
    cdef Tensor y
    cdef object params = None
    fresh(x)
    if not is_float(x):
        return by_numpy(np.sum, (x,), {"axis": axis, "keepdims": keepdims})
    if x.arr == NULL:
        if axis is not None:
            np.add.reduce(x.value, axis=axis)       # refuses what is no axis
        return binary(FAD_OP_add, x, 0.0)           # as NumPy, whose sums begin with 0.0
    if axis is None and not keepdims and x.arr.dtype == FAD_F64:
        if x.arr.hollow:
            view_of(x.arr)
        fad_sum_all(x.arr, &total)
        if not_finite(total) and not is_quiet():
            np.add.reduce(value_array(x), axis=None)        # to report it
        y = <Tensor>fad_tensor_new()
        y.value = total
    else:
        v = value_array(x)
        y = from_ndarray(np.add.reduce(v, axis=axis, keepdims=keepdims), False)
        if axis is not None and v.ndim:
            axes = axis if isinstance(axis, tuple) else (axis,)
            nd = v.ndim
            axes = tuple([a + nd if a < 0 else a for a in axes])
            params = (axes, tuple([1 if k in axes else v.shape[k] for k in range(nd)]))
        elif keepdims:
            params = (None, (1,) * v.ndim)
    record_pair(y, SUM, x, None, params)
    return y


cdef inline int64_t length(object n) except? -1:
    """One entry of a shape."""
    return n if type(n) is int else PyNumber_Index(n)


cdef Tensor c_reshape(Tensor x, object shape):
    cdef int64_t dims[64]
    cdef int64_t known = 1, size = 1 if x.arr == NULL else x.arr.size
    cdef int k, hole = -1, n
    cdef fad_array *out
    cdef Tensor y
    shape = tuple(shape) if isinstance(shape, (tuple, list)) or np.ndim(shape) else (shape,)
    n = len(shape)
    if n > FAD_MAXDIM:
        raise ValueError(f"reshape: at most {FAD_MAXDIM} dimensions, got {n}")
    for k in range(n):
        dims[k] = length(shape[k])
        if dims[k] == -1 and hole < 0:
            hole = k
        else:
            if dims[k] < 0:
                raise ValueError(f"reshape: cannot read shape {shape}; one entry may be -1")
            if dims[k] and known > 0x7fffffffffffffff // dims[k]:
                raise ValueError(f"reshape: shape {shape} has more elements than there can be")
            known *= dims[k]
    if hole >= 0 and known > 0 and size % known == 0:
        dims[hole] = size // known
        known = size
    if known != size or (hole >= 0 and dims[hole] < 0):
        raise ValueError(f"reshape: {size} elements of shape {shape_of(x)} do not fit {shape}")
    fresh(x)
    if not is_float(x):
        return by_numpy(np.reshape, (x, shape), {})
    if x.arr == NULL:
        if n == 0:
            return x
        status = fad_fill(FAD_F64, n, dims, x.value, &out)
        y = checked_adopt(status, out, "reshape", "")
    elif x.arr.large or x.arr.owner != NULL or x.arr.hollow:
        out = shared_reshaped(x.arr, n, dims)
        y = adopt(out)
    else:
        out = fad_array_new(x.arr.dtype, n, dims)
        if out == NULL:
            fail(FAD_NOMEM, "reshape")
        memcpy(out.data, x.arr.data, size * fad_itemsize(x.arr.dtype))
        y = adopt(out)
    record_pair(y, RESHAPE, x, None, None)
    return y


cdef fad_array *shared_reshaped(fad_array *arr, int n, int64_t *dims) except NULL:
    """A second header over the same data."""
    cdef Keeper keeper
    cdef fad_array *out
    if arr.hollow:
        out = fad_array_borrow(arr.dtype, n, dims, NULL, NULL)
        if out != NULL:
            out.hollow = 1
    else:
        keeper = Keeper.__new__(Keeper)
        out = fad_array_borrow(arr.dtype, n, dims, arr.data, <void *>keeper)
        if out != NULL:
            keeper.arr = fad_array_share(arr)
            Py_INCREF(keeper)
    if out == NULL:
        fail(FAD_NOMEM, "reshape")
    return out


cdef Tensor c_transpose(Tensor x, tuple axes, tuple inverse):
    cdef int order[64]
    cdef int k, n = len(axes)
    cdef fad_array *out = NULL
    cdef Tensor y
    if x.arr == NULL or n < 2:
        return x
    if not is_float(x):
        return by_numpy(np.transpose, (x, axes), {})
    if x.arr.hollow:
        view_of(x.arr)
    for k in range(n):
        order[k] = axes[k]
    status = fad_transpose(x.arr, order, &out)
    y = checked_adopt(status, out, "transpose", "")
    record_pair(y, TRANSPOSE, x, None, (axes, inverse))
    return y


cdef Tensor c_swap(Tensor x):
    n = x.arr.ndim
    axes = tuple(range(n - 2)) + (n - 1, n - 2)
    return c_transpose(x, axes, axes)


cdef Tensor c_column(Tensor x, bint column):
    """(..., n) as (..., n, 1) or (..., 1, n)."""
    shape = shape_of(x)
    return c_reshape(x, shape + (1,) if column else shape[:-1] + (1,) + shape[-1:])


cdef Tensor c_matmul(Tensor a, Tensor b, bint ta, bint tb, bint exact=True):
    cdef fad_array *out = NULL
    cdef Tensor y
    cdef fad_status status
    cdef unsigned flags
    if a.arr == NULL or b.arr == NULL or a.arr.ndim == 0 or b.arr.ndim == 0:
        raise ValueError(f"matmul: operands of shape {shape_of(a)} and {shape_of(b)}; at least one "
                         "dimension is needed in both; use * for products with a number")
    if a.arr.dtype != b.arr.dtype or a.arr.dtype >= FAD_BOOL:
        dtype = np.result_type(a.dtype, b.dtype)
        if dtype.kind not in "fc":
            return by_numpy(np.matmul, (a, b), {})
        a = astype(a, dtype)
        b = astype(b, dtype)
    if a.arr.ndim <= 2 and b.arr.ndim <= 2:
        if a.arr.hollow or b.arr.hollow:
            view_of(a.arr)
            view_of(b.arr)
        status = fad_matmul2(a.arr, ta, b.arr, tb, exact, &out)
        if status == FAD_SHAPE:
            matmul_shapes(a, b)
        y = checked_adopt(status, out, "matmul", "")
        if exact and not ta and not tb:
            flags = fad_flags_taken(False)
            if flags and heeded(flags):
                np.matmul(value_array(a), value_array(b))       # to report those of this product
    else:
        va, vb = value_array(a), value_array(b)
        if ta and va.ndim > 1:
            va = va.swapaxes(-1, -2)
        if tb and vb.ndim > 1:
            vb = vb.swapaxes(-1, -2)
        try:
            v = np.matmul(va, vb)
        except ValueError:
            matmul_shapes(a, b)
        y = from_ndarray(v, False)
    record_pair(y, MATMUL, a, b, MATMUL_PLAIN if exact and not ta and not tb else (ta, tb, exact))
    return y


cdef int matmul_shapes(Tensor a, Tensor b) except -1:
    raise ValueError(f"matmul: shapes {shape_of(a)} and {shape_of(b)} do not fit; the last axis of "
                     "the first must be as long as the last but one of the second")


def sum(x, axis=None, keepdims=False):
    """Sum over `axis` (int, tuple or None for all), as ``numpy.sum``."""
    return c_sum(floating(x), axis, keepdims)


def sum_to(x, shape):
    """Sum `x` down to `shape`: the adjoint of ``broadcast_to``."""
    return c_sum_to(floating(x), tuple(shape))


def broadcast_to(x, shape):
    """`x` repeated along new or unit axes to `shape`, as ``numpy.broadcast_to``."""
    return c_broadcast_to(floating(x), (shape,) if isinstance(shape, int) else tuple(shape))


def reshape(x, shape):
    """`x` with the same elements in `shape`; one entry may be -1."""
    return c_reshape(floating(x), shape)


def transpose(x, axes=None):
    """`x` with its axes permuted, reversed by default."""
    cdef Tensor t = floating(x)
    n = 0 if t.arr == NULL else t.arr.ndim
    if axes is None:
        order = tuple(range(n - 1, -1, -1))
    else:
        order = tuple([a + n if a < 0 else a for a in axes])
        if sorted(order) != list(range(n)):
            raise ValueError(f"transpose: axes {tuple(axes)} are not a permutation of {n} axes")
    inverse = [0] * n
    for k, a in enumerate(order):
        inverse[a] = k
    return c_transpose(t, order, tuple(inverse))


def matmul(a, b, bint ta=False, bint tb=False):
    """Matrix product with NumPy's rules for 1-D operands and batches.

    With `ta` and `tb` the last two axes of an operand are exchanged first, which copies nothing."""
    return c_matmul(floating(a), floating(b), ta, tb, not (ta or tb))


cpdef Tensor astype(x, dtype):
    """`x` in another dtype; differentiable between floating dtypes, and from real to complex."""
    cdef Tensor t = floating(x)
    cdef int code
    dtype = np.dtype(dtype)
    have = t.dtype
    if dtype == have:
        return t
    code = code_of(dtype)
    if code != FAD_OTHER and is_float(t) and (not is_complex(t) or fad_is_complex(code)):
        return cast_to(t, code)
    if active(t) and not fad_grad_off & 1:
        if is_complex(t) and dtype.kind != "b":
            raise TypeError(f"astype: {dtype} would lose the imaginary part of a {have} tensor "
                            "that requires gradients; take .real first, or .detach()")
        if dtype.kind not in "iub":
            raise TypeError(f"astype: {dtype} is not supported; use float64, float32, complex128, "
                            "complex64, an integer type or bool")
    return by_numpy(as_dtype, (t, dtype), {})


cdef Tensor cast_to(Tensor t, int code):
    """Record a floating tensor in another floating dtype; real ones get the real parts."""
    cdef fad_array *own
    cdef fad_array *arr = array_of(t, &own)
    cdef fad_array *out = fad_array_cast(arr, code)
    if own != NULL:
        fad_array_release(own)
    if out == NULL:
        fail(FAD_NOMEM, "astype")
    cdef Tensor y = adopt(out)
    record_pair(y, REAL if is_complex(t) and code <= FAD_F32 else CAST, t, None, None)
    return y


def as_dtype(x, dtype):
    """``np.astype``, of numbers too, which NumPy's function takes in some releases only."""
    return np.asarray(x).astype(dtype)


# ---- the Tensor type --------------------------------------------------------------------------


@cython.final
cdef class HookList:
    """What was registered on a tensor; owned by the tensor."""
    cdef dict functions             # in order of registration
    cdef bint retain
    cdef int next_key
    cdef HookBox box                # the tape's side of it, NULL for leaves

    def __cinit__(self):
        self.functions = {}


@cython.final
cdef class HookBox:
    """The tape's way to a node's hooks.

    While the tensor lives the tape must not own its hooks (a hook that refers to its tensor would
    keep both for ever), so `hooks` is borrowed; a dying tensor leaves them here in `kept`.
    """
    cdef PyObject *owner
    cdef PyObject *hooks
    cdef HookList kept
    cdef bint lost                  # the cycle collector took tensor and hooks together


class RemovableHandle:
    """What `register_hook` returns; `remove()` takes the hook off again."""
    __slots__ = ("_functions", "_key")

    def __init__(self, functions, key):
        self._functions = functions
        self._key = key

    def remove(self):
        self._functions.pop(self._key, None)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.remove()


class GradFn:
    """The primitive that made a tensor; it shows itself as ``<name>``."""
    __slots__ = ("name",)

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<{self.name}>"


cdef object getitem_ = None
cdef object setitem_ = None
cdef object sum_ = None
cdef object array_ufunc_ = None
cdef object array_function_ = None
cdef dict ufuncs_ = {}, functions_ = {}, whole_ = {}
cdef set own_way_ = set()


def register_methods(dict methods, getitem, setitem):
    """The floors above supply the methods that are not operators, and indexing."""
    global getitem_, setitem_, sum_
    cdef dict attributes = <dict>type_dict(<PyTypeObject *>Tensor)
    for name, function in methods.items():
        attributes.setdefault(name, function)
    PyType_Modified(<PyTypeObject *>Tensor)
    getitem_ = getitem
    setitem_ = setitem
    sum_ = methods["sum"]


cdef int floats_refused = 0         # contexts that are open in which float(t) would be an accident


def refuse_floats(int change):
    """Count the contexts that want ``float(t)`` refused where a gradient would be lost."""
    global floats_refused
    floats_refused += change


def register_protocols(array_ufunc, array_function, dict ufuncs, dict functions, set own_way,
                       dict whole):
    """The floors above supply NumPy's two protocols, and tables of what stands for its functions.

    Where no gradient is needed, functions of these tables are NumPy's own, but those in `own_way`.
    Those in `whole` are recorded as one node outside of traces, which take down what they consist
    of.
    """
    global array_ufunc_, array_function_, ufuncs_, functions_, own_way_, whole_
    whole_ = whole
    array_ufunc_ = array_ufunc
    array_function_ = array_function
    ufuncs_ = ufuncs
    functions_ = functions
    own_way_ = own_way


cdef object compare(object left, object right, int op):
    cdef double a, b
    cdef bint r
    if type(left) is Tensor and (<Tensor>left).arr == NULL:
        a = (<Tensor>left).value
        if type(right) is float:
            b = PyFloat_AS_DOUBLE(right)
        elif type(right) is int:
            b = PyLong_AsDouble(right)
        elif type(right) is Tensor and (<Tensor>right).arr == NULL:
            b = (<Tensor>right).value
        else:
            return compare_general(left, right, op)
        if op == Py_GT:
            r = a > b
        elif op == Py_LT:
            r = a < b
        elif op == Py_GE:
            r = a >= b
        elif op == Py_LE:
            r = a <= b
        elif op == Py_EQ:
            r = a == b
        else:
            r = a != b
        if fad_trace_id:
            guard_comparison(left, right, op, r)
        return True_ if r else False_
    return compare_general(left, right, op)


cdef tuple COMPARISONS = (np.less, np.less_equal, np.equal, np.not_equal, np.greater,
                          np.greater_equal)
# What a program computes without NumPy, of floats and bools: numbers of the core's enumeration.
cdef dict MASKS = {**{f: k for k, f in enumerate(COMPARISONS)},
                   np.logical_and: FAD_MASK_AND, np.bitwise_and: FAD_MASK_AND,
                   np.logical_or: FAD_MASK_OR, np.bitwise_or: FAD_MASK_OR,
                   np.logical_xor: FAD_MASK_XOR, np.bitwise_xor: FAD_MASK_XOR,
                   np.logical_not: FAD_MASK_NOT, np.invert: FAD_MASK_NOT, np.isnan: FAD_MASK_NAN,
                   np.isinf: FAD_MASK_INF, np.isfinite: FAD_MASK_FINITE,
                   np.signbit: FAD_MASK_SIGNBIT, np.any: FAD_MASK_ANY, np.all: FAD_MASK_ALL}


cdef object compare_general(object left, object right, int op):
    if not operand_like(left) or not operand_like(right):
        return NotImplemented
    cdef Tensor r
    try:
        r = by_numpy(COMPARISONS[op], (left, right), {})
    except (TypeError, ValueError) as error:
        raise type(error)(f"{COMPARISONS[op].__name__}: {error}") from None
    return look(r)[()] if r.arr.ndim == 0 else r


@cython.final
cdef class Tensor:
    """A number or an array of numbers that can be differentiated.

    Make one with :func:`fastad.tensor`.  Operators and NumPy's functions on tensors give tensors
    and, where an operand requires gradients, are recorded on the tape; ``backward()`` then fills
    ``.grad`` of the leaves.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(3.0, requires_grad=True)
    >>> y = x**3 + x**2
    >>> y.backward()
    >>> x.grad
    tensor(33.)
    """

    def __cinit__(self):
        # objects that Python code makes by Tensor.__new__ start like all others
        self.h.idx = FAD_NO_NODE
        self.h.slot = -1
        self.gc_tracked = True

    def __init__(self, *args, **kwargs):
        raise TypeError("Tensor: make tensors with fastad.tensor(data)")

    # -- operators --

    def __add__(left, right):
        return binary(FAD_OP_add, left, right)

    def __sub__(left, right):
        return binary(FAD_OP_subtract, left, right)

    def __mul__(left, right):
        return binary(FAD_OP_multiply, left, right)

    def __truediv__(left, right):
        return binary(FAD_OP_divide, left, right)

    def __floordiv__(left, right):
        return binary(FAD_OP_floor_divide, left, right)

    def __mod__(left, right):
        return binary(FAD_OP_remainder, left, right)

    def __divmod__(left, right):
        q = binary(FAD_OP_floor_divide, left, right)
        return q if q is NotImplemented else (q, binary(FAD_OP_remainder, left, right))

    def __pow__(left, right, modulus):
        if modulus is not None:
            raise TypeError("power: a modulus is not supported")
        return power(left, right)

    def __matmul__(left, right):
        if not operand_like(left) or not operand_like(right):
            return NotImplemented
        return c_matmul(floating(left), floating(right), False, False)

    def __neg__(self):
        return unary(FAD_OP_negative, self)

    def __pos__(self):
        return unary(FAD_OP_positive, self)

    def __abs__(self):
        return unary(FAD_OP_absolute, self)

    def __invert__(self):
        if is_float(self):
            raise TypeError("invert: ~ needs an integer or bool tensor, got " + str(self.dtype))
        return by_numpy(np.invert, (self,), {})

    def __and__(left, right):
        return bitwise(np.bitwise_and, left, right)

    def __or__(left, right):
        return bitwise(np.bitwise_or, left, right)

    def __xor__(left, right):
        return bitwise(np.bitwise_xor, left, right)

    def __lshift__(left, right):
        return bitwise(np.left_shift, left, right)

    def __rshift__(left, right):
        return bitwise(np.right_shift, left, right)

    def __iadd__(self, other):
        return in_place(self, binary(FAD_OP_add, self, other), "+=")

    def __isub__(self, other):
        return in_place(self, binary(FAD_OP_subtract, self, other), "-=")

    def __imul__(self, other):
        return in_place(self, binary(FAD_OP_multiply, self, other), "*=")

    def __itruediv__(self, other):
        return in_place(self, binary(FAD_OP_divide, self, other), "/=")

    def __ifloordiv__(self, other):
        return in_place(self, binary(FAD_OP_floor_divide, self, other), "//=")

    def __imod__(self, other):
        return in_place(self, binary(FAD_OP_remainder, self, other), "%=")

    def __ipow__(self, other):
        return in_place(self, power(self, other), "**=")

    def __imatmul__(self, other):
        return in_place(self, c_matmul(self, floating(other), False, False), "@=")

    def __iand__(self, other):
        return in_place(self, bitwise(np.bitwise_and, self, other), "&=")

    def __ior__(self, other):
        return in_place(self, bitwise(np.bitwise_or, self, other), "|=")

    def __ixor__(self, other):
        return in_place(self, bitwise(np.bitwise_xor, self, other), "^=")

    def __ilshift__(self, other):
        return in_place(self, bitwise(np.left_shift, self, other), "<<=")

    def __irshift__(self, other):
        return in_place(self, bitwise(np.right_shift, self, other), ">>=")

    def __richcmp__(self, other, int op):
        return compare(self, other, op)

    def __hash__(self):
        return <Py_ssize_t>(<void *>self) >> 4

    # -- conversion --

    def __bool__(self):
        if self.arr == NULL:
            if fad_trace_id:
                guard_comparison(self, 0.0, Py_NE, self.value != 0.0)
            return self.value != 0.0
        if self.arr.size != 1:
            raise ValueError(
                f"bool: the truth value of a tensor of shape {self.shape} is ambiguous; use .any() "
                "or .all()")
        return bool(look(self).item())

    def __float__(self):
        fresh(self)
        if floats_refused and active(self):
            raise TypeError(
                "float: inside adapt() a tensor that requires gradients does not become a number "
                "silently; use .item(), or .detach() first")
        return float(self.item())

    def __int__(self):
        if fad_trace_id and self.arr == NULL:
            return guard_truncation(self)
        return int(self.item())

    def __index__(self):
        if is_float(self):
            raise TypeError("index: only integer tensors can be an index, got " + str(self.dtype))
        return look(self).__index__()

    def __complex__(self):
        return complex(self.item())

    def __round__(self, ndigits=None):
        return round(self.item(), ndigits) if self.size == 1 else by_numpy(
            np.round, (self, ndigits or 0), {})

    def __len__(self):
        if self.arr == NULL or self.arr.ndim == 0:
            raise TypeError("len: of a 0-d tensor")
        return self.arr.shape[0]

    def __iter__(self):
        if self.arr == NULL or self.arr.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return map(self.__getitem__, range(self.arr.shape[0]))

    def __contains__(self, item):
        return bool(np.any(look(self) == (look(<Tensor>item) if type(item) is Tensor else item)))

    def __getitem__(self, index):
        y = number_at(self, index)
        return y if y is not None else getitem_(self, index)

    def __setitem__(self, index, value):
        if not set_number_at(self, index, value):
            setitem_(self, index, value)

    def __array__(self, dtype=None, copy=None):
        fresh(self)
        if active(self):
            refuse("NumPy reads the values of a tensor")
            raise TypeError(
                "array: this tensor requires gradients, which a NumPy array would drop; use "
                ".detach().numpy(), or fastad's function of the same name")
        if copy is False and dtype is not None and np.dtype(dtype) != self.dtype:
            raise ValueError("array: another dtype needs a copy")
        a = look(self)
        return a.astype(dtype or a.dtype) if copy or (dtype is not None) else a

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        fresh(self)
        if active(self):
            raise BufferError("buffer: this tensor requires gradients, which a buffer would drop; "
                              "use .detach()")
        # the buffer belongs to an array that keeps the values, whatever becomes of the tensor
        PyObject_GetBuffer(look(self), buffer, flags)

    __array_priority__ = 1000.0

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method == "__call__":
            if not kwargs:      # no Python between the caller and what may warn about his line
                f = ufuncs_.get(ufunc)
                if f is not None:
                    return f(*inputs)
        elif method != "at" and ufunc in ufuncs_:
            named = getattr(ufunc, method)
            y = by_value(named, inputs, kwargs)
            if y is NotImplemented:
                y = record_method(ufunc, method, named, inputs, kwargs)
            if y is not NotImplemented:
                return y
        return array_ufunc_(Tensor, ufunc, method, inputs, kwargs)

    def __array_function__(self, func, types, args, kwargs):
        if func in SHOWING:
            y = shown(func, args, kwargs)
            return y if y is not NotImplemented else array_function_(func, types, args, kwargs)
        if func in KEEPING and len(args) == 1 and not kwargs and type(args[0]) is Tensor and (
                args[0].ndim):
            return args[0]
        ours = functions_.get(func)
        if ours is not None:
            for kind in types:
                if kind is not Tensor and kind is not cnp.ndarray:
                    return array_function_(func, types, args, kwargs)
            if func not in own_way_:
                y = by_value(func, args, kwargs)
                if y is not NotImplemented:
                    return y
                if type(ours) is Stated:
                    y = record_stated(<Stated>ours, args, kwargs)
                    return (<Stated>ours)(*args, **kwargs) if y is NotImplemented else y
                if not fad_trace_id and "dtype" not in kwargs:
                    ours = whole_.get(func, ours)
                if type(ours) is Defined and not (kwargs and kwargs.get("out") is not None):
                    return record_value(<Defined>ours, func, args, kwargs)
            y = call_straight(func, args, kwargs)
            if y is not NotImplemented:
                return y
        return array_function_(func, types, args, kwargs)

    def item(self, *index):
        """The value, or that of an element, as a Python number; a tensor must have one element."""
        if index:
            return self.flat[index[0]].item() if len(index) == 1 and type(index[0]) is not tuple \
                else self[index if len(index) > 1 else index[0]].item()
        if fad_trace_id:
            look(self)
        if self.arr == NULL:
            return self.value
        if self.arr.size != 1:
            raise ValueError(f"item: only a tensor with one element, not of shape {self.shape}, is "
                             "a Python number; use .tolist()")
        return value_array(self).item()

    def tolist(self):
        """The value as a Python number or nested lists of them."""
        return look(self).tolist()

    def numpy(self):
        """The value as a read-only NumPy array (a snapshot: later updates do not show).

        Raises
        ------
        RuntimeError
            If the tensor requires gradients; ``t.detach().numpy()`` is the way then.
        """
        fresh(self)
        if active(self):
            refuse("NumPy reads the values of a tensor")
            raise RuntimeError("numpy: this tensor requires gradients, which a NumPy array would "
                               "drop; use .detach().numpy()")
        return look(self)

    def __repr__(self):
        a = look(self)
        options = np.get_printoptions()
        text = np.array2string(a, separator=", ", prefix="tensor(", suffix=")")
        rest = []
        if a.size > options["threshold"] or a.size == 0 and a.ndim != 1:
            rest.append(f"shape={self.shape}")
        if self.leaf_requires:
            rest.append("requires_grad=True")
        elif active(self):
            rest.append(f"grad_fn={self.grad_fn!r}")
        # the elements show these, if there are any
        if a.dtype != F64 and (a.size == 0 or a.dtype not in (C128, np.int64, np.bool_)):
            rest.append(f"dtype={a.dtype}")
        if not rest:
            return f"tensor({text})"
        end = ", ".join(rest) + ")"
        room = options["linewidth"] - len(text) + text.rfind("\n") + 1
        if text.rfind("\n") < 0:
            room -= len("tensor(")
        return f"tensor({text},{' ' if len(end) + 2 <= room else chr(10) + ' ' * 7}{end}"

    def __str__(self):
        return self.__repr__()

    def __format__(self, spec):
        if self.arr == NULL:
            return format(self.item(), spec)
        if self.arr.ndim == 0 or (spec and self.arr.size == 1):
            return format(self.item(), spec)
        try:
            return format(str(self), spec)
        except ValueError:
            raise TypeError(f"format: {spec!r} is for one number, and this tensor has shape "
                            f"{self.shape}; use .tolist() or numpy.array2string") from None

    def __reduce__(self):
        fresh(self)
        if active(self) and not self.leaf_requires:
            raise TypeError("pickle: only leaves can be pickled; use .detach()")
        return _rebuild, (np.array(look(self)), bool(self.leaf_requires))

    def __copy__(self):
        return self.clone()

    def __deepcopy__(self, memo):
        fresh(self)
        if active(self) and not self.leaf_requires:
            raise TypeError("deepcopy: only leaves can be copied deeply; use .detach() or +t")
        cdef Tensor t = _rebuild(np.array(look(self)), bool(self.leaf_requires))
        if self.grad_ is not None:
            t.grad = (<Tensor>self.grad_).detach()
        return t

    # -- what it is --

    @property
    def shape(self):
        """Lengths of the axes, a tuple; ``()`` for a number."""
        return shape_of(self)

    @property
    def ndim(self):
        """Number of axes."""
        return 0 if self.arr == NULL else self.arr.ndim

    @property
    def size(self):
        """Number of elements."""
        return 1 if self.arr == NULL else self.arr.size

    @property
    def dtype(self):
        """NumPy dtype of the elements."""
        if self.arr == NULL or self.arr.dtype == FAD_F64:
            return F64
        if self.arr.dtype < FAD_BOOL:
            return dtype_of(self.arr.dtype)
        return (<cnp.ndarray>self.arr.owner).dtype

    @property
    def itemsize(self):
        """Bytes per element."""
        return self.dtype.itemsize

    @property
    def nbytes(self):
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def T(self):
        """The tensor with its axes reversed."""
        cdef Tensor t = transpose(self)
        attach(t, self, np.transpose, NO_SHAPE, False)
        return t

    @property
    def real(self):
        """The real part, a view; of a real tensor the tensor itself."""
        return part_view(self, REAL_PART) if is_complex(self) else self

    @real.setter
    def real(self, value):
        self.real[...] = value

    @property
    def imag(self):
        """The imaginary part, a view; zeros for a real tensor."""
        if is_float(self):
            if is_complex(self):
                return part_view(self, IMAG_PART)
            if self.arr == NULL or self.arr.size < 8192:
                return zeros_like(self)
            return from_ndarray(np.zeros(self.shape, self.dtype), False)
        return by_numpy(np.zeros_like, (self,), {})

    @imag.setter
    def imag(self, value):
        if not is_complex(self):
            raise TypeError(f"imag: a tensor of dtype {self.dtype} has no imaginary part to set")
        self.imag[...] = value

    @property
    def is_leaf(self):
        """Whether the user made this tensor, rather than an operation that was recorded."""
        return not active(self) or bool(self.leaf_requires)

    @property
    def requires_grad(self):
        """Whether operations on this tensor are recorded."""
        return active(self)

    @requires_grad.setter
    def requires_grad(self, flag):
        self.requires_grad_(flag)

    def requires_grad_(self, flag=True):
        """Make this leaf collect gradients (or stop it); returns the tensor itself.

        Raises
        ------
        RuntimeError
            If the tensor is not floating, or not a leaf.
        """
        fresh(self)
        if not self.is_leaf:
            if flag:
                return self
            raise RuntimeError("requires_grad_: only a leaf can stop requiring gradients; use "
                               ".detach() on a result")
        if flag and not is_float(self):
            raise RuntimeError(f"requires_grad_: only floating tensors can require gradients, this "
                               f"one has dtype {self.dtype}; use astype(float) first")
        if flag and self.h.idx >= 0:
            activate(self)          # a value that a trace follows
        elif flag and not self.leaf_requires:
            status = fad_leaf_add(&tape, &self.h)
            if status:
                fail(status, "requires_grad_")
            self.leaf_requires = True
        elif not flag and self.leaf_requires:
            self.leaf_requires = False
            fad_leaf_drop(&tape, &self.h)
        return self

    @property
    def grad(self):
        """The accumulated gradient of this leaf (or retained one), or None."""
        return self.grad_

    @grad.setter
    def grad(self, value):
        if value is not None:
            if type(value) is not Tensor:
                raise TypeError(f"grad: wanted a Tensor or None, got {type(value).__name__}")
            if value.shape != self.shape:
                raise ValueError(f"grad: shape {value.shape} does not fit {self.shape}")
            if value.dtype != self.dtype:
                raise TypeError(f"grad: dtype {value.dtype} does not fit {self.dtype}; use astype")
            fad_tensor_track(self)
            fad_tensor_track(value)
            (<Tensor>value).gc_tracked |= FAD_TENSOR_GIVEN_AS_GRAD
        self.grad_ = value

    @grad.deleter
    def grad(self):
        self.grad_ = None

    @property
    def grad_fn(self):
        """The primitive that made this tensor, or None for a leaf."""
        cdef fad_index i
        cdef int op
        fresh(self)
        i = self.h.idx
        if self.leaf_requires or not active(self):
            return None
        if i < 0:
            return GradFn("consumed")
        op = tape.op[i] & FAD_OPCODE
        if op == FAD_OP_CALL:
            return GradFn((<object>fad_call_of(&tape, i).rule).name)
        if op == FAD_OP_positive and fad_trace_id and tracing().hands_out(tape.args[i].a):
            return GradFn("input")
        return GradFn(op_name(op))

    def detach(self):
        """The same value without history."""
        cdef Tensor t = bare(self)
        if fad_trace_id and tracked(self):
            follow(t, self)
        return t

    def clone(self):
        """A copy that is part of the graph."""
        return unary(FAD_OP_positive, self) if is_float(self) else self.detach()

    # -- gradients --

    def backward(self, gradient=None, retain_graph=None, create_graph=False, inputs=None):
        """Add the gradient of this tensor to ``.grad`` of the leaves it depends on.

        Parameters
        ----------
        gradient : Tensor or array, optional
            Cotangent of this tensor's shape; needed unless it is one real number.
        retain_graph : bool, optional
            Keep the graph for another sweep; by default it is freed unless `create_graph`.
        create_graph : bool
            Record the sweep itself, so that the gradient can be differentiated again.
        inputs : sequence of Tensor, optional
            Collect into these tensors only; hooks of what does not lead to them do not run.

        Raises
        ------
        RuntimeError
            If the tensor has no history, its graph was freed, or `gradient` is missing.
        ValueError
            If `gradient` has another shape.

        Examples
        --------
        >>> import fastad as ad
        >>> x = ad.tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        tensor([2., 4.])

        The gradient to a complex ``z = x + iy`` is ``dL/dx + i dL/dy``:

        >>> z = ad.tensor(3.0 + 4.0j, requires_grad=True)
        >>> abs(z).backward()
        >>> z.grad
        tensor(0.6+0.8j)
        """
        if inputs is not None:
            inputs = [inputs] if type(inputs) is Tensor else list(inputs)
            if not inputs:
                raise RuntimeError("backward: inputs must not be empty")
        if not create_graph and inputs is None:
            sweep(self, gradient, bool(retain_graph))
            return
        run_backward([self], [gradient], create_graph if retain_graph is None else retain_graph,
                     create_graph, inputs, True, True)

    def retain_grad(self):
        """Make this non-leaf tensor keep its gradient in ``.grad`` too."""
        fresh(self)
        if self.leaf_requires:
            return
        if self.h.idx < 0:
            raise RuntimeError("retain_grad: this tensor has no history to receive a gradient from")
        node_hooks(self).retain = True

    def register_hook(self, hook):
        """Call ``hook(gradient)`` when this tensor's gradient is known; it may return another one.

        Returns
        -------
        RemovableHandle
            ``remove()`` takes the hook off.
        """
        cdef HookList hooks
        if not callable(hook):
            raise TypeError(f"register_hook: wanted a function, got {type(hook).__name__}")
        fresh(self)
        if not active(self):
            raise RuntimeError("register_hook: this tensor does not require gradients")
        if self.h.idx == FAD_USED_UP:
            fail(FAD_CONSUMED, "register_hook")
        hooks = node_hooks(self)
        hooks.next_key += 1
        hooks.functions[hooks.next_key] = hook
        return RemovableHandle(hooks.functions, hooks.next_key)

    def sum(self, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
        """Sum over `axis`; see :func:`fastad.sum`."""
        if dtype is None and out is None and initial is None and where is True:
            return c_sum(self, axis, keepdims)
        return sum_(self, axis, dtype, out, keepdims, initial, where)


def _rebuild(value, requires):
    cdef Tensor t = wrap(value)
    return t.requires_grad_() if requires else t


cdef object bitwise(object ufunc, object left, object right):
    if not operand_like(left) or not operand_like(right):
        return NotImplemented
    try:
        return by_numpy(ufunc, (left, right), {})
    except TypeError:
        kinds = [x.dtype if type(x) is Tensor else np.asarray(x).dtype for x in (left, right)]
        raise TypeError(f"{ufunc.__name__}: needs integer or bool operands, got {kinds[0]} and "
                        f"{kinds[1]}") from None
    except ValueError as error:
        raise ValueError(f"{ufunc.__name__}: {error}") from None


cdef object in_place(Tensor t, object result, str symbol):
    """Make `t` the result of an operator; saved values are other buffers and stay as they were."""
    cdef Tensor r
    if result is NotImplemented:
        return result
    r = result
    check_writable(t, root_of(t), symbol)
    if shape_of(r) != shape_of(t):
        raise ValueError(f"{symbol}: the result has shape {shape_of(r)} and does not fit in place "
                         f"into {shape_of(t)}")
    if r.dtype != t.dtype:
        if not np.can_cast(r.dtype, t.dtype, "same_kind"):
            raise TypeError(f"{symbol}: cannot put {r.dtype} into a tensor of dtype {t.dtype}; "
                            "use astype first")
        r = astype(r, t.dtype)
    if t.aliased == IS_VIEW:
        assign(t, Ellipsis, r)
    else:
        become(t, r)
    return t


cdef HookList node_hooks(Tensor t):
    """The hooks of `t`, made and tied to its node when there are none yet."""
    cdef HookList hooks
    cdef HookBox box
    cdef fad_call *keeper
    if t.hooks is None:
        hooks = HookList.__new__(HookList)
        if not t.leaf_requires:
            box = HookBox.__new__(HookBox)
            box.owner = <PyObject *>t
            box.hooks = <PyObject *>hooks
            hooks.box = box
            keeper = fad_call_new(0)
            if keeper == NULL:
                fail(FAD_NOMEM, "register_hook")
            keeper.rule = <void *>box
            status = fad_hook_set(&tape, t.h.idx, keeper)
            if status:
                fad_free(keeper)
                fail(status, "register_hook")
            Py_INCREF(box)
        t.hooks = hooks
        fad_tensor_track(t)
    return <HookList>t.hooks


cdef void leave_hooks_of(PyObject *t) noexcept:
    leave_hooks(<Tensor>t)


cdef void lose_hooks_of(PyObject *t) noexcept:
    """The cycle collector clears a tensor whose hook alone referred to it."""
    cdef HookBox box = (<HookList>(<Tensor>t).hooks).box
    if box is not None and box.owner == t:
        box.owner = NULL
        box.hooks = NULL
        box.lost = bool((<HookList>(<Tensor>t).hooks).functions)


cdef void leave_hooks(Tensor t) noexcept:
    """The tensor goes; its node, which may be swept yet, keeps the hooks."""
    cdef HookList hooks = <HookList>t.hooks
    cdef HookBox box = hooks.box
    if box is None or box.owner != <PyObject *>t:
        return
    box.owner = NULL
    box.hooks = NULL
    if hooks.functions:
        hooks.box = None
        box.kept = hooks


def tensor(data, dtype=None, requires_grad=False):
    """Make a leaf tensor from a number, nested lists or an array; the data are copied.

    Parameters
    ----------
    data : number, sequence, array or Tensor
    dtype : NumPy dtype, optional
        float64 (the default for Python floats), float32, complex128, complex64, an integer type
        or bool.
    requires_grad : bool
        Whether ``backward()`` collects this tensor's gradient in ``.grad``.

    Raises
    ------
    TypeError
        If the data are not numbers of a supported dtype.
    RuntimeError
        If `requires_grad` is asked of integers.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.tensor([[1, 2], [3, 4]], dtype=float)
    tensor([[1., 2.],
            [3., 4.]])
    """
    cdef Tensor t
    if type(data) is float and dtype is None:
        t = <Tensor>fad_tensor_new()
        t.value = PyFloat_AS_DOUBLE(data)
    elif type(data) is Tensor:
        t = (<Tensor>data).detach()
        if dtype is not None:
            t = astype(t, dtype)
    elif dtype is None:
        t = wrap(data)
    else:
        a = np.asarray(data)
        if a.dtype == object or a.dtype.kind in "US":
            t = wrap(a)
        else:
            t = wrap(a.astype(dtype))
    if requires_grad:
        t.requires_grad_()
    return t


# ---- recording modes --------------------------------------------------------------------------


def set_recording(bint on):
    """Switch recording in this thread; returns what it was."""
    global fad_grad_off
    was = not fad_grad_off & 1
    fad_grad_off = (fad_grad_off & 2) | (0 if on else 1)
    if fad_watch and not fad_grad_off:
        fad_grad_off = 4
    return was


def is_grad_enabled():
    """Whether operations on tensors that require gradients are recorded in this thread."""
    return not fad_grad_off & 1


# ---- sweeps -----------------------------------------------------------------------------------


@cython.final
@cython.freelist(16)
cdef class Goals:
    """Where a sweep that wants gradients of some tensors only has to go."""
    cdef fad_goals found

    def __dealloc__(self):
        fad_free(self.found.at)


cdef Goals goals_of(list outputs, inputs):
    """The goals of a sweep from `outputs`, which have nodes, as `inputs` have."""
    cdef Goals goals = Goals.__new__(Goals)
    cdef int n = len(outputs), m = len(inputs), k
    cdef fad_status status
    cdef fad_index *node = <fad_index *>calloc(n + m + 1, sizeof(fad_index))
    if node == NULL:
        fail(FAD_NOMEM, "backward")
    for k in range(n):
        node[k] = (<Tensor>outputs[k]).h.idx
    for k in range(m):
        node[n + k] = (<Tensor>inputs[k]).h.idx
    status = fad_goals_find(&tape, node, n, node + n, m, &goals.found)
    free(node)
    if status:
        fail(status, "backward")
    return goals


cdef class SweepState:
    """What the callbacks of one sweep share."""
    cdef fad_sweep s
    cdef object error               # exception that a callback met
    cdef dict captures              # node -> position, for inputs that are not leaves
    cdef list captured
    cdef Goals goals                # of the sweep, or None
    cdef list retained              # (tensor, gradient) to commit
    cdef bint forward


cdef Tensor of_slot(bint is_array, fad_slot v):
    """Detached tensor of a node's value or adjoint."""
    cdef Tensor t = <Tensor>fad_tensor_new()
    if is_array:
        t.arr = fad_array_share(v.arr)
    else:
        t.value = v.f
    return t


cdef Tensor value_of(fad_index i):
    return of_slot((tape.op[i] & FAD_ARRAY) != 0, tape.value[i])


cdef int contribute(SweepState state, fad_index p, Tensor c) except -1:
    """Add c to the adjoint (or tangent) of node p, checked against p's value."""
    cdef fad_status status
    cdef fad_array *target = tape.value[p].arr if tape.op[p] & FAD_ARRAY else NULL
    if (tape.op[p] & FAD_OPCODE) == FAD_OP_FREED:
        status = fad_contribute(&tape, &state.s, p, 0.0)
    elif not alike(c, target):
        return contribute(state, p, fitting(c, p))
    elif c.arr == NULL:
        status = fad_contribute(&tape, &state.s, p, c.value)
    else:
        status = fad_contribute_array(&tape, &state.s, p, fad_array_share(c.arr))
    if status:
        fail(status, "backward")
    return 0


cdef int on_call(void *ctx, fad_sweep *s, fad_index i, fad_slot g) noexcept:
    cdef SweepState state = <SweepState>ctx
    cdef fad_call *call = fad_call_of(&tape, i)
    cdef fad_status status = FAD_OK
    cdef bint adds
    try:
        if call.rule == <void *>GET_NUMBER:
            status = push_number(s, call, i) if state.forward else pull_number(s, call, g.f)
        elif call.rule == <void *>SET_NUMBER or call.rule == <void *>ADD_NUMBER:
            adds = call.rule == <void *>ADD_NUMBER
            status = (push_put_number(s, call, i, adds) if state.forward
                      else pull_put_number(s, call, g.arr, adds))
        elif state.forward:
            push_call(state, i)
        else:
            pull_call(state, i, g)
        if status:
            fail(status, "backward")
    except BaseException as e:
        state.error = e
        return -1
    return 0


cdef object rule_of(fad_call *call):
    return <object>call.rule


cdef int pull_call(SweepState state, fad_index i, fad_slot g) except -1:
    """The VJP of a structured node, with recording off."""
    cdef fad_call *call = fad_call_of(&tape, i)
    cdef object rule = rule_of(call), params
    cdef Tensor gt, y
    cdef int k, n = call.n
    cdef tuple inputs, bars
    params = params_of(call)
    if rule is put_:
        return pull_put(state, call, g.arr, params)
    if rule is window_ and tape.op[i] & FAD_ARRAY and pull_window(state, call, g.arr, params):
        return 0
    if rule is MATMUL and tape.op[i] & FAD_ARRAY and pull_matrices(state, call, params, g.arr):
        return 0
    gt = of_slot((tape.op[i] & FAD_ARRAY) != 0, g)
    y = None if isinstance(rule, CoreRule) and not (<CoreRule>rule).reads_output else value_of(i)
    if n == 1 and not isinstance(rule, CoreRule) and accumulate_call(state, rule, gt, call, params):
        return 0
    if n == 1:
        inputs = (value_of(call.parent[0]),)
    elif n == 2:
        inputs = (value_of(call.parent[0]), value_of(call.parent[1]))
    else:
        inputs = tuple([value_of(call.parent[k]) for k in range(n)])
    bars = vjp_of(rule, gt, y, inputs, call, params, state.s.goals)
    for k in range(n):
        if bars[k] is not None and not fad_stops(&tape, call.parent[k]):
            contribute(state, call.parent[k], bars[k])
    return 0


cdef bint accumulate_call(SweepState state, object rule, Tensor g, fad_call *call,
                          dict params) except -1:
    """Let a rule add into the adjoint of its one input in place; False when it cannot.

    An entry read from a long array has a cotangent of one nonzero: building it whole for every
    read would make loops over x[i] quadratic.
    """
    cdef fad_index p = call.parent[0]
    cdef fad_array *zeros
    cdef fad_slot *bar
    cdef cnp.ndarray view
    accumulate = getattr(rule, "accumulate", None)
    if accumulate is None or not tape.op[p] & FAD_ARRAY or (
            (tape.op[p] & FAD_OPCODE) == FAD_OP_FREED):
        return False
    bar = &(state.s.own if state.s.own != NULL else tape.bar)[p]
    if bar.bits == FAD_UNTOUCHED:
        zeros = NULL
        if fad_fill(tape.value[p].arr.dtype, tape.value[p].arr.ndim, tape.value[p].arr.shape, 0.0,
                    &zeros):
            fail(FAD_NOMEM, "backward")
        status = fad_contribute_array(&tape, &state.s, p, zeros)
        if status:
            fail(status, "backward")
    elif bar.arr.refs > 1 or bar.arr.owner != NULL:
        return False
    view = view_of(bar.arr)
    cnp.PyArray_ENABLEFLAGS(view, cnp.NPY_ARRAY_WRITEABLE)
    accumulate(view, value_array(g), **params)
    return True


cdef bint leads_on(const fad_goals *goals, fad_index p) noexcept:
    """Whether a sweep wants the cotangent of node p."""
    return not fad_stops(&tape, p) and (goals == NULL or fad_goal(goals, p))


cdef tuple vjp_of(object rule, Tensor g, Tensor y, tuple inputs, fad_call *call, object params,
                  const fad_goals *goals):
    cdef int k
    if isinstance(rule, CoreRule) and type(rule) is not ComplexRow and type(rule) is not Matmul:
        return (<CoreRule>rule).pull(g, y, inputs, params)
    needs = tuple([leads_on(goals, call.parent[k]) for k in range(call.n)])
    if type(rule) is Matmul:
        return (<Matmul>rule).pull_some(g, inputs, params, needs[0], needs[1])
    if type(rule) is ComplexRow:
        return (<ComplexRow>rule).pull_some(g, y, inputs, needs)
    bars = rule.vjp(g, y, inputs, needs, **params)
    if type(bars) is not tuple or len(bars) != call.n:
        raise RuntimeError(f"{rule.name}: vjp must return a tuple of {call.n} cotangents")
    for k in range(call.n):
        if bars[k] is not None and type(bars[k]) is not Tensor:
            raise TypeError(f"{rule.name}: vjp returned {type(bars[k]).__name__} as cotangent {k}, "
                            "wanted a Tensor or None")
    return bars


cdef Tensor jvp_of(object rule, tuple tangents, Tensor y, tuple inputs, object params):
    """Tangent of a structured primitive; None stands for a tangent that is exactly zero."""
    if isinstance(rule, CoreRule):
        if len(tangents) == 1 and tangents[0] is None:
            return None
        return (<CoreRule>rule).push(tangents, y, inputs, params)
    if rule.linear and getattr(rule, "jvp", None) is None:
        full = tuple([t if t is not None else zeros_like(<Tensor>x)
                      for t, x in zip(tangents, inputs)])
        return apply(rule, full, params)
    return rule.jvp(tangents, y, inputs, **params)


cdef Tensor zeros_like(Tensor x):
    cdef Tensor t = <Tensor>fad_tensor_new()
    cdef fad_array *out = NULL
    if x.arr != NULL:
        if fad_fill(x.arr.dtype, x.arr.ndim, x.arr.shape, 0.0, &out):
            fail(FAD_NOMEM, "zeros")
        t.arr = out
    return t


cdef int push_call(SweepState state, fad_index i) except -1:
    cdef fad_call *call = fad_call_of(&tape, i)
    cdef list inputs = [], tangents = []
    cdef fad_index p
    cdef int k
    for k in range(call.n):
        p = call.parent[k]
        inputs.append(value_of(p))
        tangents.append(None if p < state.s.start or state.s.own[p].bits == FAD_UNTOUCHED else
                        of_slot((tape.op[p] & FAD_ARRAY) != 0, state.s.own[p]))
    params = params_of(call)
    t = jvp_of(rule_of(call), tuple(tangents), value_of(i), tuple(inputs), params)
    if t is not None:
        contribute(state, i, t)
    return 0


cdef object run_hooks(HookList hooks, Tensor g):
    """Pass a gradient through the hooks of a tensor."""
    cdef Tensor new
    for f in list(hooks.functions.values()):
        r = f(g)
        if r is None:
            continue
        if type(r) is not Tensor or r.shape != g.shape:
            raise TypeError("hook: wanted None or a Tensor of the gradient's shape "
                            f"{g.shape}, got {type(r).__name__}")
        new = r
        g = projected(new, g.dtype)
    return g


cdef HookList hooks_at(fad_index i):
    cdef fad_call *keeper = fad_hook_get(&tape, i)
    cdef HookBox box
    if keeper == NULL:
        return None
    box = <HookBox>keeper.rule
    if box.hooks != NULL:
        return <HookList>box.hooks
    if box.lost:
        raise RuntimeError(
            "hook: a tensor was collected together with its hook, because nothing but the hook "
            "referred to it; keep the tensor until the sweep, or let the hook not refer to it")
    return box.kept


cdef object hook_owner(fad_index i):
    cdef fad_call *keeper = fad_hook_get(&tape, i)
    cdef HookBox box
    if keeper == NULL:
        return None
    box = <HookBox>keeper.rule
    return None if box.owner == NULL else <object>box.owner


cdef int on_hook(void *ctx, fad_sweep *s, fad_index i, fad_slot *g) noexcept:
    """Captures, retained gradients and hooks of a node that is not a leaf."""
    cdef SweepState state = <SweepState>ctx
    cdef Tensor t, new
    cdef HookList hooks
    cdef fad_slot *slot
    cdef bint is_array = (tape.op[i] & FAD_ARRAY) != 0
    try:
        t = of_slot(is_array, g[0])
        hooks = hooks_at(i)
        if hooks is not None:
            if hooks.functions:
                new = run_hooks(hooks, t)
                if new is not t:
                    slot = &(state.s.own if state.s.own != NULL else tape.bar)[i]
                    if is_array:
                        fad_array_release(slot.arr)
                        slot.arr = fad_array_share(new.arr)
                    else:
                        slot.f = new.value + 0.0
                    t = new
            if hooks.retain:
                owner = hook_owner(i)
                if owner is not None:
                    if state.retained is None:
                        state.retained = []
                    state.retained.append((owner, t))
        if state.captures is not None and i in state.captures:
            state.captured[state.captures[i]] = t
    except BaseException as e:
        state.error = e
        return -1
    return 0


cdef int on_tick(void *ctx) noexcept:
    try:
        PyErr_CheckSignals()
    except BaseException as e:
        (<SweepState>ctx).error = e
        return -1
    return 0


cdef SweepState new_state():
    """A sweep to come.

    Make it first, then `reserve` room for the leaves, find the nodes, and begin: nothing may
    come between that could run foreign code, since a leaf's node has no handle to keep it.
    """
    cdef SweepState state = SweepState.__new__(SweepState)
    return state


cdef int begin(SweepState state, fad_index start, fad_index end) except -1:
    """Start the sweep; start and end bound a forward sweep and are 0 for a reverse one."""
    cdef fad_status status = fad_sweep_begin(&tape, &state.s, start, end)
    if status:
        fail(status, "backward")
    state.s.ctx = <void *>state
    state.s.on_call = on_call
    state.s.on_hook = on_hook
    state.s.on_tick = on_tick
    return 0


cdef int raise_of(SweepState state, fad_status status) except -1:
    error = state.error
    if status == FAD_CALLBACK and error is not None:
        state.error = None
        raise error
    return fail(status, "backward")


cdef Tensor leaf_tensor(int32_t slot):
    """The tensor of a leaf slot, None once it is gone."""
    cdef fad_handle *h = tape.leaf[slot].handle
    if h == NULL:
        return None
    return <Tensor><PyObject *>(<char *>h - handle_offset)


cdef Py_ssize_t handle_offset = 0


cdef int set_up_tensor_type() except -1:
    """Take over making and dropping tensors; see tensor_object.h."""
    global handle_offset
    cdef Tensor t = Tensor.__new__(Tensor)
    handle_offset = <char *>&t.h - <char *><PyObject *>t
    if fad_tensor_setup(<PyTypeObject *>Tensor, &tape, handle_offset, drain, leave_hooks_of,
                        lose_hooks_of):
        raise ImportError("fastad: Tensor has another layout than tensor_object.h expects")
    return 0


set_up_tensor_type()


cdef Tensor seed_for(Tensor y, object gradient):
    """The cotangent that a sweep from y starts with."""
    cdef Tensor g
    fresh(y)
    if not active(y):
        raise RuntimeError(
            "backward: this tensor has no history and does not require gradients; make a leaf with "
            "requires_grad=True before computing, or leave no_grad()")
    if gradient is None:
        if is_complex(y):
            raise RuntimeError(
                f"backward: a tensor of {y.dtype} needs a gradient; only for a real number is it "
                "implied (take .real or abs() first?)")
        if y.arr != NULL and y.arr.size != 1:
            raise RuntimeError(
                f"backward: a tensor of shape {shape_of(y)} needs a gradient of that shape; only "
                "for one element is it implied (take .sum() first?)")
        g = <Tensor>fad_tensor_new()
        g.value = 1.0
        if y.arr != NULL:
            g = astype(c_broadcast_to(g, shape_of(y)), y.dtype)
        return g
    g = floating(gradient)
    if alike(g, y.arr):
        return g
    if is_complex(g) and not is_complex(y):
        raise TypeError(f"backward: a gradient of {g.dtype} does not fit a tensor of {y.dtype}; "
                        "take its real part")
    if not is_float(g):
        g = astype(g, y.dtype)
    if shape_of(g) != shape_of(y):
        raise ValueError(f"backward: gradient of shape {shape_of(g)} does not fit the tensor's "
                         f"shape {shape_of(y)}")
    return g if g.dtype == y.dtype else astype(g, y.dtype)


cdef int check_not_consumed(Tensor y, str what) except -1:
    if y.h.idx == FAD_USED_UP or (
            y.h.idx >= 0 and (tape.op[y.h.idx] & FAD_OPCODE) == FAD_OP_FREED):
        fail(FAD_CONSUMED, what)
    return 0


cdef inline fad_index swept_node(Tensor y) noexcept:
    """The node that a sweep starts or ends at, whether or not recording is on.  Reserve 1."""
    return y.h.idx if y.h.idx >= 0 else node_slow(y)


cdef inline int seed_one(SweepState state, fad_index i, Tensor g) except -1:
    cdef fad_status status
    if g.arr == NULL:
        status = fad_contribute(&tape, &state.s, i, g.value)
    else:
        status = fad_contribute_array(&tape, &state.s, i, fad_array_share(g.arr))
    if status:
        fail(status, "backward")
    return 0


cdef inline void forget(Tensor y) noexcept:
    """Take the handle of a consumed output off the tape, so that the tape can shrink past it."""
    cdef fad_index i = y.h.idx
    if i >= 0 and y.h.slot < 0 and (tape.op[i] & FAD_OPCODE) == FAD_OP_FREED:
        fad_unlink(&tape, &y.h)
        y.h.idx = FAD_USED_UP


cdef int close(SweepState state, Tensor one, list outputs, bint consume) except -1:
    """End of a sweep that went well, from one tensor or several."""
    if consume:
        fad_consume(&tape, &state.s)
    fad_sweep_end(&tape, &state.s)
    if consume and tape.sweeping == 0:
        if one is not None:
            forget(one)
        else:
            for y in outputs:
                forget(<Tensor>y)
        fad_trim(&tape)
        tape.fresh = tape.n
    tidy()
    return 0


cdef object sweep(Tensor y, object gradient, bint retain):
    """backward() of one tensor into the leaves: the plain case, with little around it."""
    cdef SweepState state
    cdef Tensor g, t
    cdef fad_index i
    cdef fad_status status
    cdef int k
    cdef int was_off = fad_grad_off
    cdef list commits = []
    global fad_grad_off
    if fad_watch:
        return run_backward([y], [gradient], retain, False, None, True, True)
    refuse("backward() changes .grad")
    g = seed_for(y, gradient)
    check_not_consumed(y, "backward")
    state = new_state()
    reserve(1)
    i = swept_node(y)
    begin(state, 0, 0)
    fad_grad_off = 1
    try:
        state.s.consume = not retain
        seed_one(state, i, g)
        status = fad_reverse(&tape, &state.s)
        if status:
            raise_of(state, status)
        # Everything that can fail comes before the first change that can be seen.
        for k in range(state.s.leaf_n):
            t = leaf_tensor(state.s.leaves[k].slot)
            if t is None:
                continue
            g = of_slot(state.s.leaves[k].is_array, state.s.leaves[k].bar)
            if t.hooks is not None:
                g = run_hooks(<HookList>t.hooks, g).detach()
            commits.append(t)
            commits.append(accumulated(t, g))
        if state.retained is not None:
            for t, g in state.retained:
                commits.append(t)
                commits.append(accumulated(t, g.detach()))
    except BaseException:
        fad_grad_off = was_off
        fad_sweep_end(&tape, &state.s)
        tidy()
        raise
    fad_grad_off = was_off
    commit(commits)
    close(state, y, None, not retain)


cdef Tensor accumulated(Tensor t, Tensor g):
    """What .grad becomes when g is added to it."""
    if t.grad_ is None:
        # the adjoint's buffer is ours alone unless the sweep shared it
        return g
    return binary(FAD_OP_add, t.grad_, g)


cdef int commit(list commits) except -1:
    """Store new gradients: tensor, its .grad to be, tensor, ..."""
    cdef Tensor t, g, old
    cdef fad_array *arr
    cdef Py_ssize_t k
    for k in range(0, len(commits), 2):
        t = <Tensor>commits[k]
        g = <Tensor>commits[k + 1]
        if t.grad_ is None:
            t.grad_ = g
            fad_tensor_track(t)
            continue
        old = <Tensor>t.grad_
        if active(g) or active(old) or old.aliased or old.gc_tracked & FAD_TENSOR_GIVEN_AS_GRAD:
            t.grad_ = g             # what the user gave may be .grad of another leaf too
            continue
        # PyTorch's rule: .grad stays the same object and is added to
        old.value = g.value
        arr = old.arr
        old.arr = NULL if g.arr == NULL else fad_array_share(g.arr)
        if arr != NULL:
            fad_array_release(arr)
    return 0


def run_backward(list outputs, list gradients, bint retain, bint create_graph, inputs,
                 bint accumulate, bint allow_unused):
    """The general sweep behind backward() and autograd.grad().

    Returns the list of gradients of `inputs` (None where unused), or None without inputs.
    """
    cdef Tensor y, t, g
    cdef list seeds = [seed_for(y, s) for y, s in zip(outputs, gradients)]
    cdef list results = None, commits = []
    for x in inputs or ():
        if type(x) is not Tensor:
            raise TypeError(f"backward: inputs must be Tensors, got {type(x).__name__}")
        t = x
        fresh(t)
        if not active(t):
            raise RuntimeError("backward: one of the inputs does not require gradients")
        check_not_consumed(t, "backward")
    for y in outputs:
        check_not_consumed(y, "backward")
    if fad_trace_id and accumulate:
        refuse("backward() changes .grad")
    if create_graph or (fad_trace_id and not accumulate) or fad_watch:
        if fad_trace_id:
            outputs = [shadow_of(y) for y in outputs]
            inputs = None if inputs is None else [shadow_of(t) for t in inputs]
        if fad_trace_id and inputs is not None:
            pairs, results, goals = [], trace_sweep(outputs, seeds, inputs), None
        else:
            pairs, results, goals = graph_sweep(outputs, seeds, inputs)
        if not create_graph:
            pairs = [(t, g.detach()) for t, g in pairs]
            results = results and [None if g is None else g.detach() for g in results]
        if not allow_unused:
            check_used(results)
        if not retain:
            release_graph(outputs, goals)
    else:
        pairs, results = plain_sweep(outputs, seeds, retain, inputs, allow_unused)
    if accumulate:
        for t, g in pairs:
            # a tensor of its own for every .grad: it is added to in place later
            commits.append(t)
            commits.append(accumulated(t, unary(FAD_OP_positive, g) if active(g) else g.detach()))
        commit(commits)
    return results


cdef int check_used(list results) except -1:
    """Raise when an input has no gradient; before anything is consumed."""
    if results is None:
        return 0
    for k, g in enumerate(results):
        if g is None:
            raise RuntimeError(
                f"grad: input {k} was not used to compute the outputs; pass allow_unused=True "
                "for None instead")
    return 0


cdef tuple plain_sweep(list outputs, list seeds, bint retain, object inputs, bint allow_unused):
    """Reverse sweep in the core; (what to accumulate, gradients of inputs)."""
    cdef SweepState state
    cdef Tensor t, y, g
    cdef fad_index i
    cdef fad_status status
    cdef int k
    cdef int was_off = fad_grad_off
    cdef list pairs = [], hooked = []
    cdef dict leaves = {}
    global fad_grad_off
    state = new_state()
    reserve(<fad_index>(len(outputs) + (0 if inputs is None else len(inputs))))
    for y in outputs:
        swept_node(y)
    for t in inputs or ():
        swept_node(t)
    if inputs is not None:
        state.goals = goals_of(outputs, inputs)
    begin(state, 0, 0)
    if inputs is not None:
        state.s.goals = &state.goals.found
    fad_grad_off = 1
    try:
        state.s.consume = not retain
        if inputs is not None:
            state.captures = {}
            state.captured = []
            # hooks may change the inputs: what is asked for is what they are now
            places = [((<Tensor>t).h.slot, (<Tensor>t).h.idx) for t in inputs]
            for t in inputs:
                if t.h.slot >= 0:
                    leaves[t.h.slot] = None
                    continue
                if t.h.idx not in state.captures:
                    state.captures[t.h.idx] = len(state.captured)
                    state.captured.append(None)
                if not tape.op[t.h.idx] & FAD_HOOK:
                    tape.op[t.h.idx] |= FAD_HOOK
                    hooked.append(t.h.idx)
        for y, g in zip(outputs, seeds):
            seed_one(state, y.h.idx, g)
        status = fad_reverse(&tape, &state.s)
        if status:
            raise_of(state, status)
        for k in range(state.s.leaf_n):
            slot = state.s.leaves[k].slot
            t = leaf_tensor(slot)
            if t is None or (inputs is not None and slot not in leaves):
                continue
            g = of_slot(state.s.leaves[k].is_array, state.s.leaves[k].bar)
            if t.hooks is not None:
                g = run_hooks(<HookList>t.hooks, g)
            leaves[slot] = g
            pairs.append((t, g))
        results = None
        if inputs is not None:
            results = [leaves[slot] if slot >= 0 else state.captured[state.captures[idx]]
                       for slot, idx in places]
            if not allow_unused:
                check_used(results)
            pairs += [(t, g) for t, g, (slot, _) in zip(inputs, results, places)
                      if slot < 0 and g is not None]
        if state.retained is not None:
            pairs += state.retained
    except BaseException:
        fad_grad_off = was_off
        for i in hooked:
            if fad_hook_get(&tape, i) == NULL:
                tape.op[i] &= <uint16_t>~FAD_HOOK
        fad_sweep_end(&tape, &state.s)
        tidy()
        raise
    fad_grad_off = was_off
    for i in hooked:
        if fad_hook_get(&tape, i) == NULL:
            tape.op[i] &= <uint16_t>~FAD_HOOK
    close(state, None, outputs, not retain)
    return pairs, results


# ---- sweeps that record themselves ------------------------------------------------------------


cdef dict FORMULA_NAMES = {}
cdef dict FORMULA_OPS = {}          # the same names -> opcodes
cdef dict FORMULA_CODE = {}         # (op, side) -> (code, set of names), or a number


cdef object formula(int op, int side):
    """The partial of a row as Python code over Tensors, or a float when it is just a number."""
    key = op * 4 + side
    found = FORMULA_CODE.get(key)
    if found is None:
        text = fad_row_of(op).partial[side].decode()
        if text in ("0.0", "1.0", "-1.0"):
            found = float(text)
        else:
            code = compile(text, f"<partial {side} of {op_name(op)}>", "eval")
            found = (code, frozenset(code.co_names))
        FORMULA_CODE[key] = found
    return found


cdef class GraphSweep:
    """Nodes as tensors that record, each made once per sweep."""
    cdef dict made

    def __cinit__(self):
        self.made = {}

    cdef Tensor tensor_of(self, fad_index i):
        cdef Tensor t = self.made.get(i)
        cdef unsigned w = tape.op[i], op = w & FAD_OPCODE
        if t is not None:
            return t
        if op == FAD_OP_LEAF:
            t = leaf_tensor(tape.args[i].a)
            if t is not None and t.h.idx == i:
                self.made[i] = t
                return t
        if op == FAD_OP_FREED:
            fail(FAD_CONSUMED, "backward")
        t = value_of(i)
        if (op != FAD_OP_CONST or w & FAD_PASSIVE) and fad_grad_off != 1:
            # a second handle of a node is a new node that passes everything on
            reserve(1)
            if w & FAD_ARRAY:
                fad_link(&tape, &t.h, fad_push_array_slow(
                    &tape, FAD_OP_positive, i, 0, fad_array_share(t.arr)))
            else:
                fad_link(&tape, &t.h, fad_push(&tape, FAD_OP_positive, i, 0, t.value))
            if fad_grad_off:
                note(t)
        self.made[i] = t
        return t

    cdef object partial(self, int op, int side, fad_index *parent, int arity, fad_index i):
        """Partial of node i to one parent: a Tensor, or a float."""
        found = formula(op, side)
        if type(found) is float:
            return found
        code, names = found
        if fad_trace_id and "where" in names:
            return self.partial_call(op, side, parent, arity, i)
        scope = {}
        if "y" in names:
            scope["y"] = self.tensor_of(i)
        for k in range(arity):
            name = "x" if arity == 1 else "abc"[k]
            if name in names:
                scope[name] = self.tensor_of(parent[k])
        return eval(code, FORMULA_NAMES, scope)

    cdef Tensor partial_call(self, int op, int side, fad_index *parent, int arity, fad_index i):
        """As partial, for a formula that chooses: one node, whose choice follows the values."""
        cdef list inputs = [None] * 4
        cdef int k
        for k in range(3):
            inputs[k] = self.tensor_of(parent[k]) if k < arity else scalar_constant(0.0)
        inputs[3] = self.tensor_of(i)
        for k in range(4):          # what the formula does not read may be gone, but for its shape
            if (<Tensor>inputs[k]).arr != NULL and (<Tensor>inputs[k]).arr.hollow:
                inputs[k] = zeros_like(<Tensor>inputs[k])
        return apply_partial(partial_rule(op, side), tuple(inputs))

    cdef Tensor times(self, Tensor g, object partial, fad_index p):
        """Contribution g * partial, in the shape and dtype of node p."""
        cdef Tensor v
        if type(partial) is float and partial == 1.0:
            v = g
        elif type(partial) is float and partial == -1.0:
            v = unary(FAD_OP_negative, g)
        elif type(partial) is float and partial == 0.0:
            v = zeros_like(g)
        else:
            v = binary(FAD_OP_zmul, g, partial)
        return self.fit(v, p)

    cdef Tensor fit(self, Tensor v, fad_index p):
        cdef Tensor like = value_of(p)
        if shape_of(v) != shape_of(like):
            v = c_sum_to(v, shape_of(like))
        return projected(v, like.dtype)


cdef int parents(fad_index i, fad_index *out) noexcept:
    """Parents of an elementwise node; returns how many."""
    cdef int op = tape.op[i] & FAD_OPCODE, k
    cdef fad_call *call
    if op <= FAD_OP_LAST_OWNING:
        call = fad_call_of(&tape, i)
        for k in range(3):
            out[k] = call.parent[k]
        return 3
    out[0] = tape.args[i].a
    out[1] = tape.args[i].b
    return 2 if op >= FAD_OP_FIRST_BINARY else 1


cdef bint is_const(fad_index p) noexcept:
    return fad_stops(&tape, p)


cdef tuple graph_sweep(list outputs, list seeds, object inputs):
    """Reverse sweep written in recorded operations."""
    cdef GraphSweep sweeper = GraphSweep()
    cdef Goals found_goals = None
    cdef const fad_goals *goals = NULL
    cdef dict bars = {}, wanted = {}, leaves = {}
    cdef list pairs = [], found = [], retained = []
    cdef fad_index parent[3]
    cdef fad_index i, before
    cdef fad_call *call
    cdef HookList hooks
    cdef Tensor y, g, t
    cdef int k, n, op
    cdef Py_ssize_t visited = 0
    cdef list pending
    cdef int was_off = fad_grad_off, was_quiet = fad_quiet
    global fad_grad_off, fad_quiet
    reserve(<fad_index>(len(outputs) + (0 if inputs is None else len(inputs))))
    for y in outputs:
        swept_node(y)
    for t in inputs or ():
        swept_node(t)
    if inputs is not None:
        found_goals = goals_of(outputs, inputs)
        goals = &found_goals.found
    tape.sweeping += 1      # from here on nothing is moved or dropped: the leaves' nodes stay
    fad_grad_off &= 2
    fad_quiet = 1
    try:
        for y, g in zip(outputs, seeds):
            i = y.h.idx
            bars[i] = g if i not in bars else binary(FAD_OP_add, bars[i], g)
        if inputs is not None:
            # hooks may change the inputs: what is asked for is what they are now
            places = [((<Tensor>t).h.slot, (<Tensor>t).h.idx) for t in inputs]
            wanted = {idx: None for slot, idx in places if slot < 0}
        seeded = set(bars) if fad_watch else ()
        pending = [-i for i in bars]        # a heap: the latest node comes first
        heapify(pending)
        while pending:
            i = -heappop(pending)
            visited += 1
            if visited & 0xfff == 0:
                PyErr_CheckSignals()
            g = bars.pop(i)
            op = tape.op[i] & FAD_OPCODE
            if not leads_on(goals, i):
                continue
            before = tape.n
            if fad_watch and not finite(g) and i not in seeded:
                raise_anomaly(i, -2, g)
            if op == FAD_OP_FREED:
                fail(FAD_CONSUMED, "backward")
            if op == FAD_OP_LEAF:
                t = leaf_tensor(tape.args[i].a)
                if t is not None:
                    k = t.h.slot
                    leaves[k] = (t, g) if k not in leaves else (
                        t, binary(FAD_OP_add, leaves[k][1], g))
                continue
            hooks = hooks_at(i) if tape.op[i] & FAD_HOOK else None
            if hooks is not None:
                g = run_hooks(hooks, g)
                if (tape.op[i] & FAD_OPCODE) == FAD_OP_FREED:
                    fail(FAD_CONSUMED, "backward")
                if hooks.retain and hook_owner(i) is not None:
                    retained.append((hook_owner(i), g))
            if i in wanted:
                wanted[i] = g
                if not fad_goal(goals, i) & FAD_GOAL_ON:
                    continue
            if op == FAD_OP_CALL:
                call = fad_call_of(&tape, i)
                n = call.n
                if call.rule == <void *>GET_NUMBER and call.parent[0] in bars:
                    t = bars.pop(call.parent[0])
                    bars[call.parent[0]] = c_put_number(ADD_NUMBER, t, g, call.at)
                    continue
                params = params_of(call)
                found = list(vjp_of(rule_of(call), g, sweeper.tensor_of(i), tuple(
                    [sweeper.tensor_of(call.parent[k]) for k in range(n)]), call, params, goals))
                derive_places(before, i)
                for k in range(n):
                    if found[k] is not None and leads_on(goals, call.parent[k]):
                        t = fitting(found[k], call.parent[k])
                        if fad_watch:
                            check_cotangent(i, k, g, t)
                        add_bar(bars, pending, call.parent[k], t)
                found, t = [], None     # a cotangent that nobody holds is changed in place
                continue
            n = parents(i, parent)
            for k in range(n):
                if not leads_on(goals, parent[k]):
                    continue
                t = sweeper.times(g, sweeper.partial(op, k, parent, n, i), parent[k])
                if fad_watch:
                    check_cotangent(i, k, g, t)
                add_bar(bars, pending, parent[k], t)
            derive_places(before, i)
        results = None
        for k in list(leaves):
            t, g = leaves[k]
            if inputs is not None and not any([t is x for x in inputs]):
                continue
            if t.hooks is not None:
                g = run_hooks(<HookList>t.hooks, g)
                leaves[k] = (t, g)
            pairs.append((t, g))
        if inputs is not None:
            results = []
            for t, (slot, idx) in zip(inputs, places):
                if slot >= 0:
                    results.append(leaves[slot][1] if slot in leaves else None)
                else:
                    results.append(wanted[idx])
                    if wanted[idx] is not None:
                        pairs.append((t, wanted[idx]))
        return pairs + retained, results, found_goals
    finally:
        fad_grad_off = was_off
        fad_quiet = was_quiet
        fad_leave(&tape)
        tidy()


cdef Tensor fitting(Tensor c, fad_index p):
    """A cotangent from a structured primitive, which must have the shape of node p."""
    cdef Tensor v = value_of(p)
    if shape_of(c) != shape_of(v):
        raise ValueError(f"cotangent of shape {shape_of(c)} for a value of shape {shape_of(v)}")
    return projected(c, v.dtype)


cdef int add_bar(dict bars, list pending, fad_index p, Tensor c) except -1:
    have = bars.get(p)
    if have is not None:
        bars[p] = binary(FAD_OP_add, have, c)
    else:
        bars[p] = c
        heappush(pending, -p)
    return 0


cdef int release_graph(list outputs, Goals goals) except -1:
    """Consume what the outputs reach, or what leads to goals, without computing."""
    cdef Tensor y
    cdef fad_index i
    if tape.sweeping:
        return 0                # an outer sweep may still need it; compaction comes later
    if goals is not None:
        fad_release_goals(&tape, &goals.found)
    for y in outputs:
        i = y.h.idx
        if i >= 0 and goals is None:
            fad_release(&tape, &i, 1)
    for y in outputs:
        forget(y)
    fad_trim(&tape)
    tape.fresh = tape.n
    tidy()
    return 0


# ---- forward mode -----------------------------------------------------------------------------


cdef enum:
    NOBODY, ANOTHER_LEAF, ANOTHER_HANDLE


def depends_on_others(list outputs, list inputs, list handed):
    """Who else, besides the function that was `handed` these tensors, may need the graph of
    `outputs`, followed to `inputs`.

    1: a living leaf is reached by a path that does not start at `inputs`.  2: that is not so, but
    somebody holds a tensor of the graph, and may follow it once more.  0: nobody.
    """
    if fad_trace_id:
        return ANOTHER_LEAF         # the trace takes down everything
    for t in outputs + inputs:
        fresh(<Tensor>t)
    return walk_down(outputs, {(<Tensor>t).h.idx for t in inputs if (<Tensor>t).h.slot < 0},
                     {(<Tensor>t).h.slot for t in inputs if (<Tensor>t).h.slot >= 0}, False,
                     inputs + handed)


cdef bint is_held(const char *reached, fad_index low, fad_index top, list own) except -1:
    """Whether a tensor not in `own` is alive whose node is reached.

    The later a handle was linked, the higher its node.
    """
    cdef fad_handle *h = tape.live.next
    cdef Tensor t
    while h != &tape.live and (h.idx < 0 or h.idx >= low):
        if 0 <= h.idx <= top and reached[h.idx]:
            t = <Tensor><PyObject *>(<char *>h - handle_offset)
            if not any([t is x for x in own]):
                return True
        h = h.next
    return False


cdef int walk_down(list outputs, set own, set slots, bint consumed,
                   list inputs=None) except -1:
    """Whether `outputs` reach a living leaf outside `slots`, or (consumed) a consumed node; the
    walk stops at the nodes in `own`.  With `inputs`, ANOTHER_HANDLE if a third party holds a node.
    """
    cdef fad_index i
    cdef fad_index parent[3]
    cdef fad_call *call
    cdef int k, n, op
    cdef char *reached
    cdef fad_index low = 0x7fffffff, top = -1
    for y in outputs:
        i = (<Tensor>y).h.idx
        if i >= 0:
            low, top = min(low, i), max(top, i)
    if top < 0:
        return False
    reached = <char *>calloc(top + 1, 1)
    if reached == NULL:
        fail(FAD_NOMEM, "grad")
    try:
        for y in outputs:
            if (<Tensor>y).h.idx >= 0:
                reached[(<Tensor>y).h.idx] = 1
        i = top
        while i >= low:
            if reached[i] and not (own and i in own):
                op = tape.op[i] & FAD_OPCODE
                if op == FAD_OP_FREED and consumed:
                    return True
                if op == FAD_OP_LEAF and not consumed:
                    k = tape.args[i].a
                    if tape.leaf[k].handle != NULL and k not in slots:
                        return True
                elif op == FAD_OP_CALL:
                    call = fad_call_of(&tape, i)
                    for k in range(call.n):
                        reached[call.parent[k]] = 1
                        low = min(low, call.parent[k])
                elif op > FAD_OP_LEAF:
                    n = parents(i, parent)
                    for k in range(n):
                        reached[parent[k]] = 1
                        low = min(low, parent[k])
            i -= 1
        if inputs is not None and is_held(reached, low, top, outputs + inputs):
            return ANOTHER_HANDLE
        return NOBODY
    finally:
        free(reached)


def run_forward(list outputs, list inputs, list tangents, bint create_graph):
    """Tangents of `outputs` (None: exactly zero) for `tangents` of `inputs`, up the tape."""
    cdef SweepState state
    cdef Tensor t, y, d
    cdef fad_index i, low = 0x7fffffff, top = -1
    cdef fad_status status
    cdef int was_off = fad_grad_off
    cdef list seeds = []
    global fad_grad_off
    cdef bint keep = create_graph
    for t in outputs + inputs + tangents:
        fresh(t)
    if fad_trace_id:
        outputs = [shadow_of(y) for y in outputs]
        inputs = [shadow_of(t) for t in inputs]
        create_graph = True
    for t, d in zip(inputs, tangents):
        if shape_of(t) != shape_of(d):
            raise ValueError(f"jvp: tangent of shape {shape_of(d)} for a primal of shape "
                             f"{shape_of(t)}")
        if is_complex(d) and not is_complex(t):
            raise TypeError(f"jvp: a tangent of {d.dtype} does not fit a primal of {t.dtype}; take "
                            "its real part")
        seeds.append(astype(d, t.dtype))
        check_not_consumed(t, "jvp")
    for y in outputs:
        check_not_consumed(y, "jvp")
    if walk_down(outputs, {(<Tensor>t).h.idx for t in inputs}, set(), True):
        fail(FAD_CONSUMED, "jvp")
    state = new_state()
    reserve(<fad_index>len(inputs))
    for t in inputs:
        swept_node(t)
    for y in outputs:
        top = max(top, y.h.idx)
    for t in inputs:
        low = min(low, t.h.idx)
    if top < low:
        return [None] * len(outputs)
    tape.sweeping += 1      # from here on nothing is moved or dropped: the leaves' nodes stay
    try:
        if create_graph:
            fad_grad_off &= 2
            if fad_trace_id:
                result = trace_forward(outputs, inputs, seeds, low, top)
            else:
                result = graph_forward(outputs, inputs, seeds, low, top)
            return result if keep else [None if d is None else d.detach() for d in result]
        fad_grad_off = 1
        begin(state, low, top + 1)
        state.forward = True
        try:
            for t, d in zip(inputs, seeds):
                if t.h.idx <= top:      # nothing depends on the others
                    seed_one(state, t.h.idx, d)
            status = fad_forward(&tape, &state.s, low, top)
            if status:
                raise_of(state, status)
            result = []
            for y in outputs:
                i = y.h.idx
                if i < low or state.s.own[i].bits == FAD_UNTOUCHED:
                    result.append(None)
                else:
                    result.append(of_slot((tape.op[i] & FAD_ARRAY) != 0, state.s.own[i]))
            return result
        finally:
            fad_sweep_end(&tape, &state.s)
    finally:
        fad_grad_off = was_off
        fad_leave(&tape)
        fad_trim(&tape)
        tidy()


cdef list graph_forward(list outputs, list inputs, list tangents, fad_index low, fad_index top):
    """Forward sweep written in recorded operations."""
    cdef GraphSweep sweeper = GraphSweep()
    cdef dict dots = {}
    cdef fad_index parent[3]
    cdef fad_index i
    cdef fad_call *call
    cdef Tensor t, d, dot
    cdef int k, n, op
    for t, d in zip(inputs, tangents):
        dots[t.h.idx] = d if t.h.idx not in dots else binary(FAD_OP_add, dots[t.h.idx], d)
    for i in range(low, top + 1):
        if i & 0xffff == 0:
            PyErr_CheckSignals()
        op = tape.op[i] & FAD_OPCODE
        if op <= FAD_OP_LEAF or i in dots or is_const(i):
            continue
        if op == FAD_OP_CALL:
            call = fad_call_of(&tape, i)
            some = tuple([dots.get(call.parent[k]) for k in range(call.n)])
            if any([x is not None for x in some]):
                params = params_of(call)
                d = jvp_of(rule_of(call), some, sweeper.tensor_of(i), tuple(
                    [sweeper.tensor_of(call.parent[k]) for k in range(call.n)]), params)
                if d is not None:
                    dots[i] = d
            continue
        n = parents(i, parent)
        dot = None
        for k in range(n):
            d = dots.get(parent[k])
            if d is None or is_const(parent[k]):
                continue
            d = push_forward(sweeper, d, sweeper.partial(op, k, parent, n, i), i)
            dot = d if dot is None else binary(FAD_OP_add, dot, d)
        if dot is not None:
            dots[i] = dot
    return [dots.get((<Tensor>y).h.idx) for y in outputs]


cdef Tensor push_forward(GraphSweep sweeper, Tensor d, object partial, fad_index i):
    """d * partial in the shape of node i."""
    cdef Tensor like = value_of(i), v
    if type(partial) is float and partial == 1.0:
        v = d
    elif type(partial) is float and partial == -1.0:
        v = unary(FAD_OP_negative, d)
    elif type(partial) is float and partial == 0.0:
        return zeros_like(like)
    else:
        v = binary(FAD_OP_zmul, d, partial)
    if shape_of(v) != shape_of(like):
        v = c_broadcast_to(v, shape_of(like))
    return projected(v, like.dtype)


# ---- the elementwise functions ----------------------------------------------------------------


cdef list DOCS = []             # keeps the text that the method table points to


cdef object make_function(const fad_row *row):
    cdef PyMethodDef *entry = <PyMethodDef *>calloc(1, sizeof(PyMethodDef))
    cdef tuple names = ("x",) if row.arity == 1 else ("a", "b", "c")[:row.arity]
    if entry == NULL:
        raise MemoryError("fastad: out of memory at import")
    args = ", ".join(names)
    name = row.name.decode()
    numpy_name = row.numpy.decode()
    like = (f"The values are those of ``numpy.{numpy_name}``." if numpy_name else
            f"The value is ``{row.primal.decode()}``.")
    at = [round(0.5 * (row.lo[k] + row.hi[k]), 1) for k in range(row.arity)]
    value = (fad_eval1(row.op, at[0]) if row.arity == 1 else fad_eval2(row.op, at[0], at[1])
             if row.arity == 2 else fad_eval3(row.op, at[0], at[1], at[2]))
    example = ", ".join([repr(v) for v in at])
    partials = "\n".join([f"    dy/d{names[k]} = {row.partial[k].decode()}"
                          for k in range(row.arity)])
    doc = (f"{name}({args}, /)\n--\n\n"
           f"Elementwise ``{name}`` of tensors, numbers or arrays that broadcast.\n\n"
           f"{like}  With ``y`` the result, the derivatives are::\n\n{partials}\n\n"
           f"Examples\n--------\n>>> import fastad as ad\n>>> ad.{name}({example}).item()\n"
           f"{value!r}\n")
    DOCS.append((name.encode(), doc.encode()))
    entry.ml_name = <const char *>(<bytes>DOCS[-1][0])
    entry.ml_doc = <const char *>(<bytes>DOCS[-1][1])
    entry.ml_meth = <void *>call_row
    entry.ml_flags = METH_FASTCALL | METH_KEYWORDS
    return PyCFunction_NewEx(entry, row.op, "fastad")


cdef tuple LOOP_TYPES = ((FAD_F64, cnp.NPY_DOUBLE), (FAD_F32, cnp.NPY_FLOAT),
                         (FAD_C128, cnp.NPY_CDOUBLE), (FAD_C64, cnp.NPY_CFLOAT))


cdef object take_loops():
    """Hand NumPy's inner loops to the core."""
    cdef const fad_row *row
    cdef fad_loop loop
    cdef void *data
    cdef int r
    for r in range(fad_row_count):
        row = &fad_rows[r]
        name = row.numpy.decode()
        if not name:
            continue
        found = getattr(np, name, None)
        if name == "clip":
            found = np._core.umath.clip
        UFUNCS[row.op] = found
        if type(found) is np.ufunc:
            for dtype, typenum in LOOP_TYPES:
                if ufunc_loop(found, typenum, &loop, &data):
                    fad_set_loop(row.op, dtype, loop, data)
    for dtype, typenum in LOOP_TYPES:
        if ufunc_loop(np.matmul, typenum, &loop, &data):
            fad_set_matmul(dtype, loop, data)


cdef extern from *:
    """
    #include <numpy/ufuncobject.h>

    /* The loop of a ufunc that takes and gives only `typenum`; 0 when there is none.  In C, since
     * which fields Cython sees of a ufunc differs between releases of NumPy. */
    static int ufunc_loop(PyObject *o, int typenum, fad_loop *loop, void **data)
    {
        const PyUFuncObject *f = (const PyUFuncObject *)o;
        const int n = f->nin + f->nout;
        for (int k = 0; k < f->ntypes; k++) {
            int j = 0;
            while (j < n && f->types[k * n + j] == typenum) j++;
            if (j < n) continue;
            *loop = (fad_loop)f->functions[k];
            *data = f->data ? (void *)f->data[k] : NULL;
            return 1;
        }
        return 0;
    }
    """
    bint ufunc_loop(object ufunc, int typenum, fad_loop *loop, void **data)


take_loops()

include "float_errors.pxi"
include "complex.pxi"

declare_complex_rows()

elementwise_functions = {}
for _r in range(fad_row_count):
    elementwise_functions[fad_rows[_r].name.decode()] = make_function(&fad_rows[_r])

for _r in range(fad_row_count):
    # a row whose whole primal is f(x) lends its function to formulas under the C name f
    _text = fad_rows[_r].primal.decode()
    for _suffix in ("(x)", "(a, b)", "(a, b, c)"):
        if _text.endswith(_suffix) and _text[:-len(_suffix)].isidentifier():
            FORMULA_NAMES[_text[:-len(_suffix)]] = elementwise_functions[fad_rows[_r].name.decode()]
            FORMULA_OPS[_text[:-len(_suffix)]] = fad_rows[_r].op
for _r in range(fad_constant_count):
    FORMULA_NAMES[fad_constants[_r].name.decode()] = fad_constants[_r].value
FORMULA_NAMES["__builtins__"] = {}


globals()["elementwise"] = elementwise_functions


def table():
    """The op table as a list of dicts, one per row."""
    rows = []
    for r in range(fad_row_count):
        row = &fad_rows[r]
        rows.append({
            "name": row.name.decode(), "opcode": row.op, "arity": row.arity,
            "primal": row.primal.decode(), "reads": row.reads, "numpy": row.numpy.decode(),
            "partials": tuple([row.partial[k].decode() for k in range(row.arity)]),
            "intervals": tuple([(row.lo[k], row.hi[k]) for k in range(row.arity)]),
        })
    return rows


# ---- looking at the tape, and making it fail --------------------------------------------------


def tape_stats():
    """Size of the tape: nodes, capacity, bytes per node, bytes of arrays that nodes keep."""
    return {
        "nodes": tape.n, "capacity": tape.cap, "limit": tape.max, "sweeping": tape.sweeping,
        "bytes_per_node": sizeof(uint16_t) + sizeof(fad_args) + 2 * sizeof(fad_slot),
        "array_bytes": tape.bytes, "large_bytes": fad_large_bytes, "pool_bytes": fad_pool_bytes(),
    }


def compact():
    """Reclaim now what no live tensor reaches (it happens by itself as the tape grows)."""
    fad_compact(&tape)
    fad_trim(&tape)
    tidy()


def release_memory():
    """Give cached array buffers back to the system."""
    fad_pool_clear()
    fad_places_free(&tape)


def _set_index_limit(limit=None):
    """For tests: the number of nodes at which the index space counts as full."""
    tape.max = 0x7fffffff if limit is None else limit


def _fail_allocation(k):
    """For tests: make the core's k-th allocation from now fail; -1 stops that."""
    fad_fail_allocation(k)


# ---- for other Cython code --------------------------------------------------------------------


cdef Tensor scalar_constant(double value):
    cdef Tensor t = <Tensor>fad_tensor_new()
    t.value = value
    return t


cdef Tensor scalar_leaf(double value):
    return scalar_constant(value).requires_grad_()


cdef Tensor record_unary(str name, Tensor x):
    return elementwise_functions[name](x)


cdef Tensor record_binary(str name, Tensor a, Tensor b):
    return elementwise_functions[name](a, b)


include "views.pxi"
include "blame.pxi"
include "program.pxi"
include "graph.pxi"
include "native.pxi"
include "lanes.pxi"
include "values.pxi"
include "draw.pxi"
