/* Complex numbers: what neither NumPy's loops nor the routines for all dtypes do. */
#include "kernels.h"

/* Of a complex array its conjugate or its imaginary parts; of a real array i times it. */
void fad_part_into(int part, const fad_array *x, fad_array *out)
{
    const int64_t n = x->size;
#define PARTS(type) do { \
        const type *p = x->data; \
        type *q = out->data; \
        for (int64_t i = 0; i < n; i++) { \
            if (part == FAD_CONJUGATE) { \
                q[2 * i] = p[2 * i]; \
                q[2 * i + 1] = -p[2 * i + 1]; \
            } else if (part == FAD_IMAG) { \
                q[i] = p[2 * i + 1]; \
            } else { \
                q[2 * i] = 0; \
                q[2 * i + 1] = p[i]; \
            } \
        } \
    } while (0)
    if (x->dtype == FAD_C128 || x->dtype == FAD_F64) PARTS(double);
    else PARTS(float);
#undef PARTS
}

fad_status fad_part(int part, const fad_array *x, fad_array **out)
{
    static const int dtype[] = {FAD_C128, FAD_C64, FAD_F64, FAD_F32};
    const int turned = part == FAD_CONJUGATE ? x->dtype : dtype[x->dtype];
    if (fad_is_complex(x->dtype) == (part == FAD_TIMES_I)) return FAD_DTYPE;
    *out = fad_array_new(turned, x->ndim, x->shape);
    if (!*out) return FAD_NOMEM;
    fad_part_into(part, x, *out);
    return FAD_OK;
}

/* Loops, in NumPy's form, for rows that formulas of complex rows hold and NumPy has not. */
#define LOOPS(type, name) \
    /* an operand that is exactly zero wins over inf and nan in the other */ \
    static void zmul_##name(char **args, const intptr_t *dims, const intptr_t *steps, void *data) \
    { \
        (void)data; \
        for (intptr_t i = 0; i < dims[0]; i++) { \
            const type *a = (const type *)(args[0] + i * steps[0]); \
            const type *b = (const type *)(args[1] + i * steps[1]); \
            type *y = (type *)(args[2] + i * steps[2]); \
            const type ar = a[0], ai = a[1], br = b[0], bi = b[1]; \
            const int none = (ar == 0 && ai == 0) || (br == 0 && bi == 0); \
            y[0] = none ? 0 : ar * br - ai * bi; \
            y[1] = none ? 0 : ar * bi + ai * br; \
        } \
    } \
    /* (1 - x) (1 + x) */ \
    static void one_minus_square_##name(char **args, const intptr_t *dims, const intptr_t *steps, \
                                        void *data) \
    { \
        (void)data; \
        for (intptr_t i = 0; i < dims[0]; i++) { \
            const type *x = (const type *)(args[0] + i * steps[0]); \
            type *y = (type *)(args[1] + i * steps[1]); \
            const type ar = 1 - x[0], ai = -x[1], br = 1 + x[0], bi = x[1]; \
            y[0] = ar * br - ai * bi; \
            y[1] = ar * bi + ai * br; \
        } \
    }

LOOPS(double, c128)
LOOPS(float, c64)

void fad_set_complex_loops(void)
{
    fad_set_loop(FAD_OP_zmul, FAD_C128, zmul_c128, NULL);
    fad_set_loop(FAD_OP_zmul, FAD_C64, zmul_c64, NULL);
    fad_set_loop(FAD_OP_one_minus_square, FAD_C128, one_minus_square_c128, NULL);
    fad_set_loop(FAD_OP_one_minus_square, FAD_C64, one_minus_square_c64, NULL);
}
