# Part of _core.pyx: programs over many rows of inputs at once; see core/lanes.c.
#
# `varies` is a byte for each given input: 1 where each row has its own.  The input is then an array
# with the rows on its first axis; the others are floats and arrays as in a single run.


ctypedef struct lanes_for:
    unsigned char *varies           # by input, tensors from outside included
    fad_lanes *lanes                # NULL: rows go one by one
    fad_lane_workspace *idle        # guarded by the interpreter lock
    lanes_for *next


cdef void free_lanes(Plan plan) noexcept:
    cdef lanes_for *found
    cdef fad_lane_workspace *w
    while plan.lanes != NULL:
        found = plan.lanes
        plan.lanes = found.next
        while found.idle != NULL:
            w = found.idle
            found.idle = w.next
            fad_lane_workspace_free(found.lanes, w)
        if found.lanes != NULL:
            fad_lanes_free(found.lanes)
        free(found.varies)
        free(found)


cdef lanes_for *lanes_of(Plan plan, bytes varies) except NULL:
    """The program made ready for rows that differ in these inputs, once for each such choice."""
    cdef lanes_for *found = plan.lanes
    cdef const unsigned char *wanted = varies
    if len(varies) != plan.n_given:
        raise ValueError(f"program: {plan.n_given} inputs, but {len(varies)} flags")
    while found != NULL:
        if not memcmp(found.varies, wanted, plan.n_given):
            return found
        found = found.next
    found = <lanes_for *>calloc(1, sizeof(lanes_for))
    if found != NULL:
        found.varies = <unsigned char *>calloc(plan.n_in + 1, 1)
    if found == NULL or found.varies == NULL:
        free(found)
        raise MemoryError("program: out of memory")
    memcpy(found.varies, wanted, plan.n_given)
    if fad_lanes_new(plan.program, found.varies, &found.lanes):
        free(found.varies)
        free(found)
        raise MemoryError("program: out of memory")
    found.next = plan.lanes
    plan.lanes = found
    return found


cdef int width_of(Plan plan, bytes varies) except -1:
    cdef lanes_for *found = lanes_of(plan, varies)
    return 0 if found.lanes == NULL else fad_lanes_width(found.lanes)


cdef object floating_dtype(const fad_array *arr, object other):
    """The dtype of a floating array; `other` for the rest."""
    return dtype_of(arr.dtype) if arr.dtype < FAD_BOOL else other


cdef list outputs_of(Plan plan):
    cdef fad_workspace *w = plan.take()
    cdef fad_array *arr
    cdef int k
    cdef list found = []
    try:
        for k in range(plan.n_out):
            if not plan.outs[k].is_array:
                found.append(((), np.float64))
                continue
            arr = w.array[plan.outs[k].where]
            found.append((dims_of(arr), floating_dtype(arr, None)))
        return found
    finally:
        plan.give(w)


cdef void *input_of(fad_array *arr, object x, int axes) except NULL:
    """The data of an array for an input, with `axes` more axes in front."""
    return rows_of(x, dims_of(arr), floating_dtype(arr, x.dtype), axes)


cdef int check_leaves(Plan plan, list leaves) except -1:
    """Raise unless these are floats and C-contiguous arrays of the shapes of the inputs."""
    cdef fad_workspace *w
    cdef int k
    if len(leaves) != plan.n_given:
        raise ValueError(f"program: {plan.n_given} inputs, but {len(leaves)} values")
    w = plan.take()
    try:
        for k in range(plan.n_given):
            x = leaves[k]
            if not plan.ins[k].is_array:
                if type(x) is not float:
                    raise ValueError(f"program: input {k} is a float, got {type(x).__name__}")
                continue
            input_of(w.array[plan.ins[k].where], x, 0)
        return 0
    finally:
        plan.give(w)


cdef void *rows_of(object x, tuple shape, object dtype, int axes=1) except NULL:
    """The data of a C-contiguous array, which must have this shape behind its first axes."""
    if (type(x) is not cnp.ndarray or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>x)
            or x.dtype != dtype or x.shape[axes:] != shape):
        raise ValueError(f"program: wanted a C-contiguous array of shape {shape} and {dtype}")
    return cnp.PyArray_DATA(<cnp.ndarray>x)


cdef int run_rows(Plan plan, bytes varies, list leaves, list results, cnp.ndarray failed,
                  Py_ssize_t start, Py_ssize_t stop) except -1:
    """Write row k of each output to results[j][k] and whether a guard failed to failed[k].

    `start` is a multiple of the width; ranges that do not meet may run in several threads.
    """
    cdef lanes_for *found = lanes_of(plan, varies)
    cdef fad_lane_workspace *w = NULL
    cdef fad_workspace *shared
    cdef const void **rows = NULL
    cdef void **out
    cdef unsigned char *mask = <unsigned char *>cnp.PyArray_DATA(failed)
    cdef fad_status status
    cdef fad_place place
    cdef fad_array *arr
    cdef int k
    cdef int64_t first = start, end = stop
    cdef list kept = []
    cdef fad_vm_calls calls
    cdef RunState state = None
    if found.lanes == NULL:
        raise ValueError("program: these rows go one by one")
    if (len(leaves) != plan.n_given or len(results) != plan.n_out or failed.dtype != np.uint8
            or start < 0 or start % fad_lanes_width(found.lanes)):
        raise ValueError("program: these rows are not those of the program")
    for x in [failed, *results, *[x for k, x in enumerate(leaves) if found.varies[k]]]:
        if np.ndim(x) < 1 or len(x) < stop or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray?>x):
            raise ValueError(f"program: wanted C-contiguous arrays of {stop} rows")
    rows = <const void **>calloc(plan.n_in + plan.n_out + 1, sizeof(void *))
    if rows == NULL:
        fail(FAD_NOMEM, "program")
    out = <void **>rows + plan.n_in
    try:
        w = found.idle
        if w != NULL:
            found.idle = w.next
        elif fad_lane_workspace_new(found.lanes, &w):
            fail(FAD_NOMEM, "program")
        shared = w.shared
        for k in range(plan.n_given):
            place = plan.ins[k]
            x = leaves[k]
            if not place.is_array:
                if found.varies[k]:
                    rows[k] = rows_of(x, (), np.float64)
                else:
                    shared.reg[place.where] = <double>x
                continue
            arr = shared.array[place.where]
            if found.varies[k]:
                rows[k] = input_of(arr, x, 1)
            else:
                set_array(arr, input_of(arr, x, 0),
                          None if arr.dtype < FAD_BOOL else x)
        for k, (shape, dtype) in enumerate(outputs_of(plan)):
            out[k] = rows_of(results[k], shape, dtype)
        if not set_outer(plan, shared, kept):
            failed[start:stop] = 1
            return 0
        state = ready(plan, &calls)
        if state is not None:
            status = fad_lanes_run(found.lanes, w, rows, out, mask, first, end, &calls)
        else:
            with nogil:
                status = fad_lanes_run(found.lanes, w, rows, out, mask, first, end, &calls)
        if status == FAD_CALLBACK and state is not None and state.error is not None:
            raise state.error
        if status:
            fail(status, "program")
        return 0
    finally:
        free(rows)
        if w != NULL:
            drop_owners(plan, w.shared)
            w.next = found.idle
            found.idle = w
