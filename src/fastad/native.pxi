# Part of _core.pyx: programs outside of Python, as C functions and as descriptions of their code.

from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_New, PyCapsule_SetContext


# ---- C functions ---------------------------------------------------------------------------------

# Signatures that can be had; each text lives as long as the module, for capsules point to it.
cdef dict SIGNATURES = {text: text.encode() for text in (
    "int (const double *, double *, double *, void *)",
    "int (const double *, double *, double *)",
    "double (double, void *)",
    "double (double)",
    "double (int, double *, void *)",
    "double (int, double *)",
    "int (double *, intptr_t, double *, void *)",
    "int (double *, npy_intp, double *, void *)",
    "int (double *, intptr_t, double *, intptr_t, void *)",
    "int (double *, npy_intp, double *, npy_intp, void *)",
    "int (intptr_t *, double *, int, int, void *)",
    "int (npy_intp *, double *, int, int, void *)",
)}


cdef void release_owner(object capsule) noexcept:
    Py_DECREF(<object>PyCapsule_GetContext(capsule))


cdef object capsule_of(void *pointer, const char *name, object owner):
    """A capsule that keeps `owner` alive."""
    capsule = PyCapsule_New(pointer, name, release_owner)
    Py_INCREF(owner)
    PyCapsule_SetContext(capsule, <void *>owner)
    return capsule


cdef class NativeFunction:
    """Programs behind the address of a C function; native.py makes something usable of it."""
    cdef fad_native *native
    cdef readonly tuple plans
    cdef list kept                  # values of outer tensors
    cdef int slot

    def __cinit__(self):
        self.slot = -1

    def __init__(self, plans, int n_value):
        """`n_value` of each program's outputs are its value, the others its gradient."""
        cdef fad_native_way *ways
        cdef fad_status status = FAD_NOMEM
        cdef const double **outer
        cdef Py_ssize_t k, j
        cdef list lists = []
        cdef cnp.ndarray a, numbers
        if self.native != NULL:
            raise RuntimeError("NativeFunction: made already")
        self.plans = tuple(plans)
        self.kept = []
        ways = <fad_native_way *>calloc(len(self.plans) + 1, sizeof(fad_native_way))
        if ways == NULL:
            fail(FAD_NOMEM, "c_function")
        try:
            for k, plan in enumerate(self.plans):
                arrays = outer_values(<Plan?>plan)
                # addresses, in an array that Python keeps
                numbers = np.empty(len(arrays) + 1, np.intp)
                outer = <const double **>cnp.PyArray_DATA(numbers)
                for j, a in enumerate(arrays):
                    outer[j] = <const double *>cnp.PyArray_DATA(a)
                lists.append(numbers)
                self.kept.append(arrays)
                ways[k].program = (<Plan>plan).program
                ways[k].outer = <const double *const *>outer
            status = fad_native_new(<int32_t>len(self.plans), ways,
                                    (<Plan?>self.plans[0]).n_given, n_value, &self.native)
        finally:
            free(ways)
        if status == FAD_SHAPE:
            raise ValueError("c_function: the recordings give results of different sizes")
        if status:
            fail(status, "c_function")

    def __dealloc__(self):
        if self.slot >= 0:
            fad_native_give_slot(self.slot)
        if self.native != NULL:
            fad_native_free(self.native)

    @property
    def user_data(self):
        """What the forms with a last argument ``void *`` want there: an address."""
        return <size_t>self.native

    def sizes(self):
        """Numbers in the arguments, in the value and in the gradient."""
        cdef fad_native_sizes n = fad_native_size(self.native)
        return n.given, n.value, n.rest

    cdef void *pointer(self, str signature) except NULL:
        cdef fad_native_plain plain
        if signature not in SIGNATURES:
            raise ValueError(f"c_function: no form {signature!r}; there are "
                             + ", ".join(map(repr, SIGNATURES)))
        if signature == "int (const double *, double *, double *, void *)":
            return <void *>fad_native_call
        if signature == "double (double, void *)":
            return <void *>fad_native_number
        if signature == "double (int, double *, void *)":
            return <void *>fad_native_numbers
        if signature.startswith("int (double *"):
            if signature.count("intp") > 1:
                return <void *>fad_native_filter1d
            return <void *>fad_native_filter
        if signature.endswith("int, int, void *)"):
            return <void *>fad_native_mapping
        if self.slot < 0:
            self.slot = fad_native_take_slot(self.native)
        if self.slot < 0:
            raise RuntimeError(
                f"c_function: all {FAD_NATIVE_SLOTS} functions without user_data are in use; "
                "delete some C functions, or take a form that ends in void *")
        plain = fad_native_slot(self.slot)
        if signature == "double (double)":
            return <void *>plain.number
        return <void *>plain.numbers if signature.startswith("double") else <void *>plain.call

    def address_of(self, str signature not None):
        """Address of the function in one of the forms."""
        return <size_t>self.pointer(signature)

    def capsules(self, str signature not None):
        """Capsules of function and user_data, which keep this object alive."""
        cdef void *function = self.pointer(signature)
        return (capsule_of(function, <char *>SIGNATURES[signature], self),
                capsule_of(<void *>self.native, NULL, self)
                if signature.endswith("void *)") else None)

    def __reduce_ex__(self, protocol):
        raise TypeError("CFunction: it is an address in this process, and cannot be pickled; make "
                        "one of the program in the other process")


cdef list outer_values(Plan plan):
    """The present values of the tensors that a program reads anew in each run, as arrays."""
    cdef list values = []
    for t, (shape, dtype) in zip(plan.outer, plan.likes):
        v = value_array(<Tensor>t)
        if v.shape != shape or v.dtype != dtype:
            raise ValueError("c_function: a tensor that the function finds outside has changed "
                             "its shape or dtype since the recording")
        values.append(np.array(v, order="C"))
    return values


def recorded_plans(Replay replay not None, key):
    """Programs of one key; None where there are none, or something they depend on has changed."""
    if not replay.unchanged():
        return None
    return replay.plans.get(key)


def last_key(Replay replay not None):
    """The key of the latest recording or replay, or None."""
    return replay.last_key


# ---- descriptions --------------------------------------------------------------------------------


cdef tuple as_place(fad_place at):
    return bool(at.is_array), at.where


cdef object contents_of(fad_array *arr, tuple shape):
    """A copy of an array of float64 or bool; None of others."""
    cdef cnp.ndarray v
    if arr.dtype != FAD_F64 and arr.dtype != FAD_BOOL:
        return None
    v = np.empty(shape, float if arr.dtype == FAD_F64 else bool)
    memcpy(cnp.PyArray_DATA(v), arr.data, cnp.PyArray_NBYTES(v))
    return v


def foreign_steps(Plan plan not None):
    """Names of what a program leaves to Python."""
    return [rule.name for rule, *_ in plan.foreign]


def plain_places(Plan plan not None):
    """Whether inputs and outputs of a program are numbers or float64 arrays; two lists."""
    cdef const program_fields *p = <const program_fields *>plan.program
    cdef int32_t k
    return ([not p.inputs[k].is_array or p.array[p.inputs[k].where].like.dtype == FAD_F64
             for k in range(p.n_in)],
            [not p.out[k].is_array or p.array[p.out[k].where].like.dtype == FAD_F64
             for k in range(p.n_out)])


def instruction_names():
    """Names of all array instructions and guards, and what the words beyond the rows do."""
    kinds = [fad_array_ins_name(k).decode() for k in range(256) if fad_array_ins_name(k) != NULL]
    guards = [fad_guard_name(k).decode() for k in range(256) if fad_guard_name(k) != NULL]
    words = {k: fad_word_text(k).decode() for k in range(VM_FIRST_SPECIAL + 1, VM_OPS)}
    return kinds, guards, words


def constants():
    """The named constants of the op table."""
    return {fad_constants[k].name.decode(): fad_constants[k].value
            for k in range(fad_constant_count)}


def describe_code(Plan plan not None):
    """A program as plain data.

    A place is (is_array, where); arrays are named by their number, and so are registers.
    """
    cdef const program_fields *p = <const program_fields *>plan.program
    cdef word *w
    cdef array_ins *ins
    cdef tile_step *s
    cdef guard_ins *g
    cdef array_place *at
    cdef int32_t k, j
    code, arrays, steps, tiles, guards = [], [], [], [], []
    origins = {FROM_ARENA: "arena", FROM_CONSTANT: "constant", FROM_INPUT: "input",
               FROM_FOREIGN: "foreign", FROM_ALIAS: "alias", FROM_OUTPUT: "output"}
    where = {IN_ARRAY: "array", IN_SCRATCH: "scratch", IN_REGISTER: "register",
             OUT_SUM: "sum"}
    for k in range(p.n_code - 1):           # the last one ends the run
        w = &p.code[k]
        code.append((VM_ARRAY if w.op == VM_GET else VM_GUARD if w.op >= VM_GUARD else w.op,
                     w.d, w.a, w.b, w.c))
    for k in range(p.n_array):
        at = &p.array[k]
        shape = dims_of(at.like)
        arrays.append({
            "from": origins[at.origin], "root": at.root, "offset": at.offset, "shape": shape,
            "type": {FAD_F64: "double", FAD_BOOL: "unsigned char"}.get(at.like.dtype),
            "contents": contents_of(at.like, shape) if at.origin == FROM_CONSTANT else None})
    for k in range(p.n_arrays_code):
        ins = &p.arrays_code[k]
        name = fad_array_ins_name(ins.kind).decode()
        args = [] if name == "tiles" else [
            as_place(p.arglist[ins.first_in + j]) for j in range(ins.n_in)]
        ndim = p.array[ins.inputs[0].where].like.ndim if name in ("transpose", "sum_axes") else 0
        places = (ins.n_in if name == "assemble"
                  else 1 + p.array[ins.out.where].like.ndim if name == "slice"
                  else 1 + p.array[ins.inputs[0].where].like.ndim if name == "scatter"
                  else p.array[ins.out.where].like.size if name == "take"
                  else p.array[ins.inputs[0].where].like.size if name == "give"
                  else p.offset[ins.offset] if name == "write" else 0)
        steps.append({
            "name": name, "op": ins.op, "side": ins.side, "ta": ins.ta, "tb": ins.tb,
            "exact": ins.exact, "args": args,
            "out": as_place(ins.out), "offset": ins.offset,
            "first": ins.first_in, "count": ins.n_in,
            "axes": [p.axes[ins.axes + j] for j in range(ndim)],
            "places": [p.offset[ins.offset + j] for j in range(places)]})
    for k in range(p.n_tile):
        s = &p.tile[k]
        tiles.append((s.op, [(where[s.inputs[j].kind], s.inputs[j].where) for j in range(s.n)],
                      (where[s.out.kind], s.out.where)))
    for k in range(p.n_guard):
        g = &p.guard[k]
        guards.append({
            "name": fad_guard_name(g.kind).decode(), "wanted": bool(g.wanted), "number": g.number,
            "a": as_place(g.a), "b": as_place(g.b),
            "bytes": (<char *>g.bytes)[:g.size] if g.bytes != NULL else b""})
    return {
        "code": code, "arrays": arrays, "steps": steps, "tiles": tiles, "guards": guards,
        "constants": [p.constants[k] for k in range(p.n_constant)], "registers": p.n_reg,
        "arena": p.arena, "given": plan.n_given, "outer": outer_values(plan),
        "in": [as_place(p.inputs[k]) for k in range(p.n_in)],
        "out": [as_place(p.out[k]) for k in range(p.n_out)],
        "loop": VM_LOOP, "array": VM_ARRAY, "guard": VM_GUARD}
