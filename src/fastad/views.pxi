# Part of _core.pyx: assignment in place, and tensors that show the elements of others.
#
# A view holds the tensor that it shows (its *root*, never a view itself) and where in it: the first
# element and the steps along its axes.  It has a copy of these elements and a node that says how
# they came from the root's node, so reading it costs what reading any tensor costs.  A write goes
# to the root, whose views are then *stale*: their arrays are hollow and they have no node, until
# somebody reads them and they are taken anew from the root.
#
#     root ---- Views ----> fresh view <-> fresh view <-> ...        borrowed references
#       ^                       |
#       '------- View.root -----'      stale views are in no list
#
# A write changes the root's buffer where it is, when no partial, no other tensor and no NumPy view
# needs what was there; else a copy of it.  The old node then keeps its shape alone.


cdef enum:
    HAS_VIEWS = 1, IS_VIEW = 2      # Tensor.aliased
    REAL_PART = 1, IMAG_PART = 2    # View.part


@cython.final
cdef class Views:
    """A root's side: the list of its fresh views, which it does not own."""
    cdef PyObject *first
    cdef bint written               # it changes in place: slices are copied, not borrowed

    def __dealloc__(self):
        cdef PyObject *p = self.first
        while p != NULL:
            (<View>p).link = NULL
            p = (<View>p).next


@cython.final
@cython.freelist(64)
cdef class View:
    """A view's side; owned by the tensor that is the view."""
    cdef Tensor root
    cdef PyObject *tensor           # the view, borrowed
    cdef object function            # its place is that of function(the root's array, *args)
    cdef tuple args                 # ... until it is worked out:
    cdef int64_t first
    cdef int64_t *strides           # in elements; NULL: not worked out
    cdef fad_array *shell           # what its array becomes when it is stale
    cdef int part                   # of the elements there: REAL_PART, IMAG_PART; 0: all of them
    cdef bint readonly
    cdef bint detached              # made under no_grad() of a tensor with a history
    cdef PyObject **link            # what points here in the list of fresh views; NULL: stale
    cdef PyObject *next

    def __dealloc__(self):
        unlink_view(self)
        free(self.strides)
        if self.shell != NULL:
            fad_array_release(self.shell)


cdef void unlink_view(View v) noexcept:
    if v.link == NULL:
        return
    v.link[0] = v.next
    if v.next != NULL:
        (<View>v.next).link = v.link
    v.link = NULL
    v.next = NULL


cdef int link_view(View v) except -1:
    """Enter a fresh view in its root's list."""
    cdef Views views
    if v.root.aliased:
        views = <Views>v.root.alias
    else:
        views = Views.__new__(Views)
        fad_tensor_set_alias(v.root, views, HAS_VIEWS)
    v.next = views.first
    if v.next != NULL:
        (<View>v.next).link = &v.next
    v.link = &views.first
    views.first = <PyObject *>v
    return 0


# ---- places --------------------------------------------------------------------------------------


cdef cnp.ndarray window_at(void *data, int typenum, int ndim, const int64_t *shape, int64_t first,
                           const int64_t *strides, int flags):
    """ndarray over elements of a buffer that something else keeps alive."""
    cdef cnp.npy_intp dims[64]
    cdef cnp.npy_intp steps[64]
    cdef int64_t item = cnp.PyArray_DescrFromType(typenum).itemsize
    cdef int k
    for k in range(ndim):
        dims[k] = shape[k]
        steps[k] = strides[k] * item
    return cnp.PyArray_New(cnp.ndarray, ndim, dims, typenum, steps, <char *>data + first * item, 0,
                           flags, None)


def window(cnp.ndarray x not None, tuple place not None):
    """View of an array in C order: the elements at ``place = (first, shape, strides)``.

    Raises
    ------
    ValueError
        If the place reaches beyond the array.
    """
    cdef int64_t dims[64]
    cdef int64_t steps[64]
    cdef int64_t low, high, first
    cdef cnp.ndarray out
    cdef int k, n
    cdef bint empty = False
    first, shape, strides = place
    n = read_shape(shape, dims)
    low = high = first
    for k in range(n):
        steps[k] = strides[k]
        empty |= dims[k] == 0
        if steps[k] < 0:
            low += steps[k] * (dims[k] - 1)
        else:
            high += steps[k] * (dims[k] - 1)
    if empty:
        first = 0
    elif low < 0 or high >= cnp.PyArray_SIZE(x) or len(strides) != n or (
            not cnp.PyArray_ISCARRAY_RO(x)):
        raise ValueError(f"window: {place} reaches beyond an array of shape {np.shape(x)}")
    out = window_at(cnp.PyArray_DATA(x), cnp.PyArray_TYPE(x), n, dims, first, steps,
                    cnp.PyArray_FLAGS(x) & cnp.NPY_ARRAY_WRITEABLE)
    cnp.set_array_base(out, x)
    return out


cdef cnp.ndarray root_array(Tensor root):
    """The array of a root, to look at places in it."""
    return view_of(root.arr)


cdef int set_place(View v, cnp.ndarray whole, cnp.ndarray part) except -1:
    cdef int64_t item = whole.dtype.itemsize
    cdef int k, n = cnp.PyArray_NDIM(part)
    v.strides = <int64_t *>calloc(n + 1, sizeof(int64_t))
    if v.strides == NULL:
        fail(FAD_NOMEM, "view")
    for k in range(n):
        v.strides[k] = cnp.PyArray_STRIDES(part)[k] // item
    v.first = 0
    if cnp.PyArray_SIZE(part):
        v.first = (<char *>cnp.PyArray_DATA(part) - <char *>cnp.PyArray_DATA(whole)) // item
    v.function = v.args = None
    return 0


cdef int work_out(View v) except -1:
    """Find the place of a view."""
    if v.strides == NULL:
        whole = root_array(v.root)
        set_place(v, whole, v.function(whole, *v.args))
    return 0


cdef cnp.ndarray window_of(Tensor t):
    """NumPy's view for a tensor that is one, else its array: for its place, not to be read."""
    cdef View v
    cdef cnp.ndarray whole, out
    if t.aliased != IS_VIEW:
        return root_array(t)
    v = <View>t.alias
    work_out(v)
    whole = root_array(v.root)
    out = window_at(cnp.PyArray_DATA(whole), cnp.PyArray_TYPE(whole), t.arr.ndim, t.arr.shape,
                    v.first, v.strides, 0)
    cnp.set_array_base(out, whole)
    return out


cdef bint lies_in(cnp.ndarray part, Tensor root):
    """Whether an array is a view of the root's buffer."""
    cdef char *start = <char *>root.arr.data
    cdef char *p = <char *>cnp.PyArray_DATA(part)
    if cnp.PyArray_SIZE(part) == 0:
        return True
    return start <= p < start + root.arr.size * <int64_t>root.dtype.itemsize


cdef tuple place_of(View v, const fad_array *arr):
    """(first element, shape, strides), in elements."""
    cdef int k
    work_out(v)
    return v.first, dims_of(arr), tuple([v.strides[k] for k in range(arr.ndim)])


cdef Tensor root_of(Tensor t):
    return (<View>t.alias).root if t.aliased == IS_VIEW else t


# ---- making views --------------------------------------------------------------------------------


cdef int attach(Tensor out, Tensor base, object function, tuple args, bint readonly,
                bint sure=True) except -1:
    """Make `out`, just computed, a view of `base` where ``function(array, *args)`` is one.

    With `sure` it is one of every array in C order.  Numbers are no views: in NumPy they are not
    arrays.
    """
    cdef View v, b
    if (out is base or out.aliased or out.arr == NULL or out.arr.ndim == 0
            or base.arr == NULL or base.arr.ndim == 0):
        return 0
    v = View.__new__(View)
    v.readonly = readonly
    v.detached = fad_grad_off & 1 and active(base)
    if base.aliased == IS_VIEW or not sure:
        v.root = root_of(base)
        found = function(window_of(base), *args)
        if type(found) is not cnp.ndarray or not lies_in(<cnp.ndarray>found, v.root):
            return 0
        set_place(v, root_array(v.root), <cnp.ndarray>found)
        if base.aliased == IS_VIEW:
            b = <View>base.alias
            v.part = b.part
            v.readonly |= b.readonly
            v.detached |= b.detached
    else:
        v.root = base
        v.function = function
        v.args = args
    enter(v, out)
    return 0


def view(Tensor out not None, Tensor base not None, function, *args, bint readonly=False,
         bint sure=True):
    """`out`, made a view of `base` where NumPy's ``function(base, *args)`` is one.

    With `sure` it is one of every array in C order, and is not called before it is needed.
    """
    attach(out, base, function, args, readonly, sure)
    return out


def getitem(rule, Tensor t not None, index, bint unique):
    """Record ``t[index]``, a view where the index is basic."""
    cdef Tensor out
    cdef View v
    cdef cnp.ndarray values
    if t.arr != NULL and t.arr.hollow and t.aliased == IS_VIEW:
        v = <View>t.alias
        if is_basic(index) and not v.detached and not t.leaf_requires and (
                not fad_trace_id or t.born == fad_trace_id):
            found = window_of(t)[index]
            if type(found) is cnp.ndarray and np.ndim(found):
                return part_of_stale(v, found)
            number = number_at(t, index)
            if number is not None:
                return number
    values = value_array(t)
    found = values[index]
    out = from_ndarray(found, t.aliased == HAS_VIEWS and (<Views>t.alias).written)
    record_call(out, rule, (t,), {"index": index, "unique": unique}, False, False)
    if out.arr != NULL and out.arr.ndim and t.arr != NULL and type(found) is cnp.ndarray and (
            is_basic(index)):
        attach(out, t, np_getitem, (index,), False)
    return out


def np_getitem(a, index):
    """``a[index]``."""
    return a[index]


cdef bint is_basic(object index):
    """Whether an index is of integers, slices, None and ... alone."""
    for part in (<tuple>index if type(index) is tuple else (index,)):
        if part is not None and part is not Ellipsis and type(part) is not int and (
                type(part) is not slice):
            return False
    return True


cdef Tensor part_of_stale(View v, cnp.ndarray part):
    """The part of a stale view, taken from the root itself: the rest is not read."""
    cdef View mine = View.__new__(View)
    cdef Tensor out
    mine.root = v.root
    mine.readonly = v.readonly
    mine.part = v.part
    set_place(mine, root_array(v.root), part)
    out = taken(mine, np.shape(part))
    return enter(mine, out)


cdef Tensor enter(View v, Tensor out):
    """`out`, made the view that `v` describes."""
    v.tensor = <PyObject *>out
    link_view(v)
    fad_tensor_set_alias(out, v, IS_VIEW)
    fad_tensor_track(out)
    return out


cdef Tensor part_view(Tensor z, int part):
    """The real or imaginary part of a complex tensor, a view of it."""
    cdef Tensor out
    cdef View v, b
    fresh(z)
    out = c_real(z) if part == REAL_PART else c_part(z, FAD_IMAG)
    if z.arr.ndim == 0:
        return out
    v = View.__new__(View)
    v.root = root_of(z)
    v.part = part
    v.detached = fad_grad_off & 1 and active(z)
    if z.aliased == IS_VIEW:
        b = <View>z.alias
        v.readonly = b.readonly
        v.detached |= b.detached
    set_place(v, root_array(v.root), window_of(z))
    return enter(v, out)


cdef int assign_part(View v, Tensor t, object index, Tensor value, bint unique, str how,
                     str symbol) except -1:
    """Write into a real or imaginary part: into the complex elements, whose other part stays."""
    cdef View w = View.__new__(View)
    cdef Tensor z
    if is_complex(value):
        raise TypeError(f"{symbol}: a complex value does not fit into the real or imaginary part "
                        "of a tensor; take its .real first")
    w.root = v.root
    set_place(w, root_array(v.root), window_of(t))
    z = enter(w, taken(w, dims_of(t.arr)))
    new = value if v.part == REAL_PART else binary(FAD_OP_multiply, value, 1j)
    if how == "set":
        old = getitem_(z, index)
        new = binary(FAD_OP_add, new, c_part(old, FAD_IMAG) * 1j if v.part == REAL_PART
                     else c_real(old))
    assign(z, index, new, unique, how, symbol)
    return 0


# ---- stale views ---------------------------------------------------------------------------------


cdef Tensor taken(View v, tuple shape):
    """The elements that a view shows, recorded as coming from its root as it is now."""
    cdef int k
    cdef Tensor r
    strides = [v.strides[k] for k in range(len(shape))]
    # what is repeated is taken once
    once = tuple([1 if s == 0 else n for n, s in zip(shape, strides)])
    r = apply(window_, (v.root,), {"place": (v.first, once, tuple(strides))})
    if v.part:
        r = c_real(r) if v.part == REAL_PART else c_part(r, FAD_IMAG)
    return r if once == shape else c_broadcast_to(r, shape)


cdef int refresh(Tensor t) except -1:
    """Take a stale view anew from its root."""
    cdef View v = <View>t.alias
    cdef Tensor r
    cdef int was_trace = fad_trace_id, was_off = fad_grad_off
    global fad_trace_id, fad_grad_off
    work_out(v)
    if fad_trace_id and t.born != fad_trace_id:
        if active(v.root):
            refuse("a view of a tensor that has changed since is read")
        fad_trace_id = 0
        fad_grad_off = 1
    elif v.detached or t.leaf_requires:
        fad_grad_off |= 1
        if t.leaf_requires and active(v.root):
            raise RuntimeError(
                "view: this leaf shows a tensor that has become part of a graph since; detach() "
                "it before requires_grad_()")
    else:
        fad_grad_off &= ~1
    try:
        r = taken(v, dims_of(t.arr))
    finally:
        fad_trace_id = was_trace
        fad_grad_off = was_off
    link_view(v)
    take_over(t, r)
    return 0


cdef inline int fresh(Tensor t) except -1:
    """See to it that the value and the node of `t` can be read."""
    if t.arr != NULL and t.arr.hollow and t.aliased == IS_VIEW:
        return refresh(t)
    return 0


cdef fad_array *shell_of(fad_array *arr) except NULL:
    """The shape and dtype of an array, without its bytes."""
    cdef fad_array *shell
    cdef void *owner = NULL
    cdef cnp.ndarray like
    if arr.dtype >= FAD_BOOL:       # whose dtype is its owner's
        like = np.broadcast_to(np.zeros((), (<cnp.ndarray>arr.owner).dtype), dims_of(arr))
        owner = <void *>like
    shell = fad_array_borrow(arr.dtype, arr.ndim, arr.shape, NULL, owner)
    if shell == NULL:
        fail(FAD_NOMEM, "setitem")
    shell.hollow = 1
    if owner != NULL:
        Py_INCREF(like)
    return shell


cdef int prepare_views(Tensor root) except -1:
    """Get what making the views of `root` stale needs, so that it cannot fail."""
    cdef PyObject *p
    if root.aliased != HAS_VIEWS:
        return 0
    p = (<Views>root.alias).first
    while p != NULL:
        if (<View>p).shell == NULL:
            work_out(<View>p)
            (<View>p).shell = shell_of((<Tensor>(<View>p).tensor).arr)
        p = (<View>p).next
    return 0


cdef void views_are_stale(Tensor root) noexcept:
    """After a write, and prepare_views before it."""
    cdef View v
    cdef Tensor t
    cdef Views views
    if root.aliased != HAS_VIEWS:
        return
    views = <Views>root.alias
    views.written = True
    while views.first != NULL:
        v = <View>views.first
        t = <Tensor>v.tensor
        unlink_view(v)
        leave_node(t)
        fad_array_release(t.arr)
        t.arr = v.shell
        v.shell = NULL
    tidy()


cdef void leave_node(Tensor t) noexcept:
    """Part a tensor from its node; what was registered on it stays with the node."""
    if t.h.slot >= 0:
        t.h.idx = FAD_NO_NODE       # the next use records a leaf node with the new value
        return
    if t.hooks is not None:
        leave_hooks(t)
        t.hooks = None
    if t.h.idx >= 0:
        fad_handle_drop(&tape, &t.h)
    t.h.idx = FAD_NO_NODE


cdef void take_over(Tensor t, Tensor r) noexcept:
    """Give `t` the value and the node of `r`, which nobody else uses."""
    cdef fad_array *old = t.arr
    cdef fad_index i
    t.value = r.value
    t.arr = NULL if r.arr == NULL else fad_array_share(r.arr)
    if old != NULL:
        fad_array_release(old)
    leave_node(t)
    if t.h.slot >= 0:
        return
    i = r.h.idx
    if i >= 0:
        fad_unlink(&tape, &r.h)
        r.h.idx = FAD_NO_NODE
        fad_link(&tape, &t.h, i)
    elif i == FAD_USED_UP:
        t.h.idx = FAD_USED_UP


# ---- writing -------------------------------------------------------------------------------------


cdef int check_writable(Tensor t, Tensor root, str symbol) except -1:
    """Refuse writes that NumPy or the rules of gradients forbid."""
    cdef View v
    cdef bint recording = not fad_grad_off & 1
    if fad_trace_id and root.born != fad_trace_id:
        refuse(f"{symbol} changes a tensor that was there before")
    if t.aliased == IS_VIEW:
        v = <View>t.alias
        if v.readonly:
            raise ValueError(f"{symbol}: assignment destination is read-only, because several of "
                             "its elements may be one; copy() it first")
        if v.detached and recording:
            raise RuntimeError(
                f"{symbol}: this view was made under no_grad(), so that what is written through it "
                "would have no gradient; make the view while recording, or write under no_grad()")
    if recording and (root.leaf_requires or t.leaf_requires):
        what = "a view of a leaf" if root is not t else "a leaf"
        raise RuntimeError(
            f"{symbol}: {what} that requires gradients cannot be changed while recording; update "
            "it under no_grad(), or write x = x ... for a new tensor")
    return 0


cdef bint exclusive(Tensor root) noexcept:
    """Whether nobody but `root`, and a node that keeps its value without need, has its buffer."""
    cdef fad_array *arr = root.arr
    cdef fad_index i = root.h.idx
    cdef int own = 1
    if arr.hollow:
        return False
    if i >= 0 and tape.op[i] & FAD_ARRAY and tape.value[i].arr == arr:
        if tape.op[i] & FAD_NEEDED or root.h.slot >= 0 or (
                (tape.op[i] & FAD_OPCODE) == FAD_OP_CONST):
            return False
        own = 2
    if arr.refs != own:
        return False
    if arr.owner == NULL:
        return True
    return (arr.dtype >= FAD_BOOL and type(<object>arr.owner) is cnp.ndarray
            and Py_REFCNT(<PyObject *>arr.owner) == 1
            and cnp.PyArray_CHKFLAGS(<cnp.ndarray>arr.owner, cnp.NPY_ARRAY_OWNDATA))


cdef fad_array *last_shell = NULL       # many old versions have one shape


cdef fad_array *shared_shell(fad_array *arr) except NULL:
    """As shell_of, of a floating array, without a new one where the last one serves."""
    global last_shell
    cdef fad_array *shell
    if last_shell == NULL or last_shell.dtype != arr.dtype or not fad_same_shape(last_shell, arr):
        shell = shell_of(arr)
        if last_shell != NULL:
            fad_array_release(last_shell)
        last_shell = shell
    return fad_array_share(last_shell)


cdef void hollow_out(fad_index i, fad_array *shell) noexcept:
    """Let a node keep the shape of its value alone; takes the shell over."""
    cdef fad_array *old = tape.value[i].arr
    tape.bytes -= fad_array_bytes(old)
    tape.value[i].arr = shell
    fad_array_release(old)


cdef fad_index node_of_old(Tensor root, bint in_place, fad_array *shell) except -1:
    """The node of a root about to change, which gives its buffer away where `in_place`.

    Takes the shell over.  Reserve 1.
    """
    cdef fad_index i = node_of(root)
    if i >= 0:
        if in_place and tape.op[i] & FAD_ARRAY and tape.value[i].arr == root.arr:
            hollow_out(i, shell)
        elif shell != NULL:
            fad_array_release(shell)
        return i
    if shell == NULL:
        shell = fad_array_share(root.arr)
    return fad_push_array_slow(&tape, FAD_OP_CONST, 0, 0, shell)


cdef int check_value(Tensor root, Tensor value, str symbol) except -1:
    fresh(value)
    if not is_float(root) and active(value) and not fad_grad_off & 1:
        refuse(f"{symbol} of a number with a gradient into {root.dtype}")
        raise TypeError(f"{symbol}: a tensor of dtype {root.dtype} cannot hold a value that "
                        "requires gradients; make it floating, or detach() the value")
    return 0


def assign(Tensor t not None, index, Tensor value not None, bint unique=True, str how="set",
           str symbol="setitem"):
    """``t[index] = value``, or with ``how="add"`` ``np.add.at(t, index, value)``.

    `index` is frozen, as for `getitem`; where it may name an element twice (`unique` is false), the
    last value stays, as in NumPy.  The first thing that is changed is changed when nothing can fail
    any more.
    """
    cdef Tensor root = root_of(t), r
    cdef tuple shape, place
    cdef cnp.ndarray target
    check_writable(t, root, symbol)
    if t.aliased == IS_VIEW and (<View>t.alias).part:
        assign_part(<View>t.alias, t, index, value, unique, how, symbol)
        return None
    if root.arr == NULL or root.arr.ndim == 0:
        return assign_number(root, index, value, how, symbol)
    kept = None
    if is_basic(index) and unique:
        target = window_of(t)[(*index, Ellipsis) if type(index) is tuple and Ellipsis not in index
                              else index if type(index) is tuple
                              else (index,) if index is Ellipsis else (index, Ellipsis)]
        place = place_in(root, target)
        shape = place[1]
        target = index = None       # it would count as another user of the buffer
    else:
        place = place_of(<View>t.alias, t.arr) if t.aliased == IS_VIEW else place_of_root(root)
        shape = np.shape(window_of(t)[index])
        if not unique and how == "set":
            kept = winners(dims_of(t.arr), index)
    value = fit_value(value, shape, symbol)
    if index is None and how == "set":
        if same_place(value, root, place):
            return None             # what `a[k] += v` does last
        if covers(root, place):
            check_value(root, value, symbol)
            r = value if value.dtype == root.dtype else astype(value, root.dtype)
            r = c_broadcast_to(r, shape)
            r = c_reshape(r, dims_of(root.arr))
            become(root, unary(FAD_OP_positive, r) if is_float(r) else copied(r))
            return None
    check_value(root, value, symbol)
    if not np.prod(shape):
        return None
    if is_float(root) and value.dtype != root.dtype:
        value = astype(value, root.dtype)
    write(root, value, {"place": place, "index": index, "kept": kept, "how": how}, symbol)
    return None


cdef Tensor copied(Tensor t):
    """A tensor of its own with the integers of `t`, whose values a trace follows."""
    return by_numpy(np.array, (t,), {})


cdef tuple place_in(Tensor root, cnp.ndarray part):
    cdef View v = View.__new__(View)
    set_place(v, root_array(root), part)
    return (v.first, tuple([cnp.PyArray_DIMS(part)[k] for k in range(cnp.PyArray_NDIM(part))]),
            tuple([v.strides[k] for k in range(cnp.PyArray_NDIM(part))]))


cdef tuple place_of_root(Tensor root):
    cdef int64_t step = 1
    cdef int k
    strides = [0] * root.arr.ndim
    for k in range(root.arr.ndim - 1, -1, -1):
        strides[k] = step
        step *= root.arr.shape[k]
    return 0, dims_of(root.arr), tuple(strides)


cdef bint same_place(Tensor value, Tensor root, tuple place):
    """Whether a value is a view of just the place that it is assigned to."""
    if value is root:
        return place == place_of_root(root)
    return (value.aliased == IS_VIEW and (<View>value.alias).root is root
            and not (<View>value.alias).part and place_of(<View>value.alias, value.arr) == place)


cdef bint covers(Tensor root, tuple place):
    """Whether a place is the whole of the root, in its order."""
    cdef int64_t step = 1
    first, shape, strides = place
    if first != 0:
        return False
    for n, s in zip(reversed(shape), reversed(strides)):
        if n != 1 and s != step:
            return False
        step *= n
    return step == root.arr.size


cdef Tensor fit_value(Tensor value, tuple shape, str symbol):
    """A value that broadcasts to `shape`; axes of length 1 in front are dropped as NumPy does."""
    cdef tuple have = shape_of(value)
    while len(have) > len(shape) and have[0] == 1:
        have = have[1:]
    fits = len(have) <= len(shape) and all(
        [n == 1 or n == m for n, m in zip(reversed(have), reversed(shape))])
    if not fits:
        raise ValueError(f"{symbol}: could not broadcast input array from shape {shape_of(value)} "
                         f"into shape {shape}")
    return value if have == shape_of(value) else c_reshape(value, have)


cdef object winners(tuple shape, object index):
    """Where an element is named several times: which of the values stays; None if none is."""
    cells = np.arange(np.prod(shape, dtype=np.intp)).reshape(shape)[index]
    flat = cells.ravel()
    last = np.empty(cells.shape, np.intp)
    last.ravel()[...] = np.arange(flat.size)
    stays = np.empty(shape, np.intp)
    stays[index] = last
    kept = stays.ravel()[cells] == last
    return None if kept.all() else kept


cdef int assign_number(Tensor t, object index, Tensor value, str how, str symbol) except -1:
    """Write into a tensor without axes, which has one element."""
    cdef Tensor r = t
    mark = np.zeros((), bool)
    mark[index] = True              # refuses what is no index of it
    if not mark:
        return 0
    check_value(t, value, symbol)
    r = fit_value(value, (), symbol)
    if r.dtype != t.dtype:
        r = astype(r, t.dtype)
    if how == "add":
        r = binary(FAD_OP_add, t, r)
    become(t, unary(FAD_OP_positive, r) if is_float(r) else copied(r))
    return 0


cdef int become(Tensor t, Tensor r) except -1:
    """Give a tensor that is no view the value and node of a new one, by the rules of recording."""
    cdef fad_index i
    prepare_views(t)
    if fad_grad_off & 1 and t.h.slot < 0 and active(t):
        pass_on(t, r)
    take_over(t, r)
    views_are_stale(t)
    return 0


cdef int pass_on(Tensor t, Tensor r) except -1:
    """Under no_grad() a value is changed, and gradients flow as if it were not: give `r` a node
    that passes them on to that of `t`."""
    if fad_trace_id:
        refuse("a tensor with a gradient is changed under no_grad()")
    reserve(1)
    if t.h.idx < 0:
        r.h.idx = t.h.idx           # consumed
    elif r.arr != NULL:
        fad_link(&tape, &r.h, fad_push_array_slow(
            &tape, FAD_OP_positive, t.h.idx, 0, fad_array_share(r.arr)))
    else:
        fad_link(&tape, &r.h, fad_push(&tape, FAD_OP_positive, t.h.idx, 0, r.value))
    return 0


cdef int write(Tensor root, Tensor value, dict params, str symbol) except -1:
    """Put a value at a place of a root, in its own buffer where that is possible."""
    cdef fad_array *buf = NULL
    cdef fad_array *shell = NULL
    cdef fad_call *call = NULL
    cdef fad_slot slot
    cdef fad_index i
    cdef bint in_place, record
    cdef Tensor r
    if not is_float(root) and fad_trace_id:
        become(root, apply(put_, (root, value), params))
        return 0
    prepare_views(root)
    if not is_float(root):
        write_whole(root, value, params)
        return 0
    record = fad_grad_off != 1 and (tracked(root) or tracked(value))
    if fad_grad_off == 3 and active(root):
        refuse("a tensor with a gradient is changed under no_grad()")
    values = value_array(value)
    # a trace keeps what was there before the first value that it follows
    in_place = exclusive(root) and not (record and fad_trace_id and not tracked(root))
    if in_place:
        buf = fad_array_share(root.arr)
    else:
        buf = fad_array_copy(root.arr)
        if buf == NULL:
            fail(FAD_NOMEM, symbol)
    try:
        if record:
            call = begin_call(2)
            reserve(4)
            if in_place or not (tracked(root) or fad_trace_id):
                shell = shared_shell(root.arr)
            call.parent[1] = parent_of(value, False)
        elif active(root) and root.h.slot < 0 and not in_place:
            reserve(1)
        put_values(buf, values, params)
        # from here on nothing fails
    except BaseException:
        fad_array_release(buf)
        if shell != NULL:
            fad_array_release(shell)
        fad_free(call)
        raise
    if record:
        call.parent[0] = node_of_old(root, in_place, shell)
        fill_call(call, put_, params)
        slot.arr = fad_array_share(buf)
        i = fad_push_call(&tape, FAD_OP_CALL, call, slot, True)
    elif active(root) and root.h.slot < 0 and root.h.idx >= 0 and not in_place:
        i = fad_push_array_slow(&tape, FAD_OP_positive, root.h.idx, 0, fad_array_share(buf))
    else:
        i = -1
    fad_array_release(root.arr)
    root.arr = buf
    if root.h.slot >= 0:
        root.h.idx = FAD_NO_NODE
    elif i >= 0:
        leave_node(root)
        fad_link(&tape, &root.h, i)
        if fad_grad_off > 1:
            note_written(root)
    views_are_stale(root)
    tidy()
    return 0


cdef int put_values(fad_array *buf, object values, dict params) except -1:
    """Write into a floating buffer."""
    cdef cnp.ndarray whole
    cdef cnp.npy_intp dims[64]
    cdef int k
    for k in range(buf.ndim):
        dims[k] = buf.shape[k]
    whole = cnp.PyArray_New(cnp.ndarray, buf.ndim, dims, type_number(buf.dtype), NULL, buf.data, 0,
                            cnp.NPY_ARRAY_CARRAY, None)
    put_in(whole, values, params)
    return 0


cdef int write_whole(Tensor root, Tensor value, dict params) except -1:
    """As write, for integers and bools, which the core keeps as NumPy's arrays."""
    cdef cnp.ndarray whole
    cdef fad_array *buf
    values = value_array(value)
    if exclusive(root):
        whole = <cnp.ndarray>root.arr.owner
        cnp.PyArray_ENABLEFLAGS(whole, cnp.NPY_ARRAY_WRITEABLE)
        try:
            put_in(whole, values, params)
        finally:
            cnp.PyArray_CLEARFLAGS(whole, cnp.NPY_ARRAY_WRITEABLE)
    else:
        whole = np.array(value_array(root), order="C")
        put_in(whole, values, params)
        buf = array_from(whole, False)
        fad_array_release(root.arr)
        root.arr = buf
    views_are_stale(root)
    tidy()
    return 0


cdef int put_in(cnp.ndarray whole, object values, dict params) except -1:
    put_values_(whole, values, params["place"], params["index"], params["how"])
    return 0


# ---- numbers at places ---------------------------------------------------------------------------


@cython.final
cdef class PutNumber(CoreRule):
    """A float64 array with a number at a place, or added there; params: place in the flat array."""
    cdef bint adds

    cdef tuple pull(self, Tensor g, Tensor y, tuple inputs, object params):
        cdef Tensor number = c_get_number(g, params)
        if self.adds:
            return g, number
        return c_put_number(SET_NUMBER, g, scalar_constant(0.0), params), number

    cdef Tensor compute(self, tuple inputs, object params, tuple shape, object dtype):
        return c_put_number(self, inputs[0], inputs[1], params)

    cdef Tensor push(self, tuple tangents, Tensor y, tuple inputs, object params):
        whole, number = tangents
        return c_put_number(self, zeros_like(y) if whole is None else whole,
                            scalar_constant(0.0) if number is None else number, params)


cdef CoreRule SET_NUMBER = core_rule(PutNumber, "setitem", True, False)
cdef CoreRule ADD_NUMBER = core_rule(PutNumber, "add_at", True, False)
(<PutNumber>ADD_NUMBER).adds = True


cdef inline void put_number(fad_array *arr, Py_ssize_t offset, double v, bint adds) noexcept:
    cdef double *p = <double *>arr.data + offset
    p[0] = p[0] + v if adds else v


cdef Tensor c_put_number(CoreRule rule, Tensor x, Tensor number, Py_ssize_t at):
    """A new tensor; it takes over the buffer of an `x` that nobody but the caller holds, such as a
    cotangent on its way down a chain of assignments."""
    cdef Tensor y
    cdef fad_array *arr
    cdef fad_array *shell = NULL
    cdef fad_index i
    fresh(x)
    if Py_REFCNT(<PyObject *>x) == 1 and exclusive(x) and x.h.slot < 0 and (
            x.h.idx >= 0 or not tracked(number)):
        shell = shared_shell(x.arr)
        arr = fad_array_share(x.arr)
    else:
        arr = fad_array_copy(x.arr)
        if arr == NULL:
            fail(FAD_NOMEM, rule.name)
    try:
        y = adopt(arr)
        record_pair(y, rule, x, number, at)
    except BaseException:
        if shell != NULL:
            fad_array_release(shell)
        raise
    put_number(arr, at, number.value, (<PutNumber>rule).adds)
    if shell != NULL:
        i = x.h.idx
        if i >= 0 and tape.op[i] & FAD_ARRAY and tape.value[i].arr == arr:
            hollow_out(i, fad_array_share(shell))
            fad_call_of(&tape, y.h.idx).takes = True
        fad_array_release(x.arr)
        x.arr = shell
    return y


cdef fad_status pull_put_number(fad_sweep *s, fad_call *call, fad_array *g, bint adds) noexcept:
    """The VJP of a number put at a place: the adjoint's buffer passes on to the old version."""
    cdef fad_index old = call.parent[0]
    cdef fad_array *mine
    fad_contribute(&tape, s, call.parent[1], (<double *>g.data)[call.at])
    if fad_stops(&tape, old):
        return FAD_OK
    if adds or (g.refs == 1 and g.owner == NULL):
        mine = fad_array_share(g)
    else:
        mine = fad_array_copy(g)
        if mine == NULL:
            return FAD_NOMEM
    if not adds:
        (<double *>mine.data)[call.at] = 0.0
    return fad_contribute_array(&tape, s, old, mine)


cdef fad_status push_put_number(fad_sweep *s, fad_call *call, fad_index i, bint adds) noexcept:
    """The tangent: that of the old version, whose buffer it takes over if nobody can read it."""
    cdef fad_index old = call.parent[0], number = call.parent[1]
    cdef fad_array *arr = NULL
    cdef fad_array *like = tape.value[i].arr
    cdef double dot = 0.0
    if number >= s.start and s.own[number].bits != FAD_UNTOUCHED:
        dot = s.own[number].f
    if old < s.start or s.own[old].bits == FAD_UNTOUCHED:
        if fad_fill(FAD_F64, like.ndim, like.shape, 0.0, &arr):
            return FAD_NOMEM
    elif call.takes and tape.value[old].arr.hollow and s.own[old].arr.refs == 1 and (
            s.own[old].arr.owner == NULL):
        arr = s.own[old].arr
        s.own[old].bits = FAD_UNTOUCHED
    else:
        arr = fad_array_copy(s.own[old].arr)
        if arr == NULL:
            return FAD_NOMEM
    put_number(arr, call.at, dot, adds)
    return fad_contribute_array(&tape, s, i, arr)


cdef int pull_put(SweepState state, fad_call *call, fad_array *g, dict params) except -1:
    """As pull_put_number, for a value at a place."""
    cdef fad_index old = call.parent[0], value = call.parent[1]
    cdef fad_array *mine
    cdef cnp.ndarray view
    cdef bint adds = params["how"] != "set"
    cdef Tensor bar
    if adds or (g.refs == 1 and g.owner == NULL):
        mine = fad_array_share(g)
    else:
        mine = fad_array_copy(g)
        if mine == NULL:
            fail(FAD_NOMEM, "backward")
    try:
        view = view_of(mine)
        if not fad_stops(&tape, value):
            bar = from_ndarray(picked_(view, **params), True)
            bar = c_sum_to(bar, shape_of(value_of(value)))
            contribute(state, value, bar)
        if not adds and not fad_stops(&tape, old):
            cnp.PyArray_ENABLEFLAGS(view, cnp.NPY_ARRAY_WRITEABLE)
            put_in(view, 0.0, params)
    except BaseException:
        fad_array_release(mine)
        raise
    status = fad_contribute_array(&tape, &state.s, old, mine)
    if status:
        fail(status, "backward")
    return 0


cdef object number_of_stale(Tensor t, object index):
    """An element of a stale view, read from the root: the view stays stale."""
    cdef View v = <View>t.alias
    cdef Py_ssize_t offset
    if v.part or v.detached or t.leaf_requires or (fad_trace_id and t.born != fad_trace_id):
        refresh(t)
        return number_at(t, index)
    work_out(v)
    offset = offset_of(t, index, v.strides)
    return c_get_number(v.root, v.first + offset)


cdef bint set_number_at(Tensor t, object index, object value) except -1:
    """Fast t[i] = v and t[i, j] = v by integers, for numbers; False: the general way."""
    cdef Tensor root = t
    cdef View v = None
    cdef Py_ssize_t offset
    cdef double number
    cdef bint from_tensor = False
    cdef fad_index old, new
    cdef fad_array *shell
    cdef fad_call *call
    cdef fad_slot slot
    if t.arr == NULL or t.arr.dtype != FAD_F64 or fad_grad_off == 3 or (
            t.aliased == IS_VIEW and (<View>t.alias).part):
        return False
    if type(value) is Tensor:
        if (<Tensor>value).arr != NULL:
            return False
        number = (<Tensor>value).value
        from_tensor = True
    elif isinstance(value, float):      # np.float64 too
        number = PyFloat_AS_DOUBLE(value)
    elif type(value) is int:
        number = PyLong_AsDouble(value)
    else:
        return False
    if t.aliased == IS_VIEW:
        v = <View>t.alias
        if v.readonly or v.detached:
            return False
        work_out(v)
        root = v.root
    if root.leaf_requires or t.leaf_requires or root.hooks is not None or (
            fad_trace_id and (root.born != fad_trace_id or root.h.idx == FAD_NO_NODE)):
        return False
    if offset_of(t, index, NULL) < 0:
        return False
    offset = offset_of(t, index, NULL) if v is None else v.first + offset_of(t, index, v.strides)
    if root.aliased == HAS_VIEWS and (<Views>root.alias).first != NULL:
        prepare_views(root)
    if not exclusive(root):
        return False
    if fad_grad_off == 1 or (root.h.idx == FAD_NO_NODE and (
            not from_tensor or not tracked(<Tensor>value))):
        (<double *>root.arr.data)[offset] = number
        views_are_stale(root)
        return True
    call = begin_call(2)
    try:
        if fad_reserve(&tape, 4):
            reserve(4)
        shell = shared_shell(root.arr)
    except BaseException:
        fad_free(call)
        raise
    call.parent[1] = node_of(<Tensor>value) if from_tensor else -1
    if call.parent[1] < 0:
        call.parent[1] = fad_const(&tape, number)
    old = node_of_old(root, True, shell)
    call.parent[0] = old
    Py_INCREF(SET_NUMBER)
    call.rule = <void *>SET_NUMBER
    call.at = offset
    call.takes = True
    (<double *>root.arr.data)[offset] = number
    slot.arr = fad_array_share(root.arr)
    new = fad_push_call(&tape, FAD_OP_CALL, call, slot, True)
    if root.h.idx >= 0:
        fad_unlink(&tape, &root.h)
    fad_link(&tape, &root.h, new)
    if fad_grad_off:
        note_written(root)
    views_are_stale(root)
    return True
