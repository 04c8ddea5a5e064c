# Part of _core.pyx: what a trace took down, as data.
#
# A program is code for one purpose and forgets the operations that it was made of.  `Nodes` keeps
# them: a copy of the nodes of a trace that outputs, guards and names need, renumbered from 0, with
# everything that does not depend on an input folded into constants.  It can be computed again on
# tensors (and so differentiated), turned into a Plan without computing anything, and stored.

from time import perf_counter as clock


class GuardError(RuntimeError):
    """A recording does not hold for these inputs: Python looked at a value that differs now.

    Attributes
    ----------
    seen : str
        What it saw, and in which line, where that is known.
    """

    seen = ""


cdef enum:
    STATE_VARIES = 1, STATE_NEEDED = 2


cdef object kind_of(fad_index i):
    """(shape, dtype) of an array node, None for a number."""
    cdef Tensor t
    if not tape.op[i] & FAD_ARRAY:
        return None
    t = value_of(i)
    return shape_of(t), t.dtype


@cython.final
cdef class Nodes:
    """The nodes of a trace as data.

    Attributes
    ----------
    op, args, number : ndarray
        Opcodes, parents in pairs, and the values of constant numbers, by node.
    arrays : dict
        Shape and dtype of each node that is an array.
    constants : dict
        Tensors of the nodes that are constant arrays.
    calls : dict
        (rule, params, parents) of structured primitives; rule None for rows of three operands.
    inputs, outputs : list of int
        Nodes; the first `n_given` inputs are the function's, the others are tensors that it found
        outside.
    guards : list
        (kind, wanted, a, b, at, number, array or None): what Python saw of the nodes a and b when
        `at` nodes had been computed.
    names : dict
        Nodes by the names that they were given.
    places, guard_places, spots : ndarray, list, list, or None
        Where nodes were recorded and guards were met, as numbers k of ``spots[k - 1]``, which is a
        code object and an instruction; not stored in files.
    """
    cdef readonly object op, args, number
    cdef readonly dict arrays, constants, calls, names
    cdef readonly list inputs, outputs, guards
    cdef readonly int n_given
    cdef readonly object places
    cdef readonly list guard_places, spots

    def __init__(self, op, args, number, dict arrays, dict constants, dict calls, list inputs,
                 int n_given, list outputs, list guards, dict names):
        self.op = op
        self.args = args
        self.number = number
        self.arrays = arrays
        self.constants = constants
        self.calls = calls
        self.inputs = inputs
        self.n_given = n_given
        self.outputs = outputs
        self.guards = guards
        self.names = names

    def __len__(self):
        return len(self.op)

    def parents(self, int i):
        """The nodes that node i is computed from."""
        cdef int code = self.op[i]
        if i in self.calls:
            return self.calls[i][2]
        if code < FAD_OP_CALL:
            return ()
        return tuple(self.args[i].tolist()) if code >= FAD_OP_FIRST_BINARY else (
            int(self.args[i, 0]),)

    def primitive(self, int i):
        """The name of what node i computes."""
        if i in self.inputs:
            return "input"
        if i in self.calls and self.calls[i][0] is not None:
            return self.calls[i][0].name
        return op_name(self.op[i])

    def place(self, int i):
        """(file, line, function) of where node i was recorded; None where that is not known."""
        return None if self.places is None else self.spot(self.places[i])

    def is_derived(self, int i):
        """Whether a sweep has recorded node i: a derivative of what stands at its place."""
        return self.places is not None and bool(self.places[i] & PLACE_DERIVED)

    def guard_place(self, int k):
        """(file, line, function) of where guard k was met; None where that is not known."""
        return None if self.guard_places is None else self.spot(self.guard_places[k])

    cdef object spot(self, int place):
        place &= ~PLACE_DERIVED
        return None if place <= 0 else place_of_code(*self.spots[place - 1])

    cdef object marked(self, list wanted, object known):
        """Which nodes `wanted` needs, besides those whose values are `known`."""
        cdef const uint16_t[::1] op = self.op
        cdef const int32_t[:, ::1] args = self.args
        cdef uint8_t[::1] need
        cdef Py_ssize_t i
        result = np.zeros(len(self.op), np.uint8)
        need = result
        for i in wanted:
            need[i] = 1
        for i in range(<Py_ssize_t>len(self.op) - 1, -1, -1):
            if not need[i] or op[i] < FAD_OP_CALL or i in known:
                continue
            if op[i] <= FAD_OP_LAST_OWNING:
                for p in (<tuple>self.calls[i])[2]:
                    need[p] = 1
                continue
            need[args[i, 0]] = 1
            if op[i] >= FAD_OP_FIRST_BINARY:
                need[args[i, 1]] = 1
        return result

    def evaluate(self, dict known, list wanted, bint whole=True, seconds=None, bint define=False):
        """Tensors of the nodes `wanted`, computed from the tensors `known` by node.

        Only what is needed is computed.  With `whole` everything that Python saw must be seen
        again, as for the function's result; otherwise what it saw before these nodes were made.
        To `seconds`, an array, the time that each node takes is added.  With `define` primitives
        are computed by their definitions, where these are known and have a value.

        Raises
        ------
        GuardError
            If Python would have seen another value than it saw when this was recorded.
        KeyError
            If an input is needed that is not known; its node is the error's argument.
        """
        return self.computed(known, wanted, whole, False, seconds, define)

    cdef list computed(self, dict known, list wanted, bint whole, bint checking,
                       double[::1] seconds=None, bint define=False):
        """As evaluate.  While a stored graph is checked, guards are not looked at, since the inputs
        are made up; instead every value must be of the kind that the graph says."""
        cdef const uint16_t[::1] op = self.op
        cdef const int32_t[:, ::1] args = self.args
        cdef const double[::1] number = self.number
        cdef const uint8_t[::1] need
        cdef Py_ssize_t i, n = len(self.op), g = 0, n_guards = 0, last = max(wanted, default=-1)
        cdef int code
        cdef fad_index start = 0
        cdef bint placing = fad_trace_id != 0 and tape.placing and self.places is not None
        cdef double began = 0.0
        cdef list values = [None] * n
        cdef list guards
        guards = [guard for guard in self.guards
                  if not checking and (whole or guard[4] <= last)]
        n_guards = len(guards)
        looked = [node for guard in guards for node in guard[2:4] if node >= 0]
        need = self.marked(wanted + looked, known)
        inputs = set(self.inputs)
        for i in range(n):
            while g < n_guards and guards[g][4] <= i:
                self.check(guards[g], values)
                g += 1
            if not need[i]:
                continue
            if i & 0xffff == 0:
                PyErr_CheckSignals()
            if seconds is not None:
                began = clock()
            start = tape.n
            found = known.get(i)
            code = op[i]
            if found is not None:
                pass
            elif i in inputs:
                raise KeyError(i)
            elif code == FAD_OP_CONST:
                found = self.constants[i] if i in self.arrays else number[i]
            elif code <= FAD_OP_LAST_OWNING:
                try:
                    found = self.defined(i, values) if define else self.call(i, values)
                except np.linalg.LinAlgError:
                    if not checking:
                        raise
                    found = self.call(i, self.regular(i, values))
            elif code < FAD_OP_FIRST_BINARY:
                found = unary(code, values[args[i, 0]])
            else:
                found = binary(code, values[args[i, 0]], values[args[i, 1]])
            values[i] = found
            if placing and tape.n > start:
                self.place_again(i, start)
            if seconds is not None:
                seconds[i] += clock() - began
            if checking:
                self.check_kind(i, floating(found))
        while g < n_guards:
            self.check(guards[g], values)
            g += 1
        return [floating(values[i]) for i in wanted]

    cdef int place_again(self, Py_ssize_t i, fad_index start) except -1:
        """What was recorded from `start` on stands where node i stood."""
        cdef fad_index j
        cdef int32_t place = self.places[i], again
        if place & ~PLACE_DERIVED > 0:
            code, at = self.spots[(place & ~PLACE_DERIVED) - 1]
            again = fad_place_new(code, at)
            for j in range(start, tape.n):
                tape.place[j] = again | place & PLACE_DERIVED
            tape.placed = max(tape.placed, tape.n)
        return 0

    cdef object call(self, Py_ssize_t i, list values):
        rule, params, nodes = <tuple>self.calls[i]
        if rule is None:
            return elementwise(self.op[i], tuple([values[p] for p in <tuple>nodes]))
        return self.again(i, tuple([floating(values[p]) for p in <tuple>nodes]))

    def has_definitions(self):
        """Whether nodes of primitives that have a definition are there."""
        return any([definition_of(call[0]) is not None for call in self.calls.values()])

    cdef object defined(self, Py_ssize_t i, list values):
        cdef Tensor t
        rule, params, nodes = <tuple>self.calls[i]
        definition = definition_of(rule)
        if definition is None:
            return self.call(i, values)
        t = definition(*[floating(values[p]) for p in <tuple>nodes], **params)
        if t is None:               # nothing that has a derivative
            return self.call(i, values)
        return of_dtype(t, self.arrays[i][1] if i in self.arrays else F64)

    def again(self, Py_ssize_t i, tuple inputs):
        """The structured primitive of node i of other tensors."""
        rule, params, nodes = <tuple>self.calls[i]
        kind = self.arrays.get(i)
        if isinstance(rule, CoreRule):
            shape, dtype = (NO_SHAPE, F64) if kind is None else kind
            return (<CoreRule>rule).compute(inputs, params, shape, dtype)
        if isinstance(rule, ByNumpy):
            return (<ByNumpy>rule).again(inputs)
        return apply(rule, inputs, params)

    cdef list regular(self, Py_ssize_t i, list values):
        """Made-up values, with unit matrices for the operands of node i, which were singular."""
        values = list(values)
        for p in self.calls[i][2]:
            t = floating(values[p])
            if t.ndim >= 2:
                one = np.empty(t.shape, t.dtype)
                one[...] = np.eye(t.shape[-2], t.shape[-1])
                values[p] = from_ndarray(one, False)
        return values

    cdef int check(self, guard, list values) except -1:
        """Look at what Python looked at."""
        cdef int kind
        kind, wanted, a, b, at, number, array = guard
        x = floating(values[a])
        y = floating(values[b]) if b >= 0 else None
        if kind <= FAD_GUARD_GE:
            same = bool(PyObject_RichCompare(x, y, kind)) == wanted
        elif kind == FAD_GUARD_TRUNC:
            same = int(x) == number
        elif kind == FAD_GUARD_NO_NAN:
            same = not holds_nan(x)
        else:
            seen = look(x)
            same = seen.tobytes() == (np.float64(number) if array is None else array).tobytes()
        if not same:
            seen = self.described(guard)
            error = GuardError(
                f"graph: {seen} when it was recorded, which does not hold for "
                "these inputs; record it again with them")
            error.seen = seen
            raise error
        return 0

    cdef int check_kind(self, Py_ssize_t i, Tensor t) except -1:
        shape, dtype = self.arrays.get(i, (NO_SHAPE, F64))
        if shape_of(t) != shape or t.dtype != dtype or (t.arr != NULL) != (i in self.arrays):
            raise ValueError(f"node {i} ({self.primitive(i)}) is {t.dtype} of shape {shape_of(t)}, "
                             f"not {dtype} of shape {shape}")
        return 0

    def verify(self, list outer):
        """Refuse a graph that does not fit together; `outer` are (shape, dtype) of outside tensors.

        The machine of the programs believes shapes, dtypes and places, so that each is checked
        here: by looking at the table, and by computing every node once on made-up inputs.

        Raises
        ------
        ValueError
            If something does not fit.
        """
        cdef const fad_row *row
        cdef Py_ssize_t i, n = len(self.op)
        cdef int code
        if (self.args.shape != (n, 2) or self.number.shape != (n,) or self.op.ndim != 1
                or self.op.dtype != np.uint16):
            raise ValueError("tables of unequal length")
        inputs = set(self.inputs)
        places = [*self.inputs, *self.outputs, *self.names.values(), *self.arrays, *self.calls,
                  *self.constants]
        if not all([type(i) is int and 0 <= i < n for i in places]) or (
                len(inputs) != len(self.inputs) or not 0 <= self.n_given <= len(self.inputs)
                or len(outer) != len(self.inputs) - self.n_given):
            raise ValueError("nodes that do not exist")
        for i in range(n):
            code = self.op[i]
            row = fad_row_of(code)
            called = FAD_OP_CALL <= code <= FAD_OP_LAST_OWNING
            if (row == NULL and code != FAD_OP_CONST and code != FAD_OP_CALL) or (
                    called != (i in self.calls)) or (i in inputs and code != FAD_OP_CONST):
                raise ValueError(f"node {i} is of no kind")
            if code == FAD_OP_CONST:
                if (i in self.constants) != (i in self.arrays and i not in inputs):
                    raise ValueError(f"node {i} is a constant without a value")
                continue
            parents = self.parents(i)
            if not all([type(p) is int and 0 <= p < i for p in parents]) or (
                    row != NULL and row.arity != len(parents)) or (
                    called and (self.calls[i][0] is None) != (row != NULL)):
                raise ValueError(f"node {i} has no such operands")
            if code == FAD_OP_CALL:
                self.verify_call(i)
        for kind, wanted, a, b, at, x, array in self.guards:
            if not (0 <= kind <= FAD_GUARD_NO_NAN and 0 <= a < at <= n and -1 <= b < at
                    and (b >= 0) == (kind <= FAD_GUARD_GE)):
                raise ValueError("a guard of nothing")
            shape, dtype = self.arrays.get(a, (NO_SHAPE, F64))
            if kind == FAD_GUARD_BYTES:
                fits = array is not None and (array.shape, array.dtype) == (shape, dtype) and (
                    a in self.arrays)
            else:
                fits = array is None and b not in self.arrays and (
                    dtype.kind in "fc" if kind == FAD_GUARD_NO_NAN else a not in self.arrays)
            if not fits:
                raise ValueError("a guard of another kind than its value")
        known = {}
        kinds = [self.arrays.get(i, (NO_SHAPE, F64)) for i in self.inputs]
        if [(tuple(shape), np.dtype(dtype)) for shape, dtype in kinds[self.n_given:]] != outer:
            raise ValueError("tensors from outside of another kind")
        for i, (shape, dtype) in zip(self.inputs, kinds):
            known[i] = from_ndarray(
                np.ones(shape, dtype) if dtype.kind in "fc" else np.zeros(shape, dtype), False)
        with np.errstate(all="ignore"):
            self.computed(known, list(range(n)), False, True)

    cdef int verify_call(self, Py_ssize_t i) except -1:
        """Parameters that the core does not check, since it takes them from rules alone."""
        rule, params, parents = <tuple>self.calls[i]
        kinds = [self.arrays.get(p, (NO_SHAPE, F64)) for p in parents]
        fits = True
        if rule is GET_NUMBER:
            if type(params) is tuple and params:    # (place, index), as it was first written
                params = params[0]
                self.calls[i] = rule, params, parents
            fits = kinds[0][1] == F64 and type(params) is int and (
                0 <= params < int(np.prod(kinds[0][0])))
        elif rule is TRANSPOSE:
            axes, inverse = params
            fits = sorted(axes) == list(range(len(kinds[0][0]))) and (
                [axes[k] for k in inverse] == list(range(len(axes))))
        elif rule is MATMUL:
            fits = [type(x) for x in params] == [bool] * 3 and len(parents) == 2
        elif isinstance(rule, Partial):
            shape = kinds[3][0] if len(parents) == 4 else None
            fits = shape is not None and 0 <= rule.side < fad_row_of(rule.op).arity and all(
                [dtype.kind in "fb" and np.broadcast_shapes(s, shape) == shape
                 for s, dtype in kinds])
        elif type(rule) is ComplexRow:
            shape, dtype = self.arrays.get(i, (NO_SHAPE, F64))
            fits = len(parents) == fad_row_of((<ComplexRow>rule).op).arity and (
                np.broadcast_shapes(*[s for s, _ in kinds]) == shape) and all(
                [d == dtype and dtype.kind == "c" for _, d in kinds])
        elif type(rule) is Part:
            fits = len(parents) == 1 and (kinds[0][1].kind == "f") == (
                (<Part>rule).part == FAD_TIMES_I) and code_of(kinds[0][1]) != FAD_OTHER
        elif rule is SET_NUMBER or rule is ADD_NUMBER:
            fits = len(parents) == 2 and parents[1] not in self.arrays and (
                kinds[0][1] == F64 and type(params) is int
                and 0 <= params < int(np.prod(kinds[0][0])))
        elif isinstance(rule, CoreRule) and rule is not ASSEMBLE:
            fits = len(parents) == 1
        elif rule is ASSEMBLE:
            shape, offsets = params
            fits = len(offsets) == len(parents) == len(set(offsets)) and all(
                [type(k) is int and 0 <= k < int(np.prod(shape)) for k in offsets]) and (
                not any([p in self.arrays for p in parents]))
        if not fits:
            raise ValueError(f"node {i} ({rule.name}) has other parameters than its operands allow")
        return 0

    def described(self, guard):
        """What Python saw, in words, and where."""
        found = None
        for k, other in enumerate(self.guards):
            if other is guard:
                found = self.guard_place(k)
        return self.seen(guard) + (f" (at {found[0]}:{found[1]})" if found else "")

    def guard_seen(self, int k):
        """What Python saw that guard k checks, in words."""
        return self.seen(self.guards[k])

    def swept(self):
        """How many operations a sweep has recorded."""
        if self.places is None:
            return 0
        return int(np.count_nonzero((self.places & PLACE_DERIVED != 0) & (self.op >= FAD_OP_CALL)))

    cdef str seen(self, guard):
        kind, wanted, a, b, at, number, array = guard
        what = f"node {a} ({self.primitive(a)})"
        if kind <= FAD_GUARD_GE:
            right = self.side(b, f"node {b}")
            left = self.side(a, what)
            sign = ("<", "<=", "==", "!=", ">", ">=")[kind]
            return f"{left} {sign} {right} was {bool(wanted)}"
        if kind == FAD_GUARD_TRUNC:
            return f"int() of {what} was {int(number)}"
        if kind == FAD_GUARD_NO_NAN:
            return f"{what} was without nan"
        if array is None:
            return f"{what} was {number_text(number)}"
        return f"{what} was {np.array2string(array, threshold=8)}"

    cdef str side(self, int i, str what):
        """A side of a comparison: a number, if it is one in every run."""
        constant = self.op[i] == FAD_OP_CONST and i not in self.inputs
        return number_text(self.number[i]) if constant else what

    def plan(self, list outer, hooks=None, bint plain=False):
        """A Plan of these nodes; `outer` are the tensors that it reads anew in each run.

        A `plain` one has loops over whole arrays alone, one for each operation.
        """
        cdef const uint16_t[::1] op = self.op
        cdef const int32_t[:, ::1] args = self.args
        cdef const double[::1] number = self.number
        cdef Py_ssize_t i, k, n = len(self.op)
        cdef fad_index start
        cdef fad_index *nodes
        cdef fad_array *arr
        cdef fad_call *call
        cdef fad_slot slot
        cdef BuildState state = BuildState()
        reserve(<fad_index>(n + 1))
        state.kinds = {}
        state.plain = plain
        tape.sweeping += 1          # nothing is moved or dropped until the plan is made
        start = tape.n
        nodes = <fad_index *>calloc(len(self.inputs) + len(self.outputs) + 1, sizeof(fad_index))
        try:
            if nodes == NULL:
                fail(FAD_NOMEM, "program")
            for i in range(n):
                kind = self.arrays.get(i)
                arr = NULL if kind is None else self.header(i, kind)
                state.kinds[start + i] = kind
                if op[i] > FAD_OP_LAST_OWNING or op[i] == FAD_OP_CONST:
                    k = start if op[i] > FAD_OP_LAST_OWNING else 0
                    if arr == NULL:
                        fad_push(&tape, op[i] | FAD_PASSIVE, <fad_index>(k + args[i, 0]),
                                 <fad_index>(k + args[i, 1]), number[i])
                    else:
                        fad_push_array_slow(
                            &tape, op[i] | FAD_PASSIVE, <fad_index>(k + args[i, 0]),
                            <fad_index>(k + args[i, 1]), arr)
                    continue
                rule, params, parents = <tuple>self.calls[i]
                try:
                    call = begin_call(len(<tuple>parents))
                except BaseException:
                    if arr != NULL:
                        fad_array_release(arr)
                    raise
                for k in range(call.n):
                    call.parent[k] = <fad_index>(start + <Py_ssize_t>(<tuple>parents)[k])
                fill_call(call, rule, params)
                if arr != NULL:
                    slot.arr = arr
                else:
                    slot.f = 0.0
                fad_push_call(&tape, op[i] | FAD_PASSIVE, call, slot, arr != NULL)
            for k in range(len(self.inputs)):
                nodes[k] = start + <fad_index>self.inputs[k]
            for k in range(len(self.outputs)):
                nodes[len(self.inputs) + k] = start + <fad_index>self.outputs[k]
            guards = [(kind, wanted, a + start, b + start if b >= 0 else -1, at + start, x, array)
                      for kind, wanted, a, b, at, x, array in self.guards]
            return build_plan(state, start, nodes, len(self.inputs), len(self.outputs), guards,
                              self.n_given, outer, self, hooks)
        finally:
            free(nodes)
            let_tape_move()

    cdef fad_array *header(self, Py_ssize_t i, object kind) except NULL:
        """An array of the kind of node i: the value of a constant, of others no bytes."""
        cdef int64_t dims[64]
        cdef Tensor t
        cdef fad_array *arr
        cdef int code, ndim
        if i in self.constants:
            return fad_array_share((<Tensor>self.constants[i]).arr)
        shape, dtype = kind
        ndim = read_shape(shape, dims)
        code = FAD_BOOL if dtype == np.bool_ else code_of(dtype)
        arr = fad_array_borrow(code, ndim, dims, NULL, NULL)
        if arr == NULL:
            fail(FAD_NOMEM, "program")
        return arr


def plain_plan(Plan plan not None):
    """The same program with loops over whole arrays alone."""
    cdef Plan other = plan.nodes.plan(plan.outer, plan.hooks, True)
    other.result = plan.result
    return other


def of_dtype(Tensor t not None, dtype):
    """What a definition gives, in the dtype of NumPy's own value, which drops imaginary parts that
    are zero."""
    if is_complex(t) and dtype.kind == "f":
        t = c_real(t)
    return t if t.dtype == dtype else astype(t, dtype)


cdef object definition_of(rule):
    return getattr(rule, "definition", None)


cdef str number_text(double x):
    return repr(float(x))


core_rules = CORE_RULES
GUARD_TRUNC, GUARD_NO_NAN = FAD_GUARD_TRUNC, FAD_GUARD_NO_NAN


def opcode_name(int op):
    """The name of an opcode, the same in every release."""
    return "call" if op == FAD_OP_CALL else op_name(op)


def opcode_of(str name):
    """The opcode of a name."""
    if name in ("constant", "call"):
        return FAD_OP_CONST if name == "constant" else FAD_OP_CALL
    for r in range(fad_row_count):
        if fad_rows[r].name.decode() == name:
            return fad_rows[r].op
    raise ValueError(f"there is no primitive {name!r}")


def partial_of(int op, int side):
    """The primitive that is the partial of a row to operand `side`."""
    if fad_row_of(op) == NULL or not 0 <= side < fad_row_of(op).arity:
        raise ValueError("there is no such partial")
    return partial_rule(op, side)


cdef Nodes capture(fad_index start, dict named, list looked, list where, const fad_index *src,
                   Py_ssize_t n_in, Py_ssize_t n_given, const fad_index *out, Py_ssize_t n_out):
    """What was taken down from node `start` on, as far as outputs, guards and names need it."""
    cdef uint8_t *state = <uint8_t *>calloc(tape.n + 1, 1)
    cdef fad_index *new = NULL      # the new number of a node
    cdef fad_index *before = NULL   # how many nodes stand before it
    cdef fad_index i, low = tape.n, n = 0
    cdef Py_ssize_t k
    cdef fad_call *call
    cdef unsigned code
    cdef uint16_t[::1] op
    cdef int32_t[:, ::1] args
    cdef double[::1] number
    cdef int32_t[::1] place
    cdef Nodes nodes
    cdef dict arrays = {}, constants = {}, calls = {}
    if state == NULL:
        fail(FAD_NOMEM, "program")
    try:
        new = <fad_index *>calloc(tape.n + 1, sizeof(fad_index))
        before = <fad_index *>calloc(tape.n + 1, sizeof(fad_index))
        if new == NULL or before == NULL:
            fail(FAD_NOMEM, "program")
        for k in range(n_in):
            state[src[k]] = STATE_VARIES | STATE_NEEDED
            low = min(low, src[k])
        for i in range(start, tape.n):
            code = tape.op[i] & FAD_OPCODE
            if code < FAD_OP_CALL:
                continue
            if code <= FAD_OP_LAST_OWNING:
                call = fad_call_of(&tape, i)
                for k in range(call.n):
                    state[i] |= state[call.parent[k]] & STATE_VARIES
            else:
                state[i] |= state[tape.args[i].a] & STATE_VARIES
                if code >= FAD_OP_FIRST_BINARY:
                    state[i] |= state[tape.args[i].b] & STATE_VARIES
            if tape.op[i] & FAD_ARRAY and tape.value[i].arr.hollow:
                state[i] |= STATE_VARIES    # what was changed in place is computed again
        names = {name: i for name, i in named.items() if i >= 0}
        kept = [k for k, g in enumerate(looked)
                if (state[g[2]] | (state[g[3]] if g[3] >= 0 else 0)) & STATE_VARIES]
        guards, where = [looked[k] for k in kept], [where[k] for k in kept]
        for k in range(n_out):
            state[out[k]] |= STATE_NEEDED
        for g in guards:
            state[<fad_index>g[2]] |= STATE_NEEDED
            if g[3] >= 0:
                state[<fad_index>g[3]] |= STATE_NEEDED
        for i in names.values():
            state[i] |= STATE_NEEDED
        for i in range(tape.n - 1, -1, -1):
            if not state[i] & STATE_NEEDED:
                continue
            code = tape.op[i] & FAD_OPCODE
            n += code != FAD_OP_positive or not state[i] & STATE_VARIES
            if not state[i] & STATE_VARIES or code < FAD_OP_CALL:
                continue
            if code <= FAD_OP_LAST_OWNING:
                call = fad_call_of(&tape, i)
                for k in range(call.n):
                    state[call.parent[k]] |= STATE_NEEDED
            else:
                state[tape.args[i].a] |= STATE_NEEDED
                if code >= FAD_OP_FIRST_BINARY:
                    state[tape.args[i].b] |= STATE_NEEDED
        ops, pairs, numbers = np.zeros(n, np.uint16), np.zeros((n, 2), np.int32), np.zeros(n)
        op, args, number = ops, pairs, numbers
        places = None
        if tape.placing:
            places = np.zeros(n, np.int32)
            place = places
        n = 0
        for i in range(tape.n):
            before[i] = n
            if not state[i] & STATE_NEEDED:
                continue
            code = tape.op[i] & FAD_OPCODE
            if code == FAD_OP_positive and state[i] & STATE_VARIES:
                new[i] = new[tape.args[i].a]        # a second name of the same value
                continue
            new[i] = n
            if places is not None and i >= start:
                place[n] = tape.place[i]
            if tape.op[i] & FAD_ARRAY:
                arrays[n] = kind_of(i)
            if not state[i] & STATE_VARIES or code < FAD_OP_CALL:
                op[n] = FAD_OP_CONST
                if state[i] & STATE_VARIES:
                    pass                # an input
                elif tape.op[i] & FAD_ARRAY:
                    constants[n] = value_of(i)
                else:
                    number[n] = tape.value[i].f
            else:
                op[n] = <uint16_t>code
                if code <= FAD_OP_LAST_OWNING:
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
        before[tape.n] = n
        nodes = Nodes(
            ops, pairs, numbers, arrays, constants, calls, [new[src[k]] for k in range(n_in)],
            <int>n_given, [new[out[k]] for k in range(n_out)],
            [(kind, wanted, new[<fad_index>a], new[<fad_index>b] if b >= 0 else -1,
              before[<fad_index>at], x, array) for kind, wanted, a, b, at, x, array in guards],
            {name: new[<fad_index>i] for name, i in names.items()})
        if places is not None:
            nodes.places, nodes.guard_places = places, where
            nodes.spots = list(<list>fad_place_list)
        return nodes
    finally:
        free(state)
        free(new)
        free(before)


def name(t, str name not None):
    """Give a value a name in the graph that is being recorded; returns the value.

    Outside a recording, and for values that are not followed, nothing happens.  A name that is
    taken gets a number: ``loss``, ``loss_1``, ...

    Parameters
    ----------
    t : Tensor
    name : str

    Returns
    -------
    Tensor
        `t` itself.

    Raises
    ------
    ValueError
        If the name is empty or has a colon or a slash in it, which `Graph.run` gives a meaning.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> def f(x):
    ...     residual = ad.name(x - 1.0, "residual")
    ...     return (residual**2).sum()
    >>> ad.record(f, np.zeros(2)).run({"x": np.array([3.0, 1.0])}, fetch="residual")
    array([2., 0.])
    """
    cdef Trace trace
    cdef fad_index i
    if not name or ":" in name or "/" in name:
        raise ValueError(f"name: {name!r} cannot be a name; it may be any text without ':' and '/'")
    if named_values is not None and type(t) is Tensor:
        named_values.append((name, t))
    if fad_trace_id and type(t) is Tensor and tracked(<Tensor>t):
        trace = tracing()
        reserve(2)
        i = node_of(shadow_of(<Tensor>t))
        if i >= 0:
            number = 1
            free_name = name
            while free_name in trace.names:
                free_name = f"{name}_{number}"
                number += 1
            trace.names[free_name] = i
    return t
