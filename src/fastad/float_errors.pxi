# Part of _core.pyx: floating-point exceptions, of which ``np.errstate`` says what is done.
#
# Rows of NumPy's report them as NumPy does for the same arrays: before anything is recorded.  Of
# arrays the processor's flags tell.  Numbers are looked at only where the result is inf or nan, so
# an underflow of a number is not seen.  Sweeps and recordings are quiet;
# programs look at their results, see blame.py.


cdef tuple EXCEPTIONS = (
    (FAD_DIVIDE, "divide", "divide by zero"),
    (FAD_OVER, "over", "overflow"),
    (FAD_UNDER, "under", "underflow"),
    (FAD_INVALID, "invalid", "invalid value"),
)


cdef inline bint is_quiet() noexcept:
    """Whether derivatives are computed, or a program is recorded."""
    return tape.sweeping or fad_trace_id


cdef extern from "Python.h":
    int PyContextVar_Get(object var, PyObject *default, PyObject **value) except -1


# ``np.geterr()`` takes as long as several operations.  NumPy keeps what it says in a context
# variable, as an object that does not change: it is asked again when there is another one.
cdef object settings_ = getattr(np._core.umath, "_extobj_contextvar", None)
cdef tuple heeded_ = (None, 0)      # the object, and the exceptions that it does not ignore


cdef unsigned heeded(unsigned flags) except 0xffffffff:
    """Those of some exceptions about which something is to be done."""
    global heeded_
    cdef PyObject *found = NULL
    cdef tuple known = heeded_
    if is_quiet():
        return 0
    if settings_ is not None:
        PyContextVar_Get(settings_, NULL, &found)
    if found == NULL or found != <PyObject *>known[0]:
        told = np.geterr()
        known = heeded_ = (<object>found if found != NULL else None,
                           sum([flag for flag, key, _ in EXCEPTIONS if told[key] != "ignore"]))
    if found != NULL:
        Py_DECREF(<object>found)
    return flags & <unsigned>known[1]


cdef int report(str name, unsigned flags) except -1:
    """Do about exceptions what ``np.errstate`` says, in the words of NumPy."""
    cdef unsigned flag
    told = np.geterr()
    for flag, key, text in EXCEPTIONS:
        how = told[key]
        if not flags & flag or how == "ignore":
            continue
        if how == "raise":
            raise FloatingPointError(f"{text} encountered in {name}")
        if how == "warn":
            PyErr_WarnEx(RuntimeWarning, f"{text} encountered in {name}".encode(), 1)
            continue
        line = f"Warning: {text} encountered in {name}\n"
        if how == "print":
            sys.stderr.write(line)
        elif how == "call":
            np.geterrcall()(text, flags)
        else:
            np.geterrcall().write(line)
    return 0


cdef int report_array(int op, fad_array *arr) except -1:
    """Report the exceptions of an array that was computed, and release it if that raises."""
    try:
        if heeded(fad_raised):
            report(UFUNCS[op].__name__, fad_raised)
    except BaseException:
        fad_array_release(arr)
        raise
    return 0


cdef int report_number(int op, double a, double b, double c) except -1:
    """Report the exceptions of a number that came out as inf or nan.

    A nan that goes in comes out without one, though comparisons with it may raise the flag.
    """
    cdef double x[3]
    if a != a or b != b or c != c or is_quiet() or type(UFUNCS[op]) is not np.ufunc:
        return 0
    x[0], x[1], x[2] = a, b, c
    flags = fad_raised_by(op, x)
    if heeded(flags):
        report(UFUNCS[op].__name__, flags)
    return 0


cdef set how_of(unsigned flags):
    """What is done about exceptions: some of warn, raise, print, call and log."""
    told = np.geterr()
    return {told[key] for flag, key, _ in EXCEPTIONS if flags & flag} - {"ignore"}


def how_told():
    """What is done about the exceptions that give inf and nan."""
    flags = heeded(FAD_DIVIDE | FAD_OVER | FAD_INVALID)
    return how_of(flags) if flags else set()
