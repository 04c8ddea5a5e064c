/* Shared between kernels.c and sweep.c: partial derivatives on blocks of contiguous doubles. */
#ifndef FAD_KERNELS_H
#define FAD_KERNELS_H

#include "fad.h"

/* out = g * partial(a, b, c, y); an exact zero on either side wins over inf and nan on the other.
 * So a branch that was not taken contributes nothing, and both modes agree where one of them
 * would meet 0 * inf.  Operands that the row does not have are not read. */
typedef void (*fad_partial)(const double *g, const double *a, const double *b, const double *c,
                            const double *y, double *out, intptr_t n);
extern fad_partial fad_partials[FAD_OP_END][3];

/* out = primal(a, b, c), for rows or dtypes without a NumPy loop. */
typedef void (*fad_values_fn)(const double *a, const double *b, const double *c, double *out,
                              intptr_t n);
extern fad_values_fn fad_values[FAD_OP_END];
fad_loop fad_loop_of(int op, int dtype, void **data);

/* Formulas that are just a number: no kernel need run. */
enum { FAD_IS_FORMULA = 0, FAD_IS_ONE, FAD_IS_MINUS_ONE, FAD_IS_ZERO };
extern unsigned char fad_trivial[FAD_OP_END][3];
void fad_rows_init(void);

/* `where` of the formulas; both arms are evaluated, only one is taken. */
static inline double where(double c, double p, double q) { return c != 0.0 ? p : q; }

/* Vector code for the machine it runs on, from one source. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__) \
    && !defined(FAD_NO_CLONES)
#define FAD_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define FAD_CLONES
#endif

/* `out` may be an operand itself: each element is read before it is written. */
#if defined(__GNUC__) && !defined(__clang__)
#define FAD_IVDEP _Pragma("GCC ivdep")
#else
#define FAD_IVDEP
#endif

#endif
