# Part of _core.pyx: where operations were recorded, and who gave the first nan or inf.
#
# While a trace is recorded, or a thread watches (fad_watch), `tape.place` names for each node the
# place in the user's code that made it.  What a sweep records comes from where the node that it
# passes was recorded; PLACE_DERIVED tells the two apart.

cdef extern from "places.h":
    int fad_places_reset() except -1
    int32_t fad_here()
    int32_t fad_place_new(object code, int at) except -2
    PyObject *fad_place_list
    PyObject *fad_place_library

cdef enum:
    PLACE_DERIVED = 1 << 30
    WATCH_VALUES = 2                # of fad_watch; 1: gradients alone


class AnomalyError(FloatingPointError):
    """An operation gave nan or inf, in its value or in a gradient.

    Attributes
    ----------
    primitive : str
    inputs : tuple
        Values of its operands: floats and arrays.
    file, function : str or None
    line : int or None
        Where it was recorded.
    gradient : bool
        Whether it was the derivative of the primitive that gave it.
    """

    def __init__(self, text, primitive="", inputs=(), place=None, gradient=False):
        super().__init__(text)
        self.primitive = primitive
        self.inputs = inputs
        self.file, self.line, self.function = place or (None, None, None)
        self.gradient = gradient


def library_is(tuple beginnings not None):
    """Say with what the names of files begin whose frames are not the user's."""
    global fad_place_library
    Py_INCREF(beginnings)
    set_place_library(<PyObject *>beginnings)


cdef extern from *:
    """
    static void set_place_library(PyObject *x) { fad_place_library = x; }
    """
    void set_place_library(PyObject *x)


cdef int begin_places() except -1:
    if not tape.placing:
        fad_places_reset()
    if fad_places_begin(&tape):
        fail(FAD_NOMEM, "tape")
    return 0


cdef void put_place(Tensor t):
    cdef int32_t place = fad_here()
    tape.place[t.h.idx] = place
    tape.placed = max(tape.placed, t.h.idx + 1)


cdef int take_place(Tensor t) except -1:
    """Take down where the operation that made t, just recorded, stands; look at its value."""
    put_place(t)
    if fad_watch & WATCH_VALUES and fad_grad_off & 4 and not finite(t):
        raise_anomaly(t.h.idx, -1, t)
    return 0


cdef void derive_places(fad_index start, fad_index i) noexcept:
    """The nodes from `start` on are derivatives of node i; of an input and its copies, they add
    up what the sweep has met last."""
    cdef fad_index j
    cdef int32_t place
    if tape.placing and start < tape.n:
        place = tape.place[i]
        if (place == 0 or tape.op[i] & FAD_OPCODE == FAD_OP_positive) and start:
            place = tape.place[start - 1]
        for j in range(start, tape.n):
            tape.place[j] = place | PLACE_DERIVED if place else 0
        tape.placed = max(tape.placed, tape.n)


cdef bint finite(Tensor t) noexcept:
    cdef int64_t k
    if t.arr == NULL:
        return t.value - t.value == 0.0
    if t.arr.dtype == FAD_F64:
        for k in range(t.arr.size):
            if (<double *>t.arr.data)[k] - (<double *>t.arr.data)[k] != 0.0:
                return False
    elif t.arr.dtype == FAD_C128:
        for k in range(2 * t.arr.size):
            if (<double *>t.arr.data)[k] - (<double *>t.arr.data)[k] != 0.0:
                return False
    elif t.arr.dtype == FAD_F32 or t.arr.dtype == FAD_C64:
        for k in range(t.arr.size if t.arr.dtype == FAD_F32 else 2 * t.arr.size):
            if (<float *>t.arr.data)[k] - (<float *>t.arr.data)[k] != 0.0:
                return False
    return True


def is_finite(Tensor t not None):
    """Whether a value holds neither nan nor inf; nobody is told that it was looked at."""
    return finite(t)


def seen_value(Tensor t not None):
    """The value, as a float or an array, without a guard in a trace."""
    return t.value if t.arr == NULL else value_array(t)


def place_of_code(code, int at):
    """(file, line, function) of an instruction."""
    for start, end, line in code.co_lines():
        if start <= at < end:
            return code.co_filename, line, code.co_qualname
    return code.co_filename, None, code.co_qualname


def in_words(x):
    """A value in an error's text."""
    if isinstance(x, float) or x.ndim == 0:
        return repr(float(x))
    if x.size <= 6:
        return np.array2string(x, separator=", ").replace("\n", "")
    counts = [(int(np.isnan(x).sum()), "nan"), (int(np.isinf(x).sum()), "inf")]
    bad = " and ".join([f"{n} {what}" for n, what in counts if n])
    return f"an array of shape {x.shape}" + (f" with {bad}" if bad else
                                             f" from {float(x.min())!r} to {float(x.max())!r}")


def anomaly(str primitive, result, tuple inputs, place, bint gradient, str about):
    """The error about an operation; `about` is what came out wrong."""
    text = f"{primitive}: {about} {in_words(result)}" + (
        f" from {', '.join([in_words(x) for x in inputs])}" if inputs else "")
    if place is not None:
        text += f", recorded at {place[0]}:{place[1]} in {place[2]}"
    return AnomalyError(text, primitive, inputs, place, gradient)


cdef object node_place(fad_index i):
    cdef int32_t place = tape.place[i] & ~PLACE_DERIVED if tape.placing else 0
    if place <= 0 or place > len(<list>fad_place_list):
        return None
    return place_of_code(*(<list>fad_place_list)[place - 1])


cdef int raise_anomaly(fad_index i, int side, Tensor result) except -1:
    """Node i has given a nan or inf: as value (side -1), or as the cotangent of an operand; side
    -2: cotangents that came to it have added up to it."""
    cdef fad_index parent[3]
    cdef fad_call *call
    cdef int k, op = tape.op[i] & FAD_OPCODE
    cdef list inputs = []
    name = op_name(op)
    if op == FAD_OP_CALL:
        call = fad_call_of(&tape, i)
        name = rule_of(call).name
        nodes = [call.parent[k] for k in range(call.n)]
    elif op < FAD_OP_CALL:
        nodes = []
    else:
        nodes = [parent[k] for k in range(parents(i, parent))]
    for p in nodes:
        t = value_of(p)
        if (<Tensor>t).arr == NULL or not (<Tensor>t).arr.hollow:
            inputs.append(seen_value(t))
    about = ("the value is" if side == -1 else "the sum of the cotangents of its value is"
             if side == -2 else f"the cotangent of operand {side} is")
    raise anomaly(name, seen_value(result), tuple(inputs), node_place(i), side != -1, about)


cdef int check_cotangent(fad_index i, int side, Tensor g, Tensor v) except -1:
    """In a sweep that is watched: g is the cotangent of node i, v what it gives to an operand."""
    if not finite(v) and finite(g):
        raise_anomaly(i, side, v)
    return 0


def watch(int level):
    """Look for nan and inf in this thread: 1 in gradients, 3 in values too, 0 not.

    Returns what it was.
    """
    global fad_watch, fad_grad_off
    was = fad_watch
    if level and not was:
        begin_places()
    fad_watch = level
    if not fad_grad_off & 3:
        fad_grad_off = 4 if level else 0
    if was and not level:
        fad_places_end(&tape)
    return was
