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

/* Two rows in one pass, each rounded as it is alone: they save a way through memory. */
#define FAD_FUSED(_) \
    _(multiply_add, a * b + c) \
    _(multiply_subtract, a * b - c) \
    _(subtract_product, c - a * b) \
    _(zmul_add, c + zmul(a, b)) \
    _(zmul_add_positive, (c + 0.0) + zmul(a, b))
enum {
#define FAD_FUSED_NAMED(name, primal) FAD_FUSED_##name,
    FAD_FUSED(FAD_FUSED_NAMED)
#undef FAD_FUSED_NAMED
    FAD_FUSED_END
};
extern const fad_values_fn fad_fused[FAD_FUSED_END];

/* NumPy's pairwise sums of contiguous elements; -0.0 where there is none. */
double fad_pairwise_f64(const double *x, int64_t n);
float fad_pairwise_f32(const float *x, int64_t n);
/* The same of n complex numbers, real and imaginary part. */
void fad_pairwise_c128(const double *x, int64_t n, double *sum);
void fad_pairwise_c64(const float *x, int64_t n, float *sum);

/* The same fed in pieces, all but the last of a multiple of 8 elements.  While `pending` lasts, its
 * stretches lie from right to left; `right` is 0 where the stretch left of it is summed already. */
typedef struct {
    int64_t block, done;        /* elements of the block that is being summed, and how many were */
    int depth;
    double sum, part[8];
    struct { int64_t right; double left; } pending[60];
} fad_sum_stream;
void fad_sum_begin(fad_sum_stream *s, int64_t n);
void fad_sum_feed(fad_sum_stream *s, const double *x, int64_t n);

/* Formulas that are just a number: no kernel need run. */
enum { FAD_IS_FORMULA = 0, FAD_IS_ONE, FAD_IS_MINUS_ONE, FAD_IS_ZERO };
extern unsigned char fad_trivial[FAD_OP_END][3];
void fad_rows_init(void);

/* `where` of the formulas; both arms are evaluated, only one is taken. */
static inline double where(double c, double p, double q) { return c != 0.0 ? p : q; }

/* FAD_INLINED: for functions that are compiled once for each constant they are called with.
 * FAD_ALIGNED: for loops over nodes, where the place that the linker gives them may halve the speed. */
#if defined(__GNUC__)
#define FAD_INLINED static inline __attribute__((always_inline))
#define FAD_ALIGNED __attribute__((aligned(64)))
#else
#define FAD_INLINED static inline
#define FAD_ALIGNED
#endif

/* Vector code for the machine it runs on, from one source. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__) \
    && !defined(FAD_NO_CLONES)
#if __GNUC__ >= 12
#define FAD_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define FAD_CLONES __attribute__((target_clones("avx2", "default")))
#endif
#else
#define FAD_CLONES
#endif

/* `out` may be an operand itself: each element is read before it is written. */
#if defined(__GNUC__) && !defined(__clang__)
#define FAD_IVDEP _Pragma("GCC ivdep")
/* loops over a constant few elements are vectorized only while they are loops */
#define FAD_ROLLED _Pragma("GCC unroll 1")
#else
#define FAD_IVDEP
#define FAD_ROLLED
#endif

#endif
