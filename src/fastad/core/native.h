/* Programs called from C: without Python and its lock, by any number of threads at once. */
#ifndef FAD_NATIVE_H
#define FAD_NATIVE_H

#include "vm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a call ends with.  Where it is not 0, all results are nan. */
enum {
    FAD_NATIVE_OK,
    FAD_NATIVE_GUARD,       /* no recording holds for these inputs */
    FAD_NATIVE_NOMEM,       /* a workspace could not be allocated */
    FAD_NATIVE_FAILED       /* an instruction refused its operands */
};

/* One recording: a program of float64 inputs and results without foreign calls.  `outer` holds
 * the bytes of the inputs behind the given ones. */
typedef struct { const fad_program *program; const double *const *outer; } fad_native_way;

/* Recordings of one function for inputs of the same shapes.  Immutable but for its workspaces;
 * programs and the bytes of outer inputs belong to the caller and outlive it.
 *
 *     in      | number | array, C order | ...      the n_given inputs, one behind the other
 *     value   | number or array | ...              the first n_value outputs
 *     rest    | number or array | ...              the others
 */
typedef struct fad_native fad_native;
typedef struct { int64_t in, value, rest; } fad_native_sizes;      /* in doubles */

/* FAD_DTYPE: something is not float64, or foreign; FAD_SHAPE: the recordings differ in sizes. */
fad_status fad_native_new(int32_t n_ways, const fad_native_way *way, int32_t n_given,
                          int32_t n_value, fad_native **out);
void fad_native_free(fad_native *f);
fad_native_sizes fad_native_size(const fad_native *f);

/* `rest` may be NULL only where there is none.  Results must not overlap inputs. */
int fad_native_call(const double *in, double *value, double *rest, void *user_data);

/* The forms that SciPy calls; failures are nan, or 0 where SciPy wants 1 for success. */
double fad_native_number(double x, void *user_data);
double fad_native_numbers(int n, double *x, void *user_data);
int fad_native_filter(double *in, intptr_t n, double *value, void *user_data);
int fad_native_filter1d(double *in, intptr_t n, double *value, intptr_t n_value, void *user_data);
int fad_native_mapping(intptr_t *to, double *from, int n_to, int n_from, void *user_data);

/* Forms without user_data are functions compiled beforehand, each tied to a slot. */
enum { FAD_NATIVE_SLOTS = 64 };
int fad_native_take_slot(fad_native *f);        /* -1 when none is free */
void fad_native_give_slot(int slot);
typedef struct {
    double (*number)(double x);
    double (*numbers)(int n, double *x);
    int (*call)(const double *in, double *value, double *rest);
} fad_native_plain;
fad_native_plain fad_native_slot(int slot);

#ifdef __cplusplus
}
#endif
#endif
