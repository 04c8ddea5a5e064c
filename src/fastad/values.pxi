# Functions of NumPy called with tensors: on their values alone, or as primitives whose value NumPy
# computes and whose derivatives a definition gives (definitions.py).


cdef object named_error_ = None         # rules.named
cdef object from_list_ = None           # a tensor from a list that holds tensors
cdef object into_ = None                # assignment.into


def register_definitions(named, from_list, into):
    """The floors above supply the naming of errors, lists of tensors and ``out`` arguments."""
    global named_error_, from_list_, into_
    named_error_ = named
    from_list_ = from_list
    into_ = into


cdef bint is_followed(object x):
    """Whether an argument holds a tensor whose use would be recorded, or may do so when called."""
    if type(x) is Tensor:
        fresh(<Tensor>x)            # a view of what has been written to since may be
        return tracked(<Tensor>x)
    if type(x) is list or type(x) is tuple:
        for item in x:
            if is_followed(item):
                return True
        return False
    if type(x) is dict:
        return is_followed(list((<dict>x).values()))
    return is_function(x)


cdef inline bint is_function(object x):
    """Whether an argument is a function, which may hold tensors, rather than a dtype or a ufunc."""
    return PyCallable_Check(x) and not isinstance(x, (type, np.ufunc))


cdef bint holds_function(object x):
    if type(x) is list or type(x) is tuple:
        return any([holds_function(item) for item in x])
    return is_function(x)


cdef object values_in(object x):
    """An argument with arrays in place of tensors."""
    if type(x) is Tensor:
        return value_array(<Tensor>x)
    if type(x) is list:
        return [values_in(item) for item in x]
    if type(x) is tuple:
        return tuple([values_in(item) for item in x])
    if type(x) is dict:
        return {key: values_in(item) for key, item in (<dict>x).items()}
    return x


cdef object called_by_value(object function, tuple args, dict kwargs):
    cdef list given = [values_in(x) for x in args]
    if type(function) is not BuiltinMethodType and function in READING:
        readable(given)
    try:
        if kwargs:
            return function(*given, **{key: values_in(x) for key, x in kwargs.items()})
        return called(function, given)
    except (TypeError, ValueError, IndexError) as error:
        raise named_as(function.__name__, error) from None


# NumPy copies operands of some functions that it could not write to, though it only reads them.
cdef set READING = set()


def register_reading(functions):
    """The floor above names functions that write to no operand, whatever their options."""
    READING.update(functions)


cdef inline object readable(object x):
    """An array over a tensor's values, or a list of such, for a function that only reads it."""
    if type(x) is cnp.ndarray:
        if type(cnp.get_array_base(<cnp.ndarray>x)) is Keeper:
            cnp.PyArray_ENABLEFLAGS(<cnp.ndarray>x, cnp.NPY_ARRAY_WRITEABLE)
    elif type(x) is list:
        for item in x:
            readable(item)
    return x


cdef inline object called(object function, list given):
    """``function(*given)``."""
    return PyObject_Vectorcall(function, PySequence_Fast_ITEMS(given), len(given), NULL)


cdef object named_as(str name, error):
    """An error with the function's name in front."""
    return error if named_error_ is None else named_error_(name, error)


cdef object bool_type = np.bool_
cdef object number_type = np.number


cdef inline bint has_numbers(object y):
    """Whether an array or number of NumPy's is one of numbers or truth values."""
    if type(y) is cnp.ndarray:
        return (cnp.PyTypeNum_ISNUMBER(cnp.PyArray_TYPE(<cnp.ndarray>y))
                or cnp.PyArray_TYPE(<cnp.ndarray>y) == cnp.NPY_BOOL)
    return y.dtype.kind in "fciub"


cdef object tensors_of(object y, int others):
    """A result with tensors in place of arrays and numbers; `others` also hold what holds it."""
    if isinstance(y, cnp.ndarray):
        # somebody else's array may change
        if not has_numbers(y):
            return y
        return from_ndarray(y, Py_REFCNT(<PyObject *>y) > others + 1)
    if isinstance(y, number_type):
        return from_ndarray(y, False)
    if isinstance(y, bool_type):
        return y
    if isinstance(y, tuple):
        parts = [tensors_of(part, 1) for part in y]
        return tuple(parts) if type(y) is tuple else type(y)(*parts)
    if type(y) is list:
        return [tensors_of(part, 1) for part in y]
    return y


def by_value(function, tuple args, dict kwargs):
    """What NumPy's function of values gives, as tensors.

    NotImplemented where a tensor among the arguments is followed, where one of them is a function
    that may hold such tensors, where the result is a view of a tensor, or with an argument
    ``out``.
    """
    if fad_trace_id or (kwargs and kwargs.get("out") is not None):
        return NotImplemented
    if fad_grad_off != 1:
        for x in args:
            if is_followed(x):
                return NotImplemented
        if kwargs and is_followed(kwargs):
            return NotImplemented
    elif holds_function(args) or holds_function(tuple(kwargs.values())):
        return NotImplemented
    y = called_by_value(function, args, kwargs)
    return NotImplemented if shows_values(y) else tensors_of(y, 0)


cdef bint shows_values(object y):
    """Whether a result of NumPy's is a view of a tensor's values, so that a view is wanted."""
    cdef object base = y
    if type(y) is list or type(y) is tuple:
        for part in y:
            if shows_values(part):
                return True
        return False
    while type(base) is cnp.ndarray:
        if cnp.PyArray_CHKFLAGS(<cnp.ndarray>base, cnp.NPY_ARRAY_OWNDATA):
            # integers are kept in arrays of NumPy's own, to which nobody writes
            return not cnp.PyArray_CHKFLAGS(<cnp.ndarray>base, cnp.NPY_ARRAY_WRITEABLE)
        base = cnp.get_array_base(<cnp.ndarray>base)
    return type(base) is Keeper


cdef object frozen(object x):
    """An argument that is no tensor, in a form that nobody else can change."""
    if type(x) is cnp.ndarray:
        return x.copy()
    if type(x) is list:
        return [frozen(item) for item in x]
    if type(x) is tuple:
        return tuple([frozen(item) for item in x])
    return x


@cython.final
cdef class Defined:
    """A function of NumPy whose value NumPy computes; a rule gives its derivatives.

    A call that is recorded leaves a node for each array among its results.  The rule's parameters
    are ``args`` and ``kwargs``, with None where inputs stand, their `places`, and `part`: the
    indices that lead to one of several results.
    """
    cdef readonly object function
    cdef readonly object rule
    cdef dict __dict__

    def __init__(self, function, rule):
        self.function = function
        self.rule = rule

    def __call__(self, *args, **kwargs):
        if kwargs and kwargs.get("out") is not None:
            out = kwargs.pop("out")
            return into_(out, self(*args, **kwargs), self.rule.name)
        y = by_value(self.function, args, kwargs)
        return record_value(self, self.function, args, kwargs) if y is NotImplemented else y

    def __repr__(self):
        return f"<function {self.rule.name} of NumPy>"


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Given:
    """What a recorded call was given, of which its rule's parameters are made when asked for."""
    cdef tuple args, places, part
    cdef dict kwargs

    cdef dict params(self):
        return {"args": self.args, "kwargs": {} if self.kwargs is None else self.kwargs,
                "places": self.places, "part": self.part}


cdef tuple NO_ARGUMENT = (None,)
cdef tuple ONE_PLACE = tuple([(k,) for k in range(8)])


cdef object record_value(Defined self, object function, tuple args, dict kwargs, object first=None):
    """Compute the value by a function and record it, as a call with `first`, if it is not None, in
    front of the arguments."""
    cdef list inputs, places, kept, given
    cdef dict kept_keywords = None, given_keywords = None
    cdef Py_ssize_t k, shift = first is not None
    cdef Given call = Given.__new__(Given)
    call.part = ()
    if len(args) == 1 and type(args[0]) is Tensor and not kwargs:       # the most common call
        values = value_array(<Tensor>args[0])
        try:
            y = function(values)
        except (TypeError, ValueError, IndexError) as error:
            raise named_as(function.__name__, error) from None
        call.args = (first, None) if shift else NO_ARGUMENT
        call.places = <tuple>ONE_PLACE[shift]
        return recorded(self.rule, y, args, call)
    inputs, places, kept, given = [], [], list(args), list(args)
    for k in range(len(kept)):
        x = held(kept[k])
        if type(x) is Tensor:
            inputs.append(x)
            places.append(k + shift)
            kept[k] = None
            given[k] = value_array(<Tensor>x)
        else:
            kept[k] = given[k] = frozen(x)
            if type(x) is dict:
                given[k] = values_in(x)
    if kwargs:
        kept_keywords, given_keywords = {}, {}
        for key, x in kwargs.items():
            x = held(x)
            if type(x) is Tensor:
                inputs.append(x)
                places.append(key)
                kept_keywords[key] = None
                given_keywords[key] = value_array(<Tensor>x)
            else:
                kept_keywords[key] = x = frozen(x)
                given_keywords[key] = values_in(x) if type(x) is dict else x
    try:
        y = called(function, given) if given_keywords is None else function(
            *given, **given_keywords)
    except (TypeError, ValueError, IndexError) as error:
        raise named_as(function.__name__, error) from None
    if shift:
        kept.insert(0, first)
    call.args = tuple(kept)
    call.kwargs = kept_keywords
    call.places = (<tuple>ONE_PLACE[places[0]] if len(places) == 1 and type(places[0]) is int and (
        places[0] < 8) else tuple(places))
    return recorded(self.rule, y, tuple(inputs), call)


cdef object held(object x):
    if (type(x) is list or type(x) is tuple) and holds_a_tensor(x):
        return from_list_(x)
    return x


cdef bint holds_a_tensor(object items):
    for x in items:
        if type(x) is Tensor or (type(x) in (list, tuple) and holds_a_tensor(x)):
            return True
    return False


def filled_in(inputs, args, kwargs, places):
    """A call's arguments with `inputs` in their places."""
    args, kwargs = list(args), dict(kwargs)
    for x, place in zip(inputs, places):
        if type(place) is int:
            args[place] = x
        else:
            kwargs[place] = x
    return args, kwargs


cdef object recorded(object rule, object y, tuple inputs, Given call):
    """A result as tensors, each with a node."""
    cdef Tensor out
    cdef Given of_part
    if isinstance(y, cnp.ndarray) or isinstance(y, number_type):
        if not has_numbers(y):
            return y
        out = from_ndarray(y, False)
        record_call(out, rule, inputs, call, True, False)
        if out.arr != NULL and out.arr.dtype >= FAD_BOOL and out.h.idx >= 0:
            tape.op[out.h.idx] |= FAD_PASSIVE
        return out
    if isinstance(y, (tuple, list)):
        parts = []
        for k, item in enumerate(y):
            of_part = Given.__new__(Given)
            of_part.args, of_part.kwargs, of_part.places = call.args, call.kwargs, call.places
            of_part.part = (*call.part, k)
            parts.append(recorded(rule, item, inputs, of_part))
        return parts if type(y) is list else tuple(parts) if type(y) is tuple else type(y)(*parts)
    return y


# ---- functions that are one call of a primitive --------------------------------------------------


@cython.final
cdef class Stated:
    """A function of NumPy that is one call of a primitive, which a statement names.

    ``statement(*args)`` gives the primitive, its inputs, which are the operands cast and reshaped,
    and its parameters.  It runs when a sweep needs them, or a trace: a call that is recorded costs
    little more than NumPy's.
    """
    cdef readonly object function, statement, rule
    # how many arguments are operands; 0: those in the first one; -1: all but the first, a text
    cdef int operands
    cdef int out                    # where the argument of this name stands
    cdef dict plain                 # where arguments stand, by name, without which this holds
    cdef dict __dict__

    def __init__(self, function, statement, rule, int operands, int out, dict plain):
        self.function = function
        self.statement = statement
        self.rule = rule
        self.operands = operands
        self.plain = plain
        self.out = out
        READING.add(function)

    def __call__(self, *args, **kwargs):
        if kwargs and kwargs.get("out") is not None:
            out = kwargs.pop("out")
            return into_(out, self(*args, **kwargs), self.rule.name)
        if len(args) > self.out and args[self.out] is not None:
            return into_(args[self.out], self(*args[:self.out], None, *args[self.out + 1:],
                                              **kwargs), self.rule.name)
        try:
            y = by_value(self.function, args, kwargs)
        except (TypeError, ValueError, IndexError):
            y = state(self, args, kwargs)       # which says it in its own words
        if y is NotImplemented:
            y = record_stated(self, args, kwargs)
        return state(self, args, kwargs) if y is NotImplemented else y

    def __get__(self, instance, owner):
        return self if instance is None else MethodType(self, instance)

    def __repr__(self):
        return f"<function {self.rule.name} of NumPy>"


cdef object state(Stated self, tuple args, dict kwargs):
    """Record the primitive itself."""
    found = self.statement(*args, **kwargs)
    if type(found) is Tensor:
        return found
    rule, inputs, params = found
    return record(rule, tuple(inputs), params)


cdef Tensor stated_operand(object x, int *code):
    """An operand with axes, of one floating dtype with the others, as a tensor; else None."""
    cdef Tensor t
    if type(x) is Tensor:
        t = <Tensor>x
    elif type(x) is cnp.ndarray and has_numbers(x):
        t = from_ndarray(x, True)
    else:
        return None
    if t.arr == NULL or t.arr.ndim == 0 or t.arr.dtype >= FAD_BOOL or (
            code[0] >= 0 and code[0] != t.arr.dtype):
        return None
    code[0] = t.arr.dtype
    return t


cdef object record_stated(Stated self, tuple args, dict kwargs):
    """Record a call whose primitive is stated later; NotImplemented: now, by `state`."""
    cdef list inputs = [], kept = list(args), given = list(args), values
    cdef dict keywords = None
    cdef Py_ssize_t k, n = len(args), first = self.operands if self.operands else 1
    cdef Py_ssize_t start = 0
    cdef Tensor t, out
    cdef Given call
    cdef int code = -1
    if self.operands < 0:
        start, first = 1, n
        if n < 2 or type(args[0]) is not str:
            return NotImplemented
    if fad_trace_id or n < first:
        return NotImplemented
    for name, k in self.plain.items():
        if (n > k and args[k] is not None) or (kwargs and name in kwargs):
            return NotImplemented
    if self.operands == 0:
        if type(args[0]) is not list and type(args[0]) is not tuple:
            return NotImplemented
        values = []
        for x in args[0]:
            t = stated_operand(x, &code)
            if t is None:
                return NotImplemented
            inputs.append(t)
            values.append(value_array(t))
        given[0] = values
        kept[0] = None
    for k in range(start, first if self.operands else 0):
        t = stated_operand(args[k], &code)
        if t is None:
            return NotImplemented
        inputs.append(t)
        given[k] = value_array(t)
        kept[k] = None
    for k in range(first, n):
        x = args[k]
        if is_followed(x):
            return NotImplemented
        given[k] = kept[k] = frozen(values_in(x))
    if kwargs:
        keywords = {}
        for key, x in kwargs.items():
            if is_followed(x):
                return NotImplemented
            keywords[key] = frozen(values_in(x))
    readable(given)
    try:
        y = called(self.function, given) if keywords is None else self.function(
            *given, **keywords)
    except (TypeError, ValueError, IndexError):
        return NotImplemented       # which says what is wrong
    if not (type(y) is cnp.ndarray or isinstance(y, number_type)) or not has_numbers(y):
        return NotImplemented
    out = from_ndarray(y, False)
    call = Given.__new__(Given)
    call.args = tuple(kept)
    call.kwargs = keywords
    call.places = call.part = ()
    record_call(out, self.rule, tuple(inputs), call, self.rule.reads_inputs,
                self.rule.reads_output)
    return out


# ---- methods of ufuncs that are recorded ---------------------------------------------------------

cdef dict METHODS = {}              # method -> {ufunc: its definition}
cdef dict REDUCTIONS = {}           # ufunc -> the primitive of its reduction; None: the sum


def register_ufunc_methods(dict methods, dict reductions):
    """The floors above supply what differentiates the methods of ufuncs."""
    METHODS.update(methods)
    REDUCTIONS.update(reductions)


cdef object record_method(object ufunc, object method, object named, tuple inputs, dict kwargs):
    """Record a method of a ufunc; NotImplemented: the general way."""
    cdef dict definitions
    if fad_trace_id or (kwargs and ("out" in kwargs or "where" in kwargs)):
        return NotImplemented
    if method == "reduce" and ufunc in REDUCTIONS and len(inputs) == 1 and (
            type(inputs[0]) is Tensor) and is_float(<Tensor>inputs[0]) and "initial" not in kwargs \
            and "dtype" not in kwargs:
        rule = REDUCTIONS[ufunc]
        axis = kwargs.get("axis", 0)
        keepdims = kwargs.get("keepdims", False)
        if rule is not None:
            y = reduction(rule, named, <Tensor>inputs[0], axis, keepdims)
            return NotImplemented if y is None else y
        if type(axis) is int and (<Tensor>inputs[0]).arr != NULL:
            return c_sum(<Tensor>inputs[0], axis, keepdims)
        return NotImplemented
    definitions = METHODS.get(method)
    definition = None if definitions is None else definitions.get(ufunc)
    if definition is None:
        return NotImplemented
    if type(definition) is Stated:
        return record_stated(<Stated>definition, inputs, kwargs)
    return record_value(<Defined>definition, named, inputs, kwargs, ufunc)


def reduction(rule, function, Tensor t not None, axis, bint keepdims):
    """Record a primitive whose value ``function(array, axis, None, None, keepdims)`` gives.

    None where the axis is not plainly one or more of the tensor's.
    """
    cdef Py_ssize_t k, n = 0 if t.arr == NULL else t.arr.ndim
    cdef Tensor out
    cdef tuple axes = None
    if type(axis) is int:
        k = axis
        if k < 0:
            k += n
        if k < 0 or k >= n:
            return None
        axes = (k,)
    elif axis is not None:
        return None
    try:
        out = from_ndarray(function(value_array(t), axes, None, None, keepdims), False)
    except (TypeError, ValueError, IndexError) as error:
        raise named_as(rule.name, error) from None
    record_call(out, rule, (t,), {"axis": axes, "keepdims": keepdims}, rule.reads_inputs,
                rule.reads_output)
    return out


cdef set KEEPING = set()            # functions that give a tensor with axes back


def register_keeping(functions):
    """The floor above names functions of NumPy that return a tensor with axes as it is."""
    KEEPING.update(functions)


# ---- calls that need no look at their arguments --------------------------------------------------

# Function of NumPy -> None, or (ours, most arguments, keywords, others that mean nothing here).
cdef dict STRAIGHT = {}
cdef object straight_ = None


def register_straight(find):
    """The floor above says how a function is called for which nothing has to be looked at: with
    so many positional arguments at most, these keywords, and others that are dropped."""
    global straight_
    straight_ = find


cdef object call_straight(object function, tuple args, dict kwargs):
    """What stands for a function of NumPy, called; NotImplemented: the general way."""
    found = STRAIGHT.get(function, STRAIGHT)
    if found is STRAIGHT:
        found = STRAIGHT[function] = straight_(function)
    if found is None or len(args) > <Py_ssize_t>(<tuple>found)[1]:
        return NotImplemented
    if not kwargs:
        return (<tuple>found)[0](*args)
    given = {}
    for key, x in kwargs.items():
        if key in <frozenset>(<tuple>found)[2]:
            given[key] = x
        elif key not in <frozenset>(<tuple>found)[3] or (key == "device" and x is not None):
            return NotImplemented
    return (<tuple>found)[0](*args, **given)
