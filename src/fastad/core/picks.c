/* Structured operations of programs that pick elements, on any floating arrays, or run along an
 * axis, on float64 arrays; with the bits of NumPy's. */
#include "kernels.h"

#define EACH_ITEM(size, to, from) \
    for (int64_t i = 0; i < n; i++) \
        memcpy(q + (size_t)(to) * size, p + (size_t)(from) * size, size); \
    return

/* x's elements at these places of it, in order. */
void fad_take_into(const fad_array *x, const int64_t *place, fad_array *out)
{
    const char *p = x->data;
    char *q = out->data;
    const int64_t n = out->size;
    switch (fad_itemsize(x->dtype)) {
    case 4: EACH_ITEM(4, i, place[i]);
    case 8: EACH_ITEM(8, i, place[i]);
    case 16: EACH_ITEM(16, i, place[i]);
    }
}

/* Zeros with x's elements at these places, which differ. */
static void put(const fad_array *x, const int64_t *place, fad_array *out)
{
    const char *p = x->data;
    char *q = out->data;
    const int64_t n = x->size;
    switch (fad_itemsize(x->dtype)) {
    case 4: EACH_ITEM(4, place[i], i);
    case 8: EACH_ITEM(8, place[i], i);
    case 16: EACH_ITEM(16, place[i], i);
    }
}

/* The same; with `adds`, of float64, places may come again. */
void fad_give_into(const fad_array *x, const int64_t *place, int adds, fad_array *out)
{
    memset(out->data, 0, (size_t)out->size * fad_itemsize(out->dtype));
    if (!adds) {
        put(x, place, out);
        return;
    }
    const double *p = x->data;
    double *q = out->data;
    for (int64_t i = 0; i < x->size; i++) q[place[i]] += p[i];
}

/* Axes first .. end - 1 as one: `outer` times n times `inner` elements. */
typedef struct { int64_t outer, n, inner; } folded;

static folded fold(const fad_array *x, int first, int end)
{
    folded f = {1, 1, 1};
    for (int k = 0; k < first; k++) f.outer *= x->shape[k];
    for (int k = first; k < end; k++) f.n *= x->shape[k];
    for (int k = end; k < x->ndim; k++) f.inner *= x->shape[k];
    return f;
}

/* Sums up to each element along an axis, or from the last element down to it. */
void fad_cumsum_into(const fad_array *x, int axis, int reverse, fad_array *out)
{
    const folded f = fold(x, axis, axis + 1);
    const int64_t step = reverse ? -f.inner : f.inner;
    if (x->size == 0) return;
    for (int64_t o = 0; o < f.outer; o++) {
        const int64_t start = (o * f.n + (reverse ? f.n - 1 : 0)) * f.inner;
        const double *p = (const double *)x->data + start;
        double *q = (double *)out->data + start;
        memcpy(q, p, (size_t)f.inner * sizeof *q);
        for (int64_t k = 1; k < f.n; k++) {
            p += step;
            q += step;
            for (int64_t i = 0; i < f.inner; i++) q[i] = q[i - step] + p[i];
        }
    }
}

/* The largest (or smallest) along axes first .. end - 1, by the calls of NumPy's loop that its own
 * reduction makes: which of equal elements comes out, -0.0 or 0.0, depends on them. */
void fad_extremum_into(int op, const fad_array *x, int first, int end, double *out)
{
    const folded f = fold(x, first, end);
    void *data;
    const fad_loop loop = fad_loop_of(op, FAD_F64, &data);
    const intptr_t item = sizeof(double), steps[3] = {f.inner == 1 ? 0 : item, item,
                                                      f.inner == 1 ? 0 : item};
    const int64_t calls = f.inner == 1 && f.n > 1 ? 2 : f.n;
    const intptr_t count = (intptr_t)(f.inner == 1 ? f.n - 1 : f.inner);
    if (x->size == 0) return;
    for (int64_t o = 0; o < f.outer; o++) {
        const double *p = (const double *)x->data + o * f.n * f.inner;
        double *q = out + o * f.inner;
        memcpy(q, p, (size_t)f.inner * sizeof *q);
        for (int64_t k = 1; k < calls; k++) {
            const double *from = p + k * f.inner;
            char *ptr[3] = {(char *)q, (char *)from, (char *)q};
            if (loop) loop(ptr, &count, steps, data);
            else for (intptr_t i = 0; i < count; i++) {
                double *best = f.inner == 1 ? q : q + i;
                *best = fad_eval2(op, *best, from[i]);
            }
        }
    }
}

/* Where x has its extremum y along these axes: weights with the sum 1, equal where there are ties. */
void fad_ties_into(const fad_array *x, const double *y, int first, int end, fad_array *out)
{
    const folded f = fold(x, first, end);
    for (int64_t o = 0; o < f.outer; o++)
        for (int64_t i = 0; i < f.inner; i++) {
            const double *p = (const double *)x->data + o * f.n * f.inner + i;
            double *q = (double *)out->data + o * f.n * f.inner + i;
            const double best = y[o * f.inner + i];
            double ties = 0.0;
            for (int64_t k = 0; k < f.n; k++) {
                const double v = p[k * f.inner];
                q[k * f.inner] = v == best || (v != v && best != best);
                ties += q[k * f.inner];
            }
            for (int64_t k = 0; k < f.n; k++) q[k * f.inner] /= ties;
        }
}
