# Part of _core.pyx: complex tensors.
#
# They are arrays of complex128 or complex64, 0-d ones too.  Conventions, as PyTorch's: a cotangent
# of z = x + iy is dL/dx + i dL/dy.  So what a holomorphic f passes back is g * conj(f'(z)), its
# tangent is f'(z) * z_dot, and where an operand is real the real part is taken.
#
# The sweeps know real rows alone.  A row over complex operands is a call of a rule, which reads the
# row's own partials: there is no second table.


cdef object C128 = np.dtype(np.complex128)
cdef object C64 = np.dtype(np.complex64)

fad_set_complex_loops()


cdef bint is_complex(Tensor t) noexcept:
    return t.arr != NULL and fad_is_complex(t.arr.dtype)


cdef inline int code_of(object dtype) except -1:
    """The core's code of a dtype that it computes with, or FAD_OTHER."""
    if dtype is F64 or dtype == F64:
        return FAD_F64
    if dtype == F32:
        return FAD_F32
    if dtype == C128:
        return FAD_C128
    return FAD_C64 if dtype == C64 else FAD_OTHER


cdef inline object dtype_of(int code):
    """The dtype of a code below FAD_BOOL."""
    if code == FAD_F64:
        return F64
    if code == FAD_F32:
        return F32
    return C128 if code == FAD_C128 else C64


cdef inline int turned(int code) noexcept:
    """The complex code of a real one, and the other way round."""
    return code ^ 2


# ---- parts ---------------------------------------------------------------------------------------


@cython.final
cdef class Part(CoreRule):
    """The conjugate, the imaginary part, or i times a real tensor; `part` says which."""
    cdef int part

    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        if self.part == FAD_CONJUGATE:
            return (c_conjugate(g),)
        return (c_part(g, FAD_TIMES_I if self.part == FAD_IMAG else FAD_IMAG),)

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return c_part(inputs[0], self.part)


cdef CoreRule part_rule(str name, int part):
    cdef CoreRule rule = core_rule(Part, name, True, False)
    (<Part>rule).part = part
    return rule


cdef tuple PARTS = (part_rule("conjugate", FAD_CONJUGATE), part_rule("imag", FAD_IMAG),
                    part_rule("times_i", FAD_TIMES_I))


cdef Tensor c_part(Tensor x, int part):
    cdef fad_array *own
    cdef fad_array *out = NULL
    cdef fad_array *arr = array_of(x, &own)
    cdef fad_status status = fad_part(part, arr, &out)
    if own != NULL:
        fad_array_release(own)
    if status == FAD_DTYPE:
        wanted = "real" if part == FAD_TIMES_I else "complex"
        raise TypeError(f"{(<CoreRule>PARTS[part]).name}: wanted a {wanted} tensor, got {x.dtype}")
    cdef Tensor y = checked_adopt(status, out, (<CoreRule>PARTS[part]).name, "")
    record_pair(y, <CoreRule>PARTS[part], x, None, None)
    return y


cdef Tensor c_conjugate(Tensor x):
    return c_part(x, FAD_CONJUGATE) if is_complex(x) else x


cdef Tensor c_real(Tensor x):
    return cast_to(x, turned(x.arr.dtype)) if is_complex(x) else x


def conjugate(x):
    """The complex conjugate; of real tensors the tensor itself."""
    return c_conjugate(floating(x))


def real(x):
    """The real part; of real tensors the tensor itself."""
    return floating(x).real


def imag(x):
    """The imaginary part of a complex tensor."""
    cdef Tensor t = floating(x)
    return t.imag if is_complex(t) else c_part(t, FAD_IMAG)


cdef Tensor projected(Tensor c, object dtype):
    """A cotangent or tangent in the dtype of what it belongs to: the real part for a real one."""
    cdef int code = code_of(dtype)
    if c.dtype == dtype:
        return c
    if is_complex(c) and code <= FAD_F32:
        c = c_real(c)
    return astype(c, dtype)


# ---- rows ----------------------------------------------------------------------------------------


@cython.final
cdef class ComplexRow(CoreRule):
    """A row of the op table over complex operands of one dtype."""
    cdef readonly int op

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return elementwise(self.op, inputs)

    cdef object partial(self, int side, Tensor y, tuple inputs):
        """The row's own formula: a Tensor or a float."""
        cdef int k, arity = fad_row_of(self.op).arity
        found = formula(self.op, side)
        if type(found) is float:
            return found
        scope = {"x" if arity == 1 else "abc"[k]: inputs[k] for k in range(arity)}
        scope["y"] = y
        return eval(found[0], FORMULA_NAMES, scope)

    cdef tuple pull_some(self, Tensor g, Tensor y, tuple inputs, tuple needs):
        return tuple([
            c_sum_to(times_partial(g, self.partial(k, y, inputs), True), shape_of(<Tensor>x))
            if needs[k] else None for k, x in enumerate(inputs)])

    cdef Tensor push(self, tuple tangents, Tensor y, tuple inputs, object params):
        y_dot = None
        for k, t in enumerate(tangents):
            if t is not None:
                part = times_partial(t, self.partial(k, y, inputs), False)
                y_dot = part if y_dot is None else binary(FAD_OP_add, y_dot, part)
        return projected(c_broadcast_to(y_dot, shape_of(y)), y.dtype)


cdef Tensor times_partial(Tensor g, object p, bint conjugated):
    """g times a partial or its conjugate; a zero in either gives zero."""
    if type(p) is float:
        if p == 1.0:
            return g
        return unary(FAD_OP_negative, g) if p == -1.0 else zeros_like(g) if p == 0.0 else binary(
            FAD_OP_multiply, g, p)
    return binary(FAD_OP_zmul, g, c_conjugate(p) if conjugated else p)


cdef int square_found = -1


cdef bint float_squares() except -1:
    """Whether ``z ** 2.0`` is NumPy's square, as ``z ** 2`` is; it depends on the release."""
    global square_found
    if square_found < 0:
        z = np.exp(np.arange(64.0) * (0.01 + 0.7j))
        square_found = (z ** 2.0).tobytes() == np.square(z).tobytes()
    return square_found


cdef list COMPLEX_ROWS = [None] * FAD_OP_END    # a rule where a loop exists
cdef dict COMPLEX_FUNCTIONS = {}                # opcode -> function, where it has a rule of its own


cdef int declare_complex_rows() except -1:
    """Rules for the rows that have loops over complex numbers."""
    cdef int r
    cdef CoreRule rule
    for r in range(fad_row_count):
        if fad_has_loop(fad_rows[r].op, FAD_C128):
            rule = core_rule(ComplexRow, fad_rows[r].name.decode(), False,
                             fad_rows[r].reads & ~FAD_Y)
            rule.reads_output = (fad_rows[r].reads & FAD_Y) != 0
            (<ComplexRow>rule).op = fad_rows[r].op
            COMPLEX_ROWS[fad_rows[r].op] = rule
    return 0


def register_complex(dict functions):
    """The floor above supplies functions, by row, of complex tensors that are not holomorphic or
    that NumPy computes by other functions."""
    for name, function in functions.items():
        COMPLEX_FUNCTIONS[opcode_of(name)] = function


cdef int common_code(tuple args) except -2:
    """The code that floating tensors and arrays promote to, Python's numbers among them or not; -1
    for other operands."""
    cdef int single = 1, complex_ = 0, any_array = 0, code
    for x in args:
        if type(x) is Tensor:
            code = FAD_F64 if (<Tensor>x).arr == NULL else (<Tensor>x).arr.dtype
            if code >= FAD_BOOL:
                return -1
        elif type(x) is float or type(x) is int or type(x) is bool:
            continue
        elif type(x) is complex:
            complex_ = 2
            continue
        elif type(x) is cnp.ndarray:
            code = code_of((<cnp.ndarray>x).dtype)
            if code == FAD_OTHER:
                return -1
        else:
            return -1
        any_array = 1
        single &= code
        complex_ |= code & 2
    return complex_ | single if any_array else -1


cdef Tensor complex_operand(object x, int code):
    """`x` as a tensor of this complex dtype."""
    cdef fad_array *arr
    cdef double complex z
    if type(x) is Tensor and is_float(<Tensor>x):
        fresh(<Tensor>x)
        if (<Tensor>x).arr != NULL and (<Tensor>x).arr.dtype == code:
            return x
        return cast_to(x, code)
    if type(x) is not complex and type(x) is not float and type(x) is not int:
        return operand(x, dtype_of(code))
    z = x
    arr = fad_array_new(code, 0, NULL)
    if arr == NULL:
        fail(FAD_NOMEM, "tensor")
    if code == FAD_C128:
        (<double *>arr.data)[0], (<double *>arr.data)[1] = z.real, z.imag
    else:
        (<float *>arr.data)[0], (<float *>arr.data)[1] = <float>z.real, <float>z.imag
    return adopt(arr)


cdef object complex_row(int op, tuple args, int code):
    """As elementwise, where the operands promote to a complex dtype."""
    cdef fad_operand src[3]
    cdef fad_array *arr = NULL
    cdef int k, n = len(args)
    cdef Tensor y
    cdef ComplexRow rule
    special = COMPLEX_FUNCTIONS.get(op)
    if special is None:
        rule = COMPLEX_ROWS[op]
        if rule is None:
            raise TypeError(f"{op_name(op)}: not defined for complex numbers, got an operand of "
                            f"{dtype_of(code)}")
        if not fad_has_loop(op, code):
            code = FAD_C128         # float_power computes in double precision alone
    inputs = tuple([complex_operand(x, code) for x in args])
    if special is not None:
        return special(*inputs)
    for k in range(n):
        src[k].arr = (<Tensor>inputs[k]).arr
        src[k].number = 0.0
        if src[k].arr.hollow:
            view_of((<Tensor>inputs[k]).arr)
    status = fad_elementwise(op, code, src, &arr)
    if status == FAD_SHAPE:
        shapes = [str(shape_of(<Tensor>x)) for x in inputs]
        raise ValueError(f"{op_name(op)}: shapes {' and '.join(shapes)} do not broadcast")
    y = checked_adopt(status, arr, op_name(op), "")
    if fad_raised and heeded(fad_raised):
        report(UFUNCS[op].__name__, fad_raised)
    record_call(y, rule, inputs, None, rule.reads_inputs, rule.reads_output)
    return y
