/* Programs: running their code. */
#include <stdlib.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "kernels.h"
#include "special.h"
#include "vm_impl.h"

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-variable"
#endif

fad_status fad_workspace_new(const fad_program *p, fad_workspace **out)
{
    fad_workspace *w = *out = fad_malloc(sizeof *w);
    if (!w) return FAD_NOMEM;
    memset(w, 0, sizeof *w);
    w->reg = fad_malloc(((size_t)p->n_reg + 1) * sizeof *w->reg);
    w->arena = fad_malloc(p->arena + ALIGN);
    w->blocks = fad_malloc((size_t)p->scratch_blocks * STRIDE * sizeof(double) + ALIGN);
    w->array = fad_malloc(((size_t)p->n_array + 1) * sizeof *w->array);
    if (w->array) memset(w->array, 0, ((size_t)p->n_array + 1) * sizeof *w->array);
    if (!w->reg || !w->arena || !w->array || !w->blocks) goto failed;
    if (p->n_constant) memcpy(w->reg, p->constants, (size_t)p->n_constant * sizeof *w->reg);
    char *base = w->arena + (ALIGN - (uintptr_t)w->arena % ALIGN) % ALIGN;
    w->scratch = (double *)(w->blocks + (ALIGN - (uintptr_t)w->blocks % ALIGN) % ALIGN);
    for (int32_t k = 0; k < p->n_array; k++) {
        const array_place *place = &p->array[k];
        const fad_array *like = place->like;
        void *data = place->from == FROM_ARENA ? base + place->offset
            : place->from == FROM_CONSTANT ? like->data : NULL;
        w->array[k] = fad_array_borrow(like->dtype, like->ndim, like->shape, data, NULL);
        if (!w->array[k]) goto failed;
        if (place->from == FROM_CONSTANT && like->owner) {
            w->array[k]->owner = like->owner;
            w->array[k]->refs = 2;      /* somebody else keeps it */
        }
    }
    return FAD_OK;
failed:
    fad_workspace_free(p, w);
    *out = NULL;
    return FAD_NOMEM;
}

/* The caller has taken its owners off before. */
void fad_workspace_free(const fad_program *p, fad_workspace *w)
{
    for (int32_t k = 0; w->array && k < p->n_array; k++)
        if (w->array[k]) fad_array_free(w->array[k]);
    fad_free(w->array);
    fad_free(w->reg);
    fad_free(w->arena);
    fad_free(w->blocks);
    fad_free(w);
}

int fad_vm_guard_holds(const guard_ins *g, const fad_workspace *w)
{
    const double a = g->a.is_array ? 0.0 : w->reg[g->a.where];
    const double b = g->b.is_array ? 0.0 : w->reg[g->b.where];
    switch (g->kind) {
    case FAD_GUARD_LT: return (a < b) == g->wanted;
    case FAD_GUARD_LE: return (a <= b) == g->wanted;
    case FAD_GUARD_EQ: return (a == b) == g->wanted;
    case FAD_GUARD_NE: return (a != b) == g->wanted;
    case FAD_GUARD_GT: return (a > b) == g->wanted;
    case FAD_GUARD_GE: return (a >= b) == g->wanted;
    case FAD_GUARD_BITS: return !memcmp(&a, &g->number, sizeof a);
    case FAD_GUARD_TRUNC: return trunc(a) == g->number;
    case FAD_GUARD_BYTES: return !memcmp(w->array[g->a.where]->data, g->bytes, g->size);
    case FAD_GUARD_NO_NAN: return g->a.is_array ? !fad_has_nan(w->array[g->a.where]) : a == a;
    }
    return 0;
}

static void operand_at(const fad_workspace *w, fad_place at, fad_operand *in)
{
    in->arr = at.is_array ? w->array[at.where] : NULL;
    in->number = at.is_array ? 0.0 : w->reg[at.where];
}

#if defined(__GNUC__)
#define FETCH(address) __builtin_prefetch((address), 0, 2)
#else
#define FETCH(address) ((void)(address))
#endif

/* Copy to where nobody looks soon, past the caches: writing through them would read it first. */
static void stream_out(double *restrict to, const double *restrict from, intptr_t n)
{
#if defined(__SSE2__)
    intptr_t i = 0;
    for (; i < n && (uintptr_t)(to + i) % 16; i++) to[i] = from[i];
    for (; i + 2 <= n; i += 2) _mm_stream_pd(to + i, _mm_loadu_pd(from + i));
    for (; i < n; i++) to[i] = from[i];
#else
    memcpy(to, from, (size_t)n * sizeof *to);
#endif
}

/* Where the next tile's parts of operands begin, fetched a share with every step of this tile. */
enum { MOST_FETCHED = 16, LINE = 8 };
typedef struct { const double *from[MOST_FETCHED]; int n; } fetching;

/* The k-th of `shares` shares of the elements from `at` on, of which there are n. */
static void fetch_share(const fetching *f, int64_t at, intptr_t n, int32_t k, int32_t shares)
{
    const intptr_t each = (n + LINE - 1) / LINE, lines = each * f->n;
    const intptr_t end = lines * (k + 1) / shares;
    for (intptr_t i = lines * k / shares; i < end; i++)
        FETCH(f->from[i / each] + at + i % each * LINE);
}

static void run_tiles(const fad_program *p, fad_workspace *w, const array_ins *ins)
{
    const tile_step *first = p->tile + ins->first_in;
    const int64_t size = ins->offset;
    double *const scratch_end = w->scratch + (size_t)p->scratch_blocks * STRIDE;
    double *filled = scratch_end - STRIDE;      /* the last block is for results on their way out */
    const int far_out = ins->far_out;
    fad_sum_stream sum[GROUP_SUMS];
    fetching far = {.n = 0};
    int sums = 0;
    for (int32_t k = 0; k < ins->n_in; k++) {
        const tile_step *s = &first[k];
        for (int j = 0; j < s->n; j++)
            if (s->in[j].kind == IN_ARRAY && s->in[j].first && far.n < MOST_FETCHED)
                far.from[far.n++] = w->array[s->in[j].where]->data;
        if (s->out.kind == OUT_SUM) fad_sum_begin(&sum[sums++], size);
        for (int j = s->n - 1; s->values && j >= 0; j--) {
            if (s->in[j].kind != IN_REGISTER) continue;
            const double v = w->reg[s->in[j].where];
            filled -= STRIDE;
            for (int i = 0; i < TILE; i++) filled[i] = v;
        }
    }
    for (int64_t at = 0; at < size; at += TILE) {
        const intptr_t n = (intptr_t)(size - at < TILE ? size - at : TILE);
        const intptr_t next = (intptr_t)(size - at - n < TILE ? size - at - n : TILE);
        filled = scratch_end - STRIDE;
        sums = 0;
        for (int32_t k = 0; k < ins->n_in; k++) {
            const tile_step *s = &first[k];
            char *ptr[4] = {NULL};
            intptr_t step[4];
            /* arrays come from far away: fetch the next tile while this one is computed */
            if (next) fetch_share(&far, at + TILE, next, k, ins->n_in);
            for (int j = s->n; j >= 0; j--) {
                const tile_place at_j = j < s->n ? s->in[j] : s->out;
                step[j] = sizeof(double);
                if (at_j.kind == IN_ARRAY) {
                    ptr[j] = (char *)((double *)w->array[at_j.where]->data + at);
                } else if (at_j.kind == IN_SCRATCH) {
                    ptr[j] = (char *)(w->scratch + (size_t)at_j.where * STRIDE);
                } else if (at_j.kind == OUT_SUM) {
                    continue;
                } else if (s->loop) {
                    ptr[j] = (char *)&w->reg[at_j.where];
                    step[j] = 0;
                } else {
                    filled -= STRIDE;
                    ptr[j] = (char *)filled;
                }
            }
            double *const out = (double *)ptr[s->n];
            const int streams = far_out && s->out.kind == IN_ARRAY && s->out.first;
            if (streams) ptr[s->n] = (char *)(scratch_end - STRIDE);
            const double *a = (const double *)ptr[0];
            if (s->loop) s->loop(ptr, &n, step, s->data);
            else if (s->values) s->values(a, s->n > 1 ? (const double *)ptr[1] : a,
                                          s->n > 2 ? (const double *)ptr[2] : a,
                                          (double *)ptr[s->n], n);
            else fad_sum_feed(&sum[sums++], a, n);
            if (streams) stream_out(out, scratch_end - STRIDE, n);
        }
    }
#if defined(__SSE2__)
    if (far_out) _mm_sfence();          /* other threads read the results next */
#endif
    for (int32_t k = sums = 0; k < ins->n_in; k++)
        if (first[k].out.kind == OUT_SUM) w->reg[first[k].out.where] = 0.0 + sum[sums++].sum;
}

void fad_vm_step(const tile_step *s, const fad_workspace *w, intptr_t n)
{
    static const intptr_t width[2] = {sizeof(double), 0};
    char *ptr[4];
    intptr_t step[4];
    for (int j = 0; j < s->n; j++) {
        const int in_register = s->in[j].kind == IN_REGISTER;
        ptr[j] = in_register ? (char *)&w->reg[s->in[j].where] : w->array[s->in[j].where]->data;
        step[j] = width[in_register];
    }
    ptr[s->n] = w->array[s->out.where]->data;
    step[s->n] = sizeof(double);
    if (s->loop) {
        s->loop(ptr, &n, step, s->data);
        return;
    }
    const double *a = (const double *)ptr[0];
    s->values(a, s->n > 1 ? (const double *)ptr[1] : a, s->n > 2 ? (const double *)ptr[2] : a,
              (double *)ptr[s->n], n);
}

static void join(const fad_workspace *w, const fad_place *in, int32_t n, int axis, fad_array *out)
{
    char *q = out->data;
    int64_t outer = 1;
    if (out->size == 0) return;
    for (int k = 0; k < axis; k++) outer *= out->shape[k];
    for (int64_t i = 0; i < outer; i++)
        for (int32_t k = 0; k < n; k++) {
            const fad_array *x = w->array[in[k].where];
            const size_t bytes = (size_t)(x->size / outer) * fad_itemsize(x->dtype);
            memcpy(q, (const char *)x->data + (size_t)i * bytes, bytes);
            q += bytes;
        }
}

fad_status fad_vm_array(const fad_program *p, fad_workspace *w, const array_ins *ins,
                        const fad_vm_calls *calls)
{
    fad_array *out = ins->out.is_array ? w->array[ins->out.where] : NULL;
    fad_operand in[3];
    union { double f; int64_t bits; } one = {0.0};
    switch (ins->kind) {
    case VM_TILES:
        run_tiles(p, w, ins);
        return FAD_OK;
    case VM_ROW:
        if (!out) return FAD_DTYPE;
        for (int k = 0; k < ins->n_in; k++) {
            operand_at(w, ins->in[k], &in[k]);
            if (ins->dtype == FAD_F32) in[k].number = (double)(float)in[k].number;
        }
        fad_elementwise_into(ins->op, ins->dtype, in, out);
        return FAD_OK;
    case FAD_VM_SUM_ALL:
        return fad_sum_all(w->array[ins->in[0].where], &w->reg[ins->out.where]);
    case FAD_VM_BROADCAST:
        if (ins->in[0].is_array) {
            fad_broadcast_into(w->array[ins->in[0].where], out);
        } else {
            const double v = w->reg[ins->in[0].where];
            double *q = out->data;
            for (int64_t i = 0; i < out->size; i++) q[i] = v;
        }
        return FAD_OK;
    case FAD_VM_SUM_TO:
        if (out) {
            fad_sum_into(w->array[ins->in[0].where], out);
        } else {
            fad_array number = {.refs = 1, .dtype = FAD_F64, .size = 1, .data = &one.f};
            fad_sum_into(w->array[ins->in[0].where], &number);
            w->reg[ins->out.where] = one.f;
        }
        return FAD_OK;
    case FAD_VM_SUM_AXES:
        fad_sum_axes_into(w->array[ins->in[0].where], p->axes + ins->axes, out);
        return FAD_OK;
    case FAD_VM_SLICE:
        fad_slice_into(w->array[ins->in[0].where], p->offset + ins->offset, out);
        return FAD_OK;
    case FAD_VM_SCATTER:
        fad_scatter_into(w->array[ins->in[0].where], p->offset + ins->offset, out);
        return FAD_OK;
    case FAD_VM_TAKE:
        fad_take_into(w->array[ins->in[0].where], p->offset + ins->offset, out);
        return FAD_OK;
    case FAD_VM_GIVE:
        fad_give_into(w->array[ins->in[0].where], p->offset + ins->offset, !ins->exact, out);
        return FAD_OK;
    case FAD_VM_CUMSUM:
        fad_cumsum_into(w->array[ins->in[0].where], ins->ta, ins->side, out);
        return FAD_OK;
    case FAD_VM_EXTREMUM:
        fad_extremum_into(ins->op, w->array[ins->in[0].where], ins->ta, ins->tb,
                          out ? out->data : &w->reg[ins->out.where]);
        return FAD_OK;
    case FAD_VM_TIES:
        operand_at(w, ins->in[1], &in[1]);
        fad_ties_into(w->array[ins->in[0].where], in[1].arr ? in[1].arr->data : &in[1].number,
                      ins->ta, ins->tb, out);
        return FAD_OK;
    case FAD_VM_JOIN:
        join(w, p->arglist + ins->first_in, ins->n_in, (int)ins->offset, out);
        return FAD_OK;
    case FAD_VM_MASK:
        for (int32_t k = 0; k < ins->n_in; k++) operand_at(w, ins->in[k], &in[k + (ins->side == 2)]);
        if (ins->side) {
            fad_operand *number = &in[ins->side == 1];
            number->arr = NULL;
            memcpy(&number->number, &ins->offset, sizeof number->number);
        }
        fad_mask_into(ins->op, ins->n_in + (ins->side != 0), in, out);
        return FAD_OK;
    case FAD_VM_WRITE:
        operand_at(w, ins->in[1], &in[1]);
        fad_write_into(w->array[ins->in[0].where], &in[1], p->offset + ins->offset, ins->side, out);
        return FAD_OK;
    case FAD_VM_TRANSPOSE:
        fad_transpose_into(w->array[ins->in[0].where], p->axes + ins->axes, out);
        return FAD_OK;
    case FAD_VM_CAST:
    case FAD_VM_PART: {
        fad_array number = {.refs = 1, .dtype = FAD_F64, .size = 1, .data = &one.f};
        const fad_array *x = ins->in[0].is_array ? w->array[ins->in[0].where] : &number;
        if (x == &number) one.f = w->reg[ins->in[0].where];
        if (ins->kind == FAD_VM_CAST) fad_cast_into(x, out ? out : &number);
        else fad_part_into(ins->side, x, out ? out : &number);
        if (!out) w->reg[ins->out.where] = one.f;
        return FAD_OK;
    }
    case FAD_VM_MATMUL:
        if (out) {
            fad_matmul_into(w->array[ins->in[0].where], ins->ta, w->array[ins->in[1].where],
                            ins->tb, ins->exact, out);
        } else {
            fad_array number = {.refs = 1, .dtype = FAD_F64, .size = 1, .data = &one.f};
            fad_matmul_into(w->array[ins->in[0].where], ins->ta, w->array[ins->in[1].where],
                            ins->tb, ins->exact, &number);
            w->reg[ins->out.where] = one.f;
        }
        return FAD_OK;
    case FAD_VM_GET:
        w->reg[ins->out.where] =
            ((const double *)w->array[ins->in[0].where]->data)[ins->offset];
        return FAD_OK;
    case FAD_VM_PUT: {              /* in the first operand's bytes, where it is not read again */
        const fad_array *x = w->array[ins->in[0].where];
        double *q = (double *)out->data + ins->offset;
        if (out->data != x->data) memcpy(out->data, x->data, (size_t)x->size * sizeof *q);
        *q = ins->side ? *q + w->reg[ins->in[1].where] : w->reg[ins->in[1].where];
        return FAD_OK;
    }
    case FAD_VM_ASSEMBLE: {
        const fad_place *place = p->arglist + ins->first_in;
        const int64_t *at = p->offset + ins->offset;
        double *q = out->data;
        if (ins->n_in < out->size) memset(q, 0, (size_t)out->size * sizeof *q);
        for (int32_t k = 0; k < ins->n_in; k++) q[at[k]] = w->reg[place[k].where];
        return FAD_OK;
    }
    case FAD_VM_PARTIAL: {
        fad_operand all[4];
        for (int k = 0; k < 4; k++) operand_at(w, ins->in[k], &all[k]);
        if (out) return fad_partial_into(ins->op, ins->side, all, out);
        w->reg[ins->out.where] = fad_partial_number(
            ins->op, ins->side, all[0].number, all[1].number, all[2].number, all[3].number);
        return FAD_OK;
    }
    case FAD_VM_ALIAS:
        /* between a number and an array of one element */
        if (out) *(double *)out->data = w->reg[ins->in[0].where];
        else w->reg[ins->out.where] = *(const double *)w->array[ins->in[0].where]->data;
        return FAD_OK;
    case FAD_VM_FOREIGN: {
        const int r = calls->call(calls->ctx, w, ins->foreign, ins->n_in,
                                  p->arglist + ins->first_in, ins->out);
        return r == 0 ? FAD_OK : r > 0 ? FAD_GUARD : FAD_CALLBACK;
    }
    }
    return FAD_DTYPE;
}

void fad_vm_aliases(const fad_program *p, fad_workspace *w)
{
    for (int32_t k = 0; k < p->n_array; k++) {
        const array_place *place = &p->array[k];
        if (place->from == FROM_ALIAS && p->array[place->root].from != FROM_FOREIGN)
            w->array[k]->data = w->array[place->root]->data;
    }
}

fad_status fad_program_run(const fad_program *p, fad_workspace *w, const fad_vm_calls *calls)
{
    fad_vm_aliases(p, w);
    return fad_vm_words(p, w, p->code, calls);
}

fad_status fad_vm_words(const fad_program *p, fad_workspace *w, const word *ip,
                        const fad_vm_calls *calls)
{
    double *const reg = w->reg;
    double value = 0.0;                 /* the latest number */
#if defined(__GNUC__)
    /* a jump of its own behind every operation: the processor predicts each by what it follows */
    static const void *const labels[VM_OPS] = {
#define FAD_CONST(name, code)
#define FAD_UNARY(name, ...) [FAD_OP_##name] = &&at_##name,
#define FAD_BINARY(name, ...) [FAD_OP_##name] = &&at_##name,
#define FAD_TERNARY(name, ...) [FAD_OP_##name] = &&at_##name,
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
#define NAMED(name, code) [VM_##name] = &&at_VM_##name,
        SPECIAL_OPS(NAMED)
#undef NAMED
#define NAMED(name, holds) [VM_GUARD_##name] = &&at_VM_GUARD_##name,
        GUARD_OPS(NAMED)
#undef NAMED
        [VM_LOOP] = &&at_VM_LOOP, [VM_ARRAY] = &&at_VM_ARRAY, [VM_GUARD] = &&at_VM_GUARD,
        [VM_GET] = &&at_VM_GET
    };
#define AT(name, opcode) at_##name:
#define NEXT goto *labels[(++ip)->op]
    goto *labels[ip->op];
    {
        {
#else
#define AT(name, opcode) case opcode:
#define NEXT break
    for (;; ip++) {
        switch (ip->op) {
#endif
#define FAD_UNARY(name, primal, ...) \
        AT(name, FAD_OP_##name) { \
            const double x = reg[ip->a]; \
            reg[ip->d] = value = primal; \
            NEXT; \
        }
#define FAD_BINARY(name, primal, ...) \
        AT(name, FAD_OP_##name) { \
            const double a = reg[ip->a], b = reg[ip->b]; \
            reg[ip->d] = value = primal; \
            NEXT; \
        }
#define FAD_TERNARY(name, primal, ...) \
        AT(name, FAD_OP_##name) { \
            const double a = reg[ip->a], b = reg[ip->b], c = reg[ip->c]; \
            reg[ip->d] = value = primal; \
            NEXT; \
        }
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
#define NAMED(name, code) \
        AT(VM_##name, VM_##name) { \
            if (VM_##name == VM_END) return FAD_OK; \
            code; \
            reg[ip->d] = value; \
            NEXT; \
        }
        SPECIAL_OPS(NAMED)
#undef NAMED
        AT(VM_GET, VM_GET) {
            reg[ip->d] = ((const double *)w->array[ip->b]->data)[ip->c];
            NEXT;
        }
        AT(VM_GUARD, VM_GUARD) {
            if (!fad_vm_guard_holds(&p->guard[ip->a], w)) {
                w->failed = ip->a;
                return FAD_GUARD;
            }
            NEXT;
        }
#define NAMED(name, holds) \
        AT(VM_GUARD_##name, VM_GUARD_##name) { \
            const double a = reg[ip->d], b = reg[ip->b]; \
            if (!(holds)) { \
                w->failed = ip->a; \
                return FAD_GUARD; \
            } \
            NEXT; \
        }
        GUARD_OPS(NAMED)
#undef NAMED
        AT(VM_LOOP, VM_LOOP) {
            fad_vm_step(&p->tile[ip->a], w, ip->c);
            NEXT;
        }
        AT(VM_ARRAY, VM_ARRAY) {
            const fad_status status = fad_vm_array(p, w, &p->arrays_code[ip->a], calls);
            if (status) {
                w->failed = -1;
                return status;
            }
            NEXT;
        }
        }
    }
#undef AT
#undef NEXT
}
