# Part of _core.pyx: traces, and the programs that are made of them.
#
# A trace is a stretch of the tape on which a thread takes down *every* operation on the values that
# it follows, also those without a gradient (their nodes are PASSIVE).  Where Python looks at such a
# value (`if`, `float`, an index), the trace notes what it saw: a guard.  The program made of the
# trace computes the same from other inputs as long as Python would have seen the same.
#
# Tensors that were there before (weights in a closure) stand in the trace as shadows, and a program
# reads them anew in every run.


# ---- recording a trace -------------------------------------------------------------------------

cdef dict TRACES = {}               # id -> Trace, of all threads
cdef int last_trace = 0


@cython.final
cdef class Trace:
    """What one thread records while a function runs for a program."""
    cdef int id
    cdef int was_off
    cdef fad_index start
    cdef list guards                # (kind, wanted, a, b, at, number, array or None)
    cdef set seen                   # of guards
    cdef dict shadows               # id(tensor) -> (tensor, its shadow)
    cdef list inputs                # tensors
    cdef readonly object refused    # why no program can be made, or None
    cdef bint over

    def __cinit__(self):
        self.guards = []
        self.seen = set()
        self.shadows = {}
        self.inputs = []

    def __enter__(self):
        global last_trace, fad_trace_id, fad_grad_off
        if fad_trace_id:
            raise RuntimeError("trace: this thread records a trace already")
        reserve(1)
        last_trace = last_trace + 1 if last_trace < 0x7fffffff else 1
        self.id = last_trace
        self.was_off = fad_grad_off
        TRACES[self.id] = self
        tape.sweeping += 1          # nothing is moved or dropped until the program is made
        tape.fresh = self.start = tape.n
        fad_trace_id = self.id
        fad_grad_off = 2
        return self

    def __exit__(self, *exc):
        """Forget the nodes; tensors that outlive the trace keep what a gradient needs."""
        global fad_trace_id, fad_grad_off
        cdef fad_handle *h = tape.live.next
        cdef fad_handle *after
        fad_trace_id = 0
        fad_grad_off = self.was_off
        self.over = True
        del TRACES[self.id]
        while h != &tape.live:
            after = h.next
            if h.idx >= self.start and tape.op[h.idx] & FAD_PASSIVE:
                fad_unlink(&tape, h)
                h.idx = FAD_NO_NODE
            h = after
        self.inputs = []
        self.shadows = {}
        tape.sweeping -= 1
        fad_trim(&tape)
        tape.fresh = tape.n
        tidy()

    def input(self, x):
        """A tensor that stands for an argument: a float, or an array."""
        cdef Tensor t
        if type(x) is float:
            t = <Tensor>fad_tensor_new()
            t.value = x
        else:
            t = from_ndarray(x, True)
        self.place(t, is_float(t))
        self.inputs.append(t)
        return t

    cdef int place(self, Tensor t, bint differentiable) except -1:
        """Put a new value on the tape, which the program gets from outside."""
        reserve(2)
        if differentiable:
            t.requires_grad_()
            node_slow(t)
        else:
            push_passive(t)
        return 0

    cdef int guard(self, int kind, bint wanted, fad_index a, fad_index b, double number,
                   object array) except -1:
        if self.over or tape.op[a] & FAD_OPCODE == FAD_OP_FREED:
            return 0
        key = (kind, a, b)
        if key in self.seen:
            return 0
        self.seen.add(key)
        self.guards.append((kind, wanted, a, b, tape.n, number, array))
        return 0


cdef Trace tracing():
    return <Trace>TRACES[fad_trace_id]


def is_tracing():
    """Whether this thread records a trace."""
    return fad_trace_id != 0


cdef int refuse(str why) except -1:
    """No program can be made of the running trace, if there is one."""
    cdef Trace trace
    if fad_trace_id:
        trace = tracing()
        if trace.refused is None:
            trace.refused = why
    return 0


def refuse_trace(str why):
    """Tell a trace that is recorded in this thread that it cannot become a program."""
    refuse(why)


cdef void push_passive(Tensor t) noexcept:
    """A node of its own for a value that comes from outside.  Reserve 1."""
    cdef fad_index i
    if t.arr == NULL:
        i = fad_push(&tape, FAD_OP_CONST | FAD_PASSIVE, 0, 0, t.value)
    else:
        i = fad_push_array_slow(&tape, FAD_OP_CONST | FAD_PASSIVE, 0, 0, fad_array_share(t.arr))
    fad_link(&tape, &t.h, i)


cdef Tensor shadow_of(Tensor t):
    """What stands in the running trace for `t`: itself, if it was made there."""
    cdef Trace trace
    cdef Tensor shadow
    if not fad_trace_id or t.born == fad_trace_id:
        return t
    trace = tracing()
    found = trace.shadows.get(<size_t><void *>t)
    if found is not None:
        return <Tensor>found[1]
    shadow = bare(t)
    trace.place(shadow, active(t))
    trace.shadows[<size_t><void *>t] = (t, shadow)
    return shadow


cdef void note(Tensor t) noexcept:
    """Complete the node of a result that was recorded in a trace: what does not depend on
    something active, and what is computed under no_grad, is passive."""
    cdef fad_index i = t.h.idx
    cdef unsigned w = tape.op[i]
    cdef int op = w & FAD_OPCODE, k
    cdef fad_call *call
    cdef bint flows = False
    if op > FAD_OP_LAST_OWNING:
        if fad_stops(&tape, tape.args[i].a):
            w |= FAD_CA
        else:
            flows = True
        if op >= FAD_OP_FIRST_BINARY:
            if fad_stops(&tape, tape.args[i].b):
                w |= FAD_CB
            else:
                flows = True
    else:
        call = fad_call_of(&tape, i)
        for k in range(call.n):
            if not fad_stops(&tape, call.parent[k]):
                flows = True
    if not flows or fad_grad_off == 3 or (t.arr != NULL and t.arr.dtype >= FAD_BOOL):
        w |= FAD_PASSIVE
    tape.op[i] = <uint16_t>w


cdef Tensor bare(Tensor t):
    """The same value without a node."""
    cdef Tensor r = <Tensor>fad_tensor_new()
    r.value = t.value
    if t.arr != NULL:
        r.arr = fad_array_share(t.arr)
    return r


cdef int follow(Tensor t, Tensor source) except -1:
    """Let a trace know that t, new, has the value of `source`, and no gradient."""
    cdef fad_index i
    reserve(2)
    i = node_of(source)
    if i < 0:
        return 0
    if t.arr == NULL:
        fad_link(&tape, &t.h, fad_push(&tape, FAD_OP_positive, i, 0, t.value))
    else:
        fad_link(&tape, &t.h, fad_push_array_slow(
            &tape, FAD_OP_positive, i, 0, fad_array_share(t.arr)))
    tape.op[t.h.idx] |= FAD_CA | FAD_PASSIVE
    return 0


cdef int activate(Tensor t) except -1:
    """requires_grad_() of a value that a trace follows: cotangents end at a new node for it."""
    cdef fad_index i = t.h.idx
    if not tape.op[i] & FAD_PASSIVE:
        return 0
    reserve(1)
    fad_unlink(&tape, &t.h)
    t.h.idx = FAD_NO_NODE
    follow_node(t, i)
    tape.op[t.h.idx] &= <uint16_t>~FAD_PASSIVE
    return 0


cdef void follow_node(Tensor t, fad_index i) noexcept:
    if t.arr == NULL:
        fad_link(&tape, &t.h, fad_push(&tape, FAD_OP_positive, i, 0, t.value))
    else:
        fad_link(&tape, &t.h, fad_push_array_slow(
            &tape, FAD_OP_positive, i, 0, fad_array_share(t.arr)))
    tape.op[t.h.idx] |= FAD_CA


# ---- what Python looks at ------------------------------------------------------------------------


cdef object look(Tensor t):
    """The value as a read-only ndarray, for Python to look at: a trace guards it."""
    cdef fad_index i
    v = value_array(t)
    if fad_trace_id and tracked(t):
        reserve(1)
        i = node_of(t)
        if i >= 0:
            if t.arr == NULL:
                tracing().guard(FAD_GUARD_BITS, True, i, -1, t.value, None)
            else:
                tracing().guard(FAD_GUARD_BYTES, True, i, -1, 0.0, np.array(v, order="C"))
    return v


cdef int guard_comparison(object left, object right, int op, bint r) except -1:
    """A comparison of two numbers."""
    cdef fad_index a = -1, b = -1
    reserve(4)
    if type(left) is Tensor and tracked(<Tensor>left):
        a = node_of(<Tensor>left)
    if type(right) is Tensor and tracked(<Tensor>right):
        b = node_of(<Tensor>right)
    if a < 0 and b < 0:
        return 0
    if a < 0:
        a = fad_const(&tape, float(left.item() if type(left) is Tensor else left))
    if b < 0:
        b = fad_const(&tape, float(right.item() if type(right) is Tensor else right))
    return tracing().guard(op, r, a, b, 0.0, None)


cdef object guard_truncation(Tensor t):
    """int() of a number."""
    cdef fad_index i
    result = int(t.value)
    if tracked(t):
        reserve(1)
        i = node_of(t)
        if i >= 0:
            tracing().guard(FAD_GUARD_TRUNC, True, i, -1, float(result), None)
    return result


def holds_nan(Tensor t not None):
    """Whether a floating tensor has a nan; a trace guards that it has none."""
    cdef fad_index i
    if has_nan(t):
        look(t)
        return True
    if fad_trace_id and tracked(t):
        reserve(1)
        i = node_of(t)
        if i >= 0:
            tracing().guard(FAD_GUARD_NO_NAN, True, i, -1, 0.0, None)
    return False


@cython.final
cdef class ByNumpy:
    """A function of values alone, taken down in a trace; no cotangent flows through it."""
    cdef readonly str name
    cdef object function
    cdef tuple template             # arguments, with None where an input stands
    cdef tuple places
    cdef dict kwargs
    linear = False
    reads_inputs = True
    reads_output = False

    def forward(self, *arrays):
        args = list(self.template)
        for k, a in zip(self.places, arrays):
            args[k] = a
        return self.function(*args, **self.kwargs)

    def vjp(self, g, y, inputs, needs):
        return (None,) * len(inputs)

    def jvp(self, tangents, y, inputs):
        return None


def by_numpy(function, tuple args, dict kwargs):
    """Tensor of NumPy's function of values, without gradient; `kwargs` hold no tensors."""
    cdef ByNumpy rule
    cdef Tensor out
    result = function(*[value_array(<Tensor>x) if type(x) is Tensor else x for x in args], **kwargs)
    out = from_ndarray(np.asarray(result), False)
    if fad_trace_id:
        places = tuple([k for k, x in enumerate(args) if type(x) is Tensor and tracked(<Tensor>x)])
        if places:
            rule = ByNumpy.__new__(ByNumpy)
            rule.name = function.__name__
            rule.function = function
            rule.template = tuple([
                None if k in places else np.array(value_array(<Tensor>x)) if type(x) is Tensor
                else x.copy() if type(x) is cnp.ndarray else x for k, x in enumerate(args)])
            rule.places = places
            rule.kwargs = kwargs
            record_call(out, rule, tuple([args[k] for k in places]), {}, True, False)
            if out.h.idx >= 0:
                tape.op[out.h.idx] |= FAD_PASSIVE
    return out


# ---- making a program ------------------------------------------------------------------------------


cdef class BuildState:
    cdef list foreign               # (rule, params, shape of the result, its dtype)
    cdef object error


cdef int classify(void *ctx, fad_index i, const fad_call *call, fad_vm_call *what) noexcept:
    cdef BuildState state = <BuildState>ctx
    try:
        classify_call(state, i, <fad_call *>call, what)
    except BaseException as e:
        state.error = e
        return -1
    return 0


cdef int classify_call(BuildState state, fad_index i, fad_call *call, fad_vm_call *what) except -1:
    cdef object rule = rule_of(call), params
    cdef fad_index p = call.parent[0] if call.n else 0
    cdef fad_array *x = tape.value[p].arr if call.n and tape.op[p] & FAD_ARRAY else NULL
    cdef fad_array *y = tape.value[i].arr if tape.op[i] & FAD_ARRAY else NULL
    cdef bint floats = (x == NULL or x.dtype < FAD_BOOL) and (y == NULL or y.dtype < FAD_BOOL)
    cdef int k
    params = None if call.params == NULL else <object>call.params
    what.pure = 1
    what.kind = FAD_VM_FOREIGN
    if not floats:
        pass
    elif rule is RESHAPE:
        what.kind = FAD_VM_ALIAS
    elif rule is SUM and params is None and y == NULL and x != NULL and x.dtype == FAD_F64:
        what.kind = FAD_VM_SUM_ALL
    elif rule is BROADCAST_TO and y != NULL and (x != NULL or y.dtype == FAD_F64):
        what.kind = FAD_VM_BROADCAST
    elif rule is SUM_TO and x != NULL and (y != NULL or x.dtype == FAD_F64):
        what.kind = FAD_VM_SUM_TO
    elif rule is TRANSPOSE and x != NULL:
        what.kind = FAD_VM_TRANSPOSE
        for k in range(x.ndim):
            what.axes[k] = params[0][k]
    elif rule is CAST:
        what.kind = FAD_VM_CAST
    elif rule is GET_NUMBER:
        what.kind = FAD_VM_GET
        what.offset = params[0]
    elif rule is MATMUL and x.ndim <= 2 and tape.value[call.parent[1]].arr.ndim <= 2:
        what.kind = FAD_VM_MATMUL
        what.ta, what.tb, what.exact = params
    if what.kind == FAD_VM_FOREIGN:
        what.foreign = <int32_t>len(state.foreign)
        y_like = value_of(i)
        state.foreign.append((rule, params, shape_of(y_like), y_like.dtype))
    return 0


cdef object foreign_value(object rule, object params, tuple shape, list values):
    """The primal of a structured primitive that the core does not compute itself."""
    if not isinstance(rule, CoreRule):
        return rule.forward(*values, **params)
    if rule is SUM:
        axes = None if params is None else params[0]
        return np.reshape(np.add.reduce(values[0], axis=axes), shape)
    if rule is MATMUL:
        a, b = values
        if params[0] and a.ndim > 1:
            a = a.swapaxes(-1, -2)
        if params[1] and b.ndim > 1:
            b = b.swapaxes(-1, -2)
        return np.matmul(a, b)
    if rule is RESHAPE:
        return np.reshape(values[0], shape)
    raise RuntimeError(f"internal: no way to compute {rule.name} in a program")


@cython.final
cdef class Plan:
    """A program for one way through a function: immutable, shared by threads."""
    cdef fad_program *program
    cdef fad_workspace *idle        # workspaces that nobody uses; guarded by the interpreter lock
    cdef const fad_place *ins
    cdef const fad_place *outs
    cdef int n_in, n_out, n_given
    cdef readonly list outer        # tensors read anew in each run, after the given inputs
    cdef list likes                 # (shape, dtype) of the outer tensors
    cdef list foreign
    cdef list keep                  # what guards compare with
    cdef bint has_foreign, has_owners
    cdef int64_t work
    cdef readonly object result     # nesting of the result, with numbers where outputs stand
    cdef readonly object hooks
    cdef readonly int64_t misses

    def __dealloc__(self):
        cdef fad_workspace *w
        while self.idle != NULL:
            w = self.idle
            self.idle = w.next
            fad_workspace_free(self.program, w)
        if self.program != NULL:
            fad_program_free(self.program)
        tidy()

    def describe(self):
        """Figures of the program: instructions, registers, bytes of the arena, guards."""
        return dict(fad_program_describe(self.program))

    cdef bint outer_active(self):
        for t in self.outer:
            if active(<Tensor>t):
                return True
        return False

    cdef fad_workspace *take(self) except NULL:
        cdef fad_workspace *w = self.idle
        if w != NULL:
            self.idle = w.next
            return w
        if fad_workspace_new(self.program, &w):
            fail(FAD_NOMEM, "program")
        return w

    cdef void give(self, fad_workspace *w) noexcept:
        drop_owners(self, w)
        w.next = self.idle
        self.idle = w


cdef void drop_owners(Plan plan, fad_workspace *w) noexcept:
    """Release the arrays that foreign calls have left in a workspace."""
    cdef int64_t k
    if not plan.has_owners:
        return
    for k in range(fad_program_describe(plan.program).arrays):
        if w.array[k].owner != NULL and w.array[k].refs == 1:
            Py_DECREF(<object>w.array[k].owner)
            w.array[k].owner = NULL
            w.array[k].data = NULL


def finish_trace(Trace trace not None, list outputs, hooks=None):
    """The program of a trace that runs, for these output tensors.

    Returns None, and says why in ``trace.refused``, when no program can be made.
    """
    cdef Plan plan = Plan.__new__(Plan)
    cdef BuildState state = BuildState()
    cdef fad_build b
    cdef fad_index *nodes = NULL
    cdef fad_guard *guards = NULL
    cdef fad_program *program = NULL
    cdef fad_status status
    cdef Tensor t
    cdef Py_ssize_t k, n_in, n_out = len(outputs), n_guard
    cdef int i
    if fad_trace_id != trace.id:
        raise RuntimeError("finish_trace: this trace does not run in this thread")
    reserve(<fad_index>(n_out + 1))
    outputs = [shadow_of(t) for t in outputs]
    if trace.refused is not None:
        return None
    shadows = list(trace.shadows.values())
    ins = trace.inputs + [s for _, s in shadows]
    n_in = len(ins)
    n_guard = len(trace.guards)
    nodes = <fad_index *>calloc(n_in + n_out + 1, sizeof(fad_index))
    guards = <fad_guard *>calloc(n_guard + 1, sizeof(fad_guard))
    state.foreign = []
    try:
        if nodes == NULL or guards == NULL:
            fail(FAD_NOMEM, "program")
        reserve(<fad_index>(n_out + 1))
        for k in range(n_in):
            nodes[k] = (<Tensor>ins[k]).h.idx
        for k in range(n_out):
            nodes[n_in + k] = parent_of(<Tensor>outputs[k], True)
        keep = []
        for k in range(n_guard):
            kind, wanted, a, b_, at, number, array = trace.guards[k]
            guards[k].kind = kind
            guards[k].wanted = wanted
            guards[k].a = a
            guards[k].b = b_
            guards[k].at = at
            guards[k].number = number
            if array is not None:
                keep.append(array)
                guards[k].bytes = cnp.PyArray_DATA(<cnp.ndarray>array)
                guards[k].size = cnp.PyArray_NBYTES(<cnp.ndarray>array)
        b.tape = &tape
        b.start = trace.start
        b.end = tape.n
        b.inputs = nodes
        b.out = nodes + n_in
        b.n_in = <int32_t>n_in
        b.n_out = <int32_t>n_out
        b.n_guard = <int32_t>n_guard
        b.guard = guards
        b.classify = classify
        b.ctx = <void *>state
        status = fad_program_build(&b, &program)
        if status == FAD_CALLBACK and state.error is not None:
            raise state.error
        if status:
            fail(status, "program")
    finally:
        free(nodes)
        free(guards)
    plan.program = program
    plan.hooks = hooks
    plan.ins = fad_program_inputs(program)
    plan.outs = fad_program_outputs(program)
    plan.n_in = <int>n_in
    plan.n_out = <int>n_out
    plan.n_given = <int>len(trace.inputs)
    plan.outer = [t for t, _ in shadows]
    plan.likes = [(shape_of(t), t.dtype) for t in plan.outer]
    plan.foreign = state.foreign
    plan.has_foreign = bool(state.foreign)
    plan.has_owners = plan.has_foreign or any([not is_float(<Tensor>t) for t in ins])
    plan.keep = keep
    plan.work = fad_program_describe(program).work
    return plan


# ---- running a program -----------------------------------------------------------------------------


cdef class RunState:
    cdef Plan plan
    cdef object error


cdef int foreign_call(void *ctx, fad_workspace *w, int32_t k, int32_t n, const fad_place *src,
                      fad_place out) noexcept:
    cdef RunState state = <RunState>ctx
    try:
        return compute_foreign(state.plan, w, k, n, src, out)
    except BaseException as e:
        state.error = e
        return -1


cdef object workspace_view(fad_array *arr):
    """ndarray over an array of a workspace, for as long as the run lasts."""
    cdef cnp.npy_intp dims[64]
    cdef int k
    if arr.owner != NULL:
        return <object>arr.owner
    for k in range(arr.ndim):
        dims[k] = arr.shape[k]
    return cnp.PyArray_New(
        cnp.ndarray, arr.ndim, dims,
        cnp.NPY_DOUBLE if arr.dtype == FAD_F64 else cnp.NPY_FLOAT if arr.dtype == FAD_F32
        else cnp.NPY_BOOL, NULL, arr.data, 0, cnp.NPY_ARRAY_CARRAY_RO, None)


cdef int compute_foreign(Plan plan, fad_workspace *w, int32_t k, int32_t n, const fad_place *src,
                         fad_place out) except -1:
    cdef list values = []
    cdef fad_array *arr
    cdef cnp.ndarray a
    cdef int32_t j
    rule, params, shape, dtype = plan.foreign[k]
    for j in range(n):
        if src[j].is_array:
            values.append(workspace_view(w.array[src[j].where]))
        else:
            values.append(np.float64(w.reg[src[j].where]))
    result = np.asarray(foreign_value(rule, params, shape, values))
    if result.shape != shape or result.dtype != dtype:
        return 1
    if not out.is_array:
        w.reg[out.where] = result
        return 0
    arr = w.array[out.where]
    if arr.dtype >= FAD_BOOL:
        a = cnp.PyArray_GETCONTIGUOUS(result)
        if arr.owner != NULL:
            Py_DECREF(<object>arr.owner)
        Py_INCREF(a)
        arr.owner = <void *>a
        arr.data = cnp.PyArray_DATA(a)
        return 0
    a = cnp.PyArray_GETCONTIGUOUS(result)
    memcpy(arr.data, cnp.PyArray_DATA(a), cnp.PyArray_NBYTES(a))
    return 0


cdef object output_at(Plan plan, fad_workspace *w, int k):
    cdef fad_place place = plan.outs[k]
    cdef fad_array *arr
    cdef cnp.ndarray out
    cdef cnp.npy_intp dims[64]
    cdef int j
    if not place.is_array:
        return w.reg[place.where]
    arr = w.array[place.where]
    if arr.dtype >= FAD_BOOL and arr.owner != NULL:
        return np.array(<object>arr.owner) if arr.ndim else (<object>arr.owner).item()
    if arr.ndim == 0:
        return (<double *>arr.data)[0] if arr.dtype == FAD_F64 else <double>(<float *>arr.data)[0]
    for j in range(arr.ndim):
        dims[j] = arr.shape[j]
    out = cnp.PyArray_SimpleNew(
        arr.ndim, dims, cnp.NPY_DOUBLE if arr.dtype == FAD_F64 else cnp.NPY_FLOAT
        if arr.dtype == FAD_F32 else cnp.NPY_BOOL)
    memcpy(cnp.PyArray_DATA(out), arr.data, cnp.PyArray_NBYTES(out))
    return out


cdef enum:
    RELEASE_ABOVE = 4000            # elements: a run of some microseconds


cdef int run_plan(Plan plan, fad_workspace *w) except -1:
    """Run; 1 when it went through, 0 when a guard did not hold."""
    cdef fad_vm_calls calls
    cdef fad_status status
    cdef RunState state = None
    calls.ctx = NULL
    calls.call = foreign_call
    calls.tick = NULL
    if plan.has_foreign:
        state = RunState.__new__(RunState)
        state.plan = plan
        calls.ctx = <void *>state
        status = fad_program_run(plan.program, w, &calls)
    elif plan.work > RELEASE_ABOVE:
        with nogil:
            status = fad_program_run(plan.program, w, &calls)
    else:
        status = fad_program_run(plan.program, w, &calls)
    if status == FAD_OK:
        return 1
    if status == FAD_GUARD:
        plan.misses += 1
        return 0
    if status == FAD_CALLBACK and state is not None and state.error is not None:
        raise state.error
    return fail(status, "program")


cdef int set_outer(Plan plan, fad_workspace *w) except -1:
    """Hand the present values of the outer tensors over; 0 if one has changed its kind."""
    cdef Py_ssize_t k
    cdef Tensor t
    for k in range(len(plan.outer)):
        t = <Tensor>plan.outer[k]
        shape, dtype = <tuple>plan.likes[k]
        if shape_of(t) != shape or t.dtype != dtype:
            return 0
        if t.arr == NULL:
            w.reg[plan.ins[plan.n_given + k].where] = t.value
        else:
            set_array(w.array[plan.ins[plan.n_given + k].where], t.arr.data,
                      None if t.arr.dtype < FAD_BOOL else <object>t.arr.owner)
    return 1


cdef void set_array(fad_array *arr, void *data, object owner) noexcept:
    """Let an input's header show the caller's bytes; integers and bools come with their array."""
    arr.data = data
    if owner is not None:
        Py_INCREF(owner)
        arr.owner = <void *>owner


# ---- choosing a program --------------------------------------------------------------------------------


cdef enum:
    LEAF_NUMBER, LEAF_ARRAY, LEAF_STATIC

cdef enum:
    SEEN_NAME, SEEN_CELL, SEEN_ATTRIBUTE, SEEN_ITEMS, SEEN_BYTES

# How many ways through one signature, how many signatures, and how many recordings in a row
# without a replay are taken before a program gives up.
cdef int MOST_PLANS = 32, MOST_KEYS = 32, MOST_RECORDINGS = 12


cdef class Replay:
    """A function of tensors that is recorded once for each way through it, and replayed.

    `hooks` is program.py, which flattens arguments, records and warns.
    """
    cdef readonly object function, hooks
    cdef public object source       # what the user wrote; recordings depend on it
    cdef public bint warned
    cdef readonly dict plans        # key -> [Plan], the most recently used first
    cdef readonly dict given_up     # key -> why
    cdef Plan last
    cdef list last_spec             # [(kind, what)] of flat arguments, None where not flat
    cdef readonly list seen         # what the recordings depend on besides arguments
    cdef readonly tuple argnums     # arguments that are differentiated: integers become floats
    cdef readonly int64_t recordings, replays
    cdef dict streak                # key -> recordings since the last replay

    def __init__(self, function, hooks, argnums=()):
        self.function = function
        self.hooks = hooks
        self.argnums = argnums
        self.plans = {}
        self.given_up = {}
        self.streak = {}

    def __call__(self, *args, **kwargs):
        cdef Plan plan = self.last
        cdef fad_workspace *w
        cdef int ok
        if plan is None or kwargs or fad_trace_id or len(args) != len(self.last_spec):
            return self.call(args, kwargs)
        w = plan.take()
        try:
            if not self.fill(plan, w, args):
                return self.call(args, kwargs)
            if plan.outer:
                if not fad_grad_off & 1 and plan.outer_active():
                    return self.call(args, kwargs)
                if not set_outer(plan, w):
                    return self.call(args, kwargs)
            if self.seen and not unchanged(self.seen):
                return self.call(args, kwargs)
            if not run_plan(plan, w):
                return self.call(args, kwargs)
            self.replays += 1
            return results(plan, w)
        finally:
            plan.give(w)

    cdef int fill(self, Plan plan, fad_workspace *w, tuple args) except -1:
        """Put flat arguments into a workspace; 0 where they are not those of the last call."""
        cdef int k, given = 0, kind, j
        cdef cnp.ndarray a
        cdef fad_array *arr
        cdef fad_place place
        for k in range(len(args)):
            x = args[k]
            kind, what = <tuple>self.last_spec[k]
            if kind == LEAF_STATIC:
                if x is not what:
                    return 0
                continue
            place = plan.ins[given]
            given += 1
            if kind == LEAF_NUMBER:
                if type(x) is not float:
                    return 0
                w.reg[place.where] = PyFloat_AS_DOUBLE(x)
                continue
            if type(x) is not cnp.ndarray:
                return 0
            a = <cnp.ndarray>x
            arr = w.array[place.where]
            if (cnp.PyArray_TYPE(a) != <int>what or cnp.PyArray_NDIM(a) != arr.ndim
                    or not cnp.PyArray_ISCARRAY_RO(a)):
                return 0
            for j in range(arr.ndim):
                if cnp.PyArray_DIMS(a)[j] != arr.shape[j]:
                    return 0
            set_array(arr, cnp.PyArray_DATA(a), None if arr.dtype < FAD_BOOL else a)
        return 1

    def call(self, tuple args, dict kwargs):
        """Any call: find the programs for these arguments, or record another."""
        cdef Plan plan
        cdef list found
        if fad_trace_id:
            return self.function(*args, **kwargs)
        key, leaves, spec, tensors = self.hooks.flatten(self, args, kwargs)
        if tensors and not fad_grad_off & 1 and any([active(<Tensor>t) for t in tensors]):
            return self.function(*args, **kwargs)
        if key in self.given_up:
            return self.hooks.eager(self, args, kwargs)
        if self.seen is not None and not unchanged(self.seen):
            self.forget()
        found = self.plans.get(key)
        if found:
            for plan in list(found):
                if plan.outer and not fad_grad_off & 1 and plan.outer_active():
                    return self.hooks.eager(self, args, kwargs)
                outputs = run_leaves(plan, leaves)
                if outputs is None:
                    continue
                if found[0] is not plan:
                    found.remove(plan)
                    found.insert(0, plan)
                self.last, self.last_spec = (plan, spec) if spec is not None else (None, None)
                self.streak[key] = 0
                self.replays += 1
                return self.hooks.nested(plan.result, outputs, tensors)
        return self.hooks.record(self, key, args, kwargs, leaves, spec, tensors)

    def keep(self, key, Plan plan not None, result, spec):
        """Take a new program into use; returns how many recordings of this key came in a row."""
        cdef list found = self.plans.setdefault(key, [])
        plan.result = result
        found.insert(0, plan)
        del found[MOST_PLANS:]
        self.recordings += 1
        self.streak[key] = self.streak.get(key, 0) + 1
        self.last, self.last_spec = (plan, spec) if spec is not None else (None, None)
        while len(self.plans) > MOST_KEYS:
            oldest = next(iter(self.plans))
            del self.plans[oldest]
        return self.streak[key]

    def give_up(self, key, why):
        """Compute eagerly from now on where the arguments are like these."""
        self.given_up[key] = why
        self.plans.pop(key, None)
        self.last = None

    def forget(self):
        """Drop all programs: something that they depend on has changed."""
        self.plans = {}
        self.last = None
        self.seen = None

    def depends_on(self, list seen):
        """Say what recordings depend on; see `unchanged`."""
        self.seen = seen


cdef bint unchanged(list seen) except -1:
    """Whether everything that recordings depend on is the same object, or has the same contents."""
    cdef int kind
    for entry in seen:
        kind, holder, name, what = <tuple>entry
        if kind == SEEN_NAME:
            if (<dict>holder).get(name) is not what:
                return False
        elif kind == SEEN_CELL:
            try:
                if holder.cell_contents is not what:
                    return False
            except ValueError:
                return False
        elif kind == SEEN_ATTRIBUTE:
            if getattr(holder, name, None) is not what:
                return False
        elif kind == SEEN_ITEMS:
            items = list(holder.values()) if type(holder) is dict else holder
            if len(items) != len(<tuple>what):
                return False
            for a, b in zip(items, <tuple>what):
                if a is not b:
                    return False
        elif not same_bytes(<cnp.ndarray>holder, <cnp.ndarray>what):
            return False
    return True


cdef bint same_bytes(cnp.ndarray a, cnp.ndarray copy) except -1:
    # a.shape of a typed array would be a pointer
    if not cnp.PyArray_SAMESHAPE(a, copy) or a.dtype != copy.dtype:
        return False
    if cnp.PyArray_ISCARRAY_RO(a):
        return memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(copy), cnp.PyArray_NBYTES(a)) == 0
    return a.tobytes() == copy.tobytes()


cdef object results(Plan plan, fad_workspace *w):
    """The outputs of a run, in the nesting of the recorded result."""
    return nest(plan, w, plan.result)


cdef object nest(Plan plan, fad_workspace *w, object tree):
    if type(tree) is int:
        return output_at(plan, w, tree)
    if type(tree) is tuple:
        return tuple([nest(plan, w, item) for item in <tuple>tree])
    return plan.hooks.nested(tree, [output_at(plan, w, k) for k in range(plan.n_out)], None)


cdef object run_leaves(Plan plan, list leaves):
    """Outputs of a program as floats and new arrays, or None where a guard did not hold.

    `leaves` are floats and C-contiguous arrays of the shapes and dtypes that were recorded.
    """
    cdef fad_workspace *w = plan.take()
    cdef int k
    cdef fad_place place
    try:
        for k in range(plan.n_given):
            place = plan.ins[k]
            if place.is_array:
                set_array(w.array[place.where], cnp.PyArray_DATA(<cnp.ndarray>leaves[k]),
                          None if w.array[place.where].dtype < FAD_BOOL else leaves[k])
            else:
                w.reg[place.where] = <double>leaves[k]
        if plan.outer and not set_outer(plan, w):
            return None
        if not run_plan(plan, w):
            return None
        return [output_at(plan, w, k) for k in range(plan.n_out)]
    finally:
        plan.give(w)
