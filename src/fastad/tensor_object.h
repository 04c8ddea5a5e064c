/* Making and dropping Tensor objects.
 *
 * Cython's own tp_new and tp_dealloc track every object for the cycle collector and save the
 * error state around every death; for a temporary of a scalar formula that is half of its cost.
 * Here a tensor is tracked from the moment when it first refers to another Python object.
 */
#ifndef FASTAD_TENSOR_OBJECT_H
#define FASTAD_TENSOR_OBJECT_H

#include <Python.h>

#include "fad.h"
#include "record.h"

/* The layout that Cython gives `cdef class Tensor`; fad_tensor_setup checks it. */
typedef struct {
    PyObject_HEAD
    fad_handle h;
    double value;
    fad_array *arr;
    unsigned char leaf_requires, gc_tracked, aliased;
    int born;               /* the trace in which it was made; 0: in none */
    PyObject *grad, *hooks, *alias;
} fad_tensor;

/* gc_tracked: 0 until the cycle collector knows the object, then 1 and these bits. */
enum { FAD_TENSOR_SPARE = 4096, FAD_TENSOR_FINALIZED = 2, FAD_TENSOR_GIVEN_AS_GRAD = 4 };

static PyTypeObject *fad_tensor_type;
static fad_tape *fad_tensor_tape;
static void (*fad_tensor_drain)(void);
static void (*fad_tensor_leave_hooks)(PyObject *);
static void (*fad_tensor_lose_hooks)(PyObject *);
static PyObject *fad_tensor_spare[FAD_TENSOR_SPARE];
static int fad_tensor_spare_n;

static PyObject *fad_tensor_alloc(void)
{
    PyObject *o = fad_tensor_type->tp_alloc(fad_tensor_type, 0);
    if (o) PyObject_GC_UnTrack(o);
    return o;
}

static inline PyObject *fad_tensor_new(void)
{
    PyObject *o;
    if (fad_tensor_spare_n) {
        o = fad_tensor_spare[--fad_tensor_spare_n];
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS) || defined(Py_GIL_DISABLED)
        PyObject_Init(o, fad_tensor_type);
#else
        Py_SET_REFCNT(o, 1);        /* its type is set already */
        if (fad_tensor_type->tp_flags & Py_TPFLAGS_HEAPTYPE) Py_INCREF(fad_tensor_type);
#endif
    } else {
        o = fad_tensor_alloc();
        if (!o) return NULL;
    }
    fad_tensor *t = (fad_tensor *)o;
    t->h.idx = FAD_NO_NODE;
    t->h.slot = -1;
    t->arr = NULL;
    t->leaf_requires = t->gc_tracked = t->aliased = 0;
    t->born = fad_trace_id;
    t->value = 0.0;
    Py_INCREF(Py_None);
    Py_INCREF(Py_None);
    t->grad = t->hooks = Py_None;
    return o;
}

static void fad_tensor_rare(PyObject *o)
{
    PyObject *type, *value, *traceback;
    fad_tensor *t = (fad_tensor *)o;
    PyErr_Fetch(&type, &value, &traceback);
    if (t && t->hooks != Py_None) {
        Py_SET_REFCNT(o, 1);        /* the callee may take and drop references */
        fad_tensor_leave_hooks(o);
        Py_SET_REFCNT(o, 0);
    }
    if (!t) fad_tensor_drain();
    PyErr_Restore(type, value, traceback);
}

static void fad_tensor_drop(PyObject *o)
{
    fad_tensor *t = (fad_tensor *)o;
    fad_tape *tape = fad_tensor_tape;
    const fad_index i = t->h.idx;
    if (t->gc_tracked && t->hooks != Py_None) fad_tensor_rare(o);
    const int is_array = t->arr != NULL;
    if (is_array) fad_array_release(t->arr);        /* first: the node may hold the last one then */
    if (t->h.slot >= 0) {
        fad_leaf_drop(tape, &t->h);
    } else if (i >= 0) {
        if (i == tape->n - 1 || is_array) {
            fad_handle_drop(tape, &t->h);
        } else {
            fad_unlink(tape, &t->h);
        }
    }
    Py_DECREF(t->grad);
    Py_DECREF(t->hooks);
    if (t->aliased) Py_CLEAR(t->alias);     /* none without: new tensors find NULL there */
    PyTypeObject *type = Py_TYPE(o);
    if (fad_tensor_spare_n < FAD_TENSOR_SPARE && !(t->gc_tracked & FAD_TENSOR_FINALIZED))
        fad_tensor_spare[fad_tensor_spare_n++] = o;
    else PyObject_GC_Del(o);
    if (type->tp_flags & Py_TPFLAGS_HEAPTYPE) Py_DECREF(type);
    if (fad_dead_arrays || fad_dead_calls) fad_tensor_rare(NULL);
}

/* A tensor that refers to others may be the first of a long chain (.grad of .grad ...), whose end
 * must not be reached by recursion. */
static void fad_tensor_dealloc(PyObject *o)
{
    if (!((fad_tensor *)o)->gc_tracked) {
        fad_tensor_drop(o);
        return;
    }
    PyObject_GC_UnTrack(o);
    Py_TRASHCAN_BEGIN(o, fad_tensor_dealloc)
    fad_tensor_drop(o);
    Py_TRASHCAN_END
}

/* The cycle collector is about to take a tensor that only its own hook refers to.  (An ordinary
 * death does not come here.)  Its header remembers the call, so it is not used again. */
static void fad_tensor_finalize(PyObject *o)
{
    fad_tensor *t = (fad_tensor *)o;
    t->gc_tracked |= FAD_TENSOR_FINALIZED;
    if (t->hooks != Py_None) fad_tensor_lose_hooks(o);
}

/* A tensor that refers to another object can be part of a cycle. */
static inline void fad_tensor_track(PyObject *o)
{
    fad_tensor *t = (fad_tensor *)o;
    if (t->gc_tracked) return;
    PyObject_GC_Track(o);
    t->gc_tracked = 1;
}

static inline void fad_tensor_set_alias(PyObject *o, PyObject *alias, int kind)
{
    fad_tensor *t = (fad_tensor *)o;
    PyObject *old = t->alias;
    Py_INCREF(alias);
    t->alias = alias;
    t->aliased = (unsigned char)kind;
    Py_XDECREF(old);
}

/* 0, or -1 when Cython lays Tensor out in another way. */
static int fad_tensor_setup(PyTypeObject *type, fad_tape *tape, Py_ssize_t handle_offset,
                            void (*drain)(void), void (*leave_hooks)(PyObject *),
                            void (*lose_hooks)(PyObject *))
{
    if (type->tp_basicsize != (Py_ssize_t)sizeof(fad_tensor)
        || handle_offset != (Py_ssize_t)offsetof(fad_tensor, h)) return -1;
    fad_tensor_type = type;
    fad_tensor_tape = tape;
    fad_tensor_drain = drain;
    fad_tensor_leave_hooks = leave_hooks;
    fad_tensor_lose_hooks = lose_hooks;
    type->tp_finalize = fad_tensor_finalize;
    type->tp_dealloc = fad_tensor_dealloc;
    return 0;
}

#endif
