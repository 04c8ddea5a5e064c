/* Programs called from C. */
#include <stdlib.h>

#include "kernels.h"
#include "native.h"
#include "vm_impl.h"

/* Idle workspaces stand in a row of places, each of which holds one or none.  A call exchanges
 * what it finds with none; so no two calls get the same, and no list can be torn.  Without atomic
 * pointers each call makes a workspace of its own. */
#if !defined(__STDC_NO_ATOMICS__)
#include <stdatomic.h>
#define ATOMIC(type) _Atomic(type)
#define LOAD(p) atomic_load_explicit(&(p), memory_order_acquire)
#define STORE(p, v) atomic_store_explicit(&(p), (v), memory_order_release)
enum { IDLE = 64 };
#else
#define ATOMIC(type) type
#define LOAD(p) (p)
#define STORE(p, v) ((p) = (v))
enum { IDLE = 1 };
#endif

typedef struct { fad_place at; int64_t offset, size; int rest, lent; } native_out;

typedef struct {
    const fad_program *program;
    const double **outer;
    native_out *out;
    ATOMIC(fad_workspace *) idle[IDLE];
} native_way;

struct fad_native {
    int32_t n_ways, n_given;
    fad_native_sizes size;
    ATOMIC(int32_t) latest;     /* the recording that held last */
    native_way way[];
};

static int64_t size_at(const fad_program *p, fad_place at)
{
    return at.is_array ? p->array[at.where].like->size : 1;
}

static int is_float64(const fad_program *p, fad_place at)
{
    return !at.is_array || p->array[at.where].like->dtype == FAD_F64;
}

/* Where results go.  An array that several outputs show is lent memory by the first of them. */
static fad_status outputs_of(native_way *w, int32_t n_value, fad_native_sizes *size)
{
    const fad_program *p = w->program;
    for (int32_t k = 0; k < p->n_out; k++) {
        native_out *out = &w->out[k];
        if (!is_float64(p, p->out[k])) return FAD_DTYPE;
        out->at = p->out[k];
        out->rest = k >= n_value;
        out->size = size_at(p, out->at);
        out->offset = out->rest ? size->rest : size->value;
        *(out->rest ? &size->rest : &size->value) += out->size;
        out->lent = fad_output_is_callers(p, k);
        for (int32_t j = 0; j < k; j++)
            if (p->out[j].is_array && p->out[j].where == out->at.where) out->lent = 0;
    }
    return FAD_OK;
}

static fad_status new_way(native_way *w, const fad_native_way *from, int32_t n_given,
                          int32_t n_value, fad_native_sizes *size)
{
    const fad_program *p = w->program = from->program;
    const size_t n_outer = (size_t)(p->n_in - n_given);
    if (p->n_foreign) return FAD_DTYPE;
    if (p->n_in < n_given || p->n_out < n_value) return FAD_SHAPE;
    w->outer = fad_malloc((n_outer + 1) * sizeof *w->outer);
    w->out = fad_malloc(((size_t)p->n_out + 1) * sizeof *w->out);
    if (!w->outer || !w->out) return FAD_NOMEM;
    if (n_outer) memcpy(w->outer, from->outer, n_outer * sizeof *w->outer);
    for (int32_t k = 0; k < p->n_in; k++) {
        if (!is_float64(p, p->in[k])) return FAD_DTYPE;
        if (k < n_given) size->in += size_at(p, p->in[k]);
    }
    return outputs_of(w, n_value, size);
}

fad_status fad_native_new(int32_t n_ways, const fad_native_way *way, int32_t n_given,
                          int32_t n_value, fad_native **out)
{
    const size_t bytes = sizeof(fad_native) + (size_t)n_ways * sizeof(native_way);
    fad_native *f = *out = fad_malloc(bytes);
    if (!f) return FAD_NOMEM;
    memset(f, 0, bytes);
    f->n_ways = n_ways;
    f->n_given = n_given;
    fad_status status = FAD_OK;
    for (int32_t k = 0; k < n_ways && !status; k++) {
        fad_native_sizes size = {0, 0, 0};
        status = new_way(&f->way[k], &way[k], n_given, n_value, &size);
        if (!status && k && (size.in != f->size.in || size.value != f->size.value
                             || size.rest != f->size.rest)) status = FAD_SHAPE;
        f->size = size;
    }
    if (!status) return FAD_OK;
    fad_native_free(f);
    *out = NULL;
    return status;
}

void fad_native_free(fad_native *f)
{
    for (int32_t k = 0; k < f->n_ways; k++) {
        native_way *w = &f->way[k];
        for (int j = 0; j < IDLE; j++) {
            fad_workspace *idle = LOAD(w->idle[j]);
            if (idle) fad_workspace_free(w->program, idle);
        }
        fad_free(w->outer);
        fad_free(w->out);
    }
    fad_free(f);
}

fad_native_sizes fad_native_size(const fad_native *f) { return f->size; }

static fad_workspace *take(native_way *w)
{
    fad_workspace *found = NULL;
#if !defined(__STDC_NO_ATOMICS__)
    for (int j = 0; j < IDLE; j++) {
        if (!atomic_load_explicit(&w->idle[j], memory_order_relaxed)) continue;
        found = atomic_exchange_explicit(&w->idle[j], NULL, memory_order_acquire);
        if (found) return found;
    }
#endif
    return fad_workspace_new(w->program, &found) ? NULL : found;
}

static void give(native_way *w, fad_workspace *used)
{
#if !defined(__STDC_NO_ATOMICS__)
    for (int j = 0; j < IDLE; j++) {
        fad_workspace *none = NULL;
        if (atomic_compare_exchange_strong_explicit(&w->idle[j], &none, used, memory_order_release,
                                                    memory_order_relaxed)) return;
    }
#endif
    fad_workspace_free(w->program, used);
}

static fad_status run(native_way *w, int32_t n_given, const double *in, double *value, double *rest)
{
    const fad_program *p = w->program;
    fad_workspace *ws = take(w);
    if (!ws) return FAD_NOMEM;
    for (int32_t k = 0; k < p->n_in; k++) {
        const fad_place at = p->in[k];
        const double *from = k < n_given ? in : w->outer[k - n_given];
        /* a program never writes to its inputs */
        if (at.is_array) ws->array[at.where]->data = (void *)(uintptr_t)from;
        else ws->reg[at.where] = *from;
        if (k < n_given) in += size_at(p, at);
    }
    for (int32_t k = 0; k < p->n_out; k++) {
        const native_out *out = &w->out[k];
        if (out->lent) ws->array[out->at.where]->data = (out->rest ? rest : value) + out->offset;
    }
    const fad_status status = fad_program_run(p, ws, NULL);
    for (int32_t k = 0; k < p->n_out && !status; k++) {
        const native_out *out = &w->out[k];
        double *to = (out->rest ? rest : value) + out->offset;
        if (!out->at.is_array) *to = ws->reg[out->at.where];
        else if (!out->lent && out->size)
            memcpy(to, ws->array[out->at.where]->data, (size_t)out->size * sizeof *to);
    }
    give(w, ws);
    return status;
}

int fad_native_call(const double *in, double *value, double *rest, void *user_data)
{
    fad_native *f = user_data;
    fad_status status = FAD_GUARD;
    const int32_t latest = LOAD(f->latest);
    for (int32_t j = -1; j < f->n_ways && status == FAD_GUARD; j++) {
        if (j == latest) continue;
        const int32_t k = j < 0 ? latest : j;
        status = run(&f->way[k], f->n_given, in, value, rest);
        if (!status && k != latest) STORE(f->latest, k);
    }
    if (!status) return FAD_NATIVE_OK;
    for (int64_t i = 0; i < f->size.value; i++) value[i] = NAN;
    for (int64_t i = 0; i < f->size.rest; i++) rest[i] = NAN;
    return status == FAD_GUARD ? FAD_NATIVE_GUARD
        : status == FAD_NOMEM ? FAD_NATIVE_NOMEM : FAD_NATIVE_FAILED;
}

/* ---- what SciPy calls -------------------------------------------------------------------------- */

/* Whether a form of one result may call this function at all. */
static int gives(const fad_native *f, int64_t n, int64_t n_value)
{
    return f && f->size.in == n && f->size.value == n_value && !f->size.rest;
}

double fad_native_number(double x, void *user_data)
{
    double y;
    if (!gives(user_data, 1, 1) || fad_native_call(&x, &y, NULL, user_data)) return NAN;
    return y;
}

double fad_native_numbers(int n, double *x, void *user_data)
{
    double y;
    if (!gives(user_data, n, 1) || fad_native_call(x, &y, NULL, user_data)) return NAN;
    return y;
}

int fad_native_filter(double *in, intptr_t n, double *value, void *user_data)
{
    return gives(user_data, n, 1) && !fad_native_call(in, value, NULL, user_data);
}

int fad_native_filter1d(double *in, intptr_t n, double *value, intptr_t n_value, void *user_data)
{
    return gives(user_data, n, n_value) && !fad_native_call(in, value, NULL, user_data);
}

int fad_native_mapping(intptr_t *to, double *from, int n_to, int n_from, void *user_data)
{
    enum { MOST_AXES = 64 };
    double at[MOST_AXES];
    if (n_to > MOST_AXES || !gives(user_data, n_to, n_from)) return 0;
    for (int k = 0; k < n_to; k++) at[k] = (double)to[k];
    return !fad_native_call(at, from, NULL, user_data);
}

/* ---- forms without user_data ------------------------------------------------------------------- */

/* Written under the caller's lock, before and after all calls. */
static ATOMIC(fad_native *) slots[FAD_NATIVE_SLOTS];

static int call_slot(int slot, const double *in, double *value, double *rest)
{
    fad_native *f = LOAD(slots[slot]);
    return f ? fad_native_call(in, value, rest, f) : FAD_NATIVE_FAILED;
}

/* The numbers of the slots in octal. */
#define EIGHT(_, high) _(0##high##0) _(0##high##1) _(0##high##2) _(0##high##3) \
    _(0##high##4) _(0##high##5) _(0##high##6) _(0##high##7)
#define ALL(_) EIGHT(_, 0) EIGHT(_, 1) EIGHT(_, 2) EIGHT(_, 3) EIGHT(_, 4) EIGHT(_, 5) \
    EIGHT(_, 6) EIGHT(_, 7)
#define FUNCTIONS(k) \
    static double number_##k(double x) { return fad_native_number(x, LOAD(slots[k])); } \
    static double numbers_##k(int n, double *x) \
    { \
        return fad_native_numbers(n, x, LOAD(slots[k])); \
    } \
    static int call_##k(const double *in, double *value, double *rest) \
    { \
        return call_slot(k, in, value, rest); \
    }
ALL(FUNCTIONS)

static const fad_native_plain plain[] = {
#define POINTERS(k) {number_##k, numbers_##k, call_##k},
    ALL(POINTERS)
};
_Static_assert(sizeof plain / sizeof plain[0] == FAD_NATIVE_SLOTS, "a function for each slot");

fad_native_plain fad_native_slot(int slot) { return plain[slot]; }

/* In turns, so that an address used after its time is unlikely to meet another function. */
int fad_native_take_slot(fad_native *f)
{
    static int next;
    for (int k = 0; k < FAD_NATIVE_SLOTS; k++) {
        const int slot = (next + k) % FAD_NATIVE_SLOTS;
        if (LOAD(slots[slot])) continue;
        STORE(slots[slot], f);
        next = slot + 1;
        return slot;
    }
    return -1;
}

void fad_native_give_slot(int slot) { STORE(slots[slot], NULL); }
