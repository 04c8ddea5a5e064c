/* Arrays: storage, broadcasting, elementwise values, reductions, products. */
#include <fenv.h>
#include <stdlib.h>
#if defined(__GNUC__) && defined(__x86_64__)
#include <xmmintrin.h>
#define FAD_SSE
#endif

#include "kernels.h"

/* ---- storage ------------------------------------------------------------------------------ */

enum { INLINE_BYTES = 1024, PAGE = 4096, LINE = 64, POOL_SLOTS = 64 };
static const int64_t POOL_LIMIT = INT64_C(192) << 20;

/* Freed large blocks of recent sizes.  Fresh pages cost more than the arithmetic on them, and a
 * loop asks for the same sizes again and again. */
static struct { void *block; size_t bytes; } pool[POOL_SLOTS];
static int pool_n;
static int64_t pool_bytes;
int64_t fad_large_bytes;

/* Blocks begin with a line of the cache: vectors that cross lines cost twice.  What was allocated
 * is noted in front. */
static void *line_alloc(size_t bytes)
{
    char *got = fad_malloc(bytes + LINE);
    if (!got) return NULL;
    char *block = got + (LINE - (uintptr_t)got % LINE);
    memcpy(block - sizeof got, &got, sizeof got);
    return block;
}

static void line_free(void *block)
{
    char *got;
    memcpy(&got, (char *)block - sizeof got, sizeof got);
    fad_free(got);
}

int64_t fad_pool_bytes(void) { return pool_bytes; }

void fad_pool_clear(void)
{
    while (pool_n) line_free(pool[--pool_n].block);
    pool_bytes = 0;
}

static size_t rounded(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

static void *large_alloc(size_t bytes)
{
    const size_t want = rounded(bytes);
    for (int k = pool_n - 1; k >= 0; k--) {
        if (pool[k].bytes != want) continue;
        void *block = pool[k].block;
        memmove(pool + k, pool + k + 1, (size_t)(--pool_n - k) * sizeof *pool);
        pool_bytes -= (int64_t)want;
        fad_large_bytes += (int64_t)want;
        return block;
    }
    void *block = line_alloc(want);
    if (block) fad_large_bytes += (int64_t)want;
    return block;
}

static void large_free(void *block, size_t bytes)
{
    const size_t size = rounded(bytes);
    fad_large_bytes -= (int64_t)size;
    if ((int64_t)size > POOL_LIMIT / 2) {
        line_free(block);
        return;
    }
    while (pool_n == POOL_SLOTS || (pool_n && pool_bytes + (int64_t)size > POOL_LIMIT)) {
        line_free(pool[0].block);       /* the oldest goes first */
        pool_bytes -= (int64_t)pool[0].bytes;
        memmove(pool, pool + 1, (size_t)--pool_n * sizeof *pool);
    }
    pool[pool_n].block = block;
    pool[pool_n++].bytes = size;
    pool_bytes += (int64_t)size;
}

static fad_array *header(int dtype, int ndim, const int64_t *shape, size_t extra)
{
    fad_array *arr = fad_malloc(sizeof *arr + (size_t)ndim * sizeof(int64_t) + extra);
    if (!arr) return NULL;
    memset(arr, 0, sizeof *arr);
    arr->refs = 1;
    arr->dtype = (uint8_t)dtype;
    arr->ndim = (uint8_t)ndim;
    arr->size = 1;
    for (int k = 0; k < ndim; k++) arr->size *= arr->shape[k] = shape[k];
    return arr;
}

/* NULL where memory is short; a size that overflows counts as that. */
fad_array *fad_array_new(int dtype, int ndim, const int64_t *shape)
{
    int64_t size = 1;
    for (int k = 0; k < ndim; k++) {
        if (shape[k] && size > (INT64_MAX / 16) / shape[k]) return NULL;
        size *= shape[k];
    }
    const size_t bytes = (size_t)size * fad_itemsize(dtype);
    if (bytes <= INLINE_BYTES) {
        fad_array *arr = header(dtype, ndim, shape, bytes + 8);
        if (!arr) return NULL;
        arr->data = arr->shape + ndim;
        /* NumPy copies complex operands of products that do not lie at multiples of their size */
        if (dtype == FAD_C128 && (uintptr_t)arr->data % 16) arr->data = arr->shape + ndim + 1;
        return arr;
    }
    fad_array *arr = header(dtype, ndim, shape, 0);
    if (!arr) return NULL;
    arr->large = 1;
    arr->data = large_alloc(bytes);
    if (!arr->data) {
        fad_free(arr);
        return NULL;
    }
    return arr;
}

fad_array *fad_array_borrow(int dtype, int ndim, const int64_t *shape, void *data, void *owner)
{
    fad_array *arr = header(dtype, ndim, shape, 0);
    if (!arr) return NULL;
    arr->data = data;
    arr->owner = owner;
    return arr;
}

void fad_array_free(fad_array *arr)
{
    if (arr->large) large_free(arr->data, (size_t)arr->size * fad_itemsize(arr->dtype));
    fad_free(arr);
}

void fad_array_release(fad_array *arr)
{
    if (--arr->refs > 0) return;
    if (arr->owner) {       /* releasing a foreign keeper may run foreign code: the caller's turn */
        arr->next = fad_dead_arrays;
        fad_dead_arrays = arr;
    } else {
        fad_array_free(arr);
    }
}

int fad_same_shape(const fad_array *p, const fad_array *q)
{
    if (p->ndim != q->ndim) return 0;
    for (int k = 0; k < p->ndim; k++)
        if (p->shape[k] != q->shape[k]) return 0;
    return 1;
}

fad_array *fad_array_copy(const fad_array *src)
{
    fad_array *arr = fad_array_new(src->dtype, src->ndim, src->shape);
    if (arr) memcpy(arr->data, src->data, (size_t)src->size * fad_itemsize(src->dtype));
    return arr;
}

fad_array *fad_array_cast(const fad_array *src, int dtype)
{
    fad_array *arr = fad_array_new(dtype, src->ndim, src->shape);
    if (arr) fad_cast_into(src, arr);
    return arr;
}

static int is_single(int dtype) { return dtype == FAD_F32 || dtype == FAD_C64; }

/* n numbers of one precision to another, each `dp` and `dq` numbers after the last. */
static void cast_apart(const void *src, int single, int dp, void *dst, int to_single, int dq,
                       int64_t n)
{
    const double *p = src;
    const float *ps = src;
    double *q = dst;
    float *qs = dst;
    if (single && to_single) for (int64_t i = 0; i < n; i++) qs[i * dq] = ps[i * dp];
    else if (single) for (int64_t i = 0; i < n; i++) q[i * dq] = ps[i * dp];
    else if (to_single) for (int64_t i = 0; i < n; i++) qs[i * dq] = (float)p[i * dp];
    else for (int64_t i = 0; i < n; i++) q[i * dq] = p[i * dp];
}

static void cast_numbers(const void *src, int single, int dp, void *dst, int to_single, int dq,
                         int64_t n)
{
    if (dp != 1 || dq != 1 || single == to_single) {
        cast_apart(src, single, dp, dst, to_single, dq, n);
    } else if (single) {        /* side by side: loops that become vectors */
        const float *p = src;
        double *q = dst;
        for (int64_t i = 0; i < n; i++) q[i] = p[i];
    } else {
        const double *p = src;
        float *q = dst;
        for (int64_t i = 0; i < n; i++) q[i] = (float)p[i];
    }
}

void fad_cast_into(const fad_array *src, fad_array *out)
{
    const int from = fad_is_complex(src->dtype), to = fad_is_complex(out->dtype);
    const int single = is_single(src->dtype), to_single = is_single(out->dtype);
    if (src->dtype == FAD_BOOL) {
        const unsigned char *p = src->data;
        if (to) memset(out->data, 0, (size_t)out->size * fad_itemsize(out->dtype));
        if (to_single) for (int64_t i = 0; i < src->size; i++) ((float *)out->data)[i * (1 + to)] = p[i];
        else for (int64_t i = 0; i < src->size; i++) ((double *)out->data)[i * (1 + to)] = p[i];
        return;
    }
    if (src->dtype == out->dtype) {
        memcpy(out->data, src->data, (size_t)src->size * fad_itemsize(out->dtype));
        return;
    }
    if (from && to) {
        cast_numbers(src->data, single, 1, out->data, to_single, 1, 2 * src->size);
        return;
    }
    if (to && !from && !single && !to_single) {
        const double *p = src->data;
        double *q = out->data;
        for (int64_t i = 0; i < src->size; i++) {
            q[2 * i] = p[i];
            q[2 * i + 1] = 0.0;
        }
        return;
    }
    if (to) memset(out->data, 0, (size_t)out->size * fad_itemsize(out->dtype));
    cast_numbers(src->data, single, 1 + from, out->data, to_single, 1 + to, src->size);
}

/* How many numbers of its precision an array holds. */
static int64_t numbers_in(const fad_array *x) { return x->size * (1 + fad_is_complex(x->dtype)); }

int fad_has_nan(const fad_array *x)
{
    const int64_t n = numbers_in(x);
    const double *p = x->data;
    const float *q = x->data;
    if (is_single(x->dtype)) {
        for (int64_t i = 0; i < n; i++) if (q[i] != q[i]) return 1;
    } else {
        for (int64_t i = 0; i < n; i++) if (p[i] != p[i]) return 1;
    }
    return 0;
}

fad_status fad_fill(int dtype, int ndim, const int64_t *shape, double v, fad_array **out)
{
    fad_array *arr = *out = fad_array_new(dtype, ndim, shape);
    if (!arr) return FAD_NOMEM;
    const int step = 1 + fad_is_complex(dtype);
    if (step > 1 || (v == 0.0 && !signbit(v))) {
        memset(arr->data, 0, (size_t)arr->size * fad_itemsize(dtype));
        if (v == 0.0 && !signbit(v)) return FAD_OK;
    }
    if (step == 1 && !is_single(dtype)) {
        double *p = arr->data;
        for (int64_t i = 0; i < arr->size; i++) p[i] = v;
    } else if (is_single(dtype))
        for (int64_t i = 0; i < arr->size; i++) ((float *)arr->data)[i * step] = (float)v;
    else
        for (int64_t i = 0; i < arr->size; i++) ((double *)arr->data)[i * step] = v;
    return FAD_OK;
}

/* ---- walking several arrays with broadcasting ------------------------------------------------ */

enum { MAXOPS = 4 };

/* Up to four strided operands over one shape, with neighbouring axes merged where every
 * operand's strides allow it.  `inner` runs along the last axis. */
typedef struct {
    int ndim, nop;
    int64_t shape[FAD_MAXDIM], index[FAD_MAXDIM];
    intptr_t stride[MAXOPS][FAD_MAXDIM];
    char *ptr[MAXOPS];
} walk;

/* Strides of `arr` seen as `shape`; 0 where it is broadcast. */
static void strides_in(const fad_array *arr, int ndim, intptr_t *stride)
{
    intptr_t step = (intptr_t)fad_itemsize(arr->dtype);
    for (int k = ndim - 1, j = arr->ndim - 1; k >= 0; k--, j--) {
        if (j < 0 || arr->shape[j] == 1) {
            stride[k] = 0;
            if (j < 0) continue;
        } else {
            stride[k] = step;
        }
        step *= (intptr_t)arr->shape[j];
    }
}

static void walk_merge(walk *w)
{
    int d = 0;
    for (int k = 0; k < w->ndim; k++) {
        if (w->shape[k] == 1) continue;
        int fits = d > 0;
        for (int o = 0; fits && o < w->nop; o++)
            fits = w->stride[o][d - 1] == w->stride[o][k] * (intptr_t)w->shape[k];
        if (fits) {
            w->shape[d - 1] *= w->shape[k];
            for (int o = 0; o < w->nop; o++) w->stride[o][d - 1] = w->stride[o][k];
        } else {
            w->shape[d] = w->shape[k];
            for (int o = 0; o < w->nop; o++) w->stride[o][d] = w->stride[o][k];
            d++;
        }
    }
    if (d == 0) {
        w->shape[0] = 1;
        for (int o = 0; o < w->nop; o++) w->stride[o][0] = 0;
        d = 1;
    }
    w->ndim = d;
    memset(w->index, 0, (size_t)d * sizeof w->index[0]);
}

/* To the next inner run; 0 at the end. */
static int walk_next(walk *w)
{
    for (int k = w->ndim - 2; k >= 0; k--) {
        if (++w->index[k] < w->shape[k]) {
            for (int o = 0; o < w->nop; o++) w->ptr[o] += w->stride[o][k];
            return 1;
        }
        w->index[k] = 0;
        for (int o = 0; o < w->nop; o++)
            w->ptr[o] -= w->stride[o][k] * (intptr_t)(w->shape[k] - 1);
    }
    return 0;
}

static fad_status broadcast_shape(const fad_operand *in, int n, int *ndim, int64_t *shape)
{
    *ndim = 0;
    for (int o = 0; o < n; o++)
        if (in[o].arr && in[o].arr->ndim > *ndim) *ndim = in[o].arr->ndim;
    for (int k = 0; k < *ndim; k++) shape[k] = 1;
    for (int o = 0; o < n; o++) {
        if (!in[o].arr) continue;
        const int shift = *ndim - in[o].arr->ndim;
        for (int k = 0; k < in[o].arr->ndim; k++) {
            const int64_t len = in[o].arr->shape[k];
            int64_t *have = &shape[k + shift];
            if (len == *have || len == 1) continue;
            if (*have != 1) return FAD_SHAPE;
            *have = len;
        }
    }
    return FAD_OK;
}

/* ---- floating-point exceptions ----------------------------------------------------------------- */

unsigned fad_raised;

enum { WATCHED = FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INVALID };

/* More elements than these are not computed twice to see which flags are theirs. */
enum { LARGE = 256 };

/* Flags of the processor.  Arithmetic sets those of SSE; NumPy's loops of single precision set some
 * in the old unit.  To read either takes as long as a dozen additions. */
static inline int flags_up(int both)
{
#ifdef FAD_SSE
    unsigned short old_unit = 0;
    if (both) __asm__ volatile("fnstsw %0" : "=a"(old_unit));
    return (int)(old_unit | _mm_getcsr()) & WATCHED;
#else
    (void)both;
    return fetestexcept(WATCHED);
#endif
}

unsigned fad_flags_taken(int both)
{
    const int met = flags_up(both);
    if (!met) return 0;
#ifdef FAD_SSE
    _mm_setcsr(_mm_getcsr() & ~(unsigned)WATCHED);
    if (flags_up(both))
#endif
        feclearexcept(WATCHED);
    return (met & FE_DIVBYZERO ? FAD_DIVIDE : 0) | (met & FE_OVERFLOW ? FAD_OVER : 0)
        | (met & FE_UNDERFLOW ? FAD_UNDER : 0) | (met & FE_INVALID ? FAD_INVALID : 0);
}

unsigned fad_raised_by(int op, const double *x)
{
    const int arity = fad_row_of(op)->arity;
    volatile double y;
    fad_flags_taken(1);
    y = arity == 1 ? fad_eval1(op, x[0]) : arity == 2 ? fad_eval2(op, x[0], x[1])
                                                      : fad_eval3(op, x[0], x[1], x[2]);
    (void)y;
    return fad_flags_taken(1);
}

/* ---- elementwise values ------------------------------------------------------------------------ */

static struct { fad_loop fn; void *data; } loops[FAD_OP_END][FAD_BOOL];
static struct { fad_loop fn; void *data; } matmul_loop[FAD_BOOL];

void fad_set_loop(int op, int dtype, fad_loop fn, void *data)
{
    loops[op][dtype].fn = fn;
    loops[op][dtype].data = data;
}

fad_loop fad_loop_of(int op, int dtype, void **data)
{
    *data = loops[op][dtype].data;
    return loops[op][dtype].fn;
}

int fad_has_loop(int op, int dtype) { return loops[op][dtype].fn != NULL; }

void fad_set_matmul(int dtype, fad_loop fn, void *data)
{
    matmul_loop[dtype].fn = fn;
    matmul_loop[dtype].data = data;
}

static double load(const char *p, int dtype)
{
    if (dtype == FAD_F64) {
        double v;
        memcpy(&v, p, 8);
        return v;
    }
    if (dtype == FAD_F32) {
        float v;
        memcpy(&v, p, 4);
        return v;
    }
    return *(const unsigned char *)p != 0;
}

enum { BLOCK = 512 };

/* n elements at p, `step` apart, as doubles: in place where they are that already. */
static const double *as_doubles(const char *p, int dtype, intptr_t step, intptr_t n, double *block)
{
    if (dtype == FAD_F64 && step == 8) return (const double *)p;
    if (step == 0) {
        const double v = load(p, dtype);
        for (intptr_t i = 0; i < n; i++) block[i] = v;
    } else {
        for (intptr_t i = 0; i < n; i++) block[i] = load(p + i * step, dtype);
    }
    return block;
}

static void own_loop(int op, int arity, const int *types, char **p, intptr_t n, const intptr_t *step)
{
    double block[4][BLOCK];
    const double *in[3];
    for (intptr_t at = 0; at < n; at += BLOCK) {
        const intptr_t m = n - at < BLOCK ? n - at : BLOCK;
        for (int o = 0; o < 3; o++)
            in[o] = o < arity ? as_doubles(p[o] + at * step[o], types[o], step[o], m, block[o])
                              : in[0];
        if (types[3] == FAD_F64) {
            fad_values[op](in[0], in[1], in[2], (double *)p[arity] + at, m);
        } else {
            float *out = (float *)p[arity] + at;
            fad_values[op](in[0], in[1], in[2], block[3], m);
            for (intptr_t i = 0; i < m; i++) out[i] = (float)block[3][i];
        }
    }
}

/* The operands as a loop reads them; `simple` when equal shapes and numbers need no walk. */
typedef struct {
    union { double d, z[2]; float f, c[2]; } number[3];
    int types[4], arity, simple;
    intptr_t step[MAXOPS];
    char *ptr[MAXOPS];
    const fad_array *full;
    fad_loop fn;
    void *data;
} operands;

static void operands_of(operands *r, int op, int dtype, const fad_operand *in)
{
    r->arity = fad_row_of(op)->arity;
    r->types[0] = dtype;
    r->simple = 1;
    r->full = NULL;
    for (int o = 0; o < r->arity; o++) {
        const fad_array *arr = in[o].arr;
        r->types[o] = arr ? arr->dtype : dtype;
        if (!arr) {
            if (fad_is_complex(dtype)) memset(&r->number[o], 0, sizeof r->number[o]);
            if (is_single(dtype)) r->number[o].f = (float)in[o].number;
            else r->number[o].d = in[o].number;
            r->ptr[o] = (char *)&r->number[o];
            r->step[o] = 0;
            continue;
        }
        r->ptr[o] = arr->data;
        r->step[o] = (intptr_t)fad_itemsize(arr->dtype);
        if (!r->full) r->full = arr;
        else if (r->simple && r->full != arr && !fad_same_shape(r->full, arr)) r->simple = 0;
    }
    r->types[3] = dtype;
    r->fn = r->types[0] == dtype ? loops[op][dtype].fn : NULL;
    r->data = loops[op][dtype].data;
}

static void run_loop(operands *r, int op, char **ptr, intptr_t n)
{
    if (r->fn) r->fn(ptr, &n, r->step, r->data);
    else own_loop(op, r->arity, r->types, ptr, n, r->step);
}

/* Rows shorter than this run together, as many as fill a tile. */
enum { SHORT_ROW = 32, MANY_ROWS = 8, TILE = 512, WIDEST = 16 };

enum operand_kind { NUMBER, WHOLE, ROW, COLUMN };

/* `times` copies of a row, or each of `times` elements `n` times. */
static void fill_tile(char *tile, const char *src, int kind, intptr_t step, int64_t times, int64_t n,
                      intptr_t item)
{
    if (kind == ROW) {
        for (int64_t k = 0; k < times; k++, tile += n * item) memcpy(tile, src, (size_t)(n * item));
    } else if (item == 8) {
        for (int64_t k = 0; k < times; k++, src += step)
            for (int64_t j = 0; j < n; j++, tile += 8) memcpy(tile, src, 8);
    } else {
        for (int64_t k = 0; k < times; k++, src += step)
            for (int64_t j = 0; j < n; j++, tile += item) memcpy(tile, src, (size_t)item);
    }
}

/* Many short rows: operands that are broadcast along the last axes but one or two are laid out in
 * tiles of many rows, so that loops run long.  Returns 0, and does nothing, for other shapes. */
static int run_tiled(operands *r, int op, walk *w)
{
    _Alignas(64) char tiles[MAXOPS - 1][TILE * WIDEST];
    enum operand_kind kind[MAXOPS];
    intptr_t item[MAXOPS];
    char *ptr[MAXOPS], *filled[MAXOPS] = {NULL};
    const int last = w->ndim - 1;
    if (last < 1 || w->shape[last] > SHORT_ROW || w->shape[last - 1] < MANY_ROWS) return 0;
    const int64_t n = w->shape[last], rows = w->shape[last - 1], block = TILE / n;
    for (int o = 0; o < w->nop; o++) {
        const intptr_t inner = w->stride[o][last], outer = w->stride[o][last - 1];
        item[o] = (intptr_t)fad_itemsize(o == r->arity ? r->types[3] : r->types[o]);
        if (inner == 0) kind[o] = outer == 0 ? NUMBER : COLUMN;
        else if (inner != item[o]) return 0;
        else if (outer == (intptr_t)n * inner) kind[o] = WHOLE;
        else if (outer == 0) kind[o] = ROW;
        else return 0;
        r->step[o] = kind[o] == NUMBER ? 0 : item[o];
    }
    if (kind[r->arity] != WHOLE) return 0;
    w->ndim = last;                 /* from here on a step of the walk is all rows */
    do {
        for (int o = 0; o < r->arity; o++) {
            if (kind[o] != ROW || filled[o] == w->ptr[o]) continue;
            filled[o] = w->ptr[o];
            fill_tile(tiles[o], w->ptr[o], ROW, 0, block < rows ? block : rows, n, item[o]);
        }
        for (int64_t k = 0; k < rows; k += block) {
            const int64_t many = block < rows - k ? block : rows - k;
            for (int o = 0; o < w->nop; o++) {
                const intptr_t step = w->stride[o][last - 1];
                ptr[o] = w->ptr[o] + step * (intptr_t)k;
                if (kind[o] == ROW || kind[o] == COLUMN) {
                    if (kind[o] == COLUMN)
                        fill_tile(tiles[o], ptr[o], COLUMN, step, many, n, item[o]);
                    ptr[o] = tiles[o];
                }
            }
            run_loop(r, op, ptr, (intptr_t)(many * n));
        }
    } while (walk_next(w));
    return 1;
}

static void elementwise_into(operands *r, int op, const fad_operand *in, fad_array *out)
{
    walk w;
    char *ptr[MAXOPS];
    const int arity = r->arity;
    r->step[arity] = (intptr_t)fad_itemsize(out->dtype);
    if (out->size == 0) return;
    if (r->simple) {
        r->ptr[arity] = out->data;
        run_loop(r, op, r->ptr, (intptr_t)out->size);
        return;
    }
    w.nop = arity + 1;
    w.ndim = out->ndim;
    memcpy(w.shape, out->shape, (size_t)out->ndim * sizeof *w.shape);
    for (int o = 0; o < arity; o++) {
        w.ptr[o] = r->ptr[o];
        if (in[o].arr) strides_in(in[o].arr, w.ndim, w.stride[o]);
        else memset(w.stride[o], 0, (size_t)w.ndim * sizeof w.stride[o][0]);
    }
    w.ptr[arity] = out->data;
    strides_in(out, w.ndim, w.stride[arity]);
    walk_merge(&w);
    if (run_tiled(r, op, &w)) return;
    for (int o = 0; o < arity; o++) r->step[o] = w.stride[o][w.ndim - 1];
    do {
        for (int o = 0; o <= arity; o++) ptr[o] = w.ptr[o];
        run_loop(r, op, ptr, (intptr_t)w.shape[w.ndim - 1]);
    } while (walk_next(&w));
}

void fad_elementwise_into(int op, int dtype, const fad_operand *in, fad_array *out)
{
    operands r;
    operands_of(&r, op, dtype, in);
    elementwise_into(&r, op, in, out);
}

fad_status fad_elementwise(int op, int dtype, const fad_operand *in, fad_array **result)
{
    operands r;
    int ndim = 0;
    int64_t shape[FAD_MAXDIM];
    const int64_t *full = shape;
    operands_of(&r, op, dtype, in);
    if (fad_is_complex(dtype) && !r.fn) return FAD_DTYPE;
    if (!r.simple) {
        fad_status status = broadcast_shape(in, r.arity, &ndim, shape);
        if (status) return status;
    } else if (r.full) {
        ndim = r.full->ndim;
        full = r.full->shape;
    }
    fad_array *out = *result = fad_array_new(dtype, ndim, full);
    if (!out) return FAD_NOMEM;
    fad_raised = 0;
    if (op == FAD_OP_positive && in[0].arr && in[0].arr->dtype == dtype) {
        memcpy(out->data, in[0].arr->data, (size_t)out->size * fad_itemsize(dtype));
        return FAD_OK;
    }
    const int large = out->size > LARGE, both = is_single(dtype);
    if (large) fad_flags_taken(both);
    elementwise_into(&r, op, in, out);
    if (r.fn && flags_up(both)) {
        fad_raised = fad_flags_taken(both);
        if (!large) {           /* or was it something before? */
            operands_of(&r, op, dtype, in);
            elementwise_into(&r, op, in, out);
            fad_raised = fad_flags_taken(both);
        }
    }
    return FAD_OK;
}

/* ---- sums and copies ------------------------------------------------------------------------------ */

/* Sum of everything, as NumPy's reduction: zero plus the pairwise sum. */
fad_status fad_sum_all(const fad_array *x, double *out)
{
    if (x->dtype == FAD_F64) *out = 0.0 + fad_pairwise_f64(x->data, x->size);
    else *out = 0.0f + fad_pairwise_f32(x->data, x->size);
    return FAD_OK;
}

void fad_add_into(fad_array *dst, const fad_array *src)
{
    const int64_t n = numbers_in(dst);
    if (!is_single(dst->dtype)) {
        double *p = dst->data;
        const double *q = src->data;
        for (int64_t i = 0; i < n; i++) p[i] += q[i];
    } else {
        float *p = dst->data;
        const float *q = src->data;
        for (int64_t i = 0; i < n; i++) p[i] += q[i];
    }
}

/* The adjoint of broadcasting `shape` to x's shape. */
fad_status fad_sum_to(const fad_array *x, int ndim, const int64_t *shape, fad_array **result)
{
    if (ndim > x->ndim) return FAD_SHAPE;
    for (int k = 1; k <= ndim; k++)
        if (shape[ndim - k] != 1 && shape[ndim - k] != x->shape[x->ndim - k]) return FAD_SHAPE;
    *result = fad_array_new(x->dtype, ndim, shape);
    if (!*result) return FAD_NOMEM;
    fad_sum_into(x, *result);
    return FAD_OK;
}

/* Over the axes in which `out` is shorter. */
void fad_sum_into(const fad_array *x, fad_array *out)
{
    int summed[FAD_MAXDIM];
    for (int k = x->ndim - 1, j = out->ndim - 1; k >= 0; k--, j--)
        summed[k] = j < 0 || out->shape[j] != x->shape[k];
    fad_sum_axes_into(x, summed, out);
}

/* With the bits of NumPy's reduction: along the last axis pairwise, along others one after the
 * other. */
void fad_sum_axes_into(const fad_array *x, const int *summed, fad_array *out)
{
    walk w;
    intptr_t step = (intptr_t)fad_itemsize(x->dtype);
    memset(out->data, 0, (size_t)out->size * fad_itemsize(out->dtype));
    if (x->size == 0) return;
    w.nop = 2;
    w.ndim = x->ndim;
    memcpy(w.shape, x->shape, (size_t)x->ndim * sizeof(int64_t));
    w.ptr[0] = x->data;
    w.ptr[1] = out->data;
    strides_in(x, w.ndim, w.stride[0]);
    for (int k = x->ndim - 1; k >= 0; k--) {
        w.stride[1][k] = summed[k] ? 0 : step;
        if (!summed[k]) step *= (intptr_t)x->shape[k];
    }
    walk_merge(&w);
    const int64_t n = w.shape[w.ndim - 1];
    const int keep = w.stride[1][w.ndim - 1] != 0;
    do {
        if (x->dtype == FAD_F64) {
            const double *p = (const double *)w.ptr[0];
            double *q = (double *)w.ptr[1];
            if (keep) for (int64_t i = 0; i < n; i++) q[i] += p[i];
            else *q += fad_pairwise_f64(p, n);
        } else if (x->dtype == FAD_F32) {
            const float *p = (const float *)w.ptr[0];
            float *q = (float *)w.ptr[1];
            if (keep) for (int64_t i = 0; i < n; i++) q[i] += p[i];
            else *q += fad_pairwise_f32(p, n);
        } else if (x->dtype == FAD_C128) {
            const double *p = (const double *)w.ptr[0];
            double *q = (double *)w.ptr[1], sum[2];
            if (keep) for (int64_t i = 0; i < 2 * n; i++) q[i] += p[i];
            else {
                fad_pairwise_c128(p, n, sum);
                for (int k = 0; k < 2; k++) q[k] += sum[k];
            }
        } else {
            const float *p = (const float *)w.ptr[0];
            float *q = (float *)w.ptr[1], sum[2];
            if (keep) for (int64_t i = 0; i < 2 * n; i++) q[i] += p[i];
            else {
                fad_pairwise_c64(p, n, sum);
                for (int k = 0; k < 2; k++) q[k] += sum[k];
            }
        }
    } while (walk_next(&w));
}

/* Make the longest axis the inner one where the inner one is short; any order of axes copies. */
static void walk_long(walk *w)
{
    int last = w->ndim - 1, best = last;
    if (w->shape[last] >= 16) return;
    for (int k = 0; k < last; k++)
        if (w->shape[k] > w->shape[best]) best = k;
    if (w->shape[best] < 4 * w->shape[last]) return;
    const int64_t n = w->shape[best];
    w->shape[best] = w->shape[last];
    w->shape[last] = n;
    for (int o = 0; o < w->nop; o++) {
        const intptr_t step = w->stride[o][best];
        w->stride[o][best] = w->stride[o][last];
        w->stride[o][last] = step;
    }
}

/* The first operand into the second, which is written to in no place twice. */
static void gather(walk *w, size_t item)
{
    walk_long(w);
    const int64_t n = w->shape[w->ndim - 1];
    const intptr_t step = w->stride[0][w->ndim - 1], to = w->stride[1][w->ndim - 1];
    do {
        const char *p = w->ptr[0];
        char *q = w->ptr[1];
        if (step == (intptr_t)item && to == step) memcpy(q, p, (size_t)n * item);
        else if (item == 8)
            for (int64_t i = 0; i < n; i++) memcpy(q + i * to, p + i * step, 8);
        else if (item == 4)
            for (int64_t i = 0; i < n; i++) memcpy(q + i * to, p + i * step, 4);
        else if (item == 16)
            for (int64_t i = 0; i < n; i++) memcpy(q + i * to, p + i * step, 16);
        else
            for (int64_t i = 0; i < n; i++) q[i * to] = p[i * step];
    } while (walk_next(w));
}

void fad_copy_strided(const void *src, const intptr_t *stride, fad_array *out)
{
    walk w;
    if (out->size == 0) return;
    w.nop = 2;
    w.ndim = out->ndim;
    memcpy(w.shape, out->shape, (size_t)out->ndim * sizeof(int64_t));
    w.ptr[0] = (char *)(uintptr_t)src;
    w.ptr[1] = out->data;
    memcpy(w.stride[0], stride, (size_t)out->ndim * sizeof *stride);
    strides_in(out, out->ndim, w.stride[1]);
    walk_merge(&w);
    gather(&w, fad_itemsize(out->dtype));
}

/* Start a walk over all elements of `whole` and those of `x` at `place`, operands `at_whole` and
 * the other. */
static void walk_places(walk *w, const fad_array *whole, const fad_array *x, const int64_t *place,
                        int at_whole)
{
    const intptr_t item = (intptr_t)fad_itemsize(x->dtype);
    w->nop = 2;
    w->ndim = whole->ndim;
    memcpy(w->shape, whole->shape, (size_t)whole->ndim * sizeof(int64_t));
    w->ptr[at_whole] = whole->data;
    w->ptr[1 - at_whole] = (char *)x->data + (intptr_t)place[0] * item;
    strides_in(whole, whole->ndim, w->stride[at_whole]);
    for (int k = 0; k < whole->ndim; k++)
        w->stride[1 - at_whole][k] = (intptr_t)place[k + 1] * item;
    walk_merge(w);
}

void fad_slice_into(const fad_array *x, const int64_t *place, fad_array *out)
{
    walk w;
    if (out->size == 0) return;
    walk_places(&w, out, x, place, 1);
    gather(&w, fad_itemsize(x->dtype));
}

void fad_scatter_into(const fad_array *x, const int64_t *place, fad_array *out)
{
    walk w;
    const size_t item = fad_itemsize(x->dtype);
    memset(out->data, 0, (size_t)out->size * item);
    if (x->size == 0) return;
    walk_places(&w, x, out, place, 0);
    const int64_t n = w.shape[w.ndim - 1];
    const intptr_t step = w.stride[1][w.ndim - 1];
    do {
        const char *p = w.ptr[0];
        char *q = w.ptr[1];
        if (step == (intptr_t)item) memcpy(q, p, (size_t)n * item);
        else if (item == 8) for (int64_t i = 0; i < n; i++) memcpy(q + i * step, p + 8 * i, 8);
        else if (item == 16) for (int64_t i = 0; i < n; i++) memcpy(q + i * step, p + 16 * i, 16);
        else for (int64_t i = 0; i < n; i++) memcpy(q + i * step, p + 4 * i, 4);
    } while (walk_next(&w));
}

/* Add `x` to the elements of `out` at a place, which may name some of them several times. */
void fad_add_at_place(const fad_array *x, const int64_t *place, fad_array *out)
{
    walk w;
    if (x->size == 0) return;
    walk_places(&w, x, out, place, 0);
    const int64_t n = w.shape[w.ndim - 1];
    const int numbers = 1 + fad_is_complex(x->dtype);
    const intptr_t item = (intptr_t)fad_itemsize(x->dtype);
    const intptr_t step = w.stride[1][w.ndim - 1] / item * numbers;
    do {
        if (!is_single(x->dtype)) {
            const double *p = (const double *)w.ptr[0];
            double *q = (double *)w.ptr[1];
            if (numbers == 1) for (int64_t i = 0; i < n; i++) q[i * step] += p[i];
            else for (int64_t i = 0; i < 2 * n; i++) q[i / 2 * step + i % 2] += p[i];
        } else {
            const float *p = (const float *)w.ptr[0];
            float *q = (float *)w.ptr[1];
            if (numbers == 1) for (int64_t i = 0; i < n; i++) q[i * step] += p[i];
            else for (int64_t i = 0; i < 2 * n; i++) q[i / 2 * step + i % 2] += p[i];
        }
    } while (walk_next(&w));
}

static void put_run(char *q, intptr_t to, const char *p, intptr_t from, size_t item, int adds,
                    int64_t n)
{
#define EACH(size) for (int64_t i = 0; i < n; i++) memcpy(q + i * to, p + i * from, size)
    if (adds) for (int64_t i = 0; i < n; i++) *(double *)(q + i * to) += *(const double *)(p + i * from);
    else if (item == 8) EACH(8);
    else if (item == 16) EACH(16);
    else EACH(4);
#undef EACH
}

void fad_write_into(const fad_array *x, const fad_operand *value, const int64_t *how, int adds,
                    fad_array *out)
{
    const size_t item = fad_itemsize(x->dtype);
    const char *p = value->arr ? value->arr->data : (const char *)&value->number;
    char *q = out->data;
    if (q != x->data) memcpy(q, x->data, (size_t)x->size * item);
    if (how[1]) {
        const int64_t n = how[2], *to = how + 3, *from = to + n;
        for (int64_t i = 0; i < n; i++)
            put_run(q + (size_t)to[i] * item, 0, p + (size_t)from[i] * item, 0, item, adds, 1);
        return;
    }
    walk w;
    const int64_t *shape = how + 4;
    w.nop = 2;
    w.ndim = (int)how[3];
    for (int k = 0; k < w.ndim; k++) {
        if (shape[k] == 0) return;
        w.shape[k] = shape[k];
        w.stride[0][k] = (intptr_t)shape[2 * w.ndim + k] * (intptr_t)item;
        w.stride[1][k] = (intptr_t)shape[w.ndim + k] * (intptr_t)item;
    }
    w.ptr[0] = (char *)(uintptr_t)p;
    w.ptr[1] = q + how[2] * (int64_t)item;
    walk_merge(&w);
    const int last = w.ndim - 1;
    do put_run(w.ptr[1], w.stride[1][last], w.ptr[0], w.stride[0][last], item, adds, w.shape[last]);
    while (walk_next(&w));
}

/* ---- masks ----------------------------------------------------------------------------------- */

static int any_of(const fad_operand *in, int wanted)
{
    const int64_t n = in->arr ? in->arr->size : 1;
    const unsigned char *mask = in->arr ? in->arr->data : NULL;
    const double *x = in->arr ? in->arr->data : &in->number;
    if (in->arr && in->arr->dtype == FAD_BOOL) {
        for (int64_t i = 0; i < n; i++) if (mask[i] == wanted) return 1;
    } else {
        for (int64_t i = 0; i < n; i++) if ((x[i] != 0.0) == wanted) return 1;
    }
    return 0;
}

/* The steps are constants where it is called, so that most loops become vector code. */
#define MASK_RUN(A, B, step_a, step_b) \
    switch (op) { \
    case FAD_MASK_LT: MASK_EACH(A, B, step_a, step_b, a < b); \
    case FAD_MASK_LE: MASK_EACH(A, B, step_a, step_b, a <= b); \
    case FAD_MASK_EQ: MASK_EACH(A, B, step_a, step_b, a == b); \
    case FAD_MASK_NE: MASK_EACH(A, B, step_a, step_b, a != b); \
    case FAD_MASK_GT: MASK_EACH(A, B, step_a, step_b, a > b); \
    case FAD_MASK_GE: MASK_EACH(A, B, step_a, step_b, a >= b); \
    case FAD_MASK_AND: MASK_EACH(A, B, step_a, step_b, (a != 0) & (b != 0)); \
    case FAD_MASK_OR: MASK_EACH(A, B, step_a, step_b, (a != 0) | (b != 0)); \
    case FAD_MASK_XOR: MASK_EACH(A, B, step_a, step_b, (a != 0) ^ (b != 0)); \
    case FAD_MASK_NOT: MASK_EACH(A, B, step_a, step_b, a == 0); \
    case FAD_MASK_NAN: MASK_EACH(A, B, step_a, step_b, a != a); \
    case FAD_MASK_INF: MASK_EACH(A, B, step_a, step_b, fabs((double)a) == INFINITY); \
    case FAD_MASK_FINITE: MASK_EACH(A, B, step_a, step_b, fabs((double)a) < INFINITY); \
    case FAD_MASK_SIGNBIT: MASK_EACH(A, B, step_a, step_b, signbit((double)a) != 0); \
    } \
    return
#define MASK_EACH(A, B, step_a, step_b, holds) \
    for (int64_t i = 0; i < n; i++) { \
        const A a = *(const A *)(p + i * (step_a)); \
        const B b = *(const B *)(r + i * (step_b)); \
        (void)b; \
        q[i] = (unsigned char)(holds); \
    } \
    return

static void mask_run(int op, int bool_a, int bool_b, const char *p, intptr_t sp, const char *r,
                     intptr_t sr, unsigned char *q, int64_t n)
{
    enum { D = sizeof(double) };
    if (bool_a && bool_b && sp == 1 && sr == 1) { MASK_RUN(unsigned char, unsigned char, 1, 1); }
    if (bool_a && bool_b) { MASK_RUN(unsigned char, unsigned char, sp, sr); }
    if (bool_a) { MASK_RUN(unsigned char, double, sp, sr); }
    if (bool_b) { MASK_RUN(double, unsigned char, sp, sr); }
    if (sp == D && sr == D) { MASK_RUN(double, double, D, D); }
    if (sp == D && sr == 0) { MASK_RUN(double, double, D, 0); }
    if (sp == 0 && sr == D) { MASK_RUN(double, double, 0, D); }
    MASK_RUN(double, double, sp, sr);
}
#undef MASK_RUN
#undef MASK_EACH

void fad_mask_into(int op, int n_in, const fad_operand *in, fad_array *out)
{
    walk w;
    int bools[2];
    if (out->size == 0) return;
    if (op == FAD_MASK_ANY || op == FAD_MASK_ALL) {
        const int found = any_of(in, op == FAD_MASK_ANY);
        *(unsigned char *)out->data = (unsigned char)(op == FAD_MASK_ANY ? found : !found);
        return;
    }
    w.nop = 3;
    w.ndim = out->ndim;
    memcpy(w.shape, out->shape, (size_t)out->ndim * sizeof(int64_t));
    for (int o = 0; o < 2; o++) {
        const fad_operand *x = &in[o < n_in ? o : 0];
        bools[o] = x->arr && x->arr->dtype == FAD_BOOL;
        w.ptr[o] = x->arr ? x->arr->data : (char *)(uintptr_t)&x->number;
        if (x->arr) strides_in(x->arr, out->ndim, w.stride[o]);
        else memset(w.stride[o], 0, (size_t)out->ndim * sizeof(intptr_t));
    }
    w.ptr[2] = out->data;
    strides_in(out, out->ndim, w.stride[2]);
    walk_merge(&w);
    const int last = w.ndim - 1;
    do mask_run(op, bools[0], bools[1], w.ptr[0], w.stride[0][last], w.ptr[1], w.stride[1][last],
                (unsigned char *)w.ptr[2], w.shape[last]);
    while (walk_next(&w));
}

fad_status fad_broadcast_to(const fad_array *x, int ndim, const int64_t *shape, fad_array **result)
{
    if (x->ndim > ndim) return FAD_SHAPE;
    for (int k = 1; k <= x->ndim; k++)
        if (x->shape[x->ndim - k] != 1 && x->shape[x->ndim - k] != shape[ndim - k])
            return FAD_SHAPE;
    *result = fad_array_new(x->dtype, ndim, shape);
    if (!*result) return FAD_NOMEM;
    fad_broadcast_into(x, *result);
    return FAD_OK;
}

void fad_broadcast_into(const fad_array *x, fad_array *out)
{
    walk w;
    if (out->size == 0) return;
    w.nop = 2;
    w.ndim = out->ndim;
    memcpy(w.shape, out->shape, (size_t)out->ndim * sizeof(int64_t));
    w.ptr[0] = x->data;
    w.ptr[1] = out->data;
    strides_in(x, out->ndim, w.stride[0]);
    strides_in(out, out->ndim, w.stride[1]);
    walk_merge(&w);
    gather(&w, fad_itemsize(x->dtype));
}

fad_status fad_transpose(const fad_array *x, const int *axes, fad_array **result)
{
    int64_t shape[FAD_MAXDIM];
    for (int k = 0; k < x->ndim; k++) shape[k] = x->shape[axes[k]];
    *result = fad_array_new(x->dtype, x->ndim, shape);
    if (!*result) return FAD_NOMEM;
    fad_transpose_into(x, axes, *result);
    return FAD_OK;
}

void fad_transpose_into(const fad_array *x, const int *axes, fad_array *out)
{
    walk w;
    intptr_t stride[FAD_MAXDIM], step = (intptr_t)fad_itemsize(x->dtype);
    if (out->size == 0) return;
    for (int k = x->ndim - 1; k >= 0; k--) {
        stride[k] = step;
        step *= (intptr_t)x->shape[k];
    }
    w.nop = 2;
    w.ndim = x->ndim;
    w.ptr[0] = x->data;
    w.ptr[1] = out->data;
    memcpy(w.shape, out->shape, (size_t)x->ndim * sizeof(int64_t));
    for (int k = 0; k < x->ndim; k++) w.stride[0][k] = stride[axes[k]];
    step = (intptr_t)fad_itemsize(x->dtype);
    for (int k = x->ndim - 1; k >= 0; k--) {
        w.stride[1][k] = step;
        step *= (intptr_t)out->shape[k];
    }
    walk_merge(&w);
    gather(&w, fad_itemsize(x->dtype));
}

/* ---- products ---------------------------------------------------------------------------------------- */

static void own_complex_matmul(char **args, const intptr_t *dims, const intptr_t *steps, int single)
{
    const int dtype = single ? FAD_F32 : FAD_F64;
    const intptr_t part = (intptr_t)fad_itemsize(dtype);
    for (intptr_t i = 0; i < dims[1]; i++) {
        for (intptr_t j = 0; j < dims[3]; j++) {
            const char *a = args[0] + i * steps[3], *b = args[1] + j * steps[6];
            char *out = args[2] + i * steps[7] + j * steps[8];
            double re = 0.0, im = 0.0;
            for (intptr_t k = 0; k < dims[2]; k++, a += steps[4], b += steps[5]) {
                const double ar = load(a, dtype), ai = load(a + part, dtype);
                const double br = load(b, dtype), bi = load(b + part, dtype);
                re += ar * br - ai * bi;
                im += ar * bi + ai * br;
            }
            if (single) {
                ((float *)out)[0] = (float)re;
                ((float *)out)[1] = (float)im;
            } else {
                ((double *)out)[0] = re;
                ((double *)out)[1] = im;
            }
        }
    }
}

static void own_matmul(char **args, const intptr_t *dims, const intptr_t *steps, int dtype)
{
    const intptr_t m = dims[1], n = dims[2], p = dims[3];
    if (dtype == FAD_F64) {
        const intptr_t sa = steps[4] / 8, sb = steps[5] / 8;
        for (intptr_t i = 0; i < m; i++) {
            const double *a = (const double *)(args[0] + i * steps[3]);
            double *out = (double *)(args[2] + i * steps[7]);
            for (intptr_t j = 0; j < p; j++) {
                const double *b = (const double *)(args[1] + j * steps[6]);
                double s = 0.0;
                for (intptr_t k = 0; k < n; k++) s += a[k * sa] * b[k * sb];
                out[j] = s;
            }
        }
        return;
    }
    if (fad_is_complex(dtype)) {
        own_complex_matmul(args, dims, steps, is_single(dtype));
        return;
    }
    for (intptr_t i = 0; i < m; i++) {
        for (intptr_t j = 0; j < p; j++) {
            const char *a = args[0] + i * steps[3], *b = args[1] + j * steps[6];
            char *out = args[2] + i * steps[7] + j * steps[8];      /* float32 */
            double s = 0.0;
            for (intptr_t k = 0; k < n; k++, a += steps[4], b += steps[5])
                s += (double)*(const float *)a * *(const float *)b;
            *(float *)out = (float)s;
        }
    }
}

/* Products this small take BLAS longer to start than to compute. */
enum { SMALL_PRODUCT = 256 };

/* Sizes and strides of a product; 0 where the operands do not fit. */
typedef struct { intptr_t m, n, p, am, an, bn, bp; } product_shape;

static int product_of(const fad_array *a, int ta, const fad_array *b, int tb, product_shape *s)
{
    const intptr_t item = (intptr_t)fad_itemsize(a->dtype);
    const int va = a->ndim == 1, vb = b->ndim == 1;
    const int64_t *in_a = va ? a->shape : a->shape + a->ndim - 2;
    const int64_t *in_b = vb ? b->shape : b->shape + b->ndim - 2;
    intptr_t n2;
    if (va) { s->m = 1; s->n = in_a[0]; s->am = s->n * item; s->an = item; }
    else if (!ta) { s->m = in_a[0]; s->n = in_a[1]; s->am = s->n * item; s->an = item; }
    else { s->n = in_a[0]; s->m = in_a[1]; s->an = s->m * item; s->am = item; }
    if (vb) { n2 = in_b[0]; s->p = 1; s->bn = item; s->bp = item; }
    else if (!tb) { n2 = in_b[0]; s->p = in_b[1]; s->bn = s->p * item; s->bp = item; }
    else { s->p = in_b[0]; n2 = in_b[1]; s->bp = n2 * item; s->bn = item; }
    return s->n == n2;
}

static void multiply(int dtype, char *a, char *b, const product_shape *s, int exact, char *out)
{
    const intptr_t item = (intptr_t)fad_itemsize(dtype);
    const intptr_t dims[4] = {1, s->m, s->n, s->p};
    const intptr_t steps[9] = {0, 0, 0, s->am, s->an, s->bn, s->bp, s->p * item, item};
    char *args[3] = {a, b, out};
    if (matmul_loop[dtype].fn && (exact || s->m * s->n * s->p > SMALL_PRODUCT))
        matmul_loop[dtype].fn(args, dims, steps, matmul_loop[dtype].data);
    else own_matmul(args, dims, steps, dtype);
}

fad_status fad_matmul2(const fad_array *a, int ta, const fad_array *b, int tb, int exact,
                       fad_array **result)
{
    product_shape s;
    int64_t shape[2];
    int ndim = 0;
    if (!product_of(a, ta, b, tb, &s)) return FAD_SHAPE;
    if (a->ndim > 1) shape[ndim++] = s.m;
    if (b->ndim > 1) shape[ndim++] = s.p;
    *result = fad_array_new(a->dtype, ndim, shape);
    if (!*result) return FAD_NOMEM;
    if ((*result)->size) multiply(a->dtype, a->data, b->data, &s, exact, (*result)->data);
    return FAD_OK;
}

/* Steps along the axes in front of matrices of so many bytes; 0 where they are broadcast. */
static void batch_strides(const fad_array *x, int batch, intptr_t bytes, intptr_t *stride)
{
    for (int k = batch - 1, j = x->ndim - 3; k >= 0; k--, j--) {
        stride[k] = j < 0 || x->shape[j] == 1 ? 0 : bytes;
        if (j >= 0) bytes *= (intptr_t)x->shape[j];
    }
}

void fad_matmul_into(const fad_array *a, int ta, const fad_array *b, int tb, int exact,
                     fad_array *out)
{
    const int core = (a->ndim > 1) + (b->ndim > 1), batch = out->ndim - core;
    const intptr_t item = (intptr_t)fad_itemsize(a->dtype);
    product_shape s;
    walk w;
    if (!product_of(a, ta, b, tb, &s) || out->size == 0) return;
    w.nop = 3;
    w.ndim = batch + 1;                 /* the last one stands for the product itself */
    memcpy(w.shape, out->shape, (size_t)batch * sizeof(int64_t));
    w.shape[batch] = 1;
    memset(w.index, 0, (size_t)w.ndim * sizeof w.index[0]);
    w.ptr[0] = a->data;
    w.ptr[1] = b->data;
    w.ptr[2] = out->data;
    batch_strides(a, batch, s.m * s.n * item, w.stride[0]);
    batch_strides(b, batch, s.n * s.p * item, w.stride[1]);
    intptr_t step = s.m * s.p * item;
    for (int k = batch - 1; k >= 0; k--) {
        w.stride[2][k] = step;
        step *= (intptr_t)out->shape[k];
    }
    do multiply(a->dtype, w.ptr[0], w.ptr[1], &s, exact, w.ptr[2]);
    while (walk_next(&w));
}
