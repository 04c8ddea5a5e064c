/* Where in the user's code an operation is recorded: numbers for (code object, instruction).
 *
 * A recording asks at each operation, so that the usual answer must cost a few nanoseconds: the
 * frame that runs, its code and its instruction are looked up in a small table.  What they mean (a
 * file, a line) is worked out when somebody wants to know.  Frames of fastad and NumPy are passed
 * over: the place is where the user's code called them.
 */
#ifndef FASTAD_PLACES_H
#define FASTAD_PLACES_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { FAD_PLACE_SLOTS = 512, FAD_PLACE_NONE = 0, FAD_PLACE_LIBRARY = -1 };

typedef struct { PyObject *code; int at; int32_t place; } fad_place_slot;

static fad_place_slot fad_place_slots[FAD_PLACE_SLOTS];     /* borrows from fad_place_known */
static PyObject *fad_place_known;       /* dict: (code, instruction) -> place, or library */
static PyObject *fad_place_list;        /* list of (code, instruction); place k is its item k - 1 */
static PyObject *fad_place_library;     /* tuple of beginnings of file names */

/* Forget all places; 0, or -1 with an exception. */
static int fad_places_reset(void)
{
    PyObject *known = PyDict_New(), *list = PyList_New(0), *old_known = fad_place_known,
             *old_list = fad_place_list;
    if (!known || !list) {
        Py_XDECREF(known);
        Py_XDECREF(list);
        return -1;
    }
    memset(fad_place_slots, 0, sizeof fad_place_slots);
    fad_place_known = known;
    fad_place_list = list;
    Py_XDECREF(old_known);
    Py_XDECREF(old_list);
    return 0;
}

/* The slow way; -2 with an exception. */
static int32_t fad_place_new(PyObject *code, int at)
{
    int32_t place = -2;
    PyObject *number = NULL, *found, *name = NULL;
    PyObject *key = Py_BuildValue("(Oi)", code, at);
    if (!key) return -2;
    if ((found = PyDict_GetItemWithError(fad_place_known, key))) {
        place = (int32_t)PyLong_AsLong(found);
        goto done;
    }
    if (PyErr_Occurred() || !(name = PyObject_GetAttrString(code, "co_filename"))) goto done;
    place = (int32_t)PyList_GET_SIZE(fad_place_list) + 1;
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(fad_place_library); k++) {
        const Py_ssize_t same = PyUnicode_Tailmatch(
            name, PyTuple_GET_ITEM(fad_place_library, k), 0, PY_SSIZE_T_MAX, -1);
        if (same < 0) {
            place = -2;
            goto done;
        }
        if (same) place = FAD_PLACE_LIBRARY;
    }
    number = PyLong_FromLong(place);
    if (!number || PyDict_SetItem(fad_place_known, key, number)
        || (place > 0 && PyList_Append(fad_place_list, key))) {
        place = -2;
        goto done;
    }
done:
    Py_XDECREF(number);
    Py_XDECREF(name);
    Py_DECREF(key);
    return place;
}

/* The place of the innermost frame of the user; FAD_PLACE_NONE if there is none, or no memory. */
static int32_t fad_here(void)
{
    PyFrameObject *frame = PyEval_GetFrame(), *back;
    int32_t place = FAD_PLACE_NONE;
    Py_XINCREF(frame);
    while (frame) {
        PyObject *code = (PyObject *)PyFrame_GetCode(frame);
        const int at = PyFrame_GetLasti(frame);
        const uintptr_t mixed = ((uintptr_t)code >> 4) ^ ((uintptr_t)(unsigned)at * 0x9e3779b1u);
        fad_place_slot *slot = &fad_place_slots[(mixed ^ mixed >> 9) % FAD_PLACE_SLOTS];
        if (slot->code == code && slot->at == at) {
            place = slot->place;
        } else {
            PyObject *kind, *value, *trace;
            PyErr_Fetch(&kind, &value, &trace);
            place = fad_place_new(code, at);
            if (place == -2) {
                PyErr_Clear();
                place = FAD_PLACE_NONE;
            } else {
                *slot = (fad_place_slot){code, at, place};
            }
            PyErr_Restore(kind, value, trace);
        }
        Py_DECREF(code);
        if (place != FAD_PLACE_LIBRARY) break;
        place = FAD_PLACE_NONE;
        back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    return place;
}

#endif
