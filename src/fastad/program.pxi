# Part of _core.pyx: traces, and the programs that are made of them.
#
# A trace is a stretch of the tape on which a thread takes down *every* operation on the values that
# it follows, also those without a gradient (their nodes are PASSIVE).  Where Python looks at such a
# value (`if`, `float`, an index), the trace notes what it saw: a guard.  The program made of the
# trace computes the same from other inputs as long as Python would have seen the same.
#
# Tensors that were there before (weights in a closure) stand in the trace as shadows, and a program
# reads them anew in every run.


# ---- recording a trace ---------------------------------------------------------------------------

from threading import get_ident

cdef dict TRACES = {}               # id -> Trace, of all threads
cdef int last_trace = 0


@cython.final
cdef class Trace:
    """What one thread records while a function runs for a program."""
    cdef int id
    cdef int was_off
    cdef fad_index start
    cdef list guards                # (kind, wanted, a, b, at, number, array or None)
    cdef list guard_places          # where Python looked
    cdef set seen                   # of guards
    cdef dict shadows               # id(tensor) -> (tensor, its shadow)
    cdef list inputs                # tensors
    cdef dict names                 # nodes that were given names
    cdef readonly object refused    # why no program can be made, or None
    cdef bint over

    def __cinit__(self):
        self.guards = []
        self.guard_places = []
        self.seen = set()
        self.shadows = {}
        self.inputs = []
        self.names = {}

    def __enter__(self):
        global last_trace, fad_trace_id, fad_grad_off
        if fad_trace_id:
            raise RuntimeError("trace: this thread records a trace already")
        reserve(1)
        begin_places()
        last_trace = last_trace + 1 if last_trace < 0x7fffffff else 1
        self.id = last_trace
        self.was_off = fad_grad_off
        TRACES[self.id] = self
        tape.sweeping += 1          # nothing is moved or dropped until the program is made
        self.start = tape.n
        tape.fresh = 0x7fffffff     # every operand goes through node_slow, which knows of traces
        fad_trace_id = self.id
        fad_grad_off = 2
        return self

    def __exit__(self, *exc):
        global fad_trace_id, fad_grad_off
        fad_trace_id = 0
        fad_grad_off = self.was_off
        self.end()

    cdef int end(self) except -1:
        """Forget the nodes: tensors that outlive the trace are constants, as its inputs were.

        Leaves that the function made stay leaves.
        """
        cdef fad_handle *h = tape.live.next
        cdef fad_handle *after
        cdef Tensor t
        self.over = True
        del TRACES[self.id]
        while h != &tape.live:
            after = h.next
            t = <Tensor><PyObject *>(<char *>h - handle_offset)
            if t.born == self.id and h.slot < 0 and h.idx >= 0:
                fad_unlink(&tape, h)
                h.idx = FAD_NO_NODE
            h = after
        self.inputs = []
        self.shadows = {}
        fad_places_end(&tape)
        let_tape_move()
        return 0

    def input(self, x):
        """A tensor that stands for an argument: a float, or an array.

        The function may change it in place; the input's own node stays with another.
        """
        cdef Tensor t, own
        if type(x) is float:
            t = <Tensor>fad_tensor_new()
            t.value = x
        else:
            t = from_ndarray(x, True)
        self.place(t, is_float(t))
        self.inputs.append(t)
        if is_float(t):
            return self.second(t)
        own = bare(t)
        follow(own, t)
        return own

    cdef Tensor second(self, Tensor t):
        """Another tensor of an input, which comes from no place in the function."""
        global fad_quiet
        cdef int was_quiet = fad_quiet
        fad_quiet = 1
        try:
            return unary(FAD_OP_positive, t)
        finally:
            fad_quiet = was_quiet

    cdef bint hands_out(self, fad_index i):
        """Whether node i is that of an input; what the function gets is a copy of it."""
        return any([(<Tensor>t).h.idx == i for t in self.inputs])

    def reads_gradients(self):
        """Whether a caller may want gradients of tensors that the function found outside."""
        return not self.was_off & 1 and any([active(<Tensor>t) for t, _ in self.shadows.values()])

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
        self.guard_places.append(fad_here())
        return 0


def end_traces_of_others():
    """In the child of a fork: end what other threads recorded, which are not there."""
    for trace in list(TRACES.values()):
        if (<Trace>trace).id != fad_trace_id:
            (<Trace>trace).end()


cdef int let_tape_move() except -1:
    """Undo ``tape.sweeping += 1``: nodes that nobody reaches may go again."""
    fad_leave(&tape)
    if not TRACES:
        tape.fresh = tape.n
        fad_trim(&tape)
    tidy()
    return 0


cdef Trace tracing():
    return <Trace>TRACES[fad_trace_id]


def is_tracing():
    """Whether this thread records a trace."""
    return fad_trace_id != 0


def traced_nodes():
    """How many nodes this thread's trace has so far."""
    return tape.n - (<Trace>TRACES[fad_trace_id]).start if fad_trace_id else 0


class Refused(BaseException):
    """Ends the run of a function that no program can be made of; `Trace.refused` says why."""


cdef int refuse(str why) except -1:
    """No program can be made of the running trace, if there is one: nothing is done in it."""
    if fad_trace_id:
        tracing().refused = why
        raise Refused(why)
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
    fresh(t)
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


cdef inline int note(Tensor t) except -1:
    """Complete the node of a result that was recorded in a trace, or while a thread watches."""
    if fad_grad_off & 2:
        fad_note(&tape, t.h.idx, fad_grad_off == 3)
    if not fad_quiet:
        take_place(t)
    if t.h.idx >= fad_told_at:
        tell_of_nodes(t.h.idx)
    return 0


TELL_EVERY = 1 << 16                # nodes
cdef dict told = {}                 # thread -> whom


cdef int tell_of_nodes(fad_index i) except -1:
    """Let who shows the progress of this thread's recording know of its nodes."""
    global fad_told_at
    fad_told_at = i + <fad_index>TELL_EVERY if i < 0x7fffffff - TELL_EVERY else 0x7fffffff
    if fad_trace_id:
        told[get_ident()](i - tracing().start)
    return 0


def tell_nodes(function):
    """While this thread records, call ``function(nodes)`` now and then; None ends that."""
    global fad_told_at
    if function is None:
        fad_told_at = 0x7fffffff
        told.pop(get_ident(), None)
    else:
        told[get_ident()] = function
        fad_told_at = tape.n + <fad_index>TELL_EVERY


cdef inline int note_written(Tensor t) except -1:
    """As note, of a tensor that something was written into; what is there was looked at before."""
    global fad_quiet
    cdef int was_quiet = fad_quiet
    if not was_quiet:
        put_place(t)
    fad_quiet = 1
    try:
        return note(t)
    finally:
        fad_quiet = was_quiet


cdef Tensor bare(Tensor t):
    """The same value without a node."""
    cdef Tensor r = <Tensor>fad_tensor_new()
    fresh(t)
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
    follow_node(t, i)
    tape.op[t.h.idx] |= FAD_PASSIVE
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
    cdef readonly object function
    cdef readonly tuple template    # arguments, with None where an input stands
    cdef readonly tuple places
    cdef readonly dict kwargs
    linear = False
    reads_inputs = True
    reads_output = False

    def __init__(self, function, tuple template, tuple places, dict kwargs):
        self.name = function.__name__
        self.function = function
        self.template = template
        self.places = places
        self.kwargs = kwargs

    def filled(self, values):
        args = list(self.template)
        for k, a in zip(self.places, values):
            args[k] = a
        return tuple(args)

    def forward(self, *arrays):
        return self.function(*self.filled(arrays), **self.kwargs)

    def again(self, tuple inputs):
        """The function of other tensors, recorded like the first."""
        return by_numpy(self.function, self.filled(inputs), self.kwargs)

    def vjp(self, g, y, inputs, needs):
        return (None,) * len(inputs)

    def jvp(self, tangents, y, inputs):
        return None


cdef bint is_ufunc_of_masks(function):
    return isinstance(function, np.ufunc) and function in MASKS


def by_numpy(function, tuple args, dict kwargs):
    """Tensor of NumPy's function of values, without gradient; `kwargs` hold no tensors."""
    cdef ByNumpy rule
    cdef Tensor out
    result = function(*[value_array(<Tensor>x) if type(x) is Tensor else x for x in args], **kwargs)
    out = from_ndarray(np.asarray(result), False)
    if fad_trace_id:
        if not is_ufunc_of_masks(function):
            places = tuple([k for k, x in enumerate(args)
                            if type(x) is Tensor and tracked(<Tensor>x)])
        elif any([type(x) is Tensor and tracked(<Tensor>x) for x in args]):
            # arrays that are constants are operands too
            args = tuple([wrap(x) if type(x) is cnp.ndarray and cnp.PyArray_NDIM(x) else x
                          for x in args])
            places = tuple([k for k, x in enumerate(args) if type(x) is Tensor and (
                tracked(<Tensor>x) or (<Tensor>x).arr != NULL and (<Tensor>x).arr.ndim)])
        else:
            places = ()
        if places:
            rule = ByNumpy(function, tuple([
                None if k in places else np.array(value_array(<Tensor>x)) if type(x) is Tensor
                else x.copy() if type(x) is cnp.ndarray else x for k, x in enumerate(args)]),
                places, kwargs)
            record_call(out, rule, tuple([args[k] for k in places]), {}, True, False)
            if out.h.idx >= 0:
                tape.op[out.h.idx] |= FAD_PASSIVE
    return out


# ---- numbers into an array -----------------------------------------------------------------------


@cython.final
cdef class Assemble(CoreRule):
    """An array of zeros with numbers at given places; params: (shape, offsets)."""
    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return assemble(list(inputs), params[0], list(params[1]))

    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        return tuple([element_at(g, k) for k in params[1]])

    cdef Tensor push(self, tuple tangents, Tensor y, tuple inputs, object params):
        some = [k for k, t in enumerate(tangents) if t is not None]
        if not some:
            return None
        return assemble([tangents[k] for k in some], params[0], [params[1][k] for k in some])


cdef CoreRule ASSEMBLE = core_rule(Assemble, "assemble", True, False)


cdef Tensor element_at(Tensor g, Py_ssize_t offset):
    return c_get_number(g, offset)


cdef Tensor assemble(list numbers, tuple shape, list offsets):
    """Record an array of zeros with `numbers` at `offsets` of the flat array."""
    cdef Tensor y
    v = np.zeros(shape)
    for t, k in zip(numbers, offsets):
        v.flat[k] = (<Tensor>t).value
    y = from_ndarray(v, False)
    record_call(y, ASSEMBLE, tuple(numbers), (shape, tuple(offsets)), False, False)
    return y


# ---- reverse sweeps in a trace -------------------------------------------------------------------


@cython.final
cdef class Partial(CoreRule):
    """The partial of a row, where its formula chooses (at kinks), as a primitive of a, b, c, y."""
    cdef readonly int op, side

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return apply_partial(self, inputs)

    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        inputs = self.apart(inputs)
        p = self.formula(inputs)
        if not active(p):
            return (None,) * 4
        bars = run_backward([p], [g], True, True, [x for x in inputs if active(<Tensor>x)],
                            False, True)
        found = iter(bars)
        return tuple([next(found) if active(<Tensor>x) else None for x in inputs])

    cdef Tensor push(self, tuple tangents, Tensor y, tuple inputs, object params):
        inputs = self.apart(inputs)
        some = [k for k in range(4) if tangents[k] is not None and active(<Tensor>inputs[k])]
        p = self.formula(inputs)
        if not some or not active(p):
            return None
        return run_forward([p], [inputs[k] for k in some], [tangents[k] for k in some], True)[0]

    cdef tuple apart(self, tuple inputs):
        """One tensor as two operands must be told apart."""
        return tuple([unary(FAD_OP_positive, x) if active(<Tensor>x) else x for x in inputs])

    cdef Tensor formula(self, tuple inputs):
        """The formula in operations that record, choices guarded."""
        cdef int arity = fad_row_of(self.op).arity, k
        code, names = formula(self.op, self.side)
        scope = {"x" if arity == 1 else "abc"[k]: inputs[k] for k in range(arity)}
        scope["y"] = inputs[3]
        p = eval(code, FORMULA_NAMES, scope)
        p = p if type(p) is Tensor else scalar_constant(p)
        return c_broadcast_to(p, shape_of(<Tensor>inputs[3]))


cdef dict PARTIAL_RULES = {}


cdef Partial partial_rule(int op, int side):
    rule = PARTIAL_RULES.get((op, side))
    if rule is None:
        rule = core_rule(Partial, f"partial of {op_name(op)}", False, True)
        (<Partial>rule).op = op
        (<Partial>rule).side = side
        PARTIAL_RULES[op, side] = rule
    return <Partial>rule


cdef Tensor apply_partial(Partial rule, tuple inputs):
    cdef fad_operand src[4]
    cdef fad_array *out = NULL
    cdef Tensor t, y = <Tensor>inputs[3], p
    cdef int k
    for k in range(4):
        t = <Tensor>inputs[k]
        src[k].arr = t.arr
        src[k].number = t.value
    if y.arr == NULL:
        p = scalar_constant(fad_partial_number(rule.op, rule.side, src[0].number, src[1].number,
                                               src[2].number, src[3].number))
    else:
        out = fad_array_new(y.arr.dtype, y.arr.ndim, y.arr.shape)
        if out == NULL or fad_partial_into(rule.op, rule.side, src, out):
            fail(FAD_NOMEM, rule.name)
        p = adopt(out)
    record_call(p, rule, inputs, None, True, False)
    return p


cdef dict FORMULA_KNOWN = {}        # opcodes whose formulas the core has


cdef int hand_over_formulas() except -1:
    """Give the core the partials that hold no choice, as steps."""
    import ast
    cdef int r, k
    for r in range(fad_row_count):
        for k in range(fad_rows[r].arity):
            text = fad_rows[r].partial[k].decode()
            if text not in ("0.0", "1.0", "-1.0") and "where" not in text:
                hand_over(fad_rows[r].op, k, ast.parse(text, mode="eval").body)
    FORMULA_KNOWN[0] = True
    return 0


cdef int hand_over(int op, int side, object tree) except -1:
    cdef fad_formula_step steps[64]
    cdef double numbers[16]
    cdef int j
    found, values = [], []

    def number(v):
        if v not in values:
            values.append(v)
        return FAD_REF_NUMBER + values.index(v)

    def step(code, a, b):
        found.append((code, a, b))
        return FAD_REF_STEP + len(found) - 1

    infix = {"Add": FAD_OP_add, "Sub": FAD_OP_subtract, "Mult": FAD_OP_multiply,
             "Div": FAD_OP_divide}

    def visit(node):
        kind = type(node).__name__
        if kind == "Constant":
            return number(node.value)
        if kind == "Name":
            if node.id in ("x", "a"):
                return FAD_REF_A
            if node.id == "b":
                return FAD_REF_B
            return FAD_REF_Y if node.id == "y" else number(FORMULA_NAMES[node.id])
        if kind == "UnaryOp":
            return step(FAD_OP_negative, visit(node.operand), 0)
        if kind == "BinOp":
            return step(infix[type(node.op).__name__], visit(node.left), visit(node.right))
        args = [visit(arg) for arg in node.args]
        return step(FORMULA_OPS[node.func.id], args[0], args[1] if len(args) > 1 else 0)

    last = visit(tree)
    if last < FAD_REF_STEP:
        step(-1, last, 0)
    if len(found) > 24 or len(values) > 8 or any([v != v for v in values]):
        return 0
    for j in range(len(found)):
        steps[j].op, steps[j].a, steps[j].b = found[j]
    for j in range(len(values)):
        numbers[j] = values[j]
    fad_set_formula(op, side, len(found), steps, len(values), numbers)
    return 0


cdef list trace_sweep(list outputs, list seeds, list inputs):
    """As graph_sweep, in a trace: cotangents are nodes, numbers are expanded by the core."""
    cdef GraphSweep sweeper = GraphSweep()
    cdef fad_index *bar
    cdef fad_index parent[3]
    cdef fad_index i, low, top = -1, n, g, before = tape.n, last = -1
    cdef fad_call *call
    cdef fad_status status
    cdef HookList hooks
    cdef Tensor t, y, gt
    cdef dict leaves = {}
    cdef dict picked = {}           # array node -> {offset of an element read from it: cotangent}
    cdef dict alone = {}            # array node -> its cotangent, which nothing else refers to
    cdef Goals found_goals
    cdef const fad_goals *goals
    cdef bint mine, ends
    cdef int k, op, arity
    global fad_grad_off, fad_quiet
    cdef int was_off = fad_grad_off, was_quiet = fad_quiet
    if not FORMULA_KNOWN:
        hand_over_formulas()
    reserve(<fad_index>(2 * len(outputs) + len(inputs)))
    for y in outputs:
        top = max(top, swept_node(y))
    for t in inputs:
        swept_node(t)
    n = tape.n
    low = top
    bar = <fad_index *>calloc(n, sizeof(fad_index))
    if bar == NULL:
        fail(FAD_NOMEM, "backward")
    fad_grad_off &= 2
    fad_quiet = 1
    try:
        found_goals = goals_of(outputs, inputs)
        goals = &found_goals.found
        for i in range(n):
            bar[i] = -1
        for y, gt in zip(outputs, seeds):
            add_node(bar, &low, y.h.idx, parent_of(gt, True))
        i = top + 1
        while i > low:
            if last >= 0:
                derive_places(before, last)
            i -= 1
            mine = bool(alone) and alone.pop(i, -1) == bar[i]
            before, last = tape.n, i
            if not leads_on(goals, i):
                continue
            if picked and i in picked:
                found = picked.pop(i)
                if bar[i] >= 0 and len(found) <= FEW:
                    for k, g in found.items():
                        bar[i] = node_with_number(ADD_NUMBER, bar[i], g, k, mine)
                        mine = True
                    found = {}
            else:
                found = {}
            if found:
                t = assemble([sweeper.tensor_of(c) for c in found.values()],
                             shape_of(value_of(i)), list(found))
                reserve(1)
                add_node(bar, &low, i, parent_of(t, True))
            g = bar[i]
            if g < 0:
                continue
            if i & 0xffff == 0:
                PyErr_CheckSignals()
            ends = not fad_goal(goals, i) & FAD_GOAL_ON
            status = FAD_DTYPE if ends else fad_expand(&tape, i, g, bar, &low)
            if status == FAD_OK:
                continue
            if status != FAD_DTYPE:
                fail(status, "backward")
            op = tape.op[i] & FAD_OPCODE
            if op == FAD_OP_FREED:
                fail(FAD_CONSUMED, "backward")
            if op == FAD_OP_LEAF:
                k = tape.args[i].a
                leaves.setdefault(k, []).append(g)
                continue
            if op == FAD_OP_CALL and not ends and not tape.op[i] & FAD_HOOK:
                call = fad_call_of(&tape, i)
                if call.rule == <void *>SET_NUMBER or call.rule == <void *>ADD_NUMBER:
                    if not is_const(call.parent[1]):
                        add_node(bar, &low, call.parent[1], node_of_number(g, call.at))
                    if is_const(call.parent[0]):
                        continue
                    if call.rule == <void *>SET_NUMBER:
                        reserve(1)
                        g = node_with_number(SET_NUMBER, g, fad_const(&tape, 0.0), call.at, mine)
                        mine = True
                    if mine and bar[call.parent[0]] < 0:
                        alone[call.parent[0]] = g
                    add_node(bar, &low, call.parent[0], g)
                    continue
            gt = sweeper.tensor_of(g)
            hooks = hooks_at(i) if tape.op[i] & FAD_HOOK else None
            if hooks is not None:
                gt = run_hooks(hooks, gt)
                if (tape.op[i] & FAD_OPCODE) == FAD_OP_FREED:
                    fail(FAD_CONSUMED, "backward")
                reserve(1)
                bar[i] = parent_of(gt, True)
            if ends:
                continue
            if op == FAD_OP_CALL:
                call = fad_call_of(&tape, i)
                arity = call.n
                params = params_of(call)
                if rule_of(call) is GET_NUMBER:
                    pick(picked.setdefault(call.parent[0], {}), call.at, bar[i])
                    low = min(low, call.parent[0])
                    continue
                found = vjp_of(rule_of(call), gt, sweeper.tensor_of(i), tuple(
                    [sweeper.tensor_of(call.parent[k]) for k in range(arity)]), call, params, goals)
                for k in range(arity):
                    if found[k] is not None and leads_on(goals, call.parent[k]):
                        t = fitting(found[k], call.parent[k])
                        reserve(1)
                        add_node(bar, &low, call.parent[k], parent_of(t, True))
                continue
            arity = parents(i, parent)
            for k in range(arity):
                if leads_on(goals, parent[k]):
                    t = sweeper.times(gt, sweeper.partial(op, k, parent, arity, i), parent[k])
                    reserve(1)
                    add_node(bar, &low, parent[k], parent_of(t, True))
        if last >= 0:
            derive_places(before, last)
        results = []
        for t in inputs:
            if t.h.slot < 0:
                results.append(sweeper.tensor_of(bar[t.h.idx]) if bar[t.h.idx] >= 0 else None)
                continue
            gt = None
            for g in leaves.get(t.h.slot, ()):
                y = sweeper.tensor_of(g)
                gt = y if gt is None else binary(FAD_OP_add, gt, y)
            if gt is not None and t.hooks is not None:
                gt = run_hooks(<HookList>t.hooks, gt)
            results.append(gt)
        return results
    finally:
        fad_grad_off = was_off
        fad_quiet = was_quiet
        free(bar)


cdef list trace_forward(list outputs, list inputs, list tangents, fad_index low, fad_index top):
    """As graph_forward, in a trace: tangents are nodes, numbers are expanded by the core."""
    cdef GraphSweep sweeper = GraphSweep()
    cdef fad_index *dot
    cdef fad_index parent[3]
    cdef fad_index i, p, lowest = low, before = tape.n, last = -1
    cdef fad_call *call
    cdef fad_status status
    cdef Tensor t, d, y
    cdef int k, n, op, was_quiet = fad_quiet
    global fad_quiet
    if not FORMULA_KNOWN:
        hand_over_formulas()
    dot = <fad_index *>calloc(top + 1, sizeof(fad_index))
    if dot == NULL:
        fail(FAD_NOMEM, "jvp")
    fad_quiet = 1
    try:
        for i in range(top + 1):
            dot[i] = -1
        for t, d in zip(inputs, tangents):
            if t.h.idx <= top:      # nothing depends on the others
                reserve(1)
                add_node(dot, &lowest, t.h.idx, parent_of(d, True))
        for i in range(low, top + 1):
            if last >= 0:
                derive_places(before, last)
            before, last = tape.n, i
            if i & 0xffff == 0:
                PyErr_CheckSignals()
            op = tape.op[i] & FAD_OPCODE
            if op <= FAD_OP_LEAF or dot[i] >= 0 or is_const(i):
                continue
            status = fad_expand_forward(&tape, i, dot)
            if status == FAD_OK:
                continue
            if status != FAD_DTYPE:
                fail(status, "jvp")
            if op == FAD_OP_CALL:
                call = fad_call_of(&tape, i)
                if not any([dot[call.parent[k]] >= 0 for k in range(call.n)]):
                    continue
                params = params_of(call)
                if rule_of(call) is GET_NUMBER and rests(dot[call.parent[0]], call.at):
                    continue
                d = jvp_of(rule_of(call), tuple(
                    [sweeper.tensor_of(dot[call.parent[k]]) if dot[call.parent[k]] >= 0 else None
                     for k in range(call.n)]), sweeper.tensor_of(i), tuple(
                    [sweeper.tensor_of(call.parent[k]) for k in range(call.n)]), params)
                if d is not None:
                    reserve(1)
                    dot[i] = parent_of(d, True)
                continue
            n = parents(i, parent)
            for k in range(n):
                p = parent[k]
                if dot[p] >= 0 and not is_const(p):
                    d = push_forward(sweeper, sweeper.tensor_of(dot[p]),
                                     sweeper.partial(op, k, parent, n, i), i)
                    reserve(1)
                    add_node(dot, &lowest, i, parent_of(d, True))
        derive_places(before, last)
        return [sweeper.tensor_of(dot[y.h.idx]) if dot[y.h.idx] >= 0 else None for y in outputs]
    finally:
        fad_quiet = was_quiet
        free(dot)


cdef bint rests(fad_index i, Py_ssize_t offset) noexcept:
    """Whether an element of a tangent is zero in every run: those of a unit vector, all but one."""
    return (tape.op[i] & (FAD_OPCODE | FAD_PASSIVE) == FAD_OP_CONST
            and (<double *>tape.value[i].arr.data)[offset] == 0.0)


cdef enum:
    FEW = 4                     # numbers that are put into an array one by one


cdef fad_index node_of_number(fad_index g, Py_ssize_t at) except -1:
    """A node for an element of the array of node g."""
    cdef fad_call *call
    cdef fad_slot slot
    cdef fad_index i
    reserve(1)
    call = begin_call(1)
    fill_call(call, GET_NUMBER, at)
    call.parent[0] = g
    slot.f = (<double *>tape.value[g].arr.data)[at]
    i = fad_push_call(&tape, FAD_OP_CALL, call, slot, False)
    fad_note(&tape, i, fad_grad_off == 3)
    return i


cdef fad_index node_with_number(CoreRule rule, fad_index g, fad_index number, Py_ssize_t at,
                                bint mine) except -1:
    """A node for the array of node g with a number at a place; it takes over the buffer of a node
    that nothing else refers to (`mine`)."""
    cdef fad_array *arr = tape.value[g].arr
    cdef fad_array *shell = NULL
    cdef fad_call *call
    cdef fad_slot slot
    cdef fad_index i
    reserve(1)
    if (mine and arr.refs == 1 and arr.owner == NULL and not tape.op[g] & FAD_NEEDED
            and (tape.op[g] & FAD_OPCODE) == FAD_OP_CALL):
        shell = shared_shell(arr)
        slot.arr = fad_array_share(arr)
    else:
        slot.arr = fad_array_copy(arr)
        if slot.arr == NULL:
            fail(FAD_NOMEM, "backward")
    try:
        call = begin_call(2)
    except BaseException:
        fad_array_release(slot.arr)
        if shell != NULL:
            fad_array_release(shell)
        raise
    if shell != NULL:
        hollow_out(g, shell)
    fill_call(call, rule, at)
    call.parent[0] = g
    call.parent[1] = number
    put_number(slot.arr, at, tape.value[number].f, (<PutNumber>rule).adds)
    i = fad_push_call(&tape, FAD_OP_CALL, call, slot, True)
    fad_note(&tape, i, fad_grad_off == 3)
    return i


cdef int pick(dict found, Py_ssize_t offset, fad_index g) except -1:
    """Add node g to the cotangent of one element."""
    have = found.get(offset)
    if have is not None:
        reserve(1)
        g = fad_push_row(&tape, FAD_OP_add, have, g)
    found[offset] = g
    return 0


cdef int add_node(fad_index *bar, fad_index *low, fad_index p, fad_index c) except -1:
    """Add the node c to the cotangent of node p."""
    cdef Tensor have, more
    cdef GraphSweep sweeper
    if p < low[0]:
        low[0] = p
    if bar[p] < 0:
        bar[p] = c
        return 0
    sweeper = GraphSweep()
    have, more = sweeper.tensor_of(bar[p]), sweeper.tensor_of(c)
    have = binary(FAD_OP_add, have, more)
    reserve(1)
    bar[p] = parent_of(have, True)
    return 0


# ---- making a program ----------------------------------------------------------------------------


cdef class BuildState:
    cdef list foreign               # (rule, params, shape of the result, its dtype)
    cdef list offsets               # int64 arrays: places of numbers or elements
    cdef bint plain                 # see fad_build
    cdef dict kinds                 # (shape, dtype) of array nodes, or None: look at their values
    cdef object error

    def __cinit__(self):
        self.foreign = []
        self.offsets = []


cdef int classify(void *ctx, fad_index i, const fad_call *call, fad_vm_call *what) noexcept:
    cdef BuildState state = <BuildState>ctx
    try:
        classify_call(state, i, <fad_call *>call, what)
    except BaseException as e:
        state.error = e
        return -1
    return 0


cdef bint scalars_only(fad_index i, fad_call *call) noexcept:
    cdef int k
    for k in range(call.n):
        if tape.op[call.parent[k]] & FAD_ARRAY:
            return False
    return tape.op[i] & FAD_ARRAY and tape.value[i].arr.ndim == 1


cdef const int64_t *offsets_of(void *ctx, int64_t which) noexcept:
    return <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>(<BuildState>ctx).offsets[which])


cdef int keep_places(BuildState state, fad_vm_call *what, object places) except -1:
    """Let an instruction name these places."""
    state.offsets.append(np.ascontiguousarray(places, np.int64))
    what.offset = len(state.offsets) - 1
    return 0


cdef int classify_call(BuildState state, fad_index i, fad_call *call, fad_vm_call *what) except -1:
    cdef object rule = rule_of(call), params
    cdef fad_index p = call.parent[0] if call.n else 0
    cdef fad_array *x = tape.value[p].arr if call.n and tape.op[p] & FAD_ARRAY else NULL
    cdef fad_array *y = tape.value[i].arr if tape.op[i] & FAD_ARRAY else NULL
    cdef bint floats = (x == NULL or x.dtype < FAD_BOOL) and (y == NULL or y.dtype < FAD_BOOL)
    cdef int k
    params = params_of(call)
    what.pure = 1
    what.kind = FAD_VM_FOREIGN
    if isinstance(rule, Partial):
        what.kind = FAD_VM_PARTIAL
        what.op = (<Partial>rule).op
        what.side = (<Partial>rule).side
    elif not floats and type(rule) is not ByNumpy:
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
    elif rule is CAST or rule is REAL:
        what.kind = FAD_VM_CAST
    elif type(rule) is ComplexRow:
        what.kind = FAD_VM_ROW
        what.op = (<ComplexRow>rule).op
    elif type(rule) is Part:
        what.kind = FAD_VM_PART
        what.side = (<Part>rule).part
    elif rule is GET_NUMBER:
        what.kind = FAD_VM_GET
        what.offset = params
    elif rule is SET_NUMBER or rule is ADD_NUMBER:
        what.kind = FAD_VM_PUT
        what.offset = params
        what.side = rule is ADD_NUMBER
    elif rule is MATMUL:
        what.kind = FAD_VM_MATMUL
        what.ta, what.tb, what.exact = params
    elif rule is ASSEMBLE or (call.n and rule is stack_ and scalars_only(i, call)):
        what.kind = FAD_VM_ASSEMBLE
        keep_places(state, what, params[1] if rule is ASSEMBLE else range(call.n))
    elif rule is SUM and x != NULL:
        axes_kept(what, x, y, params)
    elif type(rule) is ByNumpy:
        mask(what, <ByNumpy>rule, call, x, y)
    elif rule in FORMS and x == NULL and y != NULL:
        if FORMS[rule] == "scatter" and y.dtype == FAD_F64:
            cells = np.arange(y.size).reshape(dims_of(y))[params["index"]]
            keep_places(state, what, [int(cells)])
            what.kind = FAD_VM_ASSEMBLE
    elif rule in FORMS and x != NULL:
        form = FORMS[rule]
        if form == "put":
            if y != NULL:
                written(state, what, call, params, x, y)
        elif form in ("max", "min", "ties"):
            extremum(what, form, call, params["axis"], x, y)
        elif y == NULL:
            if form == "slice" and x.dtype == FAD_F64:
                what.kind = FAD_VM_GET
                what.offset = int(np.arange(x.size).reshape(dims_of(x))[params["index"]])
        else:
            regular(state, what, form, call, params, x, y)
    if what.kind == FAD_VM_FOREIGN:
        what.foreign = <int32_t>len(state.foreign)
        kind = kind_of(i) if state.kinds is None else state.kinds[i]
        shape, dtype = (NO_SHAPE, F64) if kind is None else kind
        state.foreign.append((rule, params, shape, dtype))
    return 0


cdef void axes_kept(fad_vm_call *what, fad_array *x, fad_array *y, object params) noexcept:
    """A sum over axes: all of them where the result is a number."""
    cdef int k
    if y == NULL:
        what.kind = FAD_VM_SUM_ALL
        return
    what.kind = FAD_VM_SUM_AXES
    for k in range(x.ndim):
        what.axes[k] = params is None or params[0] is None or k in params[0]


cdef int mask(fad_vm_call *what, ByNumpy rule, fad_call *call, fad_array *x,
              fad_array *y) except -1:
    """Comparisons and logical operations of float64, bools and numbers; bools as numbers."""
    cdef double number = 0.0
    cdef fad_array *z
    cdef int k
    if any([option is not None and option is not False for option in rule.kwargs.values()]):
        return 0
    if rule.function is as_dtype:
        if x != NULL and x.dtype == FAD_BOOL and (y == NULL or y.dtype < FAD_BOOL):
            what.kind = FAD_VM_CAST
        return 0
    if rule.function not in MASKS or y == NULL or y.dtype != FAD_BOOL:
        return 0
    for k in range(call.n):
        if tape.op[call.parent[k]] & FAD_ARRAY:
            z = tape.value[call.parent[k]].arr
            if z.dtype != FAD_F64 and z.dtype != FAD_BOOL:
                return 0
    if len(rule.template) != call.n:
        if len(rule.template) != 2:
            return 0
        other = rule.template[1 - rule.places[0]]
        if type(other) not in (bool, int, float, np.float64) or not -2**53 < other < 2**53:
            return 0
        number = other
        what.side = 1 + rule.places[0]
        memcpy(&what.offset, &number, sizeof(double))
    what.op = MASKS[rule.function]
    what.kind = FAD_VM_MASK
    return 0


cdef int written(BuildState state, fad_vm_call *what, fad_call *call, dict params, fad_array *x,
                 fad_array *y) except -1:
    """An assignment to elements; nothing where the core does not do it."""
    cdef fad_array *value = NULL
    cdef bint adds = params["how"] == "add"
    first, shape, steps = params["place"]
    if tape.op[call.parent[1]] & FAD_ARRAY:
        value = tape.value[call.parent[1]].arr
    if x.dtype != y.dtype or x.ndim == 0 or (x.dtype != FAD_F64 if value == NULL
                                             else x.dtype != value.dtype):
        return 0
    if adds and x.dtype != FAD_F64:
        return 0
    have = () if value == NULL else dims_of(value)
    if params["index"] is None:
        from_steps = broadcast_steps(have, shape)
        if from_steps is None:
            return 0
        how = [0, first, len(shape), *shape, *steps, *from_steps]
    else:
        cells = np.lib.stride_tricks.as_strided(
            np.arange(x.size)[first:], shape, [8 * s for s in steps])[params["index"]]
        if broadcast_steps(have, cells.shape) is None:
            return 0
        source = np.arange(np.prod(have, dtype=np.int64)).reshape(have)
        source = np.broadcast_to(source, cells.shape)
        if params["kept"] is not None:
            cells, source = cells[params["kept"]], source[params["kept"]]
        how = [1, cells.size, *cells.ravel().tolist(), *source.ravel().tolist()]
    keep_places(state, what, [1 + len(how), *how])
    what.side = adds
    what.kind = FAD_VM_WRITE
    return 0


cdef list broadcast_steps(tuple have, tuple shape):
    """Steps through an array of one shape that is seen as another; None where it does not fit."""
    while len(have) > len(shape) and have[0] == 1:
        have = have[1:]
    steps, step = [0] * len(shape), 1
    if len(have) > len(shape):
        return None
    for k in range(1, len(have) + 1):
        if have[-k] != 1:
            if have[-k] != shape[-k]:
                return None
            steps[-k] = step
        step *= have[-k]
    return steps


cdef int regular(BuildState state, fad_vm_call *what, str form, fad_call *call, object params,
                 fad_array *x, fad_array *y) except -1:
    """Indexing and its adjoint, cumulative sums, and arrays joined along an axis."""
    cdef fad_array *z
    cdef fad_array *whole
    cdef fad_array *part
    cdef int k
    if form == "join":
        for k in range(call.n):
            if not tape.op[call.parent[k]] & FAD_ARRAY:
                return 0
            z = tape.value[call.parent[k]].arr
            if z.dtype != y.dtype or z.ndim == 0:
                return 0
        what.kind = FAD_VM_JOIN
        what.offset = params["axis"] % y.ndim
        return 0
    if x.dtype != y.dtype:
        return 0
    if form == "cumsum":
        if x.dtype == FAD_F64:
            what.kind = FAD_VM_CUMSUM
            what.ta = params["axis"]
            what.side = params["reverse"]
        return 0
    if form == "window" or form == "spread":
        first, _, steps = params["place"]
        keep_places(state, what, [first, *steps])
        what.kind = FAD_VM_SLICE if form == "window" else FAD_VM_SCATTER
        return 0
    whole = x if form == "slice" else y
    part = y if form == "slice" else x
    places = places_of(params["index"], whole, part)
    if places is not None:
        keep_places(state, what, places)
        what.kind = FAD_VM_SLICE if form == "slice" else FAD_VM_SCATTER
        return 0
    what.exact = bool(params["unique"])
    if form == "scatter" and not what.exact and x.dtype != FAD_F64:
        return 0                            # NumPy adds up in double precision
    cells = np.arange(whole.size).reshape(dims_of(whole))[params["index"]]
    if np.shape(cells) == dims_of(part):
        keep_places(state, what, cells)
        what.kind = FAD_VM_TAKE if form == "slice" else FAD_VM_GIVE
    return 0


cdef int extremum(fad_vm_call *what, str form, fad_call *call, object axis, fad_array *x,
                  fad_array *y) except -1:
    """Maxima and minima over neighbouring axes of float64, and where they are."""
    cdef fad_array *best
    axes = tuple(range(x.ndim)) if axis is None else axis
    if not axes or axes != tuple(range(axes[0], axes[-1] + 1)):
        return 0
    if x.dtype != FAD_F64 or x.ndim == 0 or (y != NULL and y.dtype != FAD_F64):
        return 0
    if form == "ties":
        if y == NULL or not fad_same_shape(x, y):
            return 0
        if tape.op[call.parent[1]] & FAD_ARRAY:
            best = tape.value[call.parent[1]].arr
            if best.dtype != FAD_F64:
                return 0
        what.kind = FAD_VM_TIES
    else:
        what.kind = FAD_VM_EXTREMUM
        what.op = FAD_OP_maximum if form == "max" else FAD_OP_minimum
    what.ta = axes[0]
    what.tb = axes[-1] + 1
    return 0


cdef list places_of(object index, fad_array *whole, fad_array *part):
    """The first element that an index names and the steps along its axes, or None where it names
    elements one by one."""
    cdef int k
    base = np.empty(dims_of(whole), np.int8)
    view = base[index]
    if type(view) is not cnp.ndarray or view.base is not base:
        return None
    if tuple(view.shape) != dims_of(part):
        return None
    first = 0 if not view.size else view.__array_interface__["data"][0] \
        - base.__array_interface__["data"][0]
    return [first, *view.strides]


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
    if rule is SET_NUMBER or rule is ADD_NUMBER:
        whole = np.array(values[0])
        whole.flat[params] = values[1] if rule is SET_NUMBER else whole.flat[params] + values[1]
        return whole
    raise RuntimeError(f"internal: no way to compute {rule.name} in a program")


class Rows(tuple):
    """In a result: tensors of one shape, which a program gives as the rows of one array."""


@cython.final
cdef class Plan:
    """A program for one way through a function: immutable, shared by threads."""
    cdef fad_program *program
    cdef fad_workspace *idle        # workspaces that nobody uses; guarded by the interpreter lock
    cdef const fad_place *ins
    cdef const fad_place *outs
    cdef int n_in, n_out
    cdef readonly int n_given
    cdef readonly list outer        # tensors read anew in each run, after the given inputs
    cdef list likes                 # (shape, dtype) of the outer tensors
    cdef list foreign
    cdef list keep                  # what guards compare with
    cdef bint has_foreign, has_owners, lends
    cdef int64_t work
    cdef readonly object result     # nesting of the result, with numbers where outputs stand
    cdef int first_row, end_row     # outputs that are the rows of one array
    cdef readonly object hooks
    cdef readonly Nodes nodes       # what it was made of
    cdef readonly int64_t misses
    cdef public bint told           # that its results are not finite
    cdef public object seconds      # recording and compiling took, a pair; None where it was read
    cdef lanes_for *lanes           # by which inputs vary

    def __dealloc__(self):
        cdef fad_workspace *w
        free_lanes(self)
        while self.idle != NULL:
            w = self.idle
            self.idle = w.next
            fad_workspace_free(self.program, w)
        if self.program != NULL:
            fad_program_free(self.program)
        tidy()

    def figures(self):
        """Figures of the program: instructions, registers, bytes of the arena, guards."""
        return fad_program_describe(self.program)

    def describe(self):
        """All figures, with those that take a walk through the code.

        ``live_bytes`` is what registers and arena must hold at least, by lifetimes.
        """
        cdef int64_t live = fad_program_live_bytes(self.program)
        if live < 0:
            fail(FAD_NOMEM, "program")
        return {**self.figures(), "live_bytes": live}

    def foreign_names(self):
        """The primitives that a run computes through Python, in order."""
        return [rule.name for rule, *_ in self.foreign]

    def rows_at_once(self, bytes varies not None):
        """How many rows `run_rows` computes at once; 0 where rows go one by one."""
        return width_of(self, varies)

    def run_rows(self, bytes varies not None, list leaves not None, list results not None,
                 cnp.ndarray failed not None, Py_ssize_t start, Py_ssize_t stop):
        """Compute the rows start .. stop - 1; see lanes.pxi."""
        run_rows(self, varies, leaves, results, failed, start, stop)

    def run_row(self, list leaves not None):
        """Outputs for floats and C-contiguous arrays; None where a guard does not hold."""
        check_leaves(self, leaves)
        return run_leaves(self, leaves, False)

    def outputs(self):
        """Shape and dtype of each output; None for a dtype that only a run tells."""
        return outputs_of(self)

    cpdef bint outer_active(self):
        for t in self.outer:
            fresh(<Tensor>t)
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
    cdef fad_index *nodes = NULL
    cdef Tensor t
    cdef Py_ssize_t k, n_in, n_out = len(outputs)
    if fad_trace_id != trace.id:
        raise RuntimeError("finish_trace: this trace does not run in this thread")
    reserve(<fad_index>(n_out + 1))
    outputs = [shadow_of(t) for t in outputs]
    if trace.refused is not None:
        return None
    shadows = list(trace.shadows.values())
    ins = trace.inputs + [s for _, s in shadows]
    n_in = len(ins)
    nodes = <fad_index *>calloc(n_in + n_out + 1, sizeof(fad_index))
    try:
        if nodes == NULL:
            fail(FAD_NOMEM, "program")
        reserve(<fad_index>(n_out + 1))
        for k in range(n_in):
            nodes[k] = (<Tensor>ins[k]).h.idx
        for k in range(n_out):
            nodes[n_in + k] = parent_of(<Tensor>outputs[k], True)
        n_given = len(trace.inputs)
        return build_plan(
            BuildState(), trace.start, nodes, n_in, n_out, trace.guards, n_given,
            [t for t, _ in shadows], capture(
                trace.start, trace.names, trace.guards, trace.guard_places, nodes, n_in, n_given,
                nodes + n_in, n_out),
            hooks)
    finally:
        free(nodes)


cdef Plan build_plan(BuildState state, fad_index start, const fad_index *nodes, Py_ssize_t n_in,
                     Py_ssize_t n_out, list seen, Py_ssize_t n_given, list outer, Nodes data,
                     object hooks):
    """A Plan of the nodes from `start` to the end of the tape.

    `nodes` holds inputs, then outputs; `seen` what Python saw, as Trace.guards.
    """
    cdef Plan plan = Plan.__new__(Plan)
    cdef fad_build b
    cdef fad_guard *guards = <fad_guard *>calloc(len(seen) + 1, sizeof(fad_guard))
    cdef fad_program *program = NULL
    cdef fad_status status
    cdef Tensor t
    cdef Py_ssize_t k
    if guards == NULL:
        fail(FAD_NOMEM, "program")
    try:
        keep = []
        for k in range(len(seen)):
            kind, wanted, a, b_, at, number, array = seen[k]
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
        b.start = start
        b.end = tape.n
        b.inputs = nodes
        b.out = nodes + n_in
        b.n_in = <int32_t>n_in
        b.n_out = <int32_t>n_out
        b.n_guard = <int32_t>len(seen)
        b.guard = guards
        b.plain = state.plain
        b.classify = classify
        b.offsets = offsets_of
        b.ctx = <void *>state
        status = fad_program_build(&b, &program)
        if status == FAD_CALLBACK and state.error is not None:
            raise state.error
        if status:
            fail(status, "program")
    finally:
        free(guards)
    plan.program = program
    plan.hooks = hooks
    plan.nodes = data
    plan.ins = fad_program_inputs(program)
    plan.outs = fad_program_outputs(program)
    plan.n_in = <int>n_in
    plan.n_out = <int>n_out
    plan.n_given = <int>n_given
    plan.outer = outer
    plan.likes = [(shape_of(t), t.dtype) for t in outer]
    plan.foreign = state.foreign
    plan.has_foreign = bool(state.foreign)
    plan.has_owners = plan.has_foreign or any(
        [kind is not None and code_of(kind[1]) == FAD_OTHER
         for kind in [data.arrays.get(i) for i in data.inputs]])
    plan.keep = keep
    plan.lends = any([fad_output_is_callers(program, <int32_t>k) for k in range(n_out)])
    plan.work = fad_program_describe(program).work
    return plan


# ---- running a program ---------------------------------------------------------------------------


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
    return cnp.PyArray_New(cnp.ndarray, arr.ndim, dims, type_number(arr.dtype), NULL, arr.data, 0,
                           cnp.NPY_ARRAY_CARRAY_RO, None)


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


cdef cnp.ndarray array_like(fad_array *arr):
    """A new array for a result."""
    return new_array(arr.dtype, arr.ndim, arr.shape)


cdef cnp.ndarray new_array(int dtype, int ndim, const int64_t *shape):
    """A new array; long ones come from the pool, whose pages are there already."""
    cdef cnp.npy_intp dims[64]
    cdef cnp.ndarray out
    cdef Keeper keeper
    cdef int64_t size = 1
    cdef int j, kind = type_number(dtype)
    for j in range(ndim):
        dims[j] = shape[j]
        size *= shape[j]
    if dtype >= FAD_BOOL or size < POOL_ABOVE:
        return cnp.PyArray_SimpleNew(ndim, dims, kind)
    keeper = Keeper.__new__(Keeper)
    keeper.arr = fad_array_new(dtype, ndim, shape)
    if keeper.arr == NULL:
        fail(FAD_NOMEM, "program")
    out = cnp.PyArray_New(cnp.ndarray, ndim, dims, kind, NULL, keeper.arr.data, 0,
                          cnp.NPY_ARRAY_CARRAY, None)
    cnp.set_array_base(out, keeper)
    return out


cdef list lend_outputs(Plan plan, fad_workspace *w, list buffers=None, tuple args=()):
    """Arrays that a run writes its results into, by output; None for the others.

    They are new, or those of `buffers` that nobody reads or writes meanwhile; `buffers` is emptied
    where they are not used.
    """
    cdef list lent
    cdef cnp.ndarray out
    cdef fad_array *arr
    cdef int k
    if not plan.lends:
        if buffers is not None:
            buffers.clear()
        return None
    lent = [None] * plan.n_out
    if buffers is not None:
        for k in range(plan.n_out):     # all or none: a buffer that is refused spares the others
            if buffers[k] is not None and not (
                    fad_output_is_callers(plan.program, k)
                    and fits(buffers, k, w.array[plan.outs[k].where], args)):
                buffers.clear()
                break
    for k in range(plan.n_out):
        if not fad_output_is_callers(plan.program, k) or is_row(plan, k):
            continue
        arr = w.array[plan.outs[k].where]
        out = (<cnp.ndarray>buffers[k] if buffers and buffers[k] is not None
               else array_like(arr))
        lent[k] = out
        arr.data = cnp.PyArray_DATA(out)
    lend_rows(plan, w, lent)
    return lent


cdef bint fits(list buffers, int k, fad_array *arr, tuple args):
    """Whether a run may compute output k in the caller's buffer, and not only copy it there."""
    cdef int j
    cdef cnp.ndarray a
    if type(buffers[k]) is not cnp.ndarray:
        return False
    a = <cnp.ndarray>buffers[k]
    if (not cnp.PyArray_ISCARRAY(a) or cnp.PyArray_NDIM(a) != arr.ndim
            or cnp.PyArray_TYPE(a) != type_number(arr.dtype)):
        return False
    for j in range(arr.ndim):
        if cnp.PyArray_DIMS(a)[j] != arr.shape[j]:
            return False
    for j in range(len(buffers)):
        if j != k and buffers[j] is not None and not apart(a, buffers[j]):
            return False
    for x in args:
        if type(x) is cnp.ndarray and not apart(a, x):
            return False
    return True


cdef bint apart(cnp.ndarray a, object other):
    """Whether no byte is in both; a is contiguous."""
    cdef char *p
    cdef char *q
    cdef cnp.ndarray b
    if type(other) is cnp.ndarray and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>other):
        b = <cnp.ndarray>other
        p = <char *>cnp.PyArray_DATA(a)
        q = <char *>cnp.PyArray_DATA(b)
        return p + cnp.PyArray_NBYTES(a) <= q or q + cnp.PyArray_NBYTES(b) <= p
    return not np.may_share_memory(other, a)


cdef object output_at(Plan plan, fad_workspace *w, list lent, int k):
    cdef fad_place place = plan.outs[k]
    cdef fad_array *arr
    cdef cnp.ndarray out
    if not place.is_array:
        return w.reg[place.where]
    arr = w.array[place.where]
    if arr.dtype >= FAD_BOOL and arr.owner != NULL:
        return np.array(<object>arr.owner) if arr.ndim else (<object>arr.owner).item()
    if arr.ndim == 0:
        return workspace_view(arr).item()
    if lent is not None and lent[k] is not None and (
            arr.data == cnp.PyArray_DATA(<cnp.ndarray>lent[k])):
        return lent[k]
    out = array_like(arr)           # an input, a constant, a second name of another output
    memcpy(cnp.PyArray_DATA(out), arr.data, cnp.PyArray_NBYTES(out))
    return out


# Outputs that are the rows of one array, which comes last among the arrays that are lent.


cdef inline bint is_row(Plan plan, int k):
    return plan.first_row <= k < plan.end_row


cdef int lend_rows(Plan plan, fad_workspace *w, list lent) except -1:
    """Let a run write rows into a new array."""
    cdef char *row
    cdef fad_array *arr
    cdef int k
    if plan.first_row == plan.end_row:
        return 0
    lent.append(new_rows(plan, w))
    row = <char *>cnp.PyArray_DATA(<cnp.ndarray>lent[-1])
    for k in range(plan.first_row, plan.end_row):
        if fad_output_is_callers(plan.program, k):
            arr = w.array[plan.outs[k].where]
            arr.data = row + (k - plan.first_row) * arr.size * 8
    return 0


cdef cnp.ndarray new_rows(Plan plan, fad_workspace *w):
    """A new array for them: they are float64 all of them, of one shape."""
    cdef fad_place place = plan.outs[plan.first_row]
    cdef int64_t shape[64]
    cdef int j, ndim = w.array[place.where].ndim if place.is_array else 0
    shape[0] = plan.end_row - plan.first_row
    for j in range(ndim):
        shape[j + 1] = w.array[place.where].shape[j]
    return new_array(FAD_F64, ndim + 1, shape)


cdef cnp.ndarray rows_at(Plan plan, fad_workspace *w, list lent):
    """Their array after a run: most have been written there."""
    cdef cnp.ndarray out = new_rows(plan, w) if lent is None else lent[-1]
    cdef char *row = <char *>cnp.PyArray_DATA(out)
    cdef fad_place place
    cdef fad_array *arr
    cdef int k
    for k in range(plan.first_row, plan.end_row):
        place = plan.outs[k]
        if not place.is_array:
            (<double *>row)[0] = w.reg[place.where]
            row += 8
            continue
        arr = w.array[place.where]
        if arr.data != row:
            memcpy(row, arr.data, arr.size * 8)
        row += arr.size * 8
    return out


cdef enum:
    POOL_ABOVE = 1 << 14            # elements
    RELEASE_ABOVE = 4000            # elements: a run of some microseconds


cdef inline RunState ready(Plan plan, fad_vm_calls *calls):
    """What runs of a program are handed; the state for foreign calls, or None without any."""
    cdef RunState state
    calls.ctx = NULL
    calls.call = foreign_call
    calls.tick = NULL
    if not plan.has_foreign:
        return None
    state = RunState.__new__(RunState)
    state.plan = plan
    calls.ctx = <void *>state
    return state


cdef int run_plan(Plan plan, fad_workspace *w) except -1:
    """Run; 1 when it went through, 0 when a guard did not hold."""
    cdef fad_vm_calls calls
    cdef fad_status status
    cdef RunState state = ready(plan, &calls)
    global fad_met
    if state is not None:
        status = fad_program_run(plan.program, w, &calls)
    elif plan.work > RELEASE_ABOVE:
        with nogil:
            status = fad_program_run(plan.program, w, &calls)
    else:
        status = fad_program_run(plan.program, w, &calls)
    if status == FAD_OK:
        fad_met = fad_flags_taken(False) & ~FAD_UNDER
        return 1
    if status == FAD_GUARD:
        plan.misses += 1
        return 0
    if status == FAD_CALLBACK and state is not None and state.error is not None:
        raise state.error
    return fail(status, "program")


cdef int set_outer(Plan plan, fad_workspace *w, list kept) except -1:
    """Hand the present values of the outer tensors over; 0 if one has changed its kind.

    `kept` holds the values while the run lasts, in which other threads may change the tensors.
    """
    cdef Py_ssize_t k
    cdef Tensor t
    cdef Keeper keeper
    for k in range(len(plan.outer)):
        t = <Tensor>plan.outer[k]
        fresh(t)
        shape, dtype = <tuple>plan.likes[k]
        if shape_of(t) != shape or t.dtype != dtype:
            return 0
        if t.arr == NULL:
            w.reg[plan.ins[plan.n_given + k].where] = t.value
        else:
            keeper = Keeper.__new__(Keeper)
            keeper.arr = fad_array_share(t.arr)
            kept.append(keeper)
            set_array(w.array[plan.ins[plan.n_given + k].where], t.arr.data,
                      None if t.arr.dtype < FAD_BOOL else <object>t.arr.owner)
    return 1


cdef void set_array(fad_array *arr, void *data, object owner) noexcept:
    """Let an input's header show the caller's bytes; integers and bools come with their array."""
    arr.data = data
    if owner is not None:
        Py_INCREF(owner)
        arr.owner = <void *>owner


# ---- choosing a program --------------------------------------------------------------------------


cdef inline bint leaf_fits(object x, const fad_array *arr) noexcept:
    """Whether a value is an array as a program reads it."""
    cdef int k
    if type(x) is not cnp.ndarray or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>x):
        return False
    if cnp.PyArray_NDIM(<cnp.ndarray>x) != arr.ndim or (
            arr.dtype != FAD_OTHER and cnp.PyArray_TYPE(<cnp.ndarray>x) != type_number(arr.dtype)):
        return False
    for k in range(arr.ndim):
        if cnp.PyArray_DIMS(<cnp.ndarray>x)[k] != arr.shape[k]:
            return False
    return True


cdef enum:
    LEAF_NUMBER, LEAF_ARRAY, LEAF_STATIC

cdef enum:
    SEEN_NAME, SEEN_CELL, SEEN_CODE, SEEN_DEFAULTS
    SEEN_LAST_IDENTITY = SEEN_DEFAULTS
    SEEN_ITEMS, SEEN_BYTES, SEEN_ATTRIBUTES

ctypedef struct seen_thing:
    int kind
    PyObject *holder
    PyObject *name
    PyObject *what

cdef extern from *:
    """
    /* What stands there now; a borrowed reference, or None.  The kinds are those of program.pxi. */
    static PyObject *seen_now(int kind, PyObject *holder, PyObject *name)
    {
        PyObject *x = NULL;
        switch (kind) {
        case 0: x = PyDict_GetItemWithError(holder, name); break;
        case 1: x = PyCell_GET(holder); break;
        case 2: x = PyFunction_GET_CODE(holder); break;
        case 3: x = PyFunction_GET_DEFAULTS(holder); break;
        }
        return x ? x : Py_None;
    }
    """
    PyObject *seen_now(int kind, PyObject *holder, PyObject *name)

# How many ways through one signature, how many signatures, and how many recordings in a row
# without a replay are taken before a program gives up.
cdef int MOST_PLANS = 32, MOST_KEYS = 32, MOST_RECORDINGS = 12


cdef class Replay:
    """A function of tensors that is recorded once for each way through it, and replayed.

    `hooks` is program.py, whose names flatten arguments, record and warn.
    """
    cdef readonly object function, hooks
    cdef public object source       # what the user wrote; recordings depend on it
    cdef public object instead      # asked first; NotImplemented: record
    cdef public bint warned
    cdef readonly bint takes_out    # the function has a parameter `out` of its own
    cdef readonly dict plans        # key -> [Plan], the most recently used first
    cdef readonly dict given_up     # key -> why
    cdef Plan last
    cdef list last_spec             # [(kind, what)] of flat arguments, None where not flat
    cdef readonly list seen         # what the recordings depend on besides arguments
    cdef seen_thing *seen_fast      # the same, where comparing runs no Python
    cdef int n_seen_fast
    cdef list seen_slow             # and where it may
    cdef readonly tuple argnums     # arguments that are differentiated: integers become floats
    cdef readonly int64_t recordings, replays
    cdef readonly int64_t ordinary, differentiated  # calls of the function itself, and with history
    cdef readonly dict dropped      # why -> how many recordings
    cdef public str title           # what it computes of the source, as ``gradient``; None: itself
    cdef list others                # programs for the arguments of the last call
    cdef object last_key
    cdef dict streak                # key -> recordings since the last replay

    def __init__(self, function, hooks, argnums=()):
        self.function = function
        self.hooks = hooks
        self.argnums = argnums
        self.takes_out = hooks is not None and hooks.takes_out(function)
        self.plans = {}
        self.given_up = {}
        self.streak = {}
        self.dropped = {}

    def __dealloc__(self):
        free(self.seen_fast)

    def __call__(self, *args, **kwargs):
        cdef Plan plan = self.last
        cdef list result = []
        if fad_watch and not fad_trace_id and self.hooks is not None:
            return self.hooks.watched(self, args, kwargs)
        if kwargs and "out" in kwargs and not self.takes_out:
            out = kwargs.pop("out")
            if out is not None:
                return self.call_into(args, kwargs, out)
        if (plan is None or kwargs or fad_trace_id or len(args) != len(self.last_spec)
                or not self.unchanged()):
            return self.call(args, kwargs)
        found = self.attempt(plan, args, result)
        if found > 0:
            if unlikely(fad_met):
                self.tell(plan, args, kwargs, result[0])
            return result[0]
        if found < 0 or self.others is None:
            return self.call(args, kwargs)
        for other in list(self.others):
            if other is not plan and self.attempt(<Plan>other, args, result) > 0:
                self.others.remove(other)
                self.others.insert(0, other)
                self.last = <Plan>other
                self.streak[self.last_key] = 0
                if unlikely(fad_met):
                    self.tell(<Plan>other, args, kwargs, result[0])
                return result[0]
        return self.call(args, kwargs)

    cdef int tell(self, Plan plan, tuple args, dict kwargs, result) except -1:
        """Do about a nan or inf in the result what ``np.errstate`` says."""
        global fad_met
        cdef unsigned flags = fad_met
        fad_met = 0
        if self.hooks is not None and heeded(flags):
            self.hooks.tell(self, plan, args, kwargs, result, how_of(flags))
        return 0

    def call_into(self, tuple args, dict kwargs, out):
        """A call whose results go to the caller's buffers, nested as the result."""
        cdef Plan plan = self.last
        cdef list result = []
        if (plan is not None and not kwargs and not fad_trace_id
                and len(args) == len(self.last_spec) and self.unchanged()):
            buffers = [None] * plan.n_out
            if type(plan.result) is int:
                buffers[plan.result] = out
            else:
                self.hooks.place_buffers(plan.result, out, buffers)
            if self.attempt(plan, args, result, buffers) > 0:
                if buffers:             # it was computed there
                    return result[0]
                return self.hooks.poured(result[0], out)
        return self.hooks.poured(self.call(args, kwargs), out)

    cdef int attempt(self, Plan plan, tuple args, list result, list buffers=None) except -2:
        """Run a program on flat arguments: 1 and its result, 0 for a guard that does not hold, -1
        for arguments that are not its own.  Results are computed in `buffers` where they fit."""
        cdef fad_workspace *w = plan.take()
        cdef list kept = [] if plan.outer else None
        try:
            if not self.fill(plan, w, args):
                return -1
            if plan.outer and (not fad_grad_off & 1 and plan.outer_active()
                               or not set_outer(plan, w, kept)):
                return -1
            lent = lend_outputs(plan, w, buffers, args)
            if not run_plan(plan, w):
                return 0
            self.replays += 1
            result.append(nest(plan, w, lent, plan.result))
            return 1
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
            if cnp.PyArray_TYPE(a) != <int>what or not leaf_fits(a, arr):
                return 0
            set_array(arr, cnp.PyArray_DATA(a), None if arr.dtype < FAD_BOOL else a)
        return 1

    def call(self, tuple args, dict kwargs):
        """Any call: find the programs for these arguments, or record another."""
        global fad_met
        cdef Plan plan
        cdef list found
        if fad_trace_id:
            return self.function(*args, **kwargs)
        key, leaves, spec, tensors = self.hooks.flatten(self, args, kwargs)
        if self.instead is not None and key not in self.plans:
            result = self.instead(args, kwargs)
            if result is not NotImplemented:
                return result
        if tensors and not fad_grad_off & 1 and any([active(<Tensor>t) for t in tensors]):
            self.differentiated += 1
            return self.hooks.with_gradient(self, key, args, kwargs)
        if key in self.given_up:
            self.ordinary += 1
            return self.hooks.eager(self, args, kwargs)
        if not self.unchanged():
            self.forget()
        found = self.plans.get(key)
        if found:
            for plan in list(found):
                if plan.outer and not fad_grad_off & 1 and plan.outer_active():
                    self.differentiated += 1
                    return self.hooks.eager(self, args, kwargs)
                outputs = run_leaves(plan, leaves, bool(tensors))
                if outputs is None:
                    continue
                if found[0] is not plan:
                    found.remove(plan)
                    found.insert(0, plan)
                self.remember(key, plan, spec)
                self.streak[key] = 0
                self.replays += 1
                result = self.hooks.nested(plan.result, outputs, tensors)
                if unlikely(fad_met):
                    self.tell(plan, args, kwargs, result)
                return result
        count = self.recordings
        result = self.hooks.record(self, key, args, kwargs, leaves, spec, tensors)
        self.ordinary += self.recordings == count
        if key in self.plans:
            fad_met = FAD_DIVIDE | FAD_OVER | FAD_INVALID       # recordings are quiet
            self.tell(<Plan>self.plans[key][0], args, kwargs, result)
        return result

    def keep(self, key, Plan plan not None, result, spec):
        """Take a new program into use; returns how many recordings of this key came in a row."""
        cdef list found = self.plans.setdefault(key, [])
        plan.result = result
        for x in result if type(result) is tuple else ():
            if type(x) is Rows and plan.first_row == plan.end_row:
                plan.first_row, plan.end_row = x[0], x[-1] + 1
        found.insert(0, plan)
        self.drop("too many ways", found[MOST_PLANS:])
        del found[MOST_PLANS:]
        self.recordings += 1
        self.streak[key] = self.streak.get(key, 0) + 1
        self.remember(key, plan, spec)
        while len(self.plans) > MOST_KEYS:
            oldest = next(iter(self.plans))
            self.drop("too many signatures", self.plans.pop(oldest))
        return self.streak[key]

    cdef int remember(self, key, Plan plan, spec) except -1:
        """What the next call tries first, when its arguments are flat."""
        self.last = plan if spec is not None else None
        self.last_spec = spec
        self.last_key = key
        self.others = self.plans.get(key)
        return 0

    def adopt(self, key, Plan plan not None, result):
        """Take a program into use that was recorded elsewhere."""
        plan.result = result
        self.plans.setdefault(key, []).append(plan)

    def current(self, key):
        """Programs for these arguments that still hold, the most recently used first."""
        if not self.unchanged():
            self.forget()
        return list(self.plans.get(key, ()))

    def served(self, key, Plan plan not None, int64_t rows):
        """Note that a program has replayed for so many rows."""
        cdef list found = self.plans.get(key)
        self.replays += rows
        self.streak[key] = 0
        if found is not None and plan in found and found[0] is not plan:
            found.remove(plan)
            found.insert(0, plan)

    def map(self, *args, in_axes=None, threads=None, progress=None):
        """Call for each row of the first argument, many rows at once; see `Program.map`."""
        return self.hooks.map_rows(self, args, in_axes, threads, progress)

    def summary(self):
        """What was recorded, and what it takes; see `Program.summary`."""
        return self.hooks.summary(self)

    def _repr_html_(self):
        return self.summary()._repr_html_()

    def __repr__(self):
        return self.hooks.in_short(self)

    def give_up(self, key, why):
        """Compute eagerly from now on where the arguments are like these."""
        self.given_up[key] = why
        self.drop("given up", self.plans.pop(key, []))
        self.last = None

    cdef int drop(self, str why, list plans) except -1:
        """Count recordings that are no longer used."""
        if plans:
            self.dropped[why] = self.dropped.get(why, 0) + <int>len(plans)
        return 0

    def forget(self):
        """Drop all programs: something that they depend on has changed."""
        cdef list found
        for found in self.plans.values():
            self.drop(f"{self.changed()} changed", found)
        self.plans = {}
        self.last = self.others = None
        self.depends_on([])

    def depends_on(self, list seen):
        """Say what recordings depend on: (kind, holder, name, object or contents) each."""
        cdef int kind
        free(self.seen_fast)
        self.n_seen_fast = 0
        self.seen_fast = <seen_thing *>calloc(len(seen) + 1, sizeof(seen_thing))
        if self.seen_fast == NULL:
            fail(FAD_NOMEM, "program")
        self.seen = seen            # holds what seen_fast borrows
        self.seen_slow = []
        for entry in seen:
            kind, holder, name, what = <tuple>entry
            if kind > SEEN_LAST_IDENTITY and type(holder) not in (dict, list, np.ndarray):
                self.seen_slow.append(entry)
                continue
            self.seen_fast[self.n_seen_fast] = seen_thing(
                kind, <PyObject *>holder, <PyObject *>name, <PyObject *>what)
            self.n_seen_fast += 1

    cdef str changed(self):
        """The first of what recordings depend on that is another now, in words."""
        cdef int kind
        for entry in self.seen or ():
            kind, holder, name, what = <tuple>entry
            if kind <= SEEN_LAST_IDENTITY:
                if seen_now(kind, <PyObject *>holder, <PyObject *>name) == <PyObject *>what:
                    continue
                if kind == SEEN_NAME:
                    return f"the variable {name}"
                return ("a variable of a closure" if kind == SEEN_CELL else
                        f"the {'code' if kind == SEEN_CODE else 'defaults'} of {holder.__name__}")
            if not unchanged([entry]):
                if kind == SEEN_ATTRIBUTES:
                    return f"an attribute of an object, a {type(holder).__name__},"
                return "an array" if kind == SEEN_BYTES else f"a {type(holder).__name__}"
        return "something"

    cdef bint unchanged(self) except -1:
        """Whether everything that recordings depend on is what it was."""
        cdef int k
        cdef seen_thing *x
        for k in range(self.n_seen_fast):
            x = &self.seen_fast[k]
            if x.kind == SEEN_ITEMS:
                if not same_items(<object>x.holder, <tuple>x.what):
                    return False
            elif x.kind == SEEN_BYTES:
                if not same_bytes(<cnp.ndarray>x.holder, <cnp.ndarray>x.what):
                    return False
            elif seen_now(x.kind, x.holder, x.name) != x.what:
                return False
        return not self.seen_slow or unchanged(self.seen_slow)


cdef bint unchanged(list seen) except -1:
    """Whether containers and arrays have the contents that they had."""
    cdef int kind
    for entry in seen:
        kind, holder, name, what = <tuple>entry
        if kind == SEEN_ITEMS:
            if not same_items(holder, <tuple>what):
                return False
        elif kind == SEEN_ATTRIBUTES:
            for a, b in zip(<tuple>name, <tuple>what):
                if getattr(holder, a, None) is not b:
                    return False
        elif not same_bytes(<cnp.ndarray>holder, <cnp.ndarray>what):
            return False
    return True


cdef extern from "Python.h":
    int PyDict_Next(object dict, Py_ssize_t *at, PyObject **key, PyObject **value)
    PyObject *PyTuple_GET_ITEM(object tuple, Py_ssize_t k)
    PyObject *PyList_GET_ITEM(object list, Py_ssize_t k)


cdef bint same_items(object holder, tuple what) except -1:
    """Whether a container holds these very objects; of a dict, keys and values by turns."""
    cdef PyObject *key
    cdef PyObject *value
    cdef Py_ssize_t at = 0, k = 0
    if type(holder) is dict:
        if 2 * len(<dict>holder) != len(what):
            return False
        while PyDict_Next(holder, &at, &key, &value):
            if (key != PyTuple_GET_ITEM(what, k)
                    or value != PyTuple_GET_ITEM(what, k + 1)):
                return False
            k += 2
        return True
    if type(holder) is list:
        if len(<list>holder) != len(what):
            return False
        for k in range(len(what)):
            if PyList_GET_ITEM(holder, k) != PyTuple_GET_ITEM(what, k):
                return False
        return True
    items = [x for pair in holder.items() for x in pair] if isinstance(holder, dict) else holder
    if len(items) != len(what):
        return False
    for a in items:
        if <PyObject *>a != PyTuple_GET_ITEM(what, k):
            return False
        k += 1
    return True


cdef bint same_bytes(cnp.ndarray a, cnp.ndarray copy) except -1:
    # a.shape of a typed array would be a pointer
    cdef int kind = cnp.PyArray_TYPE(a)
    if (not cnp.PyArray_SAMESHAPE(a, copy) or kind != cnp.PyArray_TYPE(copy)
            or cnp.PyArray_ISNOTSWAPPED(a) != cnp.PyArray_ISNOTSWAPPED(copy)):
        return False
    if kind >= cnp.NPY_OBJECT and a.dtype != copy.dtype:    # with units, lengths or fields
        return False
    if cnp.PyArray_ISCARRAY_RO(a):
        return memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(copy), cnp.PyArray_NBYTES(a)) == 0
    return a.tobytes() == copy.tobytes()


cdef object nest(Plan plan, fad_workspace *w, list lent, object tree):
    """The outputs of a run, in the nesting of the recorded result."""
    if type(tree) is int:
        return output_at(plan, w, lent, tree)
    if type(tree) is tuple:
        return tuple([nest(plan, w, lent, item) for item in <tuple>tree])
    if type(tree) is Rows and (<tuple>tree)[0] == plan.first_row < plan.end_row:
        return rows_at(plan, w, lent)
    return plan.hooks.nested(tree, [output_at(plan, w, lent, k) for k in range(plan.n_out)], None)


cdef object run_leaves(Plan plan, list leaves, bint typed):
    """Outputs of a program as floats and new arrays, or None where a guard did not hold.

    With `typed`, numbers are of their dtype where that is not Python's own.

    `leaves` are floats and C-contiguous arrays of the shapes and dtypes that were recorded; others,
    which the key of a stored program may promise, are refused like what a guard refuses.
    """
    cdef fad_workspace *w
    cdef list kept = [] if plan.outer else None
    cdef int k
    cdef fad_place place
    if len(leaves) != plan.n_given:
        return None
    w = plan.take()
    try:
        for k in range(plan.n_given):
            place = plan.ins[k]
            if place.is_array:
                if not leaf_fits(leaves[k], w.array[place.where]):
                    return None
                set_array(w.array[place.where], cnp.PyArray_DATA(<cnp.ndarray>leaves[k]),
                          None if w.array[place.where].dtype < FAD_BOOL else leaves[k])
            else:
                w.reg[place.where] = <double>leaves[k]
        if plan.outer and not set_outer(plan, w, kept):
            return None
        lent = lend_outputs(plan, w)
        if not run_plan(plan, w):
            return None
        outputs = [output_at(plan, w, lent, k) for k in range(plan.n_out)]
        for k in range(plan.n_out if typed else 0):
            place = plan.outs[k]
            if place.is_array and w.array[place.where].ndim == 0 and (
                    w.array[place.where].dtype in (FAD_F32, FAD_C64)):
                outputs[k] = dtype_of(w.array[place.where].dtype).type(outputs[k])
        return outputs
    finally:
        plan.give(w)
