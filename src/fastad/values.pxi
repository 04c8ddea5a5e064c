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
    try:
        return function(*[values_in(x) for x in args],
                        **{key: values_in(x) for key, x in kwargs.items()})
    except (TypeError, ValueError, IndexError) as error:
        if named_error_ is None:
            raise
        raise named_error_(function.__name__, error) from None


cdef object tensors_of(object y, int others):
    """A result with tensors in place of arrays and numbers; `others` also hold what holds it."""
    if isinstance(y, np.bool_):
        return y
    if isinstance(y, cnp.ndarray):
        # somebody else's array may change
        if y.dtype.kind not in "fciub":
            return y
        return from_ndarray(y, Py_REFCNT(<PyObject *>y) > others + 1)
    if isinstance(y, np.number):
        return from_ndarray(y, False)
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
    if fad_trace_id or kwargs.get("out") is not None:
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
        return record_value(self, list(args), kwargs) if y is NotImplemented else y

    def __repr__(self):
        return f"<function {self.rule.name} of NumPy>"


cdef object record_value(Defined self, list args, dict kwargs):
    """Compute the value and record it."""
    cdef list inputs = [], places = []
    cdef Py_ssize_t k
    for k in range(len(args)):
        x = held(args[k])
        if type(x) is Tensor:
            inputs.append(x)
            places.append(k)
            args[k] = None
        else:
            args[k] = frozen(x)
    for key in list(kwargs):
        x = held(kwargs[key])
        if type(x) is Tensor:
            inputs.append(x)
            places.append(key)
            kwargs[key] = None
        else:
            kwargs[key] = frozen(x)
    full_args, full_kwargs = filled_in(inputs, args, kwargs, places)
    y = called_by_value(self.function, tuple(full_args), full_kwargs)
    return recorded(self.rule, y, tuple(inputs), (tuple(args), kwargs, tuple(places)), ())


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


cdef object recorded(object rule, object y, tuple inputs, tuple call, tuple part):
    """A result as tensors, each with a node."""
    cdef Tensor out
    if isinstance(y, np.bool_):
        return y
    if isinstance(y, cnp.ndarray) or isinstance(y, np.number):
        if y.dtype.kind not in "fciub":
            return y
        out = from_ndarray(y, False)
        record_call(out, rule, inputs, {"args": call[0], "kwargs": call[1], "places": call[2],
                                        "part": part}, True, False)
        if out.arr != NULL and out.arr.dtype >= FAD_BOOL and out.h.idx >= 0:
            tape.op[out.h.idx] |= FAD_PASSIVE
        return out
    if isinstance(y, (tuple, list)):
        parts = [recorded(rule, item, inputs, call, (*part, k)) for k, item in enumerate(y)]
        return parts if type(y) is list else tuple(parts) if type(y) is tuple else type(y)(*parts)
    return y
