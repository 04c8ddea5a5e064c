# Part of _core.pyx: what the tape holds of a tensor's history, for pictures.

cdef int on_watch(void *ctx, fad_sweep *s, fad_index i, fad_slot *g) noexcept:
    """Keep the adjoint of a node; the hooks of the user are not run."""
    cdef SweepState state = <SweepState>ctx
    try:
        state.captures[i] = of_slot((tape.op[i] & FAD_ARRAY) != 0, g[0])
    except BaseException as e:
        state.error = e
        return -1
    return 0


def hold_tape(bint on):
    """Keep every node where it is until this is undone; returns the number of nodes."""
    if on:
        tape.sweeping += 1
    else:
        let_tape_move()
    return tape.n


cdef list named_values = None       # where names go while a function is drawn


def collect_names(list into):
    """Let `name` add (name, tensor) to a list, None for nowhere; returns the list before."""
    global named_values
    was, named_values = named_values, into
    return was


def history(list outputs, list watched, str who="draw", bint with_gradients=True):
    """The record of tensors, and the gradients of the first by every node; nothing changes.

    The hooks of the user are not run, since they could change something.

    Parameters
    ----------
    outputs : list of Tensor
        All with a history, or leaves.  The gradients are those of the sum of the first one's
        elements.
    watched : list of Tensor
        Tensors whose nodes are wanted.
    who : str
        Whose errors these are.
    with_gradients : bool
        Else they are None.

    Returns
    -------
    nodes : Nodes
        The inputs are the leaves.
    values, gradients : list of Tensor or None
        By node: None for values that the tape does not keep, and for gradients where no path
        leads.  Those of leaves are always there.
    places : list of int
        The nodes of `watched`, -1 for tensors that are not there.
    index : list of int
        Where each node is on the tape.
    """
    cdef Tensor t
    cdef fad_index i, p, low, top = -1, n = 0
    cdef fad_index *new = NULL
    cdef uint8_t *needed = NULL
    cdef Py_ssize_t k
    cdef fad_call *call
    cdef unsigned code
    cdef uint16_t[::1] op
    cdef int32_t[:, ::1] args
    cdef double[::1] number
    cdef dict arrays = {}, constants = {}, calls = {}
    cdef list values, index = [], inputs = []
    refuse(f"{who} reads the record of a tensor")
    for t in outputs:
        if not active(t):
            raise ValueError(f"{who}: this tensor has no history and does not require gradients; "
                             "compute it from a leaf with requires_grad=True, or give a function "
                             "with example inputs")
        check_not_consumed(t, who)
    reserve(<fad_index>len(outputs))
    tape.sweeping += 1          # nothing is moved or dropped meanwhile
    try:
        for t in outputs:
            top = max(top, swept_node(t))
        new = <fad_index *>calloc(tape.n + 1, sizeof(fad_index))
        needed = <uint8_t *>calloc(tape.n + 1, 1)
        if new == NULL or needed == NULL:
            fail(FAD_NOMEM, who)
        for t in outputs:
            needed[t.h.idx] = 1
        low = top
        for i in range(top, -1, -1):
            if not needed[i]:
                continue
            low = i
            n += 1
            code = tape.op[i] & FAD_OPCODE
            if code == FAD_OP_FREED:
                fail(FAD_CONSUMED, who)
            if code < FAD_OP_CALL:
                continue
            if code <= FAD_OP_LAST_OWNING:
                call = fad_call_of(&tape, i)
                for k in range(call.n):
                    needed[call.parent[k]] = 1
                continue
            needed[tape.args[i].a] = 1
            if code >= FAD_OP_FIRST_BINARY:
                needed[tape.args[i].b] = 1
        ops, pairs, numbers = np.zeros(n, np.uint16), np.zeros((n, 2), np.int32), np.zeros(n)
        op, args, number = ops, pairs, numbers
        values = [None] * n
        n = 0
        for i in range(low, top + 1):
            if not needed[i]:
                continue
            new[i] = n
            index.append(i)
            code = tape.op[i] & FAD_OPCODE
            if tape.op[i] & FAD_ARRAY:
                arrays[n] = kind_of(i)
            if not (tape.op[i] & FAD_ARRAY and tape.value[i].arr.hollow):
                values[n] = value_of(i)
            elif code == FAD_OP_LEAF:
                values[n] = leaf_tensor(tape.args[i].a)
            op[n] = <uint16_t>code
            if code == FAD_OP_LEAF:
                op[n] = FAD_OP_CONST
                inputs.append(n)
            elif code == FAD_OP_CONST:
                if n in arrays:
                    constants[n] = values[n]
                else:
                    number[n] = tape.value[i].f
            elif code <= FAD_OP_LAST_OWNING:
                call = fad_call_of(&tape, i)
                calls[n] = (
                    None if call.rule == NULL else <object>call.rule,
                    params_of(call),
                    tuple([new[call.parent[k]] for k in range(call.n)]))
            else:
                args[n, 0] = new[tape.args[i].a]
                if code >= FAD_OP_FIRST_BINARY:
                    args[n, 1] = new[tape.args[i].b]
            n += 1
        places = []
        for t in watched:
            i = t.h.idx
            places.append(new[i] if 0 <= i <= top and needed[i] else -1)
        nodes = Nodes(ops, pairs, numbers, arrays, constants, calls, inputs, <int>len(inputs),
                      [new[(<Tensor>t).h.idx] for t in outputs], [], {})
        gradients = None
        if with_gradients:
            captures = adjoints(<Tensor>outputs[0], index).captures
            gradients = [captures.get(j) for j in index]
        return nodes, values, gradients, places, index
    finally:
        free(new)
        free(needed)
        let_tape_move()


cdef SweepState adjoints(Tensor y, list index):
    """The adjoints of the nodes `index` in a sweep from y that leaves everything as it is."""
    cdef SweepState state = new_state()
    cdef fad_index i
    cdef int was_off = fad_grad_off
    cdef list hooked = []
    global fad_grad_off
    fad_grad_off = 1
    try:
        g = c_broadcast_to(scalar_constant(1.0), shape_of(y))
        g = astype(g, y.dtype)
        begin(state, 0, 0)
        try:
            state.s.on_hook = on_watch
            state.captures = {}
            for i in index:
                if not tape.op[i] & FAD_HOOK and not fad_stops(&tape, i):
                    tape.op[i] |= FAD_HOOK
                    hooked.append(i)
            seed_one(state, y.h.idx, g)
            status = fad_reverse(&tape, &state.s)
            if status:
                raise_of(state, status)
        finally:
            for i in hooked:
                if fad_hook_get(&tape, i) == NULL:
                    tape.op[i] &= <uint16_t>~FAD_HOOK
            fad_sweep_end(&tape, &state.s)
    finally:
        fad_grad_off = was_off
    return state


def partial_value(int op, int side, tuple operands, Tensor y not None):
    """The partial of a row to operand `side` at these values: its formula, computed on tensors."""
    cdef int arity = fad_row_of(op).arity, k
    cdef int was_off = fad_grad_off
    global fad_grad_off
    found = formula(op, side)
    if type(found) is float:
        return scalar_constant(found)
    scope = {"x" if arity == 1 else "abc"[k]: bare(operands[k]) for k in range(arity)}
    scope["y"] = bare(y)
    fad_grad_off = 1
    try:
        return floating(eval(found[0], FORMULA_NAMES, scope))
    finally:
        fad_grad_off = was_off
