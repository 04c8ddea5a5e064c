/* Everything that one row of ops.def stands for, in C. */
#include "kernels.h"
#include "special.h"

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif

#define FAD_CONST(name, value)

/* ---- the rows themselves --------------------------------------------------------------------- */

/* In the order of the opcodes. */
const fad_row fad_rows[] = {
#define FAD_UNARY(...)
#define FAD_BINARY(...)
#define FAD_TERNARY(name, primal, da, db, dc, reads, np, la, ha, lb, hb, lc, hc) \
    {#name, #primal, {#da, #db, #dc}, np, FAD_OP_##name, 3, reads, {la, lb, lc}, {ha, hb, hc}},
#include "ops.def"
#undef FAD_UNARY
#undef FAD_TERNARY
#define FAD_UNARY(name, primal, dx, reads, np, lo, hi) \
    {#name, #primal, {#dx, NULL, NULL}, np, FAD_OP_##name, 1, reads, {lo, 0, 0}, {hi, 0, 0}},
#define FAD_TERNARY(...)
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#define FAD_UNARY(...)
#define FAD_BINARY(name, primal, da, db, reads, np, la, ha, lb, hb) \
    {#name, #primal, {#da, #db, NULL}, np, FAD_OP_##name, 2, reads, {la, lb, 0}, {ha, hb, 0}},
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
};
const int fad_row_count = (int)(sizeof fad_rows / sizeof fad_rows[0]);

#undef FAD_CONST
#define FAD_CONST(name, value) {#name, value},
#define FAD_UNARY(...)
#define FAD_BINARY(...)
#define FAD_TERNARY(...)
const fad_named_constant fad_constants[] = {
#include "ops.def"
    {NULL, 0.0}
};
const int fad_constant_count = (int)(sizeof fad_constants / sizeof fad_constants[0]) - 1;
#undef FAD_CONST
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
#define FAD_CONST(name, value)

unsigned char fad_trivial[FAD_OP_END][3];

void fad_rows_init(void)
{
    for (int r = 0; r < fad_row_count; r++) {
        const fad_row *row = &fad_rows[r];
        for (int k = 0; k < row->arity; k++) {
            const char *f = row->partial[k];
            fad_trivial[row->op][k] = !strcmp(f, "1.0") ? FAD_IS_ONE
                : !strcmp(f, "-1.0") ? FAD_IS_MINUS_ONE
                : !strcmp(f, "0.0") ? FAD_IS_ZERO : FAD_IS_FORMULA;
        }
    }
}

/* ---- scalar values ------------------------------------------------------------------------------ */

double fad_eval1(int op, double x)
{
    switch (op) {
#define FAD_UNARY(name, primal, ...) case FAD_OP_##name: return primal;
#define FAD_BINARY(...)
#define FAD_TERNARY(...)
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
    }
    return NAN;
}

double fad_eval2(int op, double a, double b)
{
    switch (op) {
#define FAD_UNARY(...)
#define FAD_BINARY(name, primal, ...) case FAD_OP_##name: return primal;
#define FAD_TERNARY(...)
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
    }
    return NAN;
}

double fad_eval3(int op, double a, double b, double c)
{
    switch (op) {
#define FAD_UNARY(...)
#define FAD_BINARY(...)
#define FAD_TERNARY(name, primal, ...) case FAD_OP_##name: return primal;
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
    }
    return NAN;
}

/* ---- blocks ------------------------------------------------------------------------------------- */

/* `out` may be an operand itself: each element is read before it is written. */
#if defined(__GNUC__) && !defined(__clang__)
#define FAD_IVDEP _Pragma("GCC ivdep")
#else
#define FAD_IVDEP
#endif

#define VALUES(name, first, primal) \
    FAD_CLONES static void values_##name(const double *as, const double *bs, const double *cs, \
                                         double *out, intptr_t n) \
    { \
        FAD_IVDEP \
        for (intptr_t i = 0; i < n; i++) { \
            const double first = as[i], b = bs[i], c = cs[i]; \
            out[i] = primal; \
        } \
    }
#define FAD_UNARY(name, primal, ...) VALUES(name, x, primal)
#define FAD_BINARY(name, primal, ...) VALUES(name, a, primal)
#define FAD_TERNARY(name, primal, ...) VALUES(name, a, primal)
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY

fad_values_fn fad_values[FAD_OP_END] = {
#define FAD_UNARY(name, ...) [FAD_OP_##name] = values_##name,
#define FAD_BINARY(name, ...) [FAD_OP_##name] = values_##name,
#define FAD_TERNARY(name, ...) [FAD_OP_##name] = values_##name,
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
};

#define FUSED(name, primal) VALUES(fused_##name, a, primal)
FAD_FUSED(FUSED)
#undef FUSED

const fad_values_fn fad_fused[FAD_FUSED_END] = {
#define FUSED(name, primal) values_fused_##name,
    FAD_FUSED(FUSED)
#undef FUSED
};

/* ---- partials on blocks ---------------------------------------------------------------------------- */

/* `out` may be `g` itself. */
#define PARTIAL(name, k, first, formula) \
    FAD_CLONES static void partial_##name##_##k(const double *gs, const double *as, \
        const double *bs, const double *cs, const double *ys, double *out, intptr_t n) \
    { \
        FAD_IVDEP \
        for (intptr_t i = 0; i < n; i++) { \
            const double first = as[i], b = bs[i], c = cs[i], y = ys[i]; \
            const double g = gs[i], p = (formula), v = g * p; \
            out[i] = (g == 0.0) | (p == 0.0) ? 0.0 : v; \
        } \
    }

#define FAD_UNARY(name, primal, dx, ...) PARTIAL(name, 0, x, dx)
#define FAD_BINARY(name, primal, da, db, ...) PARTIAL(name, 0, a, da) PARTIAL(name, 1, a, db)
#define FAD_TERNARY(name, primal, da, db, dc, ...) \
    PARTIAL(name, 0, a, da) PARTIAL(name, 1, a, db) PARTIAL(name, 2, a, dc)
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY

fad_partial fad_partials[FAD_OP_END][3] = {
#define FAD_UNARY(name, ...) [FAD_OP_##name] = {partial_##name##_0},
#define FAD_BINARY(name, ...) [FAD_OP_##name] = {partial_##name##_0, partial_##name##_1},
#define FAD_TERNARY(name, ...) \
    [FAD_OP_##name] = {partial_##name##_0, partial_##name##_1, partial_##name##_2},
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
};
