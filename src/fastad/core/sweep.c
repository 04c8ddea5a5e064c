/* Sweeps: adjoints down the tape, tangents up the tape. */
#include "kernels.h"
#include "special.h"

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-variable"
#endif

enum { BLOCK = 512, TICK = 1 << 18 };

static inline fad_slot number(double v)
{
    fad_slot s;
    s.f = v;
    return s;
}

/* ---- begin and end ---------------------------------------------------------------------------- */

fad_status fad_sweep_begin(fad_tape *t, fad_sweep *s, fad_index from, fad_index end)
{
    memset(s, 0, sizeof *s);
    s->low = INT32_MAX;
    s->top = -1;
    if (t->sweeping && end == 0) {      /* inside another reverse sweep */
        from = 0;
        end = t->n;
        s->passed = fad_malloc((size_t)end);
        if (!s->passed) return FAD_NOMEM;
        memset(s->passed, 0, (size_t)end);
    }
    if (end > 0) {
        fad_slot *block = fad_malloc((size_t)(end - from) * sizeof *block);
        if (!block) {
            fad_free(s->passed);
            return FAD_NOMEM;
        }
        for (fad_index i = 0; i < end - from; i++) block[i].bits = FAD_UNTOUCHED;
        s->own = block - from;
        s->from = from;
    } else {
        fad_ready_bars(t);
    }
    t->sweeping++;
    return FAD_OK;
}

void fad_sweep_end(fad_tape *t, fad_sweep *s)
{
    fad_slot *bar = fad_bars(t, s);
    for (fad_index i = s->low; !s->clean && i <= s->top; i++) {
        if (bar[i].bits == FAD_UNTOUCHED) continue;
        if (t->op[i] & FAD_ARRAY) fad_array_release(bar[i].arr);
        bar[i].bits = FAD_UNTOUCHED;
    }
    if (s->consume && !s->passed)
        for (fad_index i = s->low; i <= s->top; i++) t->op[i] &= (uint16_t)~FAD_MARK;
    for (int32_t k = 0; k < s->leaf_n; k++)
        if (s->leaves[k].is_array && s->leaves[k].bar.arr) fad_array_release(s->leaves[k].bar.arr);
    fad_free(s->leaves);
    if (s->own) fad_free(s->own + s->from);
    fad_free(s->passed);
    s->leaves = NULL;
    s->own = NULL;
    s->passed = NULL;
    s->leaf_n = s->leaf_cap = 0;
    fad_leave(t);
}

static inline void reach(fad_sweep *s, fad_index p)
{
    if (p < s->low) s->low = p;
    if (p > s->top) s->top = p;
}

fad_status fad_contribute(fad_tape *t, fad_sweep *s, fad_index p, double c)
{
    if (fad_stops(t, p)) return FAD_OK;
    fad_bars(t, s)[p].f += c + 0.0;
    reach(s, p);
    return FAD_OK;
}

/* Takes over the reference; on failure too. */
fad_status fad_contribute_array(fad_tape *t, fad_sweep *s, fad_index p, fad_array *c)
{
    if (fad_stops(t, p)) {
        fad_array_release(c);
        return FAD_OK;
    }
    fad_slot *bar = &fad_bars(t, s)[p];
    reach(s, p);
    if (!(t->op[p] & FAD_ARRAY)) {      /* a consumed node: the sweep will say so */
        bar->f += 0.0;
        fad_array_release(c);
        return FAD_OK;
    }
    if (bar->bits == FAD_UNTOUCHED) {
        bar->arr = c;
        return FAD_OK;
    }
    if (bar->arr->refs > 1 || bar->arr->owner) {
        fad_array *mine = fad_array_copy(bar->arr);
        if (!mine) {
            fad_array_release(c);
            return FAD_NOMEM;
        }
        fad_array_release(bar->arr);
        bar->arr = mine;
    }
    fad_add_into(bar->arr, c);
    fad_array_release(c);
    return FAD_OK;
}

/* ---- array nodes, block by block ------------------------------------------------------------------ */

/* Reads an operand as if it had been broadcast to the node's shape, a block at a time. */
typedef struct {
    const char *data;
    int dtype, same, constant, ndim;
    const int64_t *full;                /* the node's shape */
    int64_t shape[FAD_MAXDIM];          /* the operand's, padded with 1 to ndim */
    double block[BLOCK];
} reader;

static void convert(const char *p, int dtype, double *out, int64_t n)
{
    if (dtype == FAD_F64) memcpy(out, p, (size_t)n * 8);
    else if (dtype == FAD_F32)
        for (int64_t i = 0; i < n; i++) out[i] = ((const float *)p)[i];
    else
        for (int64_t i = 0; i < n; i++) out[i] = ((const unsigned char *)p)[i] != 0;
}

static void reader_fill(reader *r, double v, int64_t size)
{
    const int64_t n = size < BLOCK ? size : BLOCK;
    for (int64_t i = 0; i < n; i++) r->block[i] = v;
    r->constant = 1;
}

static void reader_array(reader *r, const fad_array *arr, const fad_array *full)
{
    r->data = arr->data;
    r->dtype = arr->dtype;
    r->constant = 0;
    r->same = fad_same_shape(arr, full);
    if (r->same) return;
    if (arr->size == 1) {
        double v;
        convert(arr->data, arr->dtype, &v, 1);
        reader_fill(r, v, full->size);
        return;
    }
    r->ndim = full->ndim;
    r->full = full->shape;
    for (int k = 0; k < full->ndim; k++) {
        const int j = k - (full->ndim - arr->ndim);
        r->shape[k] = j < 0 ? 1 : arr->shape[j];
    }
}

/* Elements at .. at + n of the broadcast operand. */
static const double *reader_get(reader *r, int64_t at, int64_t n)
{
    if (r->constant) return r->block;
    const int64_t item = (int64_t)fad_itemsize(r->dtype);
    if (r->same) {
        if (r->dtype == FAD_F64) return (const double *)r->data + at;
        convert(r->data + at * item, r->dtype, r->block, n);
        return r->block;
    }
    for (int64_t done = 0; done < n;) {
        int64_t rest = at + done, offset = 0, step = 1;
        const int64_t last = r->full[r->ndim - 1], in_row = rest % last;
        for (int k = r->ndim - 1; k >= 0; k--) {
            const int64_t idx = rest % r->full[k];
            rest /= r->full[k];
            if (r->shape[k] != 1) offset += idx * step;
            step *= r->shape[k];
        }
        int64_t run = last - in_row;
        if (run > n - done) run = n - done;
        if (r->shape[r->ndim - 1] == 1) {
            double v;
            convert(r->data + offset * item, r->dtype, &v, 1);
            for (int64_t i = 0; i < run; i++) r->block[done + i] = v;
        } else {
            convert(r->data + offset * item, r->dtype, r->block + done, run);
        }
        done += run;
    }
    return r->block;
}

typedef struct {
    int op, arity;
    fad_index parent[3];
    int is_const[3];
} shape_of_node;

static void parents_of(const fad_tape *t, fad_index i, shape_of_node *n)
{
    const unsigned w = t->op[i];
    n->op = (int)(w & FAD_OPCODE);
    n->arity = fad_row_of(n->op)->arity;
    if (n->arity == 3) {
        const fad_call *call = fad_call_of(t, i);
        for (int k = 0; k < 3; k++) {
            n->parent[k] = call->parent[k];
            n->is_const[k] = fad_stops(t, n->parent[k]);
        }
    } else {
        n->parent[0] = t->args[i].a;
        n->parent[1] = t->args[i].b;
        n->is_const[0] = (w & FAD_CA) != 0;
        n->is_const[1] = (w & FAD_CB) != 0;
    }
}

static void reader_node(reader *r, const fad_tape *t, fad_index p, const fad_array *full)
{
    if (t->op[p] & FAD_ARRAY) reader_array(r, t->value[p].arr, full);
    else reader_fill(r, t->value[p].f, full->size);
}

static double block_sum(const double *p, int64_t n)
{
    double s[4] = {0.0, 0.0, 0.0, 0.0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) s[k] += p[i + k];
    for (; i < n; i++) s[0] += p[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* Which values side k's formula reads is known only for the row; reading all is harmless as long
 * as the value is there. */
static void readers_for(const fad_tape *t, fad_index i, const shape_of_node *n, reader *r,
                        const fad_array *full)
{
    const int reads = fad_row_of(n->op)->reads;
    static const int bit[3] = {FAD_A, FAD_B, FAD_C};
    for (int k = 0; k < 3; k++) {
        if (k < n->arity && (reads & bit[k])) reader_node(&r[k], t, n->parent[k], full);
        else r[k].constant = 2;         /* not read: any block will do */
    }
    if (reads & FAD_Y) reader_array(&r[3], t->value[i].arr, full);
    else r[3].constant = 2;
}

static inline const double *side(reader *r, int64_t at, int64_t n, const double *dummy)
{
    return r->constant == 2 ? dummy : reader_get(r, at, n);
}

/* dst[at..] = or += block */
static void store(fad_array *dst, int64_t at, const double *block, int64_t n, int add)
{
    if (dst->dtype == FAD_F64) {
        double *q = (double *)dst->data + at;
        if (add)
            for (int64_t i = 0; i < n; i++) q[i] += block[i];
        else if (q != block)
            memcpy(q, block, (size_t)n * 8);
    } else {
        float *q = (float *)dst->data + at;
        if (add)
            for (int64_t i = 0; i < n; i++) q[i] += (float)block[i];
        else
            for (int64_t i = 0; i < n; i++) q[i] = (float)block[i];
    }
}

/* The contribution of an elementwise array node, whose adjoint is g, to its k-th parent.
 * `last` tells that nobody reads g afterwards. */
static fad_status contribute_side(fad_tape *t, fad_sweep *s, const shape_of_node *n, int k,
                                  reader *r, fad_array *g, int last)
{
    const fad_index p = n->parent[k];
    const int trivial = fad_trivial[n->op][k], to_number = !(t->op[p] & FAD_ARRAY);
    const fad_array *target = to_number ? NULL : t->value[p].arr;
    const int same = target && fad_same_shape(target, g) && target->dtype == g->dtype;
    double block[BLOCK], read[BLOCK];
    fad_status status;

    if (same && trivial == FAD_IS_ONE)
        return fad_contribute_array(t, s, p, fad_array_share(g));
    fad_array *dst = NULL;
    fad_slot *bar = &fad_bars(t, s)[p];
    int add = 0;
    if (same && bar->bits == FAD_UNTOUCHED) {
        dst = last && g->refs == 1 && !g->owner ? fad_array_share(g)
                                                : fad_array_new(g->dtype, g->ndim, g->shape);
    } else if (same && bar->arr->refs == 1 && !bar->arr->owner) {
        dst = bar->arr;
        add = 1;
    } else if (!to_number) {
        dst = fad_array_new(g->dtype, g->ndim, g->shape);
    }
    if (!dst && !to_number) return FAD_NOMEM;
    double total = 0.0;
    for (int64_t at = 0; at < g->size; at += BLOCK) {
        const int64_t m = g->size - at < BLOCK ? g->size - at : BLOCK;
        const double *gs = (const double *)g->data + at;
        if (g->dtype != FAD_F64) {
            convert((const char *)g->data + at * 4, FAD_F32, read, m);
            gs = read;
        }
        double *to = dst && !add && dst->dtype == FAD_F64 ? (double *)dst->data + at : block;
        const double *done = to;
        if (trivial == FAD_IS_ONE) {
            done = gs;
        } else if (trivial == FAD_IS_MINUS_ONE) {
            for (int64_t i = 0; i < m; i++) to[i] = -gs[i];
        } else if (trivial == FAD_IS_ZERO) {
            memset(to, 0, (size_t)m * sizeof *to);
        } else {
            fad_partials[n->op][k](gs, side(&r[0], at, m, gs), side(&r[1], at, m, gs),
                                   side(&r[2], at, m, gs), side(&r[3], at, m, gs), to, m);
        }
        if (dst) store(dst, at, done, m, add);
        else total += block_sum(done, m);
    }
    if (to_number) return fad_contribute(t, s, p, total);
    if (add) {
        reach(s, p);
        return FAD_OK;
    }
    if (same) return fad_contribute_array(t, s, p, dst);
    fad_array *summed;
    status = fad_sum_to(dst, target->ndim, target->shape, &summed);
    fad_array_release(dst);
    if (status) return status;
    if (summed->dtype != target->dtype) {
        fad_array *cast = fad_array_cast(summed, target->dtype);
        fad_array_release(summed);
        if (!cast) return FAD_NOMEM;
        summed = cast;
    }
    return fad_contribute_array(t, s, p, summed);
}

/* The usual small case: everything is float64 of one shape, or a number, and one block long. */
static int reverse_small(fad_tape *t, fad_sweep *s, fad_index i, const shape_of_node *n,
                         fad_array *g, fad_status *status)
{
    static const int bit[3] = {FAD_A, FAD_B, FAD_C};
    enum { SMALL = 64 };
    double filled[3][SMALL], block[SMALL];
    const int64_t size = g->size;
    const double *gs = g->data, *in[4] = {gs, gs, gs, gs};
    const int reads = fad_row_of(n->op)->reads;
    if (size > SMALL || g->dtype != FAD_F64) return 0;
    for (int k = 0; k < n->arity; k++) {
        const fad_index p = n->parent[k];
        if (t->op[p] & FAD_ARRAY) {
            const fad_array *arr = t->value[p].arr;
            if (arr->dtype != FAD_F64 || arr->size != size || !fad_same_shape(arr, g)) return 0;
            if (reads & bit[k]) in[k] = arr->data;
        } else if (reads & bit[k]) {
            const double v = t->value[p].f;
            for (int64_t j = 0; j < size; j++) filled[k][j] = v;
            in[k] = filled[k];
        }
    }
    if (reads & FAD_Y) in[3] = t->value[i].arr->data;
    for (int k = 0; k < n->arity && !*status; k++) {
        const fad_index p = n->parent[k];
        const int trivial = fad_trivial[n->op][k];
        if (n->is_const[k]) continue;
        if (!(t->op[p] & FAD_ARRAY)) {
            double total = 0.0;
            fad_partials[n->op][k](gs, in[0], in[1], in[2], in[3], block, (intptr_t)size);
            for (int64_t j = 0; j < size; j++) total += block[j];
            *status = fad_contribute(t, s, p, total);
            continue;
        }
        if (trivial == FAD_IS_ONE) {
            *status = fad_contribute_array(t, s, p, fad_array_share(g));
            continue;
        }
        fad_slot *bar = &fad_bars(t, s)[p];
        if (bar->bits == FAD_UNTOUCHED || bar->arr->refs > 1 || bar->arr->owner) {
            fad_array *c = fad_array_new(FAD_F64, g->ndim, g->shape);
            if (!c) {
                *status = FAD_NOMEM;
                break;
            }
            fad_partials[n->op][k](gs, in[0], in[1], in[2], in[3], c->data, (intptr_t)size);
            *status = fad_contribute_array(t, s, p, c);
        } else {
            double *q = bar->arr->data;
            fad_partials[n->op][k](gs, in[0], in[1], in[2], in[3], block, (intptr_t)size);
            for (int64_t j = 0; j < size; j++) q[j] += block[j];
        }
    }
    return 1;
}

static fad_status reverse_blocks(fad_tape *t, fad_sweep *s, fad_index i, const shape_of_node *n,
                                 fad_array *g)
{
    reader r[4];
    fad_status status = FAD_OK;
    readers_for(t, i, n, r, g);
    int last = n->arity - 1;
    while (last > 0 && n->is_const[last]) last--;
    for (int k = 0; k <= last && !status; k++)
        if (!n->is_const[k]) status = contribute_side(t, s, n, k, r, g, k == last);
    return status;
}

static fad_status reverse_array(fad_tape *t, fad_sweep *s, fad_index i, fad_array *g)
{
    shape_of_node n;
    fad_status status = FAD_OK;
    parents_of(t, i, &n);
    for (int k = 0; k < n.arity; k++)
        if ((t->op[n.parent[k]] & FAD_OPCODE) == FAD_OP_FREED) return FAD_CONSUMED;
    if (reverse_small(t, s, i, &n, g, &status)) return status;
    return reverse_blocks(t, s, i, &n, g);
}

double fad_partial_number(int op, int side, double a, double b, double c, double y)
{
    const double one = 1.0;
    double p;
    fad_partials[op][side](&one, &a, &b, &c, &y, &p, 1);
    return p;
}

fad_status fad_partial_into(int op, int side, const fad_operand *in, fad_array *out)
{
    double ones[BLOCK], block[BLOCK];
    reader *r = fad_malloc(4 * sizeof *r);
    if (!r) return FAD_NOMEM;
    for (int i = 0; i < BLOCK; i++) ones[i] = 1.0;
    for (int k = 0; k < 4; k++) {
        if (in[k].arr) reader_array(&r[k], in[k].arr, out);
        else reader_fill(&r[k], in[k].number, out->size);
    }
    for (int64_t at = 0; at < out->size; at += BLOCK) {
        const int64_t m = out->size - at < BLOCK ? out->size - at : BLOCK;
        fad_partials[op][side](ones, reader_get(&r[0], at, m), reader_get(&r[1], at, m),
                               reader_get(&r[2], at, m), reader_get(&r[3], at, m), block, m);
        store(out, at, block, m, 0);
    }
    fad_free(r);
    return FAD_OK;
}

/* ---- runs of large elementwise nodes, tile by tile --------------------------------------------- */

/* A stretch of the tape whose nodes are elementwise, float64 and of one large shape is swept one
 * tile at a time: the adjoints between its nodes then never leave the cache, and only those that
 * leave the stretch are written to memory.
 *
 *     tape      ... p  q | r  s  t  u | v ...          u .. r are the run, v was swept before
 *     one tile           u -> t -> s -> r              adjoints of t, s, r live in scratch
 *     written      p, q                                whole arrays, tile after tile
 */
enum { RUN = 48, TILE = 512 };

typedef struct {
    enum { TO_NOTHING, TO_RUN, TO_ARRAY, TO_NUMBER } kind;
    int target;             /* node of the run, or entry of outs */
    int add, alias;
} run_edge;

typedef struct {
    fad_index i;
    int arity, op;
    int received;           /* contributions from inside the run */
    fad_array *whole;       /* adjoint from outside the run, borrowed from its slot */
    double *tile;           /* scratch for this node's adjoint */
    const double *value[4]; /* a, b, c, y of the whole array, or NULL: `constant` */
    double *constant[3];
    run_edge edge[3];
} run_node;

typedef struct { fad_index p; fad_array *arr; double total; int mine; } run_out;

typedef struct {
    run_node node[RUN];
    run_out out[2 * RUN];
    int n, outs;
    double *scratch;
} run;

static int tileable(const fad_tape *t, fad_index i, const fad_array *like)
{
    const unsigned w = t->op[i];
    if ((w & (FAD_ARRAY | FAD_HOOK)) != FAD_ARRAY || (w & FAD_OPCODE) <= FAD_OP_LAST_OWNING)
        return 0;
    if (t->value[i].arr->dtype != FAD_F64 || !fad_same_shape(t->value[i].arr, like)) return 0;
    const int arity = fad_row_of((int)(w & FAD_OPCODE))->arity;
    for (int k = 0; k < arity; k++) {
        const fad_index p = k ? t->args[i].b : t->args[i].a;
        if (!(t->op[p] & FAD_ARRAY)) {
            if ((t->op[p] & FAD_OPCODE) == FAD_OP_FREED) return 0;
            continue;
        }
        if (t->value[p].arr->dtype != FAD_F64 || !fad_same_shape(t->value[p].arr, like)) return 0;
    }
    return 1;
}

static int run_find(const run *r, fad_index i)
{
    for (int k = 0; k < r->n; k++)
        if (r->node[k].i == i) return k;
    return -1;
}

static int out_find(run *r, fad_index p)
{
    for (int k = 0; k < r->outs; k++)
        if (r->out[k].p == p) return k;
    r->out[r->outs] = (run_out){p, NULL, 0.0, 0};
    return r->outs++;
}

/* The nodes of the run that ends at `top`, from above, and where their contributions go. */
static void run_collect(const fad_tape *t, const fad_slot *bar, const fad_goals *goals,
                        fad_index top, run *r)
{
    const fad_array *like = t->value[top].arr;
    unsigned char wanted[4 * RUN] = {1};    /* by distance from top: somebody contributes */
    r->n = r->outs = 0;
    for (fad_index i = top; i >= 0 && top - i < 4 * RUN && r->n < RUN; i--) {
        const unsigned code = t->op[i] & FAD_OPCODE;
        if (code == FAD_OP_LEAF || code == FAD_OP_CONST) continue;
        if (!tileable(t, i, like)) break;
        if (goals && !(fad_goal(goals, i) & FAD_GOAL_ON)) break;
        if (!wanted[top - i] && bar[i].bits == FAD_UNTOUCHED) continue;
        run_node *node = &r->node[r->n++];
        memset(node, 0, sizeof *node);
        node->i = i;
        node->op = (int)code;
        node->arity = fad_row_of(node->op)->arity;
        if (bar[i].bits != FAD_UNTOUCHED) node->whole = bar[i].arr;
        for (int k = 0; k < node->arity; k++) {
            const fad_index p = k ? t->args[i].b : t->args[i].a;
            if (top - p < 4 * RUN) wanted[top - p] = 1;
        }
    }
    for (int j = 0; j < r->n; j++) {
        run_node *node = &r->node[j];
        const unsigned w = t->op[node->i];
        for (int k = 0; k < node->arity; k++) {
            const fad_index p = k ? t->args[node->i].b : t->args[node->i].a;
            run_edge *edge = &node->edge[k];
            if (w & (k ? FAD_CB : FAD_CA)) continue;        /* TO_NOTHING */
            edge->target = run_find(r, p);
            if (edge->target >= 0) {
                run_node *to = &r->node[edge->target];
                edge->kind = TO_RUN;
                edge->add = to->received++ > 0 || to->whole != NULL;
            } else {
                edge->kind = t->op[p] & FAD_ARRAY ? TO_ARRAY : TO_NUMBER;
                edge->target = out_find(r, p);
            }
        }
    }
    /* What arrives once, unchanged, need not be copied. */
    for (int j = 0; j < r->n; j++)
        for (int k = 0; k < r->node[j].arity; k++) {
            run_edge *edge = &r->node[j].edge[k];
            edge->alias = edge->kind == TO_RUN && !edge->add
                && fad_trivial[r->node[j].op][k] == FAD_IS_ONE
                && r->node[edge->target].received == 1;
        }
}

/* Arrays for what leaves the run, and scratch.  Nothing on the tape has changed if this fails. */
static fad_status run_prepare(const fad_tape *t, fad_slot *bar, run *r)
{
    const fad_array *like = t->value[r->node[0].i].arr;
    unsigned char begun[2 * RUN] = {0};
    size_t blocks = 1;
    for (int o = 0; o < r->outs; o++) {
        run_out *out = &r->out[o];
        if (!(t->op[out->p] & FAD_ARRAY)) continue;
        fad_slot *have = &bar[out->p];
        if (have->bits == FAD_UNTOUCHED) {
            out->arr = fad_array_new(FAD_F64, like->ndim, like->shape);
        } else {
            begun[o] = 1;
            if (have->arr->refs == 1 && !have->arr->owner) {
                out->arr = have->arr;
                continue;
            }
            out->arr = fad_array_copy(have->arr);
        }
        if (!out->arr) return FAD_NOMEM;
        out->mine = 1;
    }
    for (int j = 0; j < r->n; j++) {
        run_node *node = &r->node[j];
        blocks += (size_t)(1 + node->arity);
        for (int k = 0; k < node->arity; k++) {
            if (node->edge[k].kind != TO_ARRAY) continue;
            node->edge[k].add = begun[node->edge[k].target];
            begun[node->edge[k].target] = 1;
        }
    }
    r->scratch = fad_malloc(blocks * TILE * sizeof(double));
    if (!r->scratch) return FAD_NOMEM;
    double *free_block = r->scratch + TILE;             /* the first is for sums */
    for (int j = 0; j < r->n; j++) {
        run_node *node = &r->node[j];
        const int reads = fad_row_of(node->op)->reads;
        node->tile = free_block;
        free_block += TILE;
        for (int k = 0; k < node->arity; k++) {
            const fad_index p = k ? t->args[node->i].b : t->args[node->i].a;
            if (!(reads & (k ? FAD_B : FAD_A))) continue;
            if (t->op[p] & FAD_ARRAY) {
                node->value[k] = t->value[p].arr->data;
                continue;
            }
            node->constant[k] = free_block;
            free_block += TILE;
            for (int i = 0; i < TILE; i++) node->constant[k][i] = t->value[p].f;
        }
        if (reads & FAD_Y) node->value[3] = t->value[node->i].arr->data;
    }
    return FAD_OK;
}

static void run_tile(run *r, int64_t at, int64_t m)
{
    const double *g_of[RUN];
    double *const spare = r->scratch;
    for (int j = 0; j < r->n; j++) {
        const run_node *node = &r->node[j];
        g_of[j] = node->tile;
        if (!node->whole) continue;
        const double *whole = (const double *)node->whole->data + at;
        if (node->received) memcpy(node->tile, whole, (size_t)m * sizeof *whole);
        else g_of[j] = whole;
    }
    for (int j = 0; j < r->n; j++) {
        const run_node *node = &r->node[j];
        const double *g = g_of[j], *in[4];
        for (int k = 0; k < 4; k++)
            in[k] = node->value[k] ? node->value[k] + at
                : k < 3 && node->constant[k] ? node->constant[k] : g;
        for (int k = 0; k < node->arity; k++) {
            const run_edge *edge = &node->edge[k];
            const int trivial = fad_trivial[node->op][k];
            double *to;
            if (edge->kind == TO_NOTHING) continue;
            if (edge->alias) {
                g_of[edge->target] = g;
                continue;
            }
            to = edge->kind == TO_RUN ? r->node[edge->target].tile
                : edge->kind == TO_ARRAY ? (double *)r->out[edge->target].arr->data + at : spare;
            double *made = edge->add ? spare : to;
            if (trivial == FAD_IS_ONE) {
                if (!edge->add) memcpy(made, g, (size_t)m * sizeof *g);
                else
                    for (int64_t i = 0; i < m; i++) to[i] += g[i];
            } else {
                fad_partials[node->op][k](g, in[0], in[1], in[2], in[3], made, (intptr_t)m);
                if (edge->add)
                    for (int64_t i = 0; i < m; i++) to[i] += made[i];
            }
            if (edge->kind == TO_NUMBER) r->out[edge->target].total += block_sum(spare, m);
        }
    }
}

/* Sweep the run that ends at `top`, whose adjoint is in its slot; 0 when there is no run. */
static int reverse_run(fad_tape *t, fad_sweep *s, fad_index top, unsigned mark, fad_status *status)
{
    fad_slot *bar = fad_bars(t, s);
    const fad_array *like = t->value[top].arr;
    if (like->size < 8 * TILE || !tileable(t, top, like) || bar[top].arr->dtype != FAD_F64) return 0;
    run *r = fad_malloc(sizeof *r);
    if (!r) {
        *status = FAD_NOMEM;
        return 1;
    }
    r->scratch = NULL;
    run_collect(t, bar, s->goals, top, r);
    *status = run_prepare(t, bar, r);
    if (*status) {
        for (int o = 0; o < r->outs; o++)
            if (r->out[o].mine) fad_array_release(r->out[o].arr);
    } else {
        for (int64_t at = 0; at < like->size; at += TILE)
            run_tile(r, at, like->size - at < TILE ? like->size - at : TILE);
        for (int o = 0; o < r->outs; o++) {
            run_out *out = &r->out[o];
            if (!(t->op[out->p] & FAD_ARRAY)) {
                fad_contribute(t, s, out->p, out->total);
                continue;
            }
            if (out->mine && bar[out->p].bits != FAD_UNTOUCHED) fad_array_release(bar[out->p].arr);
            bar[out->p].arr = out->arr;
            reach(s, out->p);
        }
        for (int j = 0; j < r->n; j++) {
            run_node *node = &r->node[j];
            if (node->whole) fad_array_release(node->whole);
            bar[node->i].bits = FAD_UNTOUCHED;
            t->op[node->i] |= (uint16_t)mark;
            if (s->passed) s->passed[node->i] = 1;
            reach(s, node->i);
        }
    }
    fad_free(r->scratch);
    fad_free(r);
    return 1;
}

/* ---- leaves ---------------------------------------------------------------------------------------- */

static fad_status leaf_reached(fad_tape *t, fad_sweep *s, int32_t slot, int is_array, fad_slot g)
{
    int32_t at = t->leaf[slot].at;
    if (s->own) {       /* a nested sweep leaves the outer one's entries alone, and searches */
        for (at = s->leaf_n - 1; at >= 0 && s->leaves[at].slot != slot; at--) {}
    }
    if (at >= 0 && at < s->leaf_n && s->leaves[at].slot == slot) {      /* another of its nodes */
        fad_slot *bar = &s->leaves[at].bar;
        if (!is_array) {
            bar->f += g.f;
            return FAD_OK;
        }
        if (bar->arr->refs > 1 || bar->arr->owner) {
            fad_array *mine = fad_array_copy(bar->arr);
            if (!mine) return FAD_NOMEM;
            fad_array_release(bar->arr);
            bar->arr = mine;
        }
        fad_add_into(bar->arr, g.arr);
        return FAD_OK;
    }
    if (s->leaf_n == s->leaf_cap) {
        const int32_t cap = s->leaf_cap ? 2 * s->leaf_cap : 16;
        void *p = fad_realloc(s->leaves, (size_t)cap * sizeof *s->leaves);
        if (!p) return FAD_NOMEM;
        s->leaves = p;
        s->leaf_cap = cap;
    }
    if (is_array) fad_array_share(g.arr);
    if (!s->own) t->leaf[slot].at = s->leaf_n;
    s->leaves[s->leaf_n++] = (fad_leaf_bar){slot, is_array, g};
    return FAD_OK;
}

/* ---- reverse ------------------------------------------------------------------------------------------ */

/* Nodes that are not scalar rows.  Keeps no reference to g. */
static fad_status reverse_other(fad_tape *t, fad_sweep *s, fad_index i, fad_slot g)
{
    const unsigned w = t->op[i], op = w & FAD_OPCODE;
    switch (op) {
    case FAD_OP_CONST:
        return FAD_OK;
    case FAD_OP_LEAF:
        return leaf_reached(t, s, t->args[i].a, (w & FAD_ARRAY) != 0, g);
    case FAD_OP_CALL: {
        const fad_call *call = fad_call_of(t, i);
        for (int32_t k = 0; k < call->n; k++)       /* the rule could not read such a value */
            if ((t->op[call->parent[k]] & FAD_OPCODE) == FAD_OP_FREED) return FAD_CONSUMED;
        return s->on_call(s->ctx, s, i, g) ? FAD_CALLBACK : FAD_OK;
    }
    }
    if (w & FAD_ARRAY) return reverse_array(t, s, i, g.arr);
    /* scalar rows of three operands */
    const fad_call *call = fad_call_of(t, i);
    const double a = t->value[call->parent[0]].f, b = t->value[call->parent[1]].f,
                 c = t->value[call->parent[2]].f, y = t->value[i].f, gv = g.f;
    const double *gs = &gv, *as = &a, *bs = &b, *cs = &c, *ys = &y;
    for (int k = 0; k < 3; k++) {
        double v;
        fad_partials[op][k](gs, as, bs, cs, ys, &v, 1);
        fad_contribute(t, s, call->parent[k], v);
    }
    return FAD_OK;
}

/* From the highest seeded node down to the lowest one reached, or past the last goal.  Errors leave
 * the tape as it was once fad_sweep_end has run; nothing is consumed here.  Compiled with and
 * without goals. */
FAD_INLINED fad_status reverse(fad_tape *t, fad_sweep *s, const fad_goals *goals)
{
    fad_slot *bar = fad_bars(t, s);
    uint16_t *op = t->op;
    const fad_args *args = t->args;
    const fad_slot *v = t->value;
    const unsigned mark = s->consume && !s->passed ? FAD_MARK : 0;
    unsigned char *const passed = s->passed;
    fad_index low = s->low;
    fad_index tick = s->top - TICK;

    for (fad_index i = s->top; i >= low; i--) {
        if (i < tick) {
            tick = i - TICK;
            s->low = low;
            if (s->on_tick && s->on_tick(s->ctx)) return FAD_CALLBACK;
            bar = fad_bars(t, s), op = t->op, args = t->args, v = t->value;
        }
        if (bar[i].bits == FAD_UNTOUCHED) continue;
        const unsigned w = op[i];
        fad_slot g = bar[i];
        const int goal = goals ? fad_goal(goals, i) : FAD_GOAL_ON;
        if (!goal) {
            bar[i].bits = FAD_UNTOUCHED;
            if (w & FAD_ARRAY) fad_array_release(g.arr);
            continue;
        }
        if ((w & (FAD_HOOK | FAD_ARRAY)) || (w & FAD_OPCODE) <= FAD_OP_LAST_OWNING) {
            fad_status status = FAD_OK;
            s->low = low;
            if ((w & FAD_OPCODE) == FAD_OP_FREED) return FAD_CONSUMED;
            if (w & FAD_HOOK) {
                /* g stays in its slot while foreign code runs, so that an error frees it */
                if (s->on_hook(s->ctx, s, i, &bar[i])) return FAD_CALLBACK;
                bar = fad_bars(t, s);
                g = bar[i];
                if ((t->op[i] & FAD_OPCODE) == FAD_OP_FREED) return FAD_CONSUMED;
                if (!(goal & FAD_GOAL_ON) && (w & FAD_OPCODE) != FAD_OP_LEAF) {
                    bar[i].bits = FAD_UNTOUCHED;
                    if (w & FAD_ARRAY) fad_array_release(g.arr);
                    op = t->op, args = t->args, v = t->value;
                    continue;
                }
            }
            const int scalar_row = !(w & FAD_ARRAY) && (w & FAD_OPCODE) > FAD_OP_LAST_OWNING;
            if (!scalar_row && (w & FAD_ARRAY) && reverse_run(t, s, i, mark, &status)) {
                if (status) return status;
                low = s->low;
                continue;
            }
            if (!scalar_row) {
                bar[i].bits = FAD_UNTOUCHED;
                status = reverse_other(t, s, i, g);
                if (w & FAD_ARRAY) fad_array_release(g.arr);
                bar = fad_bars(t, s), op = t->op, args = t->args, v = t->value;
                low = s->low;
                op[i] |= (uint16_t)mark;
                if (passed) passed[i] = 1;
                if (status) return status;
                continue;
            }
            bar = fad_bars(t, s), op = t->op, args = t->args, v = t->value;
        }
        bar[i].bits = FAD_UNTOUCHED;
        op[i] = (uint16_t)(op[i] | mark);
        if (passed) passed[i] = 1;
        const double gv = g.f;
        const fad_index ia = args[i].a, ib = args[i].b;
        if (gv == 0.0) {            /* exactly zero contributes exactly zero */
            if (!(w & FAD_CA)) {
                bar[ia].f += 0.0;
                if (ia < low) low = ia;
            }
            if ((w & FAD_OPCODE) >= FAD_OP_FIRST_BINARY && !(w & FAD_CB)) {
                bar[ib].f += 0.0;
                if (ib < low) low = ib;
            }
            continue;
        }
        switch (w & FAD_OPCODE) {
#define FAD_CONST(name, value)
#define FAD_UNARY(name, primal, dx, ...) \
        case FAD_OP_##name: { \
            const double x = v[ia].f, y = v[i].f; \
            const double px = (dx); \
            bar[ia].f += (px == 0.0 ? 0.0 : gv * px) + 0.0; \
            if (ia < low) low = ia; \
            break; \
        }
#define FAD_BINARY(name, primal, da, db, ...) \
        case FAD_OP_##name: { \
            const double a = v[ia].f, b = v[ib].f, y = v[i].f; \
            if (!(w & FAD_CA)) { \
                const double pa = (da); \
                bar[ia].f += (pa == 0.0 ? 0.0 : gv * pa) + 0.0; \
                if (ia < low) low = ia; \
            } \
            if (!(w & FAD_CB)) { \
                const double pb = (db); \
                bar[ib].f += (pb == 0.0 ? 0.0 : gv * pb) + 0.0; \
                if (ib < low) low = ib; \
            } \
            break; \
        }
#define FAD_TERNARY(...)
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
        default:
            return FAD_CONSUMED;    /* not reached: every opcode is handled above */
        }
    }
    s->low = low;
    s->clean = 1;
    return FAD_OK;
}

FAD_ALIGNED static fad_status reverse_to_goals(fad_tape *t, fad_sweep *s)
{
    return reverse(t, s, s->goals);
}

FAD_ALIGNED static fad_status reverse_to_leaves(fad_tape *t, fad_sweep *s)
{
    return reverse(t, s, NULL);
}

fad_status fad_reverse(fad_tape *t, fad_sweep *s)
{
    /* each a function of its own: the loop of one that held both took twice as long per node */
    fad_status (*const run)(fad_tape *, fad_sweep *) = s->goals ? reverse_to_goals
                                                                : reverse_to_leaves;
    return run(t, s);
}

/* After a sweep that went well: what it passed through can go, except leaves and constants. */
void fad_consume(fad_tape *t, fad_sweep *s)
{
    s->consume = 0;
    for (fad_index i = s->low; i <= s->top; i++) {
        const unsigned w = t->op[i], op = w & FAD_OPCODE;
        if (s->passed ? !s->passed[i] : !(w & FAD_MARK)) continue;
        if (!s->passed) t->op[i] = (uint16_t)(w & ~FAD_MARK);
        if (op <= FAD_OP_LEAF) continue;
        if ((w & FAD_ARRAY) && !s->passed) {
            fad_array *arr = t->value[i].arr;
            t->bytes -= fad_array_bytes(arr);
            t->value[i].f = 0.0;
            fad_array_release(arr);
        }
        if (op <= FAD_OP_LAST_OWNING) {
            fad_call *call = fad_call_of(t, i);
            call->next = fad_dead_calls;
            fad_dead_calls = call;
        }
        /* FAD_OP_FREED.  An outer sweep may have marked it, and hold an array as its adjoint. */
        const unsigned outer = s->passed ? FAD_MARK | FAD_ARRAY : 0;
        t->op[i] = (uint16_t)(w & (FAD_LIVE | FAD_HOOK | outer));
    }
}

/* ---- forward ---------------------------------------------------------------------------------------------- */

static inline int has_tangent(const fad_sweep *s, fad_index p)
{
    return p >= s->from && s->own[p].bits != FAD_UNTOUCHED;
}

static fad_status forward_array(fad_tape *t, fad_sweep *s, fad_index i)
{
    shape_of_node n;
    reader r[4], dot;
    const fad_array *full = t->value[i].arr;
    double block[BLOCK];
    fad_array *out = NULL;
    int ready = 0;
    parents_of(t, i, &n);
    for (int k = 0; k < n.arity; k++) {
        const fad_index p = n.parent[k];
        if (n.is_const[k] || !has_tangent(s, p)) continue;
        if (!ready) {
            readers_for(t, i, &n, r, full);
            out = fad_array_new(full->dtype, full->ndim, full->shape);
            if (!out) return FAD_NOMEM;
        }
        if (fad_is_complex(full->dtype)) {  /* a copy: complex rows are calls */
            fad_array_release(out);
            out = fad_array_share(s->own[p].arr);
            break;
        }
        if (t->op[p] & FAD_ARRAY) reader_array(&dot, s->own[p].arr, full);
        else reader_fill(&dot, s->own[p].f, full->size);
        for (int64_t at = 0; at < full->size; at += BLOCK) {
            const int64_t m = full->size - at < BLOCK ? full->size - at : BLOCK;
            const double *d = reader_get(&dot, at, m);
            fad_partials[n.op][k](d, side(&r[0], at, m, d), side(&r[1], at, m, d),
                                  side(&r[2], at, m, d), side(&r[3], at, m, d), block, m);
            store(out, at, block, m, ready);
        }
        ready = 1;
    }
    if (out) {
        s->own[i].arr = out;
        reach(s, i);
    }
    return FAD_OK;
}

static void forward_number(fad_tape *t, fad_sweep *s, fad_index i)
{
    shape_of_node n;
    parents_of(t, i, &n);
    double v[3] = {0.0, 0.0, 0.0}, sum = 0.0, c;
    int touched = 0;
    const double y = t->value[i].f;
    for (int k = 0; k < n.arity; k++) v[k] = t->value[n.parent[k]].f;
    for (int k = 0; k < n.arity; k++) {
        if (n.is_const[k] || !has_tangent(s, n.parent[k])) continue;
        fad_partials[n.op][k](&s->own[n.parent[k]].f, &v[0], &v[1], &v[2], &y, &c, 1);
        sum += c;
        touched = 1;
    }
    if (touched) {
        s->own[i].f = sum + 0.0;
        reach(s, i);
    }
}

fad_status fad_forward(fad_tape *t, fad_sweep *s, fad_index low, fad_index top)
{
    fad_index tick = low + TICK;
    for (fad_index i = low; i <= top; i++) {
        if (i > tick) {
            tick = i + TICK;
            if (s->on_tick && s->on_tick(s->ctx)) return FAD_CALLBACK;
        }
        const unsigned w = t->op[i], op = w & FAD_OPCODE;
        if (op == FAD_OP_CONST || op == FAD_OP_LEAF || s->own[i].bits != FAD_UNTOUCHED) continue;
        if (op == FAD_OP_FREED) continue;
        if (op == FAD_OP_CALL) {
            const fad_call *call = fad_call_of(t, i);
            int touched = 0;
            for (int32_t k = 0; k < call->n && !touched; k++)
                touched = has_tangent(s, call->parent[k]);
            if (touched && s->on_call(s->ctx, s, i, number(0.0))) return FAD_CALLBACK;
            continue;
        }
        if (w & FAD_ARRAY) {
            fad_status status = forward_array(t, s, i);
            if (status) return status;
        } else {
            forward_number(t, s, i);
        }
    }
    return FAD_OK;
}
