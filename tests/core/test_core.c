/* Tests of the C core on its own: no Python, so that sanitizers see every byte.
 *
 *     gcc -g -fsanitize=address,undefined -DFAD_NO_CLONES -Isrc/fastad/core \
 *         tests/core/test_core.c src/fastad/core/?*.c -lm
 *
 * A `var` below stands for what a Tensor is in Python: a value and a handle on the tape.  With a
 * word as argument only tests with that word in their name run.  With the argument --leak the
 * program leaks on purpose, which shows that leaks are seen.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"
#include "native.h"
#include "vm_impl.h"

/* ---- checking -------------------------------------------------------------------------------- */

static int passed, failed, failed_before;
static const char *running;

static void fail_at(int line, const char *what)
{
    failed++;
    if (failed < failed_before + 10) fprintf(stderr, "%s:%d: %s\n", running, line, what);
}

#define CHECK(condition) \
    do { if (condition) passed++; else fail_at(__LINE__, #condition); } while (0)
#define CLOSE(got, want, tolerance) close_to((got), (want), (tolerance), __LINE__, #got)

static int close_to(double got, double want, double tolerance, int line, const char *what)
{
    char text[200];
    if (fabs(got - want) <= tolerance * (1.0 + fabs(want)) || got == want
        || (isnan(got) && isnan(want))) {
        passed++;
        return 1;
    }
    snprintf(text, sizeof text, "%s is %.17g, wanted %.17g", what, got, want);
    fail_at(line, text);
    return 0;
}

static uint64_t random_state = 88172645463325252u;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int below(int n) { return (int)(random_bits() % (uint64_t)n); }
static double uniform(double lo, double hi)
{
    return lo + (hi - lo) * (double)(random_bits() >> 11) * 0x1p-53;
}

/* ---- a user of the core ---------------------------------------------------------------------- */

static fad_tape tape, *const t = &tape;

typedef struct {
    fad_handle h;
    double number;      /* the value when arr is NULL */
    fad_array *arr;
} var;

/* Structured primitives of this program; a call's `rule` points to one of these. */
typedef enum { TOTAL, SQUARE_BY_SWEEP, REFUSES } rule;
static rule TOTAL_RULE = TOTAL, SQUARE_RULE = SQUARE_BY_SWEEP, REFUSING_RULE = REFUSES;

static int owners_left;         /* foreign keepers that the core holds */
static int calls_freed;

/* Take and release what the core has let go. */
static void drain(void)
{
    while (fad_dead_arrays) {
        fad_array *arr = fad_dead_arrays;
        fad_dead_arrays = arr->next;
        owners_left--;
        fad_array_free(arr);
    }
    while (fad_dead_calls) {
        fad_call *call = fad_dead_calls;
        fad_dead_calls = call->next;
        calls_freed++;
        fad_free(call);
    }
}

static void blank(var *x)
{
    memset(x, 0, sizeof *x);
    x->h.idx = FAD_NO_NODE;
    x->h.slot = -1;
}

static var number_var(double v)
{
    var x;
    blank(&x);
    x.number = v;
    return x;
}

static fad_status number_leaf(var *x, double v)
{
    *x = number_var(v);
    return fad_leaf_add(t, &x->h);
}

static double get(const fad_array *arr, int64_t i)
{
    return arr->dtype == FAD_F32 ? ((float *)arr->data)[i]
         : arr->dtype == FAD_F64 ? ((double *)arr->data)[i] : ((unsigned char *)arr->data)[i];
}

static void put(fad_array *arr, int64_t i, double v)
{
    if (arr->dtype == FAD_F32) ((float *)arr->data)[i] = (float)v;
    else ((double *)arr->data)[i] = v;
}

/* An array of numbers drawn from lo .. hi. */
static fad_array *drawn(int dtype, int ndim, const int64_t *shape, double lo, double hi)
{
    fad_array *arr = fad_array_new(dtype, ndim, shape);
    for (int64_t i = 0; arr && i < arr->size; i++) put(arr, i, uniform(lo, hi));
    return arr;
}

/* Takes over arr. */
static fad_status array_leaf(var *x, fad_array *arr)
{
    blank(x);
    if (!arr) return FAD_NOMEM;
    x->arr = arr;
    const fad_status status = fad_leaf_add(t, &x->h);
    if (status) {
        fad_array_release(arr);
        x->arr = NULL;
    }
    return status;
}

static fad_status drawn_leaf(var *x, int dtype, int ndim, const int64_t *shape, double lo,
                             double hi)
{
    return array_leaf(x, drawn(dtype, ndim, shape, lo, hi));
}

static void drop(var *x)
{
    if (x->arr) fad_array_release(x->arr);      /* first: the node may hold the last one then */
    if (x->h.slot >= 0) fad_leaf_drop(t, &x->h);
    else if (x->h.idx >= 0) fad_handle_drop(t, &x->h);
    blank(x);
    drain();
}

static int is_tracked(const var *x) { return x->h.slot >= 0 || x->h.idx != FAD_NO_NODE; }

/* The node of x, -1 for a constant.  Reserve 1. */
static fad_index node_of(var *x)
{
    if (x->h.slot >= 0 && x->h.idx < 0) {
        fad_slot value;
        if (x->arr) value.arr = x->arr;
        else value.f = x->number;
        fad_leaf_push(t, &x->h, value, x->arr != NULL);
    }
    if (x->h.idx == FAD_USED_UP) return fad_push(t, FAD_OP_FREED, 0, 0, 0.0);
    return x->h.idx;
}

static fad_index parent_of(var *x, unsigned *w, unsigned flag)
{
    fad_index i = node_of(x);
    if (i >= 0) return i;
    *w |= flag;
    if (!x->arr) return fad_const(t, x->number);
    return fad_push_array_slow(t, FAD_OP_CONST, 0, 0, fad_array_share(x->arr));
}

/* y = op(in...), computed and recorded; nothing is left behind on failure. */
static fad_status record(var *y, int op, int n, var *const *in)
{
    fad_operand src[3] = {{NULL, 0.0}, {NULL, 0.0}, {NULL, 0.0}};
    fad_index parent[3];
    fad_call *call = NULL;
    fad_slot value;
    unsigned w = (unsigned)op;
    int arrays = 0, tracked = 0, dtype = FAD_F64;
    var *const at[3] = {in[0], n > 1 ? in[1] : NULL, n > 2 ? in[2] : NULL};

    blank(y);
    for (int k = 0; k < n; k++) {
        src[k].arr = at[k]->arr;
        src[k].number = at[k]->number;
        arrays |= at[k]->arr != NULL;
        tracked |= is_tracked(at[k]);
        if (at[k]->arr && at[k]->arr->dtype == FAD_F32) dtype = FAD_F32;
    }
    if (arrays) {
        const fad_status status = fad_elementwise(op, dtype, src, &y->arr);
        if (status) {
            y->arr = NULL;
            return status;
        }
    } else {
        y->number = n == 1 ? fad_eval1(op, src[0].number)
                  : n == 2 ? fad_eval2(op, src[0].number, src[1].number)
                  : fad_eval3(op, src[0].number, src[1].number, src[2].number);
    }
    if (!tracked) return FAD_OK;
    fad_status status = fad_reserve(t, n + 1);
    if (!status && n == 3 && !(call = fad_call_new(3))) status = FAD_NOMEM;
    if (status) {
        if (y->arr) fad_array_release(y->arr);
        blank(y);
        return status;
    }
    for (int k = 0; k < n; k++)
        parent[k] = parent_of(at[k], &w, k == 0 ? FAD_CA : k == 1 ? FAD_CB : 0);
    if (n == 3) {
        for (int k = 0; k < 3; k++) {
            call->parent[k] = parent[k];
            t->op[parent[k]] |= FAD_NEEDED;
        }
        if (y->arr) value.arr = fad_array_share(y->arr);
        else value.f = y->number;
        fad_link(t, &y->h, fad_push_call(t, (unsigned)op, call, value, arrays));
        t->op[y->h.idx] |= FAD_NEEDED;
    } else if (y->arr) {
        fad_link(t, &y->h, fad_push_array_slow(t, w, parent[0], n > 1 ? parent[1] : 0,
                                               fad_array_share(y->arr)));
    } else {
        fad_link(t, &y->h, fad_push(t, w, parent[0], n > 1 ? parent[1] : 0, y->number));
    }
    return FAD_OK;
}

static fad_status op1(var *y, int op, var *a) { return record(y, op, 1, (var *const[]){a}); }
static fad_status op2(var *y, int op, var *a, var *b)
{
    return record(y, op, 2, (var *const[]){a, b});
}
static fad_status op3(var *y, int op, var *a, var *b, var *c)
{
    return record(y, op, 3, (var *const[]){a, b, c});
}

/* y = sum of x, or the square of a number, as a structured primitive. */
static fad_status record_call(var *y, rule *r, var *x)
{
    fad_call *call = fad_call_new(1);
    unsigned w = 0;
    blank(y);
    if (!call) return FAD_NOMEM;
    const fad_status status = fad_reserve(t, 2);
    if (status) {
        fad_free(call);
        return status;
    }
    if (*r == TOTAL) fad_sum_all(x->arr, &y->number);
    else y->number = x->number * x->number;
    call->parent[0] = parent_of(x, &w, 0);
    t->op[call->parent[0]] |= FAD_NEEDED;
    call->rule = r;
    fad_link(t, &y->h, fad_push_call(t, FAD_OP_CALL, call, (fad_slot){.f = y->number}, 0));
    return FAD_OK;
}

/* ---- sweeps with callbacks ------------------------------------------------------------------- */

typedef struct {
    fad_status why;         /* reason of FAD_CALLBACK */
    int forward;
    int ticks, stop_at_tick;
    int hooked;
    fad_index hooked_at[8];
    double hook_factor;
    void (*in_hook)(void);
} context;

static fad_status backward_in_sweep(double x, double *x_bar);

static int on_call(void *ctx, fad_sweep *s, fad_index i, fad_slot g)
{
    context *c = ctx;
    const fad_call *call = fad_call_of(t, i);
    const rule r = *(rule *)call->rule;
    const fad_index p = call->parent[0];
    fad_array *full;
    double x_bar, sum;

    if (r == REFUSES) {
        c->why = FAD_CALLBACK;
        return -1;
    }
    if ((t->op[p] & FAD_OPCODE) == FAD_OP_FREED) {      /* the sweep says so when it gets there */
        fad_contribute(t, s, p, 0.0);
        return 0;
    }
    if (r == TOTAL && c->forward) {
        fad_sum_all(fad_bars(t, s)[p].arr, &sum);
        c->why = fad_contribute(t, s, i, sum);
    } else if (r == TOTAL) {
        const fad_array *x = t->value[p].arr;
        c->why = fad_fill(x->dtype, x->ndim, x->shape, g.f, &full);
        if (!c->why) c->why = fad_contribute_array(t, s, p, full);
    } else {
        /* the derivative of the square comes from a graph recorded and swept in here */
        c->why = backward_in_sweep(t->value[p].f, &x_bar);
        if (c->why) return -1;
        if (c->forward) c->why = fad_contribute(t, s, i, fad_bars(t, s)[p].f * x_bar);
        else c->why = fad_contribute(t, s, p, g.f * x_bar);
    }
    return c->why ? -1 : 0;
}

static int on_hook(void *ctx, fad_sweep *s, fad_index i, fad_slot *g)
{
    context *c = ctx;
    (void)g;
    if (c->hooked < 8) c->hooked_at[c->hooked] = i;
    c->hooked++;
    if (c->in_hook) c->in_hook();
    fad_slot *slot = &fad_bars(t, s)[i];        /* the tape may have moved */
    if (c->hook_factor == 0.0) return 0;
    if (t->op[i] & FAD_ARRAY) {
        fad_array *scaled = fad_array_copy(slot->arr);
        if (!scaled) {
            c->why = FAD_NOMEM;
            return -1;
        }
        for (int64_t k = 0; k < scaled->size; k++) put(scaled, k, c->hook_factor * get(scaled, k));
        fad_array_release(slot->arr);
        slot->arr = scaled;
    } else {
        slot->f *= c->hook_factor;
    }
    return 0;
}

static int on_tick(void *ctx)
{
    context *c = ctx;
    return ++c->ticks == c->stop_at_tick ? -1 : 0;
}

/* With `end`, a sweep with adjoints of its own for the nodes below it. */
static fad_status begin(fad_sweep *s, context *c, fad_index end)
{
    const fad_status status = fad_sweep_begin(t, s, 0, end);
    if (status) return status;
    s->ctx = c;
    s->on_call = on_call;
    s->on_hook = on_hook;
    s->on_tick = on_tick;
    return FAD_OK;
}

/* Sum of what leaf x received, for element i of an array. */
static double received(const fad_sweep *s, const var *x, int64_t i)
{
    double sum = 0.0;
    for (int32_t k = 0; k < s->leaf_n; k++) {
        if (s->leaves[k].slot != x->h.slot) continue;
        sum += s->leaves[k].is_array ? get(s->leaves[k].bar.arr, i) : s->leaves[k].bar.f;
    }
    return sum;
}

static int was_reached(const fad_sweep *s, const var *x)
{
    for (int32_t k = 0; k < s->leaf_n; k++)
        if (s->leaves[k].slot == x->h.slot) return 1;
    return 0;
}

enum { KEEP = 0, CONSUME = 1 };

static void forget(var *y)
{
    if (y->h.idx >= 0 && y->h.slot < 0 && (t->op[y->h.idx] & FAD_OPCODE) == FAD_OP_FREED) {
        fad_unlink(t, &y->h);
        y->h.idx = FAD_USED_UP;
    }
}

/* Sweep from y, whose cotangent is `seed` (an array, taken over) or `number`.  When this gives
 * FAD_OK the caller reads s->leaves and then calls finish(). */
static fad_status reverse_from(var *y, double number, fad_array *seed, int consume, fad_sweep *s,
                               context *c)
{
    fad_status status = fad_reserve(t, 1);
    fad_index i = -1;
    if (!status) {
        i = node_of(y);
        status = begin(s, c, 0);
    }
    if (status) {
        if (seed) fad_array_release(seed);
        return status;
    }
    s->consume = consume;
    status = seed ? fad_contribute_array(t, s, i, seed) : fad_contribute(t, s, i, number);
    if (!status) status = fad_reverse(t, s);
    if (status == FAD_CALLBACK && c->why) status = c->why;
    if (status) {
        fad_sweep_end(t, s);
        drain();
    }
    return status;
}

static void finish(var *y, fad_sweep *s, int consume)
{
    if (consume) fad_consume(t, s);
    fad_sweep_end(t, s);
    if (consume && !t->sweeping) {
        forget(y);
        fad_trim(t);
        t->fresh = t->n;
    }
    drain();
}

/* Gradient of the number y in the leaves xs, which are numbers. */
static fad_status gradients(var *y, int consume, int n, var *const *xs, double *out)
{
    fad_sweep s;
    context c = {0};
    const fad_status status = reverse_from(y, 1.0, NULL, consume, &s, &c);
    if (status) return status;
    for (int k = 0; k < n; k++) out[k] = received(&s, xs[k], 0);
    finish(y, &s, consume);
    return FAD_OK;
}

static double gradient(var *y, int consume, var *x)
{
    double out = NAN;
    CHECK(gradients(y, consume, 1, (var *const[]){x}, &out) == FAD_OK);
    return out;
}

static fad_status backward_in_sweep(double x, double *x_bar)
{
    var leaf, y;
    double out;
    fad_status status = number_leaf(&leaf, x);
    if (status) return status;
    status = op2(&y, FAD_OP_multiply, &leaf, &leaf);
    if (!status) {
        status = gradients(&y, KEEP, 1, (var *const[]){&leaf}, &out);
        *x_bar = out;
        drop(&y);
    }
    drop(&leaf);
    return status;
}

/* ---- what is always true of a tape between sweeps -------------------------------------------- */

static int intact(void)
{
    int64_t bytes = 0, handles = 0, live = 0, hooks = 0;
    if (t->sweeping) return 0;
    if (t->n > t->cap || t->n > t->max || t->ready > t->cap) return 0;
    for (fad_index i = 0; i < t->n; i++) {
        const unsigned w = t->op[i], code = w & FAD_OPCODE;
        if (w & FAD_MARK) return 0;
        if (code >= FAD_OP_END) return 0;
        live += (w & FAD_LIVE) != 0;
        if (w & FAD_HOOK) {
            hooks++;
            if (!fad_hook_get(t, i)) return 0;
        }
        if (w & FAD_ARRAY) {
            bytes += fad_array_bytes(t->value[i].arr);
            if (t->value[i].arr->refs < 1) return 0;
        }
        if (code == FAD_OP_LEAF) {
            if (t->args[i].a < 0 || t->args[i].a >= t->leaf_n) return 0;
        } else if (code >= FAD_OP_CALL && code <= FAD_OP_LAST_OWNING) {
            const fad_call *call = fad_call_of(t, i);
            for (int k = 0; k < call->n; k++)
                if (call->parent[k] < 0 || call->parent[k] >= i) return 0;
        } else if (code > FAD_OP_LAST_OWNING) {
            if (t->args[i].a < 0 || t->args[i].a >= i) return 0;
            if (code >= FAD_OP_FIRST_BINARY && (t->args[i].b < 0 || t->args[i].b >= i)) return 0;
        }
    }
    for (fad_index i = 0; i < t->ready; i++)
        if (t->bar[i].bits != FAD_UNTOUCHED) return 0;
    for (const fad_handle *h = t->live.next; h != &t->live; h = h->next) {
        handles++;
        if (h->next->prev != h || h->idx < 0 || h->idx >= t->n) return 0;
        if (!(t->op[h->idx] & FAD_LIVE)) return 0;
    }
    for (int32_t k = 1; k < t->hook_n; k++)
        if (t->hook[k].node < t->hook[k - 1].node) return 0;
    for (int32_t slot = 0; slot < t->leaf_n; slot++) {
        const fad_leaf *leaf = &t->leaf[slot];
        int32_t nodes = 0;
        for (fad_index i = 0; i < t->n; i++)
            nodes += (t->op[i] & FAD_OPCODE) == FAD_OP_LEAF && t->args[i].a == slot;
        if (leaf->handle && leaf->handle->slot != slot) return 0;
        if ((leaf->handle || nodes) && leaf->nodes != nodes) return 0;
    }
    return handles == live && hooks == t->hook_n && bytes == t->bytes;
}

/* A number that stands for everything a tape holds. */
static uint64_t fingerprint(void)
{
    uint64_t h = 14695981039346656037u;
#define MIX(v) (h = (h ^ (uint64_t)(v)) * 1099511628211u)
    MIX(t->n);
    for (fad_index i = 0; i < t->n; i++) {
        MIX(t->op[i]);
        MIX(t->args[i].a);
        MIX(t->args[i].b);
        MIX(t->value[i].bits);
    }
    for (int32_t k = 0; k < t->hook_n; k++) MIX(t->hook[k].node);
    MIX(t->hook_n);
    MIX(t->bytes);
#undef MIX
    return h;
}

/* Every test starts with an empty tape and must leave one. */
static void start(void)
{
    fad_tape_init(t);
}

static void end(void)
{
    CHECK(t->live.next == &t->live);
    CHECK(intact());
    fad_tape_clear(t);
    drain();
    CHECK(owners_left == 0);
    CHECK(fad_large_bytes == 0);
    fad_large_bytes = 0;                    /* one leak fails one test */
    fad_pool_clear();
    CHECK(fad_pool_bytes() == 0);
}

/* ---- scalar graphs --------------------------------------------------------------------------- */

static void two_paths_of_a_scalar_graph_add_up(void)
{
    var x, cube, square, y, three = number_var(3.0);
    number_leaf(&x, 2.0);
    op2(&cube, FAD_OP_power, &x, &three);
    op1(&square, FAD_OP_square, &x);
    op2(&y, FAD_OP_add, &cube, &square);
    CLOSE(y.number, 12.0, 0.0);
    CLOSE(gradient(&y, KEEP, &x), 16.0, 0.0);
    CLOSE(gradient(&y, KEEP, &x), 16.0, 0.0);
    CLOSE(gradient(&y, CONSUME, &x), 16.0, 0.0);
    drop(&cube), drop(&square), drop(&y);
    CHECK(t->n == 0);

    var sine, quotient;
    op1(&sine, FAD_OP_sin, &x);
    op2(&quotient, FAD_OP_divide, &sine, &x);
    CLOSE(gradient(&quotient, CONSUME, &x), cos(2.0) / 2.0 - sin(2.0) / 4.0, 1e-15);
    drop(&sine), drop(&quotient), drop(&x);
}

static void a_consumed_graph_refuses_a_second_sweep(void)
{
    var x, a, y, z;
    fad_sweep s;
    context c = {0};
    number_leaf(&x, 0.5);
    op1(&a, FAD_OP_sin, &x);
    op1(&y, FAD_OP_exp, &a);
    gradient(&y, CONSUME, &x);
    CHECK(y.h.idx == FAD_USED_UP);
    const uint64_t before = fingerprint();
    op2(&z, FAD_OP_multiply, &a, &x);      /* a was consumed: no derivative flows through it */
    CHECK(reverse_from(&z, 1.0, NULL, KEEP, &s, &c) == FAD_CONSUMED);
    CHECK(intact());
    CHECK(reverse_from(&y, 1.0, NULL, CONSUME, &s, &c) == FAD_CONSUMED);
    CHECK(intact());
    drop(&z);
    fad_trim(t);
    CHECK(fingerprint() == before || t->n == 0);
    drop(&a), drop(&y), drop(&x);
}

/* Three chains of one leaf: what is released, and only that, refuses a sweep. */
static void released_graphs_are_consumed_without_computing(void)
{
    var x, chain[4][3];
    fad_sweep s;
    context c = {0};
    number_leaf(&x, 0.5);
    for (int k = 0; k < 4; k++)
        for (int j = 0; j < 3; j++)
            op1(&chain[k][j], FAD_OP_sin, j ? &chain[k][j - 1] : &x);
    const fad_index ends[] = {chain[3][2].h.idx, chain[0][2].h.idx, chain[2][2].h.idx};
    fad_release(t, ends, 3);
    CHECK(intact());
    for (int k = 0; k < 4; k++)
        for (int j = 0; j < 3; j++) {
            const fad_status status = reverse_from(&chain[k][j], 1.0, NULL, KEEP, &s, &c);
            CHECK(status == (k == 1 ? FAD_OK : FAD_CONSUMED));
            if (status == FAD_OK) finish(&chain[k][j], &s, KEEP);
        }
    for (int k = 0; k < 12; k++) drop(&chain[k / 3][k % 3]);
    drop(&x);
}

/* y = exp(m) * m + cos(x), m = sin(x): a sweep to m passes the product alone. */
static void a_sweep_to_goals_passes_only_what_leads_there(void)
{
    const int64_t shape[] = {20000};
    for (int array = 0; array < 2; array++) {
        var x, m, e, p, side, y;
        fad_sweep s;
        fad_goals goals;
        context c = {0};
        if (array) drawn_leaf(&x, FAD_F64, 1, shape, -1.0, 1.0);
        else number_leaf(&x, 0.5);
        op1(&m, FAD_OP_sin, &x);
        op1(&e, FAD_OP_exp, &m);
        op2(&p, FAD_OP_multiply, &e, &m);
        op1(&side, FAD_OP_cos, &x);
        op2(&y, FAD_OP_add, &p, &side);
        const fad_index from[] = {y.h.idx}, to[] = {m.h.idx, x.h.idx}, seen = m.h.idx;
        fad_fail_allocation(1);
        CHECK(fad_goals_find(t, from, 1, to, 2, &goals) == FAD_NOMEM);
        fad_fail_allocation(-1);
        CHECK(fad_goals_find(t, from, 1, to + 1, 1, &goals) == FAD_OK);
        for (fad_index i = goals.low + 1; i <= goals.top; i++)
            CHECK(fad_goal(&goals, i) == FAD_GOAL_ON);
        fad_free(goals.at);
        CHECK(fad_goals_find(t, from, 1, to, 1, &goals) == FAD_OK);
        CHECK(fad_goal(&goals, m.h.idx) == FAD_GOAL_HERE && fad_goal(&goals, y.h.idx));
        CHECK(!fad_goal(&goals, side.h.idx) && !fad_goal(&goals, x.h.idx) && !fad_goal(&goals, 0));
        t->op[seen] |= FAD_HOOK;
        CHECK(begin(&s, &c, 0) == FAD_OK);
        s.goals = &goals;
        s.consume = 1;
        fad_array *ones = NULL;
        if (array) CHECK(fad_fill(FAD_F64, 1, shape, 1.0, &ones) == FAD_OK);
        if (array) fad_contribute_array(t, &s, y.h.idx, ones);
        else fad_contribute(t, &s, y.h.idx, 1.0);
        CHECK(fad_reverse(t, &s) == FAD_OK);
        CHECK(c.hooked == 1 && c.hooked_at[0] == seen && s.leaf_n == 0);
        t->op[seen] &= (uint16_t)~FAD_HOOK;
        fad_consume(t, &s);
        fad_sweep_end(t, &s);
        CHECK(intact());
        var *const gone[] = {&e, &p, &y}, *const there[] = {&m, &side};
        for (int k = 0; k < 3; k++) CHECK((t->op[gone[k]->h.idx] & FAD_OPCODE) == FAD_OP_FREED);
        for (int k = 0; k < 2; k++) CHECK((t->op[there[k]->h.idx] & FAD_OPCODE) != FAD_OP_FREED);
        fad_free(goals.at);
        CHECK(fad_goals_find(t, (fad_index[]){side.h.idx}, 1, (fad_index[]){x.h.idx}, 1, &goals)
              == FAD_OK);
        fad_release_goals(t, &goals);
        CHECK((t->op[side.h.idx] & FAD_OPCODE) == FAD_OP_FREED);
        CHECK((t->op[m.h.idx] & FAD_OPCODE) == FAD_OP_sin);
        fad_free(goals.at);
        CHECK(intact());
        drop(&y), drop(&p), drop(&e), drop(&side), drop(&m), drop(&x);
    }
}

static void an_exact_zero_contributes_exact_zero(void)
{
    var x, root, choice, y, zero = number_var(0.0), no = number_var(0.0);
    number_leaf(&x, 0.0);
    op1(&root, FAD_OP_sqrt, &x);
    op3(&choice, FAD_OP_where, &no, &root, &zero);
    CLOSE(gradient(&choice, KEEP, &x), 0.0, 0.0);
    op2(&y, FAD_OP_multiply, &root, &zero);
    CLOSE(gradient(&y, KEEP, &x), 0.0, 0.0);
    CHECK(isinf(gradient(&root, KEEP, &x)));
    drop(&root), drop(&choice), drop(&y), drop(&x);

    const int64_t shape[] = {200};
    var xs, roots, mask, picked, zeros;
    fad_sweep s;
    context c = {0};
    drawn_leaf(&xs, FAD_F64, 1, shape, -1.0, 0.0);
    op1(&roots, FAD_OP_sqrt, &xs);
    zeros = number_var(0.0);
    blank(&mask);
    static unsigned char bits[200];
    mask.arr = fad_array_borrow(FAD_BOOL, 1, shape, bits, bits);
    owners_left++;
    op3(&picked, FAD_OP_where, &mask, &roots, &zeros);
    fad_array *ones;
    fad_fill(FAD_F64, 1, shape, 1.0, &ones);
    CHECK(reverse_from(&picked, 0.0, ones, CONSUME, &s, &c) == FAD_OK);
    for (int k = 0; k < 200; k++) CLOSE(received(&s, &xs, k), 0.0, 0.0);
    finish(&picked, &s, CONSUME);
    drop(&roots), drop(&mask), drop(&picked), drop(&xs);
}

/* ---- every row, numbers and arrays, both modes ----------------------------------------------- */

static double value_at(const fad_row *row, const double *at)
{
    return row->arity == 1 ? fad_eval1(row->op, at[0])
         : row->arity == 2 ? fad_eval2(row->op, at[0], at[1])
         : fad_eval3(row->op, at[0], at[1], at[2]);
}

static void inside(const fad_row *row, double *at)
{
    for (int k = 0; k < row->arity; k++) {
        const double width = row->hi[k] - row->lo[k];
        at[k] = uniform(row->lo[k] + 0.05 * width, row->hi[k] - 0.05 * width);
    }
}

static int has_partial(const fad_row *row, int k)
{
    return strcmp(row->partial[k], "FAD_NAN") != 0 && row->hi[k] > row->lo[k]
        && !(row->op == FAD_OP_where && k == 0);
}

static double difference(const fad_row *row, const double *at, int k)
{
    double p[3] = {at[0], at[1], at[2]}, q[3] = {at[0], at[1], at[2]};
    const double h = 1e-6 * (1.0 + fabs(at[k])) * (fabs(at[k]) < 0.1 ? 0.01 : 1.0);
    p[k] += h;
    q[k] -= h;
    return (value_at(row, p) - value_at(row, q)) / (p[k] - q[k]);
}

static void every_row_agrees_with_differences(void)
{
    for (int r = 0; r < fad_row_count; r++) {
        const fad_row *row = &fad_rows[r];
        CHECK(fad_row_of(row->op) == row);
        for (int trial = 0; trial < 5; trial++) {
            double at[3] = {0.0, 0.0, 0.0}, bars[3];
            var in[3], y;
            inside(row, at);
            for (int k = 0; k < row->arity; k++) number_leaf(&in[k], at[k]);
            var *const all[3] = {&in[0], &in[1], &in[2]};
            record(&y, row->op, row->arity, all);
            CHECK(gradients(&y, KEEP, row->arity, all, bars) == FAD_OK);
            for (int k = 0; k < row->arity; k++) {
                if (!has_partial(row, k)) continue;
                if (!CLOSE(bars[k], difference(row, at, k), 2e-5))
                    fprintf(stderr, "  in row %s, operand %d at %g\n", row->name, k, at[k]);
                fad_sweep s;
                context c = {0};
                CHECK(begin(&s, &c, t->n) == FAD_OK);
                fad_contribute(t, &s, in[k].h.idx, 1.0);
                CHECK(fad_forward(t, &s, 0, y.h.idx) == FAD_OK);
                if (bars[k] != 0.0 || s.own[y.h.idx].bits != FAD_UNTOUCHED)
                    CLOSE(s.own[y.h.idx].f, bars[k], 0.0);
                fad_sweep_end(t, &s);
            }
            drop(&y);
            for (int k = 0; k < row->arity; k++) drop(&in[k]);
        }
    }
}

/* Array derivatives are those of numbers, element by element; sizes lie around block borders. */
static void every_row_treats_arrays_as_it_treats_numbers(void)
{
    static const int64_t sizes[] = {0, 1, 2, 63, 64, 65, 511, 512, 513, 1300};
    for (int r = 0; r < fad_row_count; r++) {
        const fad_row *row = &fad_rows[r];
        for (int z = 0; z < 10; z++) {
            const int64_t shape[] = {sizes[z]};
            const int dtype = (r + z) % 2 ? FAD_F64 : FAD_F32;
            const double tolerance = dtype == FAD_F64 ? 1e-15 : 1e-6;
            double at[3] = {0.0, 0.0, 0.0};
            var in[3], y;
            fad_array *seed = drawn(dtype, 1, shape, -1.0, 1.0);
            for (int k = 0; k < row->arity; k++) {
                fad_array *arr = fad_array_new(dtype, 1, shape);
                for (int64_t i = 0; i < arr->size; i++) {
                    inside(row, at);
                    put(arr, i, at[k]);
                }
                array_leaf(&in[k], arr);
            }
            record(&y, row->op, row->arity, (var *const[]){&in[0], &in[1], &in[2]});
            fad_sweep s;
            context c = {0};
            fad_array_share(seed);
            CHECK(reverse_from(&y, 0.0, seed, KEEP, &s, &c) == FAD_OK);
            for (int k = 0; k < row->arity; k++) {
                if (!has_partial(row, k)) continue;
                CHECK(was_reached(&s, &in[k]));
                for (int64_t i = 0; i < shape[0]; i++) {
                    double g = get(seed, i), want, v[3] = {0.0, 0.0, 0.0};
                    double result = get(y.arr, i);
                    for (int j = 0; j < row->arity; j++) v[j] = get(in[j].arr, i);
                    if (dtype == FAD_F64) CLOSE(result, value_at(row, v), 0.0);
                    fad_partials[row->op][k](&g, &v[0], &v[1], &v[2], &result, &want, 1);
                    if (!CLOSE(received(&s, &in[k], i), want, tolerance))
                        fprintf(stderr, "  in row %s, operand %d\n", row->name, k);
                }
            }
            finish(&y, &s, KEEP);
            fad_array_release(seed);
            drop(&y);
            for (int k = 0; k < row->arity; k++) drop(&in[k]);
        }
    }
}

/* ---- broadcasting, both modes ---------------------------------------------------------------- */

static double inner(const fad_array *a, const fad_array *b)
{
    double sum = 0.0;
    for (int64_t i = 0; i < a->size; i++) sum += get(a, i) * get(b, i);
    return sum;
}

/* <g, J v> from a forward sweep and <J' g, v> from a reverse sweep are one number. */
static void compare_modes(var *y, int n, var *const *xs, double tolerance)
{
    fad_sweep s;
    context c = {0}, d = {.forward = 1};
    fad_array *g = NULL, *v[8];
    double reverse = 0.0, forward = 0.0;
    const int64_t *shape = y->arr ? y->arr->shape : NULL;
    const double g_number = uniform(-1.0, 1.0);

    if (y->arr) g = drawn(y->arr->dtype, y->arr->ndim, shape, -1.0, 1.0);
    for (int k = 0; k < n; k++)
        v[k] = xs[k]->arr ? drawn(xs[k]->arr->dtype, xs[k]->arr->ndim, xs[k]->arr->shape, -1.0, 1.0)
                          : drawn(FAD_F64, 0, NULL, -1.0, 1.0);
    CHECK(reverse_from(y, g_number, g ? fad_array_share(g) : NULL, KEEP, &s, &c) == FAD_OK);
    for (int k = 0; k < n; k++)
        for (int64_t i = 0; i < v[k]->size; i++) reverse += received(&s, xs[k], i) * get(v[k], i);
    finish(y, &s, KEEP);

    CHECK(begin(&s, &d, t->n) == FAD_OK);
    for (int k = 0; k < n; k++) {
        if (xs[k]->h.idx < 0) continue;     /* y does not use it */
        if (xs[k]->arr) fad_contribute_array(t, &s, xs[k]->h.idx, fad_array_share(v[k]));
        else fad_contribute(t, &s, xs[k]->h.idx, get(v[k], 0));
    }
    CHECK(fad_forward(t, &s, 0, y->h.idx) == FAD_OK);
    const fad_slot dot = s.own[y->h.idx];
    if (dot.bits != FAD_UNTOUCHED) forward = g ? inner(g, dot.arr) : g_number * dot.f;
    fad_sweep_end(t, &s);
    CLOSE(forward, reverse, tolerance);
    CHECK(intact());
    if (g) fad_array_release(g);
    for (int k = 0; k < n; k++) fad_array_release(v[k]);
}

static void broadcast_operands_receive_sums(void)
{
    static const int64_t shapes[][4] = {{3, 1, 5}, {4, 1}, {5}, {1}, {3, 4, 5}, {1, 1, 1, 1},
                                        {2, 3, 4, 5}, {0, 5}, {1, 0, 1}, {4, 5}};
    static const int ndims[] = {3, 2, 1, 1, 3, 4, 4, 2, 3, 2};
    static const int ops[] = {FAD_OP_add, FAD_OP_subtract, FAD_OP_multiply, FAD_OP_divide,
                              FAD_OP_maximum, FAD_OP_hypot};
    for (int a = 0; a < 10; a++) {
        for (int b = 0; b < 10; b++) {
            for (int which = 0; which < 6; which++) {
                const int dtype = which % 2 ? FAD_F64 : FAD_F32;
                var x, z, y;
                drawn_leaf(&x, dtype, ndims[a], shapes[a], 0.5, 2.0);
                drawn_leaf(&z, dtype, ndims[b], shapes[b], 0.5, 2.0);
                const fad_status status = op2(&y, ops[which], &x, &z);
                if (status == FAD_OK) {
                    compare_modes(&y, 2, (var *const[]){&x, &z}, dtype == FAD_F64 ? 1e-12 : 2e-4);
                    drop(&y);
                } else {
                    CHECK(status == FAD_SHAPE);
                }
                drop(&x), drop(&z);
            }
        }
    }
    /* numbers with arrays, and the same operand twice */
    const int64_t shape[] = {7, 100};
    var x, n, y, z, w;
    drawn_leaf(&x, FAD_F64, 2, shape, 0.5, 2.0);
    number_leaf(&n, 1.5);
    op2(&y, FAD_OP_divide, &n, &x);
    compare_modes(&y, 2, (var *const[]){&n, &x}, 1e-12);
    op2(&z, FAD_OP_multiply, &y, &y);
    op2(&w, FAD_OP_subtract, &z, &z);
    compare_modes(&z, 2, (var *const[]){&n, &x}, 1e-12);
    compare_modes(&w, 2, (var *const[]){&n, &x}, 1e-12);
    drop(&x), drop(&n), drop(&y), drop(&z), drop(&w);
}

static void shapes_that_do_not_broadcast_are_refused(void)
{
    const int64_t three[] = {3}, four[] = {4}, wide[] = {3, 4};
    fad_array *a = drawn(FAD_F64, 1, three, 0, 1), *b = drawn(FAD_F64, 1, four, 0, 1), *out = NULL;
    fad_array *m = drawn(FAD_F64, 2, wide, 0, 1);
    const fad_operand in[2] = {{a, 0.0}, {b, 0.0}};
    CHECK(fad_elementwise(FAD_OP_add, FAD_F64, in, &out) == FAD_SHAPE);
    CHECK(fad_matmul2(a, 0, b, 0, 0, &out) == FAD_SHAPE);
    CHECK(fad_matmul2(m, 0, a, 0, 0, &out) == FAD_SHAPE);
    CHECK(fad_broadcast_to(a, 1, four, &out) == FAD_SHAPE);
    CHECK(fad_broadcast_to(m, 1, four, &out) == FAD_SHAPE);
    CHECK(fad_sum_to(a, 1, four, &out) == FAD_SHAPE);
    CHECK(fad_sum_to(a, 2, wide, &out) == FAD_SHAPE);
    const int64_t huge[] = {INT64_MAX / 2, 3};
    CHECK(fad_array_new(FAD_F64, 2, huge) == NULL);
    fad_array_release(a), fad_array_release(b), fad_array_release(m);
}

/* ---- arrays: sums, copies, products ---------------------------------------------------------- */

static double summed_in_pairs(const double *x, int64_t n)
{
    double r[8], sum = -0.0;
    if (n > 128) {
        const int64_t half = n / 2 / 8 * 8;
        return summed_in_pairs(x, half) + summed_in_pairs(x + half, n - half);
    }
    if (n >= 8) {
        for (int k = 0; k < 8; k++) r[k] = x[k];
        for (int64_t i = 8; i + 8 <= n; i += 8)
            for (int k = 0; k < 8; k++) r[k] += x[i + k];
        sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    }
    for (int64_t i = n >= 8 ? n / 8 * 8 : 0; i < n; i++) sum += x[i];
    return sum;
}

static void a_sum_that_is_fed_in_pieces_has_the_bits_of_the_whole(void)
{
    const int64_t most = 20000;
    double *x = malloc((size_t)most * sizeof *x);
    for (int64_t i = 0; i < most; i++) x[i] = ldexp(uniform(-1.0, 1.0), below(40) - 20);
    for (int64_t n = 0; n < most; n += n < 3000 ? 1 : 97) {
        const double want = summed_in_pairs(x, n), whole = fad_pairwise_f64(x, n);
        CHECK(!memcmp(&want, &whole, sizeof want));
        for (int64_t piece = 8; piece < 3000; piece = piece * 3 / 8 * 8 + 8) {
            fad_sum_stream s;
            fad_sum_begin(&s, n);
            for (int64_t at = 0; at < n; at += piece)
                fad_sum_feed(&s, x + at, n - at < piece ? n - at : piece);
            CHECK(!memcmp(&want, &s.sum, sizeof want));
        }
    }
    free(x);
}

static void slices_and_sums_over_axes_are_those_of_the_definition(void)
{
    const int64_t shape[] = {3, 4, 5}, part[] = {3, 2, 3}, place[] = {59 - 20 * 2 - 5, 20, -10, -2};
    const int middle[] = {0, 1, 0}, outer[] = {1, 0, 1};
    const int64_t kept[] = {3, 5};
    for (int dtype = FAD_F64; dtype <= FAD_F32; dtype++) {
        fad_array *x = drawn(dtype, 3, shape, -1.0, 1.0), *y = fad_array_new(dtype, 3, part);
        fad_array *back = fad_array_new(dtype, 3, shape), *sum = fad_array_new(dtype, 2, kept);
        fad_array *four = fad_array_new(dtype, 1, shape + 1);
        int64_t hits = 0;
        fad_slice_into(x, place, y);
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 2; j++)
                for (int k = 0; k < 3; k++)
                    CHECK(get(y, 6 * i + 3 * j + k) == get(x, 20 * i + 5 * (2 - 2 * j) + 4 - 2 * k));
        fad_scatter_into(y, place, back);
        for (int64_t i = 0; i < 60; i++) {
            hits += get(back, i) != 0.0;
            CHECK(get(back, i) == 0.0 || get(back, i) == get(x, i));
        }
        CHECK(hits == 18);
        fad_sum_axes_into(x, middle, sum);
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < 5; k++) {
                double s = 0.0;
                for (int j = 0; j < 4; j++) {
                    s += get(x, 20 * i + 5 * j + k);
                    if (dtype == FAD_F32) s = (float)s;
                }
                CHECK(get(sum, 5 * i + k) == s);
            }
        fad_sum_axes_into(x, outer, four);
        for (int j = 0; j < 4; j++) {
            double s = 0.0;
            for (int i = 0; i < 3; i++)
                for (int k = 0; k < 5; k++) s += get(x, 20 * i + 5 * j + k);
            CLOSE(get(four, j), s, dtype == FAD_F64 ? 1e-14 : 1e-6);
        }
        fad_array_release(x), fad_array_release(y), fad_array_release(back);
        fad_array_release(sum), fad_array_release(four);
    }
}

static void sums_and_copies_are_those_of_the_definition(void)
{
    const int64_t shape[] = {3, 4, 5}, row[] = {4, 1}, last[] = {5};
    for (int dtype = FAD_F64; dtype <= FAD_F32; dtype++) {
        fad_array *x = drawn(dtype, 3, shape, -1.0, 1.0), *out, *back;
        const double tolerance = dtype == FAD_F64 ? 1e-14 : 1e-6;
        double total, sum;
        fad_sum_all(x, &total);
        sum = 0.0;
        for (int64_t i = 0; i < 60; i++) sum += get(x, i);
        CLOSE(total, sum, tolerance);

        CHECK(fad_sum_to(x, 2, row, &out) == FAD_OK);
        for (int j = 0; j < 4; j++) {
            sum = 0.0;
            for (int i = 0; i < 3; i++)
                for (int k = 0; k < 5; k++) sum += get(x, 20 * i + 5 * j + k);
            CLOSE(get(out, j), sum, tolerance);
        }
        CHECK(fad_broadcast_to(out, 3, shape, &back) == FAD_OK);
        for (int64_t i = 0; i < 60; i++) CHECK(get(back, i) == get(out, i / 5 % 4));
        fad_array_release(out), fad_array_release(back);

        CHECK(fad_sum_to(x, 1, last, &out) == FAD_OK);
        for (int k = 0; k < 5; k++) {
            sum = 0.0;
            for (int i = 0; i < 12; i++) sum += get(x, 5 * i + k);
            CLOSE(get(out, k), sum, tolerance);
        }
        fad_array_release(out);

        const int axes[] = {2, 0, 1};
        CHECK(fad_transpose(x, axes, &out) == FAD_OK);
        CHECK(out->shape[0] == 5 && out->shape[1] == 3 && out->shape[2] == 4);
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 4; j++)
                for (int k = 0; k < 5; k++)
                    CHECK(get(out, 12 * k + 4 * i + j) == get(x, 20 * i + 5 * j + k));
        fad_array_release(out);

        out = fad_array_cast(x, FAD_F32);
        back = fad_array_cast(out, FAD_F64);
        for (int64_t i = 0; i < 60; i++) CHECK(get(back, i) == (float)get(x, i));
        fad_array_release(out), fad_array_release(back), fad_array_release(x);
    }
    const int64_t nothing[] = {3, 0}, one[] = {1};
    fad_array *empty = fad_array_new(FAD_F64, 2, nothing), *out;
    double total = 1.0;
    fad_sum_all(empty, &total);
    CHECK(total == 0.0);
    CHECK(fad_sum_to(empty, 1, one, &out) == FAD_OK && get(out, 0) == 0.0);
    fad_array_release(empty), fad_array_release(out);
}

static void products_are_those_of_the_definition(void)
{
    for (int trial = 0; trial < 200; trial++) {
        const int dtype = trial % 2, ta = below(2), tb = below(2), va = below(4) == 0;
        const int vb = below(4) == 0, big = trial % 10 == 0;
        const int64_t m = below(5) + (big ? 20 : 0), n = below(5) + (big ? 20 : 0);
        const int64_t p = below(5) + (big ? 20 : 0);
        const int64_t sa[2] = {va || ta ? n : m, ta ? m : n};
        const int64_t sb[2] = {tb && !vb ? p : n, tb ? n : p};
        fad_array *a = drawn(dtype, va ? 1 : 2, sa, -1.0, 1.0);
        fad_array *b = drawn(dtype, vb ? 1 : 2, sb, -1.0, 1.0), *out;
        CHECK(fad_matmul2(a, ta, b, tb, 0, &out) == FAD_OK);
        CHECK(out->ndim == 2 - va - vb);
        for (int64_t i = 0; i < (va ? 1 : m); i++) {
            for (int64_t j = 0; j < (vb ? 1 : p); j++) {
                double sum = 0.0;
                for (int64_t k = 0; k < n; k++)
                    sum += get(a, va ? k : ta ? k * m + i : i * n + k)
                         * get(b, vb ? k : tb ? j * n + k : k * p + j);
                CLOSE(get(out, i * (vb ? 1 : p) + j), sum, dtype == FAD_F64 ? 1e-14 : 1e-5);
            }
        }
        fad_array_release(a), fad_array_release(b), fad_array_release(out);
    }
}

static int loop_calls;

static void counted_multiply(char **args, const intptr_t *dims, const intptr_t *steps, void *data)
{
    (void)data;
    loop_calls++;
    for (intptr_t i = 0; i < dims[0]; i++) {
        const double a = *(double *)(args[0] + i * steps[0]);
        *(double *)(args[2] + i * steps[2]) = a * *(double *)(args[1] + i * steps[1]);
    }
}

static void a_loop_that_was_handed_over_is_used(void)
{
    const int64_t shape[] = {2, 3}, row[] = {3};
    fad_array *a = drawn(FAD_F64, 2, shape, -1, 1), *b = drawn(FAD_F64, 1, row, -1, 1), *out;
    const fad_operand in[2] = {{a, 0.0}, {b, 0.0}}, scaled[2] = {{a, 0.0}, {NULL, 3.0}};
    CHECK(!fad_has_loop(FAD_OP_multiply, FAD_F64));
    fad_set_loop(FAD_OP_multiply, FAD_F64, counted_multiply, NULL);
    CHECK(fad_elementwise(FAD_OP_multiply, FAD_F64, in, &out) == FAD_OK);
    CHECK(loop_calls == 2);             /* one per row */
    for (int i = 0; i < 6; i++) CHECK(get(out, i) == get(a, i) * get(b, i % 3));
    fad_array_release(out);
    CHECK(fad_elementwise(FAD_OP_multiply, FAD_F64, scaled, &out) == FAD_OK);
    CHECK(loop_calls == 3);
    for (int i = 0; i < 6; i++) CHECK(get(out, i) == get(a, i) * 3.0);
    fad_array_release(out);
    fad_set_loop(FAD_OP_multiply, FAD_F64, NULL, NULL);
    fad_array_release(a), fad_array_release(b);
}

static void plain_product(char **args, const intptr_t *dims, const intptr_t *steps, void *data)
{
    (void)data;
    loop_calls++;
    for (intptr_t i = 0; i < dims[1]; i++)
        for (intptr_t j = 0; j < dims[3]; j++) {
            double sum = 0.0;
            for (intptr_t k = 0; k < dims[2]; k++)
                sum += *(double *)(args[0] + i * steps[3] + k * steps[4])
                     * *(double *)(args[1] + k * steps[5] + j * steps[6]);
            *(double *)(args[2] + i * steps[7] + j * steps[8]) = sum;
        }
}

static void a_product_loop_serves_what_is_large_or_must_be_exact(void)
{
    const int64_t shape[] = {10, 10}, small[] = {2, 2};
    fad_array *a = drawn(FAD_F64, 2, shape, -1, 1), *b = drawn(FAD_F64, 2, small, -1, 1);
    fad_array *with, *without;
    fad_set_matmul(FAD_F64, plain_product, NULL);
    loop_calls = 0;
    CHECK(fad_matmul2(b, 0, b, 1, 0, &with) == FAD_OK && loop_calls == 0);
    fad_array_release(with);
    CHECK(fad_matmul2(b, 0, b, 1, 1, &with) == FAD_OK && loop_calls == 1);
    fad_array_release(with);
    CHECK(fad_matmul2(a, 1, a, 0, 0, &with) == FAD_OK && loop_calls == 2);
    fad_set_matmul(FAD_F64, NULL, NULL);
    CHECK(fad_matmul2(a, 1, a, 0, 0, &without) == FAD_OK && loop_calls == 2);
    for (int i = 0; i < 100; i++) CLOSE(get(with, i), get(without, i), 1e-14);
    fad_array_release(with), fad_array_release(without);
    fad_array_release(a), fad_array_release(b);
}

static void freed_large_blocks_are_reused_and_can_be_given_back(void)
{
    const int64_t shape[] = {5000};
    fad_array *arr = fad_array_new(FAD_F64, 1, shape);
    void *block = arr->data;
    CHECK(arr->large && fad_large_bytes == 40960);
    fad_array_release(arr);
    CHECK(fad_large_bytes == 0 && fad_pool_bytes() == 40960);
    arr = fad_array_new(FAD_F64, 1, shape);
    CHECK(arr->data == block && fad_pool_bytes() == 0);
    fad_array_release(arr);
    for (int64_t k = 1; k < 200; k++) {     /* more sizes than the pool has places for */
        const int64_t other[] = {512 * k};
        fad_array_release(fad_array_new(FAD_F64, 1, other));
    }
    CHECK(fad_pool_bytes() > 0);
}

/* ---- leaves, hooks, keepers ------------------------------------------------------------------ */

static void leaf_slots_are_reused_only_when_nothing_refers_to_them(void)
{
    var x, z, y;
    number_leaf(&x, 2.0);
    const int32_t slot = x.h.slot;
    op2(&y, FAD_OP_multiply, &x, &x);
    drop(&x);                               /* its node lives on */
    number_leaf(&z, 5.0);
    CHECK(z.h.slot != slot);
    fad_sweep s;
    context c = {0};
    CHECK(reverse_from(&y, 1.0, NULL, CONSUME, &s, &c) == FAD_OK);
    CHECK(s.leaf_n == 1 && s.leaves[0].slot == slot && t->leaf[slot].handle == NULL);
    finish(&y, &s, CONSUME);
    drop(&y);
    CHECK(t->n == 0);
    number_leaf(&x, 1.0);
    CHECK(x.h.slot == slot);
    drop(&x), drop(&z);

    var many[300];
    for (int k = 0; k < 300; k++) number_leaf(&many[k], k);
    for (int k = 0; k < 300; k += 2) drop(&many[k]);
    for (int k = 0; k < 300; k += 2) number_leaf(&many[k], -k);
    CHECK(t->leaf_n == 300);
    for (int k = 0; k < 300; k++) {
        op1(&y, FAD_OP_square, &many[k]);
        CLOSE(gradient(&y, CONSUME, &many[k]), 2.0 * many[k].number, 0.0);
        drop(&y);
    }
    for (int k = 0; k < 300; k++) drop(&many[k]);
}

static void a_leaf_that_was_given_a_new_value_is_a_new_node(void)
{
    var x, y, z, w;
    double out;
    number_leaf(&x, 2.0);
    op1(&y, FAD_OP_square, &x);
    x.number = 3.0;
    x.h.idx = FAD_NO_NODE;
    op1(&z, FAD_OP_square, &x);
    op2(&w, FAD_OP_add, &y, &z);
    CLOSE(w.number, 13.0, 0.0);
    CHECK(gradients(&w, CONSUME, 1, (var *const[]){&x}, &out) == FAD_OK);
    CLOSE(out, 10.0, 0.0);                  /* both nodes report to one slot */
    drop(&y), drop(&z), drop(&w), drop(&x);

    const int64_t shape[] = {3};
    for (int dtype = FAD_F64; dtype <= FAD_F32; dtype++) {
        fad_sweep s;
        context c = {0};
        fad_array *ones;
        drawn_leaf(&x, dtype, 1, shape, 1.0, 2.0);
        op2(&y, FAD_OP_multiply, &x, &x);
        x.h.idx = FAD_NO_NODE;
        op2(&z, FAD_OP_add, &x, &x);
        op2(&w, FAD_OP_add, &y, &z);
        fad_fill(dtype, 1, shape, 1.0, &ones);
        CHECK(reverse_from(&w, 0.0, ones, CONSUME, &s, &c) == FAD_OK);
        CHECK(s.leaf_n == 1);
        CLOSE(received(&s, &x, 2), 2.0 * get(x.arr, 2) + 2.0, 1e-7);
        finish(&w, &s, CONSUME);
        drop(&y), drop(&z), drop(&w), drop(&x);
    }
}

static fad_status hook(var *y)
{
    fad_call *keeper = fad_call_new(0);
    if (!keeper) return FAD_NOMEM;
    const fad_status status = fad_hook_set(t, y->h.idx, keeper);
    if (status) fad_free(keeper);
    return status;
}

static void hooks_see_and_change_adjoints_and_follow_their_node(void)
{
    enum { N = 40 };
    var x, y[N], garbage[N];
    number_leaf(&x, 1.0);
    for (int k = 0; k < N; k++) {
        op1(&garbage[k], FAD_OP_sin, &x);
        op1(&y[k], FAD_OP_positive, k ? &y[k - 1] : &x);
    }
    /* neither in order nor all */
    for (int k = 0; k < N; k += 2) CHECK(hook(&y[k * 7 % N]) == FAD_OK);
    const int hooks = t->hook_n;
    CHECK(hook(&garbage[3]) == FAD_OK && intact());
    for (int k = 0; k < N; k++) drop(&garbage[k]);
    calls_freed = 0;
    fad_compact(t);
    drain();
    CHECK(calls_freed == 1 && t->hook_n == hooks && intact());

    fad_sweep s;
    context c = {.hook_factor = 2.0};
    CHECK(reverse_from(&y[N - 1], 1.0, NULL, KEEP, &s, &c) == FAD_OK);
    CHECK(c.hooked == hooks);
    for (int k = 1; k < 8; k++) CHECK(c.hooked_at[k] < c.hooked_at[k - 1]);
    CLOSE(received(&s, &x, 0), ldexp(1.0, hooks), 0.0);
    finish(&y[N - 1], &s, KEEP);

    calls_freed = 0;
    for (int k = N - 1; k >= 0; k--) drop(&y[k]);
    CHECK(calls_freed == hooks && t->hook_n == 0);
    drop(&x);

    const int64_t shape[] = {600};
    var xs, ys;
    fad_array *ones;
    drawn_leaf(&xs, FAD_F64, 1, shape, 1.0, 2.0);
    op2(&ys, FAD_OP_add, &xs, &xs);
    CHECK(hook(&ys) == FAD_OK);
    fad_fill(FAD_F64, 1, shape, 1.0, &ones);
    c = (context){.hook_factor = 5.0};
    CHECK(reverse_from(&ys, 0.0, ones, CONSUME, &s, &c) == FAD_OK);
    CLOSE(received(&s, &xs, 599), 10.0, 0.0);
    finish(&ys, &s, CONSUME);
    drop(&ys), drop(&xs);
    CHECK(t->hook_n == 0);
}

static void hooks_of_a_consumed_node_are_not_called(void)
{
    var x, y, z;
    fad_sweep s;
    context c = {0};
    number_leaf(&x, 1.0);
    op1(&y, FAD_OP_exp, &x);
    CHECK(hook(&y) == FAD_OK);
    CHECK(reverse_from(&y, 1.0, NULL, CONSUME, &s, &c) == FAD_OK);
    fad_consume(t, &s);
    fad_sweep_end(t, &s);
    drain();
    op1(&z, FAD_OP_sin, &y);
    c = (context){0};
    CHECK(reverse_from(&z, 1.0, NULL, KEEP, &s, &c) == FAD_CONSUMED);
    CHECK(c.hooked == 0);
    drop(&z), drop(&y), drop(&x);
}

static void foreign_keepers_are_handed_back(void)
{
    const int64_t shape[] = {4};
    double data[4] = {1.0, 2.0, 3.0, 4.0};
    var x, y, z;
    double total;
    array_leaf(&x, fad_array_borrow(FAD_F64, 1, shape, data, data));
    owners_left = 1;
    op2(&y, FAD_OP_multiply, &x, &x);
    CHECK(record_call(&z, &TOTAL_RULE, &y) == FAD_OK);
    fad_sweep s;
    context c = {0};
    CHECK(reverse_from(&z, 1.0, NULL, CONSUME, &s, &c) == FAD_OK);
    total = 0.0;
    for (int k = 0; k < 4; k++) total += received(&s, &x, k);
    CLOSE(total, 20.0, 0.0);
    finish(&z, &s, CONSUME);
    CHECK(owners_left == 1);
    drop(&y), drop(&z), drop(&x);
    CHECK(owners_left == 0);
    for (int k = 0; k < 4; k++) CHECK(data[k] == k + 1.0);      /* never written to */
}

static void a_dropped_big_value_that_nobody_reads_is_let_go(void)
{
    const int64_t shape[] = {10000};
    var x, y, z;
    fad_array *ones;
    fad_sweep s;
    context c = {0};
    drawn_leaf(&x, FAD_F64, 1, shape, 1.0, 2.0);
    op1(&y, FAD_OP_negative, &x);
    op1(&z, FAD_OP_negative, &y);
    const int64_t before = t->bytes;
    drop(&y);
    CHECK(t->bytes == before - 80000 && intact());
    fad_fill(FAD_F64, 1, shape, 1.0, &ones);
    CHECK(reverse_from(&z, 0.0, ones, KEEP, &s, &c) == FAD_OK);
    CLOSE(received(&s, &x, 9999), 1.0, 0.0);
    finish(&z, &s, KEEP);
    compare_modes(&z, 1, (var *const[]){&x}, 1e-12);
    drop(&z), drop(&x);
}

/* ---- reclamation ----------------------------------------------------------------------------- */

static void compaction_keeps_what_live_handles_reach(void)
{
    enum { N = 50 };
    var x, a, keep[N], garbage[N];
    const int64_t shape[] = {3};
    number_leaf(&x, 0.3);
    drawn_leaf(&a, FAD_F64, 1, shape, 0.5, 2.0);
    for (int k = 0; k < N; k++) {
        var seven = number_var(k);
        op2(&garbage[k], k % 2 ? FAD_OP_add : FAD_OP_multiply, k % 3 ? &x : &a, &seven);
        if (k % 5 == 0) op3(&keep[k], FAD_OP_where, &x, k ? &keep[k - 1] : &x, &seven);
        else if (k % 5 == 1) record_call(&keep[k], &SQUARE_RULE, &keep[k - 1]);
        else if (k % 5 == 2) op2(&keep[k], FAD_OP_divide, &seven, &keep[k - 1]);
        else op1(&keep[k], FAD_OP_sin, &keep[k - 1]);
    }
    const double before = gradient(&keep[N - 1], KEEP, &x);
    CHECK(before != 0.0);
    for (int k = 0; k < N; k++) {
        drop(&garbage[k]);
        if (k != N - 1 && k % 7) drop(&keep[k]);
    }
    const fad_index n = t->n;
    fad_compact(t);
    drain();
    CHECK(t->n < n && intact());
    for (int k = 0; k < N; k++)
        if (k == N - 1 || k % 7 == 0) CHECK(t->value[keep[k].h.idx].f == keep[k].number);
    CLOSE(gradient(&keep[N - 1], KEEP, &x), before, 0.0);
    fad_trim(t);
    drain();
    const uint64_t once = fingerprint();
    fad_compact(t);
    CHECK(fingerprint() == once);
    for (int k = 0; k < N; k++)
        if (k == N - 1 || k % 7 == 0) drop(&keep[k]);
    fad_trim(t);
    fad_compact(t);
    drain();
    CHECK(t->n == 0);
    drop(&x), drop(&a);
}

static void graphs_built_and_dropped_for_ever_need_no_more_room(void)
{
    var x, kept, a, b, y;
    number_leaf(&x, 0.5);
    op1(&kept, FAD_OP_cos, &x);             /* so the tape is never empty */
    for (int round = 0; round < 20000; round++) {
        op1(&a, FAD_OP_sin, &x);
        op2(&b, FAD_OP_multiply, &a, &kept);
        op2(&y, FAD_OP_add, &b, &x);
        if (round % 3 == 0) {
            fad_sweep s;
            context c = {0};
            CHECK(reverse_from(&y, 1.0, NULL, KEEP, &s, &c) == FAD_OK);
            finish(&y, &s, KEEP);
        }
        if (round % 2) drop(&y), drop(&b), drop(&a);
        else drop(&a), drop(&b), drop(&y);      /* holes below live nodes */
    }
    CHECK(t->cap == 4096);
    drop(&kept), drop(&x);
}

static void clearing_a_tape_tells_the_handles(void)
{
    var x, y;
    fad_sweep s;
    context c = {0};
    number_leaf(&x, 1.0);
    op1(&y, FAD_OP_exp, &x);
    fad_tape_clear(t);
    CHECK(y.h.idx == FAD_USED_UP && t->n == 0);
    y.h.slot = -1;
    CHECK(reverse_from(&y, 1.0, NULL, KEEP, &s, &c) == FAD_CONSUMED);
    blank(&x), blank(&y);
    fad_trim(t);
}

/* ---- long chains, interrupts, limits --------------------------------------------------------- */

static void a_chain_of_two_million_nodes_is_ordinary(void)
{
    enum { N = 2000000 };
    var x, y, z, half = number_var(0.5);
    number_leaf(&x, 1.0);
    op2(&y, FAD_OP_multiply, &x, &half);
    for (int k = 1; k < N; k++) {
        op2(&z, k % 2 ? FAD_OP_divide : FAD_OP_multiply, &y, &half);
        /* the handle moves on, as in y = y * 0.5 */
        if (y.h.idx == t->n - 1) fad_handle_drop(t, &y.h);
        else fad_unlink(t, &y.h);
        fad_unlink(t, &z.h);
        y = z;
        fad_link(t, &y.h, z.h.idx);
    }
    CHECK(t->n >= N);
    fad_sweep s;
    context c = {0};
    CHECK(reverse_from(&y, 1.0, NULL, KEEP, &s, &c) == FAD_OK);
    CLOSE(received(&s, &x, 0), 1.0, 0.0);
    CHECK(c.ticks >= 6);
    finish(&y, &s, KEEP);

    /* an interrupt in the middle leaves the tape as it was, in both modes */
    const uint64_t before = fingerprint();
    for (int stop = 1; stop < 8; stop += 3) {
        c = (context){.stop_at_tick = stop};
        CHECK(reverse_from(&y, 1.0, NULL, CONSUME, &s, &c) == FAD_CALLBACK);
        CHECK(c.ticks == stop && fingerprint() == before && t->sweeping == 0);
        for (fad_index i = 0; i < t->n; i++)
            if (t->bar[i].bits != FAD_UNTOUCHED) {
                CHECK(!"an adjoint was left behind");
                break;
            }
        c = (context){.stop_at_tick = stop, .forward = 1};
        CHECK(begin(&s, &c, t->n) == FAD_OK);
        fad_contribute(t, &s, x.h.idx, 1.0);
        CHECK(fad_forward(t, &s, 0, y.h.idx) == FAD_CALLBACK);
        fad_sweep_end(t, &s);
        CHECK(fingerprint() == before && t->sweeping == 0);
    }
    CLOSE(gradient(&y, CONSUME, &x), 1.0, 0.0);
    drop(&y), drop(&x);
    CHECK(t->n == 0);
}

static void a_full_index_space_is_an_error_that_can_be_mended(void)
{
    enum { MAX = 500 };
    var x, y[MAX];
    int n = 0;
    fad_status status;
    t->max = MAX;
    number_leaf(&x, 1.0);
    while ((status = op1(&y[n], FAD_OP_sin, &x)) == FAD_OK) n++;
    CHECK(status == FAD_FULL && n >= MAX - 4 && t->n <= MAX && intact());
    const uint64_t before = fingerprint();
    CHECK(op1(&y[n], FAD_OP_sin, &x) == FAD_FULL);
    CHECK(fingerprint() == before);
    CLOSE(gradient(&y[n - 1], KEEP, &x), cos(1.0), 1e-15);
    for (int k = 0; k < n; k += 2) drop(&y[k]);
    for (int k = 0; k < n; k += 2) CHECK(op1(&y[k], FAD_OP_cos, &x) == FAD_OK);
    CHECK(intact());
    for (int k = 0; k < n; k++)
        CLOSE(gradient(&y[k], KEEP, &x), k % 2 ? cos(1.0) : -sin(1.0), 1e-15);
    for (int k = 0; k < n; k++) drop(&y[k]);
    drop(&x);
}

/* ---- sweeps within sweeps -------------------------------------------------------------------- */

static void a_callback_may_record_and_sweep(void)
{
    enum { N = 5000 };                      /* the tape grows, and moves, below the outer sweep */
    var x, y, z;
    number_leaf(&x, 1.0000001);
    var *last = &x;
    static var chain[N];
    for (int k = 0; k < N; k++) {
        record_call(&chain[k], &SQUARE_RULE, last);
        last = &chain[k];
        if (chain[k].number > 2.0) chain[k].number = t->value[chain[k].h.idx].f = 1.0000001;
    }
    op1(&y, FAD_OP_exp, last);
    op2(&z, FAD_OP_add, &y, last);
    const fad_index n = t->n;
    double want = exp(last->number) + 1.0;
    for (int k = N - 1; k >= 0; k--) want *= 2.0 * (k ? chain[k - 1].number : x.number);
    CLOSE(gradient(&z, KEEP, &x), want, 1e-9);
    fad_trim(t);
    drain();
    CHECK(t->n <= n && intact());
    for (int k = 0; k < N; k++) drop(&chain[k]);
    drop(&y), drop(&z), drop(&x);
}

static void a_callback_that_fails_leaves_the_tape_as_it_was(void)
{
    const int64_t shape[] = {300};
    var x, a, b, refuses, y, total;
    fad_sweep s;
    context c = {0};
    drawn_leaf(&x, FAD_F64, 1, shape, 0.5, 2.0);
    op1(&a, FAD_OP_log, &x);
    record_call(&total, &TOTAL_RULE, &a);
    record_call(&refuses, &REFUSING_RULE, &total);
    record_call(&b, &TOTAL_RULE, &x);
    op2(&y, FAD_OP_multiply, &refuses, &b);
    const uint64_t before = fingerprint();
    CHECK(reverse_from(&y, 1.0, NULL, CONSUME, &s, &c) == FAD_CALLBACK);
    CHECK(fingerprint() == before && intact());
    CHECK(reverse_from(&b, 1.0, NULL, KEEP, &s, &c) == FAD_OK);
    CLOSE(received(&s, &x, 7), 1.0, 0.0);
    finish(&b, &s, KEEP);
    drop(&a), drop(&b), drop(&refuses), drop(&y), drop(&total), drop(&x);
}

static var *inner_output;

static void consume_inside(void)
{
    fad_sweep s;
    context c = {0};
    if (!inner_output) return;
    var *y = inner_output;
    inner_output = NULL;
    if (reverse_from(y, 1.0, NULL, CONSUME, &s, &c) == FAD_OK) finish(y, &s, CONSUME);
}

/* A hook sweeps and consumes nodes that the outer sweep has not come to yet, though it has already
 * left adjoints there. */
static void a_nested_sweep_may_consume_what_the_outer_one_needs(void)
{
    const int64_t shape[] = {400};
    var x, u, v, hooked, y, side, one;
    fad_sweep s;
    context c = {.in_hook = consume_inside};
    drawn_leaf(&x, FAD_F64, 1, shape, 0.5, 2.0);
    op1(&u, FAD_OP_exp, &x);
    record_call(&side, &TOTAL_RULE, &u);
    op1(&v, FAD_OP_sin, &u);
    record_call(&hooked, &TOTAL_RULE, &v);
    CHECK(hook(&hooked) == FAD_OK);
    record_call(&one, &TOTAL_RULE, &u);     /* above the hook: u has its adjoint by then */
    op2(&y, FAD_OP_add, &hooked, &one);
    inner_output = &side;
    const fad_status status = reverse_from(&y, 1.0, NULL, CONSUME, &s, &c);
    CHECK(status == FAD_CONSUMED || status == FAD_OK);
    if (status == FAD_OK) finish(&y, &s, CONSUME);
    CHECK(intact());
    drop(&u), drop(&v), drop(&hooked), drop(&y), drop(&side), drop(&one), drop(&x);
    CHECK(fad_large_bytes == 0);
}

static var *inner_leaves[2];

static void sweep_two_leaves(void)
{
    var y;
    double out[2];
    CHECK(op2(&y, FAD_OP_multiply, inner_leaves[0], inner_leaves[1]) == FAD_OK);
    CHECK(gradients(&y, KEEP, 2, inner_leaves, out) == FAD_OK);
    drop(&y);
}

/* The nodes that one leaf has had report once, as one sum, whatever happens in between. */
static void a_leaf_reports_once_although_a_nested_sweep_meets_it_too(void)
{
    var x, z, first, second, middle, y;
    fad_sweep s;
    context c = {.in_hook = sweep_two_leaves};
    int entries = 0;
    number_leaf(&x, 2.0);
    number_leaf(&z, 3.0);
    op1(&first, FAD_OP_square, &x);
    op1(&middle, FAD_OP_positive, &first);
    CHECK(hook(&middle) == FAD_OK);
    x.h.idx = FAD_NO_NODE;
    op1(&second, FAD_OP_square, &x);
    op2(&y, FAD_OP_add, &middle, &second);
    inner_leaves[0] = &z;
    inner_leaves[1] = &x;
    CHECK(reverse_from(&y, 1.0, NULL, KEEP, &s, &c) == FAD_OK);
    for (int32_t k = 0; k < s.leaf_n; k++) entries += s.leaves[k].slot == x.h.slot;
    CHECK(entries == 1);
    CLOSE(received(&s, &x, 0), 8.0, 0.0);
    finish(&y, &s, KEEP);
    drop(&first), drop(&second), drop(&middle), drop(&y), drop(&x), drop(&z);
}

/* ---- random graphs --------------------------------------------------------------------------- */

enum { POOL = 24 };

/* Shapes that all broadcast with each other; -1 is a number. */
static const int64_t some_shapes[][3] = {{1}, {150}, {4, 1}, {4, 150}, {2, 1, 150}, {2, 4, 150}};
static const int some_ndims[] = {1, 1, 2, 2, 3, 3};

static fad_status random_leaf(var *x)
{
    const int k = below(7);
    if (k == 6) return number_leaf(x, uniform(0.5, 1.5));
    return drawn_leaf(x, FAD_F64, some_ndims[k], some_shapes[k], 0.5, 1.5);
}

/* Operations that keep values near 1, so that no derivative runs away. */
static fad_status random_row(var *y, var *a, var *b, var *c)
{
    static const int unary[] = {FAD_OP_sin, FAD_OP_cos, FAD_OP_tanh, FAD_OP_sigmoid, FAD_OP_arctan,
                                FAD_OP_negative, FAD_OP_softplus, FAD_OP_positive};
    static const int binary[] = {FAD_OP_add, FAD_OP_subtract, FAD_OP_maximum, FAD_OP_hypot,
                                 FAD_OP_logaddexp, FAD_OP_minimum};
    static const int arities[] = {1, 1, 1, 2, 2, 2, 3};
    const int arity = arities[below(7)];
    if (arity == 1) return op1(y, unary[below(8)], a);
    if (arity == 2) return op2(y, binary[below(6)], a, b);
    return op3(y, FAD_OP_clip, a, b, c);
}

static fad_status random_node(var *y, var *a, var *b, var *c)
{
    if (below(6)) return random_row(y, a, b, c);
    return record_call(y, a->arr ? &TOTAL_RULE : &SQUARE_RULE, a);
}

static void random_graphs_agree_in_both_modes_through_any_reclamation(void)
{
    for (int graph = 0; graph < 60; graph++) {
        var x[4], pool[POOL], *all[4] = {&x[0], &x[1], &x[2], &x[3]};
        int used = 0;
        for (int k = 0; k < 4; k++) random_leaf(&x[k]);
        while (used < POOL) {
            var *in[3];
            for (int k = 0; k < 3; k++)
                in[k] = used && below(3) ? &pool[below(used)] : &x[below(4)];
            CHECK(random_node(&pool[used], in[0], in[1], in[2]) == FAD_OK);
            used++;
            if (below(12) == 0) {
                fad_compact(t);
                drain();
            }
        }
        CHECK(intact());
        compare_modes(&pool[POOL - 1], 4, all, 1e-9);
        for (int k = 0; k < POOL - 1; k++)
            if (below(2)) drop(&pool[k]);
        compare_modes(&pool[POOL - 1], 4, all, 1e-9);
        fad_compact(t);
        drain();
        compare_modes(&pool[POOL - 1], 4, all, 1e-9);
        fad_sweep s;
        context c = {0};
        fad_array *seed = NULL;
        var *y = &pool[POOL - 1];
        if (y->arr) seed = drawn(FAD_F64, y->arr->ndim, y->arr->shape, -1.0, 1.0);
        CHECK(reverse_from(y, 1.0, seed, CONSUME, &s, &c) == FAD_OK);
        finish(y, &s, CONSUME);
        CHECK(intact());
        for (int k = 0; k < POOL; k++) drop(&pool[k]);
        for (int k = 0; k < 4; k++) drop(&x[k]);
        fad_trim(t);
        drain();
        CHECK(t->n == 0);
    }
}

/* Long stretches of large nodes are swept tile by tile, forward sweeps are not. */
static void large_runs_agree_in_both_modes(void)
{
    enum { NODES = 130 };
    static const int64_t shape[] = {4100}, same[] = {2, 2050};
    static var pool[NODES];
    for (int graph = 0; graph < 24; graph++) {
        var x[4], constants[2], *all[4] = {&x[0], &x[1], &x[2], &x[3]};
        const int nodes = graph % 3 ? 12 : NODES;
        drawn_leaf(&x[0], FAD_F64, 1, shape, 0.5, 1.5);
        drawn_leaf(&x[1], FAD_F64, 1, shape, 0.5, 1.5);
        number_leaf(&x[2], 0.75);
        if (graph % 4 == 0) drawn_leaf(&x[3], FAD_F64, 2, same, 0.5, 1.5);
        else drawn_leaf(&x[3], graph % 4 == 1 ? FAD_F32 : FAD_F64, 1, shape, 0.5, 1.5);
        constants[0] = number_var(1.25);
        blank(&constants[1]);
        constants[1].arr = drawn(FAD_F64, 1, shape, 0.5, 1.5);
        for (int k = 0; k < nodes; k++) {
            var *in[3];
            for (int j = 0; j < 3; j++)
                in[j] = k > 1 && below(4) ? &pool[k - 1 - below(k < 5 ? k : 5)]
                      : below(4) ? &x[below(3)] : &constants[below(2)];
            if (!k) in[0] = &x[0];
            if (below(25) == 0 && in[0]->arr && is_tracked(in[0])) {
                CHECK(record_call(&pool[k], &TOTAL_RULE, in[0]) == FAD_OK);
                continue;
            }
            if (below(25) == 0) in[1] = &x[3];
            fad_status status;
            do {
                status = random_row(&pool[k], in[0], in[1], in[2]);
                if (status == FAD_SHAPE) in[1] = &x[1];     /* (4100) does not fit (2, 2050) */
            } while (status == FAD_SHAPE);
            CHECK(status == FAD_OK);
            if (below(20) == 0 && pool[k].h.idx >= 0) CHECK(hook(&pool[k]) == FAD_OK);
        }
        CHECK(intact());
        for (int k = 0; k < nodes - 1; k++)
            if (below(3) == 0) drop(&pool[k]);
        for (int k = nodes - 1; k > nodes - 4; k--)
            if (is_tracked(&pool[k])) compare_modes(&pool[k], 4, all, graph % 4 == 1 ? 1e-4 : 1e-9);
        for (int k = 0; k < nodes; k++) drop(&pool[k]);
        for (int k = 0; k < 4; k++) drop(&x[k]);
        drop(&constants[1]);
    }
}

/* Many objects come and go in any order, some are swept, some sweeps consume. */
static void a_tape_under_random_use_stays_intact(void)
{
    var objects[60];
    for (int k = 0; k < 60; k++) random_leaf(&objects[k]);
    for (int step = 0; step < 4000; step++) {
        var *x = &objects[below(60)], y;
        const int what = below(20);
        if (what < 12) {
            var *a = &objects[below(60)], *b = &objects[below(60)], *c = &objects[below(60)];
            if (x == a || x == b || x == c) continue;
            CHECK(random_node(&y, a, b, c) == FAD_OK);
            drop(x);
            *x = y;
            if (y.h.idx >= 0) {             /* relink: the handle has moved */
                x->h.prev->next = &x->h;
                x->h.next->prev = &x->h;
            }
        } else if (what < 15) {
            drop(x);
            CHECK(random_leaf(x) == FAD_OK);
        } else if (what < 16) {
            fad_compact(t);
            drain();
        } else if (is_tracked(x)) {
            fad_sweep s;
            context c = {0};
            const int consume = below(2);
            fad_array *seed = NULL;
            if (x->arr) fad_fill(x->arr->dtype, x->arr->ndim, x->arr->shape, 1.0, &seed);
            const fad_status status = reverse_from(x, 1.0, seed, consume, &s, &c);
            CHECK(status == FAD_OK || status == FAD_CONSUMED);
            if (status == FAD_OK) finish(x, &s, consume);
        }
        if (step % 50 == 0) CHECK(intact());
    }
    CHECK(intact());
    for (int k = 0; k < 60; k++) drop(&objects[k]);
}

/* ---- allocations that fail ------------------------------------------------------------------- */

static int out_of_memory;       /* how often in this run */

/* Do a step; if memory runs out, see that nothing has changed, and do it again. */
#define STEP(call) \
    do { \
        const uint64_t before = fingerprint(); \
        const fad_index nodes = t->n; \
        fad_status status_ = (call); \
        if (status_ == FAD_NOMEM) { \
            out_of_memory++; \
            fad_fail_allocation(-1); \
            drain(); \
            fad_trim(t); \
            drain(); \
            CHECK(intact()); \
            if (t->n == nodes) CHECK(fingerprint() == before); \
            status_ = (call); \
        } \
        CHECK(status_ == FAD_OK); \
    } while (0)

/* One gradient of an array graph as a step: y's cotangent is all ones. */
static fad_status array_gradient(var *y, int consume, int n, var *const *xs, double *out)
{
    fad_sweep s;
    context c = {.hook_factor = 1.0};
    fad_array *seed = NULL;
    if (y->arr) {
        fad_status status = fad_fill(y->arr->dtype, y->arr->ndim, y->arr->shape, 1.0, &seed);
        if (status) return status;
    }
    const fad_status status = reverse_from(y, 1.0, seed, consume, &s, &c);
    if (status) return status;
    for (int k = 0; k < n; k++) {
        out[k] = 0.0;
        for (int64_t i = 0; i < (xs[k]->arr ? xs[k]->arr->size : 1); i++)
            out[k] += received(&s, xs[k], i);
    }
    finish(y, &s, consume);
    return FAD_OK;
}

static fad_status forward_total(var *y, var *x, double *out)
{
    fad_sweep s;
    context c = {.forward = 1};
    fad_array *seed = NULL;
    fad_status status = begin(&s, &c, t->n);
    if (status) return status;
    if (x->arr) status = fad_fill(x->arr->dtype, x->arr->ndim, x->arr->shape, 1.0, &seed);
    if (!status)
        status = seed ? fad_contribute_array(t, &s, x->h.idx, seed)
                      : fad_contribute(t, &s, x->h.idx, 1.0);
    if (!status) status = fad_forward(t, &s, 0, y->h.idx);
    if (!status) {
        if (y->arr) fad_sum_all(s.own[y->h.idx].arr, out);
        else *out = s.own[y->h.idx].f;
    }
    fad_sweep_end(t, &s);
    drain();
    return status == FAD_CALLBACK && c.why ? c.why : status;
}

/* The same numbers in every run, whatever failed before. */
static fad_status same_leaf(var *x, int ndim, const int64_t *shape)
{
    random_state = 42;
    return drawn_leaf(x, FAD_F64, ndim, shape, 0.5, 1.5);
}

/* Everything that allocates, in one story.  Its numbers do not depend on what failed. */
static void story(double *results)
{
    const int64_t big[] = {40, 30}, row[] = {30}, column[] = {40, 1}, long_row[] = {4200};
    var wide, run[6], x, b, n, a, c, d, e, f, g, h, call, many[70], hooked[20], single;
    fad_array *arr = NULL, *out = NULL;
    int r = 0;
    STEP(same_leaf(&x, 2, big));
    STEP(same_leaf(&b, 1, row));
    STEP(number_leaf(&n, 0.75));
    STEP(same_leaf(&wide, 1, long_row));
    for (int k = 0; k < 70; k++) STEP(number_leaf(&many[k], k));       /* the leaf table grows */
    STEP(op2(&a, FAD_OP_multiply, &x, &b));
    STEP(op1(&c, FAD_OP_sin, &a));
    STEP(op2(&d, FAD_OP_divide, &c, &n));
    STEP(hook(&d));
    for (int k = 0; k < 20; k++) {                  /* the hook vector grows */
        STEP(op1(&hooked[k], FAD_OP_cos, &many[k]));
        STEP(hook(&hooked[k]));
    }
    STEP(op2(&e, FAD_OP_subtract, &d, &x));
    STEP(op3(&f, FAD_OP_where, &b, &e, &c));
    STEP(op2(&g, FAD_OP_add, &f, &f));
    STEP(record_call(&call, &TOTAL_RULE, &g));
    STEP(op2(&h, FAD_OP_power, &call, &n));
    STEP(record_call(&single, &SQUARE_RULE, &h));
    var *const xs[3] = {&x, &b, &n};
    STEP(array_gradient(&g, KEEP, 3, xs, results + r));
    r += 3;
    STEP(array_gradient(&h, KEEP, 3, xs, results + r));
    r += 3;
    STEP(array_gradient(&single, KEEP, 3, xs, results + r));
    r += 3;
    STEP(op1(&run[0], FAD_OP_sin, &wide));          /* swept tile by tile */
    STEP(op2(&run[1], FAD_OP_multiply, &run[0], &n));
    STEP(op2(&run[2], FAD_OP_add, &run[1], &wide));
    STEP(op2(&run[3], FAD_OP_divide, &run[2], &run[0]));
    STEP(record_call(&run[4], &TOTAL_RULE, &run[3]));
    STEP(op2(&run[5], FAD_OP_multiply, &run[4], &run[3]));
    STEP(array_gradient(&run[5], KEEP, 2, (var *const[]){&wide, &n}, results + r));
    r += 2;
    STEP(forward_total(&h, &b, results + r));
    r++;
    STEP(forward_total(&g, &n, results + r));
    r++;
    STEP(forward_total(&single, &x, results + r));
    r++;
    drop(&d), drop(&e);                             /* hollow shells, or not */
    STEP(array_gradient(&h, KEEP, 3, xs, results + r));
    r += 3;
    STEP(fad_sum_to(x.arr, 2, column, &arr));
    STEP(fad_broadcast_to(arr, 2, big, &out));
    results[r++] = get(out, 77);
    fad_array_release(out);
    fad_array_release(arr);
    STEP(fad_transpose(x.arr, (const int[]){1, 0}, &arr));
    STEP(fad_matmul2(x.arr, 0, arr, 0, 0, &out));
    results[r++] = get(out, 41);
    fad_array_release(out);
    fad_array_release(arr);
    STEP((arr = fad_array_cast(x.arr, FAD_F32)) ? FAD_OK : FAD_NOMEM);
    fad_array_release(arr);
    STEP(fad_reserve(t, 10000));
    STEP(array_gradient(&h, CONSUME, 3, xs, results + r));
    r += 3;
    drop(&a), drop(&c), drop(&f), drop(&g), drop(&h), drop(&call), drop(&single);
    for (int k = 0; k < 20; k++) drop(&hooked[k]);
    for (int k = 0; k < 70; k++) drop(&many[k]);
    for (int k = 0; k < 6; k++) drop(&run[k]);
    drop(&x), drop(&b), drop(&n), drop(&wide);
    fad_trim(t);
    fad_compact(t);
    drain();
    CHECK(t->n == 0);
}

static void every_allocation_may_fail(void)
{
    double want[40] = {0.0}, got[40];
    int failures = 0, last = 0;
    story(want);
    fad_tape_clear(t);
    fad_pool_clear();
    for (int64_t k = 0; !last; k++) {
        memset(got, 0, sizeof got);
        out_of_memory = 0;
        fad_tape_init(t);
        fad_fail_allocation(k);
        story(got);
        last = fad_allocations_left() > 0;      /* there was no k-th allocation */
        fad_fail_allocation(-1);
        CHECK(memcmp(got, want, sizeof got) == 0);
        fad_tape_clear(t);
        drain();
        CHECK(fad_large_bytes == 0);
        fad_pool_clear();
        failures += out_of_memory;
    }
    CHECK(failures > 100);
}

/* ---- main ------------------------------------------------------------------------------------ */

/* ---- programs -------------------------------------------------------------------------------- */

enum { INPUTS = 3, STEPS = 40, MOST = INPUTS + 2 + STEPS };

/* What a random function does at each step: a row on earlier values, or the sum of an array. */
typedef struct { int op, n, in[3], total; } recipe_step;
typedef struct { recipe_step step[STEPS]; int n; double constant[2]; } recipe;

/* Rows that any numbers may enter. */
static const int ANY_NUMBER[] = {
    FAD_OP_add, FAD_OP_subtract, FAD_OP_multiply, FAD_OP_divide, FAD_OP_negative, FAD_OP_square,
    FAD_OP_sin, FAD_OP_tanh, FAD_OP_maximum, FAD_OP_zmul, FAD_OP_hypot, FAD_OP_positive,
    FAD_OP_clip, FAD_OP_where, FAD_OP_absolute, FAD_OP_sigmoid
};

static recipe random_recipe(int arrays)
{
    recipe r;
    memset(&r, 0, sizeof r);
    r.n = 5 + below(STEPS - 5);
    r.constant[0] = below(2) ? 1.0 : uniform(-2.0, 2.0);
    r.constant[1] = 0.0;
    for (int k = 0; k < r.n; k++) {
        recipe_step *step = &r.step[k];
        step->op = ANY_NUMBER[below((int)(sizeof ANY_NUMBER / sizeof *ANY_NUMBER))];
        step->n = fad_row_of(step->op)->arity;
        step->total = arrays && below(6) == 0;
        for (int j = 0; j < 3; j++) {
            const int near = below(3) != 0 && k > 0;    /* chains, and everything else */
            step->in[j] = near ? INPUTS + 2 + k - 1 - below(k < 3 ? k : 3)
                               : below(INPUTS + 2 + k);
        }
    }
    return r;
}

/* Record a recipe on the values of x, which hold inputs already; the number of values. */
static fad_status follow(const recipe *r, var *x)
{
    for (int k = 0; k < 2; k++) x[INPUTS + k] = number_var(r->constant[k]);
    for (int k = 0; k < r->n; k++) {
        const recipe_step *step = &r->step[k];
        var *y = &x[INPUTS + 2 + k], *const in[3] = {&x[step->in[0]], &x[step->in[1]],
                                                     &x[step->in[2]]};
        const fad_status status = step->total && in[0]->arr ? record_call(y, &TOTAL_RULE, in[0])
                                                            : record(y, step->op, step->n, in);
        if (status) {
            for (int j = 0; j < k; j++) drop(&x[INPUTS + 2 + j]);
            return status;
        }
    }
    return FAD_OK;
}

static int classify_total(void *ctx, fad_index i, const fad_call *call, fad_vm_call *what)
{
    (void)ctx, (void)i, (void)call;
    what->kind = FAD_VM_SUM_ALL;
    what->pure = 1;
    return 0;
}

/* The program of what x holds: from the inputs to some of the values. */
static fad_status program_of(var *x, int n_out, const int *out, int n_guard,
                             const fad_guard *guard, fad_index start, fad_program **p)
{
    fad_index in[INPUTS], outs[MOST];
    for (int k = 0; k < INPUTS; k++) in[k] = x[k].h.idx;
    const fad_status status = fad_reserve(t, n_out + 1);
    if (status) return status;
    for (int k = 0; k < n_out; k++) {
        unsigned w = 0;
        outs[k] = parent_of(&x[out[k]], &w, 0);
    }
    const fad_build b = {
        .tape = t, .start = start, .end = t->n, .in = in, .out = outs, .n_in = INPUTS,
        .n_out = n_out, .n_guard = n_guard, .guard = guard, .classify = classify_total};
    return fad_program_build(&b, p);
}

static void give_inputs(const fad_program *p, fad_workspace *w, const var *x)
{
    for (int k = 0; k < INPUTS; k++) {
        const fad_place at = fad_program_inputs(p)[k];
        CHECK(at.is_array == (x[k].arr != NULL));
        if (at.is_array) w->array[at.where]->data = x[k].arr->data;
        else w->reg[at.where] = x[k].number;
    }
}

static int same_bits(const fad_workspace *w, fad_place at, const var *want)
{
    if (at.is_array != (want->arr != NULL)) return 0;
    if (!at.is_array) return !memcmp(&w->reg[at.where], &want->number, sizeof(double))
        || (isnan(w->reg[at.where]) && isnan(want->number));
    const fad_array *got = w->array[at.where];
    if (!fad_same_shape(got, want->arr) || got->dtype != want->arr->dtype) return 0;
    for (int64_t i = 0; i < got->size; i++) {
        const double a = get(got, i), b = get(want->arr, i);
        if (memcmp(&a, &b, sizeof a) && !(isnan(a) && isnan(b))) return 0;
    }
    return 1;
}

/* Memory for the outputs that a caller lends. */
static void lend(const fad_program *p, fad_workspace *w, int n_out, fad_array **lent)
{
    for (int k = 0; k < n_out; k++) {
        lent[k] = NULL;
        if (!fad_output_is_callers(p, k)) continue;
        fad_array *like = w->array[fad_program_outputs(p)[k].where];
        lent[k] = fad_array_new(like->dtype, like->ndim, like->shape);
        like->data = lent[k]->data;
    }
}

static fad_status new_inputs(var *x, const int64_t *length)
{
    for (int k = 0; k < INPUTS; k++) {
        const int64_t shape[2] = {k == 1 ? 1 : 2, length[k]};
        const fad_status status = length[k]
            ? drawn_leaf(&x[k], FAD_F64, 2, shape, -2.0, 2.0)
            : number_leaf(&x[k], below(8) ? uniform(-2.0, 2.0) : 0.0);
        if (status) return status;
        fad_status room = fad_reserve(t, 1);
        if (room) return room;
        node_of(&x[k]);
    }
    return FAD_OK;
}

static void drop_all(var *x, const recipe *r)
{
    for (int k = 0; k < INPUTS + 2 + r->n; k++) drop(&x[k]);
}

/* One random function: recorded, made a program, and run on other inputs in two workspaces. */
static void check_random_program(const int64_t *length)
{
    const int arrays = length[0] || length[1] || length[2];
    const recipe r = random_recipe(arrays);
    const int n_values = INPUTS + 2 + r.n;
    var x[MOST], y[MOST];
    fad_workspace *w[2];
    fad_program *p = NULL;
    int out[MOST], n_out = 0;
    const fad_index start = t->n;

    for (int k = 0; k < n_values; k++)
        if (k >= n_values - 2 || below(8) == 0) out[n_out++] = k;
    t->sweeping++;                      /* as a trace does: nothing moves */
    CHECK(new_inputs(x, length) == FAD_OK);
    CHECK(follow(&r, x) == FAD_OK);
    CHECK(program_of(x, n_out, out, 0, NULL, start, &p) == FAD_OK);
    drop_all(x, &r);
    t->sweeping--;
    fad_trim(t);
    drain();
    CHECK(fad_workspace_new(p, &w[0]) == FAD_OK && fad_workspace_new(p, &w[1]) == FAD_OK);
    for (int round = 0; round < 6; round++) {
        fad_array *lent[MOST];
        fad_workspace *v = w[round % 2];
        CHECK(new_inputs(y, length) == FAD_OK);
        CHECK(follow(&r, y) == FAD_OK);
        give_inputs(p, v, y);
        lend(p, v, n_out, lent);
        CHECK(fad_program_run(p, v, NULL) == FAD_OK);
        int same = 1;
        for (int k = 0; k < n_out; k++) same &= same_bits(v, fad_program_outputs(p)[k], &y[out[k]]);
        CHECK(same);
        for (int k = 0; k < n_out; k++)
            if (lent[k]) fad_array_release(lent[k]);
        drop_all(y, &r);
    }
    fad_workspace_free(p, w[0]);
    fad_workspace_free(p, w[1]);
    fad_program_free(p);
    drain();
}

static void a_program_computes_what_was_recorded_from_other_numbers(void)
{
    for (int k = 0; k < 3000; k++) check_random_program((const int64_t[]){0, 0, 0});
}

static void a_program_computes_what_was_recorded_from_other_arrays(void)
{
    for (int k = 0; k < 1500; k++)
        check_random_program((const int64_t[]){5, below(2) ? 5 : 1, below(2) ? 5 : 0});
}

static void a_program_of_large_arrays_computes_tile_by_tile(void)
{
    for (int k = 0; k < 60; k++)
        check_random_program((const int64_t[]){3001, below(3) ? 0 : 3001, below(2) ? 3001 : 0});
}

static void guards_end_a_run_where_python_would_have_seen_something_else(void)
{
    static const double wanted_bits = 3.0;
    static const struct { int kind, wanted; double number, holds, fails; } cases[] = {
        {FAD_GUARD_LT, 1, 0.0, 0.5, 2.5}, {FAD_GUARD_LE, 0, 0.0, 2.5, 2.0},
        {FAD_GUARD_EQ, 1, 0.0, 2.0, 2.5}, {FAD_GUARD_NE, 1, 0.0, 2.5, 2.0},
        {FAD_GUARD_GT, 1, 0.0, 2.5, 2.0}, {FAD_GUARD_GE, 0, 0.0, NAN, 2.0},
        {FAD_GUARD_BITS, 1, wanted_bits, 3.0, 3.0000001},
        {FAD_GUARD_TRUNC, 1, 3.0, 3.75, 4.0}, {FAD_GUARD_NO_NAN, 1, 0.0, 1.0, NAN},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        var x[INPUTS], y;
        fad_program *p = NULL;
        fad_workspace *w;
        const fad_index start = t->n;
        t->sweeping++;
        CHECK(number_leaf(&x[0], cases[c].holds) == FAD_OK);
        CHECK(number_leaf(&x[1], 2.0) == FAD_OK && number_leaf(&x[2], 1.0) == FAD_OK);
        CHECK(fad_reserve(t, 4) == FAD_OK);
        for (int k = 0; k < INPUTS; k++) node_of(&x[k]);
        CHECK(op2(&y, FAD_OP_multiply, &x[0], &x[2]) == FAD_OK);
        const int comparison = cases[c].kind <= FAD_GUARD_GE;
        const fad_guard g = {.kind = cases[c].kind, .wanted = cases[c].wanted, .a = y.h.idx,
                             .b = comparison ? x[1].h.idx : -1, .at = t->n,
                             .number = cases[c].number};
        fad_index in[INPUTS] = {x[0].h.idx, x[1].h.idx, x[2].h.idx};
        const fad_build b = {.tape = t, .start = start, .end = t->n, .in = in, .out = &y.h.idx,
                             .n_in = INPUTS, .n_out = 1, .n_guard = 1, .guard = &g,
                             .classify = classify_total};
        CHECK(fad_program_build(&b, &p) == FAD_OK);
        CHECK(fad_workspace_new(p, &w) == FAD_OK);
        give_inputs(p, w, x);
        CHECK(fad_program_run(p, w, NULL) == FAD_OK);
        w->reg[fad_program_inputs(p)[0].where] = cases[c].fails;
        w->reg[fad_program_inputs(p)[1].where] = 2.0;
        w->reg[fad_program_inputs(p)[2].where] = 1.0;
        CHECK(fad_program_run(p, w, NULL) == FAD_GUARD && w->failed == 0);
        fad_workspace_free(p, w);
        fad_program_free(p);
        drop(&y);
        for (int k = 0; k < INPUTS; k++) drop(&x[k]);
        t->sweeping--;
        fad_trim(t);
        drain();
    }
}

/* The formulas of a few rows, as the floor above hands them over. */
static void hand_over_some_formulas(void)
{
    static const fad_formula_step b[] = {{-1, FAD_REF_B, 0}}, a[] = {{-1, FAD_REF_A, 0}};
    static const fad_formula_step cosine[] = {{FAD_OP_cos, FAD_REF_A, 0}};
    static const fad_formula_step minus_sine[] = {
        {FAD_OP_sin, FAD_REF_A, 0}, {FAD_OP_negative, FAD_REF_STEP, 0}};
    static const fad_formula_step y[] = {{-1, FAD_REF_Y, 0}};
    static const fad_formula_step one_over_b[] = {{FAD_OP_divide, FAD_REF_NUMBER, FAD_REF_B}};
    static const fad_formula_step minus_y_over_b[] = {
        {FAD_OP_negative, FAD_REF_Y, 0}, {FAD_OP_divide, FAD_REF_STEP, FAD_REF_B}};
    static const double one[] = {1.0};
    fad_set_formula(FAD_OP_multiply, 0, 1, b, 0, NULL);
    fad_set_formula(FAD_OP_multiply, 1, 1, a, 0, NULL);
    fad_set_formula(FAD_OP_sin, 0, 1, cosine, 0, NULL);
    fad_set_formula(FAD_OP_cos, 0, 2, minus_sine, 0, NULL);
    fad_set_formula(FAD_OP_exp, 0, 1, y, 0, NULL);
    fad_set_formula(FAD_OP_divide, 0, 1, one_over_b, 1, one);
    fad_set_formula(FAD_OP_divide, 1, 2, minus_y_over_b, 0, NULL);
    fad_set_formula(FAD_OP_zmul, 0, 1, b, 0, NULL);
    fad_set_formula(FAD_OP_zmul, 1, 1, a, 0, NULL);
}

/* The node of dy/dx, recorded; -1 where there is none. */
static fad_index expanded(fad_index y, fad_index x)
{
    enum { MANY = 4000 };
    static fad_index bar[MANY];
    fad_index low = y;
    if (y >= MANY || fad_reserve(t, 1)) return -1;
    for (int i = 0; i < MANY; i++) bar[i] = -1;
    bar[y] = fad_const(t, 1.0);
    for (fad_index i = y; i >= low; i--) {
        if (bar[i] < 0 || fad_stops(t, i) || i == x) continue;
        const fad_status status = fad_expand(t, i, bar[i], bar, &low);
        if (status) return -1;
    }
    return bar[x];
}

static void recorded_sweeps_have_the_values_of_plain_ones_to_second_order(void)
{
    hand_over_some_formulas();
    for (int k = 0; k < 300; k++) {
        const double at = uniform(0.3, 1.5), c = uniform(0.5, 2.0);
        var x, y[6], two = number_var(c);
        t->sweeping++;
        CHECK(number_leaf(&x, at) == FAD_OK && fad_reserve(t, 1) == FAD_OK);
        node_of(&x);
        CHECK(op1(&y[0], FAD_OP_sin, &x) == FAD_OK);
        CHECK(op2(&y[1], FAD_OP_multiply, &y[0], &x) == FAD_OK);
        CHECK(op1(&y[2], FAD_OP_exp, &y[0]) == FAD_OK);
        CHECK(op2(&y[3], FAD_OP_divide, &y[1], &y[2]) == FAD_OK);
        CHECK(op2(&y[4], FAD_OP_multiply, &y[3], &two) == FAD_OK);
        CHECK(op2(&y[5], FAD_OP_subtract, &y[4], &x) == FAD_OK);
        const fad_index first = expanded(y[5].h.idx, x.h.idx);
        CHECK(first >= 0);
        const fad_index second = first < 0 ? -1 : expanded(first, x.h.idx);
        const double s = sin(at), co = cos(at), e = exp(-s);
        /* y = c x s exp(-s) - x */
        CLOSE(t->value[first].f, c * e * (s + at * co - at * s * co) - 1.0, 1e-13);
        CHECK(second >= 0);
        const double d = c * e * (-co * (s + at * co - at * s * co)
                                  + co + co - at * s - s * co - at * co * co + at * s * s);
        if (second >= 0) CLOSE(t->value[second].f, d, 1e-12);
        for (int j = 0; j < 6; j++) drop(&y[j]);
        drop(&x);
        t->sweeping--;
        fad_trim(t);
        drain();
    }
}

static void any_allocation_of_a_program_may_fail(void)
{
    const int64_t length[INPUTS] = {3001, 0, 3001};
    const recipe r = random_recipe(1);
    const int last = INPUTS + 2 + r.n - 1;
    var x[MOST];
    const fad_index start = t->n;
    t->sweeping++;
    CHECK(new_inputs(x, length) == FAD_OK && follow(&r, x) == FAD_OK);
    int failures = 0;
    for (;; failures++) {
        fad_program *p = NULL;
        fad_workspace *w = NULL;
        fad_fail_allocation(failures);
        fad_status status = program_of(x, 1, &last, 0, NULL, start, &p);
        if (!status) status = fad_workspace_new(p, &w);
        const int done = !status;
        fad_fail_allocation(-1);
        if (w) fad_workspace_free(p, w);
        if (p) fad_program_free(p);
        if (done) break;
        CHECK(status == FAD_NOMEM);
    }
    CHECK(failures > 10);
    drop_all(x, &r);
    t->sweeping--;
    fad_trim(t);
    drain();
}

/* ---- picks ----------------------------------------------------------------------------------- */

/* ---- masks, assignments, many products ------------------------------------------------------------ */

static fad_array *bools(int ndim, const int64_t *shape)
{
    fad_array *x = fad_array_new(FAD_BOOL, ndim, shape);
    for (int64_t i = 0; x && i < x->size; i++) ((unsigned char *)x->data)[i] = (unsigned char)below(2);
    return x;
}

static double truth_or_number(const fad_array *x, int64_t i)
{
    return x->dtype == FAD_BOOL ? ((const unsigned char *)x->data)[i] : get(x, i);
}

/* Operands of shapes (3, 1, 5), (4, 1) and numbers, of floats and bools. */
static void masks_of_operands_that_broadcast_are_those_of_the_definition(void)
{
    const int64_t left[] = {3, 1, 5}, right[] = {4, 1}, full[] = {3, 4, 5};
    const double specials[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1.0, -1.0};
    for (int round = 0; round < 8; round++) {
        fad_array *x = round & 1 ? bools(3, left) : drawn(FAD_F64, 3, left, -1.0, 1.0);
        fad_array *z = round & 2 ? bools(2, right) : drawn(FAD_F64, 2, right, -1.0, 1.0);
        fad_array *out = fad_array_new(FAD_BOOL, 3, full);
        for (int k = 0; k < 7 && !(round & 1); k++) put(x, 2 * k, specials[k]);
        for (int k = 0; k < 4 && !(round & 2); k++) put(z, k, specials[k + 3]);
        for (int op = FAD_MASK_LT; op <= FAD_MASK_SIGNBIT; op++) {
            const fad_operand number = {NULL, specials[round % 7]};
            const fad_operand in[2] = {round & 4 ? number : (fad_operand){x, 0.0}, {z, 0.0}};
            fad_mask_into(op, 2, in, out);
            for (int64_t i = 0; i < 60; i++) {
                const double a = in[0].arr ? truth_or_number(x, i / 20 * 5 + i % 5) : number.number;
                const double b = truth_or_number(z, i / 5 % 4);
                const int r[] = {a < b, a <= b, a == b, a != b, a > b, a >= b,
                                 a != 0.0 && b != 0.0, a != 0.0 || b != 0.0,
                                 (a != 0.0) != (b != 0.0), a == 0.0, isnan(a), isinf(a) != 0,
                                 isfinite(a) != 0, signbit(a) != 0};
                CHECK(((unsigned char *)out->data)[i] == r[op]);
            }
        }
        int any = 0, all = 1;
        for (int64_t i = 0; i < x->size; i++) {
            any |= truth_or_number(x, i) != 0.0;
            all &= truth_or_number(x, i) != 0.0;
        }
        fad_array *one = fad_array_new(FAD_BOOL, 0, NULL);
        fad_mask_into(FAD_MASK_ANY, 1, &(fad_operand){x, 0.0}, one);
        CHECK(*(unsigned char *)one->data == any);
        fad_mask_into(FAD_MASK_ALL, 1, &(fad_operand){x, 0.0}, one);
        CHECK(*(unsigned char *)one->data == all);
        fad_array_release(one);
        if (x->dtype == FAD_BOOL) {
            for (int dtype = FAD_F64; dtype <= FAD_C64; dtype++) {
                fad_array *cast = fad_array_cast(x, dtype);
                for (int64_t i = 0; i < x->size; i++) {
                    const int single = dtype == FAD_F32 || dtype == FAD_C64;
                    const int64_t k = i * (1 + fad_is_complex(dtype));
                    CHECK((single ? ((float *)cast->data)[k] : ((double *)cast->data)[k])
                          == truth_or_number(x, i));
                }
                fad_array_release(cast);
            }
        }
        fad_array_release(x), fad_array_release(z), fad_array_release(out);
    }
}

/* x[2::-2, 1:4] = or += a column, and elements one by one, the same one twice. */
static void values_are_written_at_regular_places_and_one_by_one(void)
{
    const int64_t shape[] = {4, 5}, column[] = {2, 1};
    const int64_t regular[] = {10, 0, 11, 2, 2, 3, -10, 1, 1, 0};
    const int64_t single[] = {9, 1, 3, 7, 19, 7, 1, 0, 0};
    for (int dtype = FAD_F64; dtype <= FAD_C64; dtype++)
        for (int adds = 0; adds < 1 + (dtype == FAD_F64); adds++)
            for (int in_place = 0; in_place < 2; in_place++) {
                const size_t item = fad_itemsize(dtype);
                fad_array *x = drawn(dtype, 2, shape, -1.0, 1.0), *v = drawn(dtype, 2, column, 1.0, 2.0);
                fad_array *want = fad_array_copy(x), *out = in_place ? x : fad_array_copy(x);
                const fad_operand value = {v, 0.0};
                for (int64_t i = 0; i < 2; i++)
                    for (int64_t k = 1; k < 4; k++) {
                        char *to = (char *)want->data + (size_t)((2 - 2 * i) * 5 + k) * item;
                        const char *from = (char *)v->data + (size_t)i * item;
                        if (adds) *(double *)to += *(const double *)from;
                        else memcpy(to, from, item);
                    }
                if (!in_place) memset(out->data, 0xff, 20 * item);
                fad_write_into(x, &value, regular, adds, out);
                CHECK(!memcmp(out->data, want->data, 20 * item));
                for (int k = 0; k < 3; k++) {
                    char *to = (char *)want->data + (size_t)single[3 + k] * item;
                    const char *from = (char *)v->data + (size_t)single[6 + k] * item;
                    if (adds) *(double *)to += *(const double *)from;
                    else memcpy(to, from, item);
                }
                fad_write_into(out, &value, single, adds, out);
                CHECK(!memcmp(out->data, want->data, 20 * item));
                if (!in_place) fad_array_release(out);
                fad_array_release(x), fad_array_release(v), fad_array_release(want);
            }
}

static void products_of_many_matrices_are_products_of_each(void)
{
    /* (2, 1, 3, 4) and (3, 4, 2), either read transposed; or one of them a matrix or a vector */
    static const struct { int na, nb, ta, tb; int64_t a[4], b[4], out[4]; int n; } cases[] = {
        {4, 3, 0, 0, {2, 1, 3, 4}, {3, 4, 2}, {2, 3, 3, 2}, 4},
        {4, 3, 1, 1, {2, 1, 4, 3}, {3, 2, 4}, {2, 3, 3, 2}, 4},
        {3, 2, 0, 0, {2, 3, 4}, {4, 2}, {2, 3, 2}, 3},
        {2, 3, 1, 0, {4, 3}, {2, 4, 2}, {2, 3, 2}, 3},
        {3, 1, 0, 0, {2, 3, 4}, {4}, {2, 3}, 2},
        {1, 3, 0, 0, {4}, {2, 4, 3}, {2, 3}, 2},
        {3, 3, 0, 0, {2, 3, 0}, {2, 0, 2}, {2, 3, 2}, 3},
        {3, 3, 0, 0, {0, 3, 4}, {0, 4, 2}, {0, 3, 2}, 3},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int dtype = FAD_F64; dtype <= FAD_F32; dtype++) {
            fad_array *a = drawn(dtype, cases[c].na, cases[c].a, -1.0, 1.0);
            fad_array *b = drawn(dtype, cases[c].nb, cases[c].b, -1.0, 1.0);
            fad_array *out = fad_array_new(dtype, cases[c].n, cases[c].out);
            fad_matmul_into(a, cases[c].ta, b, cases[c].tb, 0, out);
            const int64_t ma = a->ndim == 1 ? a->size : a->shape[a->ndim - 1] * a->shape[a->ndim - 2];
            const int64_t mb = b->ndim == 1 ? b->size : b->shape[b->ndim - 1] * b->shape[b->ndim - 2];
            const int64_t mo = out->size && ma ? out->size / (c < 2 ? 6 : 2) : 0;
            for (int64_t k = 0; mo && k < out->size / mo; k++) {
                /* of the stacks, (2, 1) and (3) */
                const int64_t ka = a->ndim < 3 ? 0 : c < 2 ? k / 3 : k, kb = b->ndim < 3 ? 0 : c < 2 ? k % 3 : k;
                fad_array *pa = fad_array_borrow(dtype, a->ndim > 1 ? 2 : 1,
                    a->shape + (a->ndim > 1 ? a->ndim - 2 : 0),
                    (char *)a->data + (size_t)(ka * ma) * fad_itemsize(dtype), NULL);
                fad_array *pb = fad_array_borrow(dtype, b->ndim > 1 ? 2 : 1,
                    b->shape + (b->ndim > 1 ? b->ndim - 2 : 0),
                    (char *)b->data + (size_t)(kb * mb) * fad_itemsize(dtype), NULL), *one;
                CHECK(fad_matmul2(pa, cases[c].ta, pb, cases[c].tb, 0, &one) == FAD_OK);
                CHECK(!memcmp(one->data, (char *)out->data + (size_t)(k * mo) * fad_itemsize(dtype),
                              (size_t)mo * fad_itemsize(dtype)));
                fad_array_release(pa), fad_array_release(pb), fad_array_release(one);
            }
            for (int64_t i = 0; !mo && i < out->size; i++) CHECK(get(out, i) == 0.0);
            fad_array_release(a), fad_array_release(b), fad_array_release(out);
        }
}

static void taking_and_giving_are_adjoint_and_places_may_come_again(void)
{
    const int64_t whole[2] = {3, 5}, part[1] = {7}, none[1] = {0};
    const int64_t again[7] = {14, 0, 3, 3, 14, 9, 14}, once[7] = {14, 0, 3, 5, 1, 9, 2};
    for (int dtype = FAD_F64; dtype <= FAD_F32; dtype++) {
        fad_array *x = drawn(dtype, 2, whole, -1.0, 1.0), *g = drawn(dtype, 1, part, -1.0, 1.0);
        fad_array *y = fad_array_new(dtype, 1, part), *back = fad_array_new(dtype, 2, whole);
        fad_array *nothing = fad_array_new(dtype, 1, none);
        for (int adds = dtype == FAD_F64; adds >= 0; adds--) {
            const int64_t *place = adds ? again : once;
            double want[15] = {0.0};
            fad_take_into(x, place, y);
            fad_give_into(g, place, adds, back);
            for (int k = 0; k < 7; k++) {
                CLOSE(get(y, k), get(x, place[k]), 0.0);
                want[place[k]] += get(g, k);
            }
            for (int k = 0; k < 15; k++) CLOSE(get(back, k), want[k], 0.0);
        }
        fad_take_into(x, again, nothing);
        fad_give_into(nothing, again, 0, back);
        for (int k = 0; k < 15; k++) CLOSE(get(back, k), 0.0, 0.0);
        fad_array_release(x), fad_array_release(y), fad_array_release(g);
        fad_array_release(back), fad_array_release(nothing);
    }
}

static void sums_extrema_and_ties_run_along_any_axis(void)
{
    const int64_t shapes[4][3] = {{3, 4, 5}, {1, 9, 1}, {6, 1, 2}, {2, 0, 3}};
    for (int s = 0; s < 4; s++) {
        const int64_t *shape = shapes[s];
        fad_array *x = drawn(FAD_F64, 3, shape, -3.0, 3.0), *y = fad_array_new(FAD_F64, 3, shape);
        double *p = x->data, best[60];
        for (int64_t i = 0; i < x->size; i++) p[i] = rint(p[i]);
        if (x->size) p[x->size / 2] = NAN;
        for (int first = 0; first < 3; first++) {
            int64_t outer = 1, inner = 1;
            const int64_t n = shape[first];
            for (int k = 0; k < first; k++) outer *= shape[k];
            for (int k = first + 1; k < 3; k++) inner *= shape[k];
            fad_extremum_into(FAD_OP_maximum, x, first, first + 1, best);
            if (x->size) fad_ties_into(x, best, first, first + 1, y);
            for (int64_t o = 0; x->size && o < outer; o++)
                for (int64_t i = 0; i < inner; i++) {
                    double want = p[o * n * inner + i], weights = 0.0;
                    for (int64_t k = 1; k < n; k++) {
                        const double v = p[(o * n + k) * inner + i];
                        want = want != want || v != v ? NAN : v > want ? v : want;
                    }
                    CLOSE(best[o * inner + i], want, 0.0);
                    for (int64_t k = 0; k < n; k++) {
                        const double v = p[(o * n + k) * inner + i];
                        const double weight = get(y, (o * n + k) * inner + i);
                        CHECK((weight > 0.0) == (v == want || (v != v && want != want)));
                        weights += weight;
                    }
                    CLOSE(weights, 1.0, 1e-15);
                }
            for (int reverse = 0; reverse < 2; reverse++) {
                fad_cumsum_into(x, first, reverse, y);
                for (int64_t at = 0; at < x->size; at++) {
                    const int64_t k = at / inner % n, from = reverse ? n - 1 : 0;
                    double sum = 0.0;
                    for (int64_t j = from; reverse ? j >= k : j <= k; j += reverse ? -1 : 1)
                        sum += p[at + (j - k) * inner];
                    CLOSE(get(y, at), sum, 0.0);
                }
            }
        }
        fad_array_release(x), fad_array_release(y);
    }
}

/* ---- programs of everything a program knows ------------------------------------------------- */

enum { GIVEN = 6, MIXED = 240, MIXED_GUARDS = 6, MOST_IN = 6 };

/* A structured primitive of the random functions below; a call's `rule` points to one. */
enum { REVERSED, POSITIVE, AFFINE, LAST_ELEMENT };
typedef struct {
    int kind, ndim, axes[3], ta, tb, exact, op, side, foreign, dtype;
    int64_t shape[3], offset, places[MOST_IN + 6];
} structured;

/* A step: a row, a structured primitive (op < 0) or a constant (n == 0), on earlier values. */
typedef struct {
    int op, n, in[MOST_IN];
    double number;
    fad_array *constant;
    structured call;
} mixed_step;

typedef struct { int kind, wanted, a, b, behind; double number; fad_array *seen; } mixed_guard;

/* A random function: steps from n_given inputs on, which have the kinds of `like`. */
typedef struct {
    mixed_step step[MIXED];
    mixed_guard guard[MIXED_GUARDS];
    int n_given, n, n_guard;
    int64_t rows, columns;
    int every_row;              /* all rows of the table, inside their intervals */
    structured *foreign[MIXED]; /* as the program numbers them */
    int n_foreign, called, called_behind;
    void *kept[MIXED];          /* what foreign calls have left in a workspace */
    int n_kept;
} mixed;

static int one_of(int n, const int *x) { return x[below(n)]; }

static int broadcast_together(const fad_array *a, const fad_array *b)
{
    const int n = a->ndim < b->ndim ? a->ndim : b->ndim;
    for (int k = 1; k <= n; k++) {
        const int64_t x = a->shape[a->ndim - k], y = b->shape[b->ndim - k];
        if (x != y && x != 1 && y != 1) return 0;
    }
    return 1;
}

static int is_floating(const var *x) { return !x->arr || x->arr->dtype < FAD_BOOL; }

/* What the caller computes for a program. */
static void foreign_value(const structured *s, const fad_operand *x, void *out)
{
    const fad_array *arr = x->arr;
    switch (s->foreign) {
    case REVERSED:
        for (int64_t i = 0; i < arr->size; i++) {
            const double v = get(arr, arr->size - 1 - i);
            if (arr->dtype == FAD_F32) ((float *)out)[i] = (float)v;
            else ((double *)out)[i] = v;
        }
        return;
    case POSITIVE:
        for (int64_t i = 0; i < arr->size; i++) ((unsigned char *)out)[i] = get(arr, i) > 0.0;
        return;
    case AFFINE: *(double *)out = 2.0 * x->number + 1.0; return;
    case LAST_ELEMENT: *(double *)out = get(arr, arr->size - 1); return;
    }
}

/* The value of a structured primitive, by the functions that recording uses. */
static fad_status structured_value(const structured *s, int n, var *const *in, var *y)
{
    fad_array *x = n ? in[0]->arr : NULL, *zeros;
    fad_operand all[4];
    fad_status status = FAD_OK;
    switch (s->kind) {
    case FAD_VM_SUM_ALL: return fad_sum_all(x, &y->number);
    case FAD_VM_BROADCAST:
        return x ? fad_broadcast_to(x, s->ndim, s->shape, &y->arr)
                 : fad_fill(FAD_F64, s->ndim, s->shape, in[0]->number, &y->arr);
    case FAD_VM_SUM_TO: status = fad_sum_to(x, s->ndim, s->shape, &y->arr); break;
    case FAD_VM_TRANSPOSE: return fad_transpose(x, s->axes, &y->arr);
    case FAD_VM_CAST:
        if (x) {
            y->arr = fad_array_cast(x, s->dtype);
        } else {
            y->arr = fad_array_new(FAD_F32, 0, NULL);
            if (y->arr) put(y->arr, 0, in[0]->number);
        }
        status = y->arr ? FAD_OK : FAD_NOMEM;
        break;
    case FAD_VM_MATMUL:
        status = fad_matmul2(x, s->ta, in[1]->arr, s->tb, s->exact, &y->arr);
        break;
    case FAD_VM_GET: y->number = get(x, s->offset); return FAD_OK;
    case FAD_VM_PUT:
        y->arr = fad_array_copy(x);
        if (!y->arr) return FAD_NOMEM;
        put(y->arr, s->offset, s->side ? get(x, s->offset) + in[1]->number : in[1]->number);
        return FAD_OK;
    case FAD_VM_SUM_AXES: case FAD_VM_SLICE: case FAD_VM_SCATTER: case FAD_VM_JOIN:
        y->arr = fad_array_new(x->dtype, s->ndim, s->shape);
        if (!y->arr) return FAD_NOMEM;
        if (s->kind == FAD_VM_SUM_AXES) fad_sum_axes_into(x, s->axes, y->arr);
        else if (s->kind == FAD_VM_SLICE) fad_slice_into(x, s->places, y->arr);
        else if (s->kind == FAD_VM_SCATTER) fad_scatter_into(x, s->places, y->arr);
        else for (int64_t i = 0; i < y->arr->size; i++) {       /* two arrays, along the last axis */
            const int64_t na = x->shape[x->ndim - 1], nb = in[1]->arr->shape[x->ndim - 1];
            const int64_t row = i / (na + nb), k = i % (na + nb);
            put(y->arr, i, k < na ? get(x, row * na + k) : get(in[1]->arr, row * nb + k - na));
        }
        return FAD_OK;
    case FAD_VM_MASK:
        y->arr = fad_array_new(FAD_BOOL, x->ndim, x->shape);
        if (!y->arr) return FAD_NOMEM;
        for (int64_t i = 0; i < x->size; i++) {
            double b, a = get(x, i);
            memcpy(&b, &s->offset, sizeof b);
            if (s->side == 0 && n > 1) b = in[1]->arr ? get(in[1]->arr, i) : in[1]->number;
            if (s->side == 2) { const double c = a; a = b; b = c; }
            const int r[] = {a < b, a <= b, a == b, a != b, a > b, a >= b, a != 0.0 && b != 0.0,
                             a != 0.0 || b != 0.0, (a != 0.0) != (b != 0.0), a == 0.0, isnan(a),
                             isinf(a) != 0, isfinite(a) != 0, signbit(a) != 0};
            ((unsigned char *)y->arr->data)[i] = (unsigned char)r[s->op];
        }
        return FAD_OK;
    case FAD_VM_WRITE:
        y->arr = fad_array_copy(x);
        if (!y->arr) return FAD_NOMEM;
        for (int64_t i = 0; i < s->places[2]; i++) {    /* one by one, or a row that is spread */
            const int64_t at = s->places[1] ? s->places[3 + i] : i;
            const int64_t from = s->places[1] ? s->places[3 + s->places[2] + i] : 0;
            const double v = in[1]->arr ? get(in[1]->arr, from) : in[1]->number;
            put(y->arr, at, s->side ? get(y->arr, at) + v : v);
        }
        return FAD_OK;
    case FAD_VM_ASSEMBLE:
        status = fad_fill(FAD_F64, s->ndim, s->shape, 0.0, &zeros);
        if (status) return status;
        for (int k = 0; k < n; k++) put(zeros, s->places[k], in[k]->number);
        y->arr = zeros;
        return FAD_OK;
    case FAD_VM_ALIAS:
        y->arr = fad_array_new(x ? x->dtype : FAD_F64, s->ndim, s->shape);
        if (!y->arr) return FAD_NOMEM;
        if (x) memcpy(y->arr->data, x->data, (size_t)x->size * fad_itemsize(x->dtype));
        else put(y->arr, 0, in[0]->number);
        break;
    case FAD_VM_PARTIAL:
        for (int k = 0; k < 4; k++) all[k] = (fad_operand){in[k]->arr, in[k]->number};
        if (!in[3]->arr) {
            y->number = fad_partial_number(s->op, s->side, all[0].number, all[1].number,
                                           all[2].number, all[3].number);
            return FAD_OK;
        }
        y->arr = fad_array_new(in[3]->arr->dtype, in[3]->arr->ndim, in[3]->arr->shape);
        if (!y->arr) return FAD_NOMEM;
        status = fad_partial_into(s->op, s->side, all, y->arr);
        if (status) {
            fad_array_release(y->arr);
            y->arr = NULL;
        }
        return status;
    case FAD_VM_FOREIGN:
        all[0] = (fad_operand){x, in[0]->number};
        if (s->foreign == REVERSED || s->foreign == POSITIVE) {
            y->arr = fad_array_new(s->foreign == REVERSED ? x->dtype : FAD_BOOL, x->ndim, x->shape);
            if (!y->arr) return FAD_NOMEM;
        }
        foreign_value(s, all, y->arr ? y->arr->data : &y->number);
        return FAD_OK;
    }
    if (!status && y->arr->ndim == 0 && y->arr->dtype == FAD_F64) {     /* a number then */
        y->number = get(y->arr, 0);
        fad_array_release(y->arr);
        y->arr = NULL;
    }
    return status;
}

static fad_status record_structured(var *y, structured *s, int n, var *const *in)
{
    unsigned w = 0;
    fad_slot value;
    blank(y);
    fad_status status = structured_value(s, n, in, y);
    fad_call *call = status ? NULL : fad_call_new(n);
    if (!status) status = call ? fad_reserve(t, n + 1) : FAD_NOMEM;
    if (status) {
        if (y->arr) fad_array_release(y->arr);
        fad_free(call);
        blank(y);
        return status;
    }
    for (int k = 0; k < n; k++) {
        call->parent[k] = parent_of(in[k], &w, 0);
        t->op[call->parent[k]] |= FAD_NEEDED;
    }
    call->rule = s;
    if (y->arr) value.arr = fad_array_share(y->arr);
    else value.f = y->number;
    fad_link(t, &y->h, fad_push_call(t, FAD_OP_CALL, call, value, y->arr != NULL));
    return FAD_OK;
}

static int classify_mixed(void *ctx, fad_index i, const fad_call *call, fad_vm_call *what)
{
    mixed *m = ctx;
    structured *s = call->rule;
    (void)i;
    *what = (fad_vm_call){.kind = s->kind, .ta = s->ta, .tb = s->tb, .exact = s->exact, .pure = 1,
                          .op = s->op, .side = s->side, .offset = s->offset};
    for (int k = 0; k < 3; k++) what->axes[k] = s->axes[k];
    if (s->kind == FAD_VM_ASSEMBLE || s->kind == FAD_VM_SLICE || s->kind == FAD_VM_SCATTER
        || s->kind == FAD_VM_WRITE)
        what->offset = (int64_t)(intptr_t)((char *)s - (char *)m);
    if (s->kind == FAD_VM_FOREIGN) {
        what->foreign = m->n_foreign;
        m->foreign[m->n_foreign++] = s;
    }
    return 0;
}

static const int64_t *places_in_mixed(void *ctx, int64_t which)
{
    return ((structured *)((char *)ctx + which))->places;
}

static int call_mixed(void *ctx, fad_workspace *w, int32_t k, int32_t n, const fad_place *in,
                      fad_place out)
{
    mixed *m = ctx;
    const structured *s = m->foreign[k];
    const fad_operand x = {in[0].is_array ? w->array[in[0].where] : NULL,
                           in[0].is_array ? 0.0 : w->reg[in[0].where]};
    void *to = out.is_array ? w->array[out.where]->data : &w->reg[out.where];
    CHECK(n == 1);
    if (s->foreign == POSITIVE) {
        to = malloc((size_t)x.arr->size + 1);
        m->kept[m->n_kept++] = to;
        w->array[out.where]->data = to;
    }
    foreign_value(s, &x, to);
    m->called++;
    for (int j = 0; j < m->n; j++)
        if (&m->step[j].call == s && j > m->called_behind) m->called_behind = j;
    return 0;
}

static void free_kept(mixed *m)
{
    while (m->n_kept) free(m->kept[--m->n_kept]);
}

static fad_status do_mixed_step(mixed *m, int k, var *x)
{
    mixed_step *s = &m->step[k];
    var *y = &x[m->n_given + k], *in[MOST_IN];
    for (int j = 0; j < s->n; j++) in[j] = &x[s->in[j]];
    if (!s->n) {
        *y = number_var(s->number);
        if (s->constant) y->arr = fad_array_share(s->constant);
        return FAD_OK;
    }
    return s->op < 0 ? record_structured(y, &s->call, s->n, in) : record(y, s->op, s->n, in);
}

/* A new step, done; its value, or -1 where there is no room. */
static int mixed_push(mixed *m, var *x, const mixed_step *s)
{
    if (m->n == MIXED) return -1;
    m->step[m->n] = *s;
    CHECK(do_mixed_step(m, m->n, x) == FAD_OK);
    return m->n_given + m->n++;
}

static int mixed_number(mixed *m, var *x, double v)
{
    return mixed_push(m, x, &(mixed_step){.number = v});
}

static int any_value(const mixed *m)
{
    const int n = m->n_given + m->n;
    return n > 6 && below(3) ? n - 1 - below(6) : below(n);
}

/* Operand v of a row, brought into its interval there. */
static int into_interval(mixed *m, var *x, int v, double lo, double hi)
{
    if (lo == hi || !is_floating(&x[v])) return mixed_number(m, x, lo);
    const int a = mixed_number(m, x, lo), b = mixed_number(m, x, hi);
    return mixed_push(m, x, &(mixed_step){.op = FAD_OP_clip, .n = 3, .in = {v, a, b}});
}

static int random_mixed_row(mixed *m, var *x)
{
    mixed_step s = {.op = one_of((int)(sizeof ANY_NUMBER / sizeof *ANY_NUMBER), ANY_NUMBER)};
    if (m->every_row && below(2)) s.op = fad_rows[below(fad_row_count)].op;
    const fad_row *row = fad_row_of(s.op);
    int any = 0;
    for (size_t k = 0; k < sizeof ANY_NUMBER / sizeof *ANY_NUMBER; k++)
        any |= s.op == ANY_NUMBER[k];
    s.n = row->arity;
    for (int k = 0; k < s.n; k++) {
        for (int tries = 0;; tries++) {
            int fits = 1;
            s.in[k] = k && below(6) == 0 ? s.in[0] : any_value(m);
            const var *v = &x[s.in[k]];
            fits &= is_floating(v) || (s.op == FAD_OP_where && k == 0);
            for (int j = 0; j < k && v->arr && fits; j++) {
                const fad_array *other = x[s.in[j]].arr;
                fits &= !other || (broadcast_together(other, v->arr)
                                   && (other->dtype == v->arr->dtype || other->dtype >= FAD_BOOL));
            }
            if (fits) break;
            if (tries > 20) return -1;
        }
    }
    if (s.op == FAD_OP_where && x[s.in[0]].arr && x[s.in[0]].arr->dtype >= FAD_BOOL
        && ((x[s.in[1]].arr && x[s.in[1]].arr->dtype == FAD_F32)
            || (x[s.in[2]].arr && x[s.in[2]].arr->dtype == FAD_F32))
        && !(x[s.in[1]].arr && x[s.in[2]].arr))
        return -1;
    if (s.op == FAD_OP_where && x[s.in[0]].arr && x[s.in[1]].arr && x[s.in[2]].arr
        && x[s.in[1]].arr->dtype != x[s.in[2]].arr->dtype)
        return -1;
    for (int k = 0; k < s.n && !any; k++) {
        s.in[k] = into_interval(m, x, s.in[k], row->lo[k], row->hi[k]);
        if (s.in[k] < 0) return -1;
    }
    const int y = mixed_push(m, x, &s);
    if (y < 0 || below(5)) return y;
    mixed_step d = {.op = -1, .n = 4, .call = {.kind = FAD_VM_PARTIAL, .op = s.op}};
    d.call.side = below(s.n);
    d.in[3] = y;
    const int zero = mixed_number(m, x, 0.0);
    for (int k = 0; k < 3; k++) d.in[k] = k < s.n ? s.in[k] : zero;
    if (zero < 0) return y;
    return mixed_push(m, x, &d);
}

static int random_structured(mixed *m, var *x)
{
    static const int kinds[] = {
        FAD_VM_SUM_ALL, FAD_VM_BROADCAST, FAD_VM_SUM_TO, FAD_VM_TRANSPOSE, FAD_VM_CAST,
        FAD_VM_MATMUL, FAD_VM_GET, FAD_VM_ASSEMBLE, FAD_VM_ALIAS, FAD_VM_FOREIGN, FAD_VM_ALIAS,
        FAD_VM_BROADCAST, FAD_VM_SUM_AXES, FAD_VM_SLICE, FAD_VM_SCATTER, FAD_VM_JOIN,
        FAD_VM_MASK, FAD_VM_MASK, FAD_VM_PUT, FAD_VM_PUT, FAD_VM_WRITE, FAD_VM_WRITE};
    mixed_step s = {.op = -1, .n = 1};
    structured *c = &s.call;
    c->kind = one_of((int)(sizeof kinds / sizeof *kinds), kinds);
    s.in[0] = any_value(m);
    const var *v = &x[s.in[0]];
    const fad_array *arr = v->arr;
    const int64_t rows = m->rows, columns = m->columns;
    if (!is_floating(v)) return -1;
    switch (c->kind) {
    case FAD_VM_SUM_ALL:
        if (!arr || arr->dtype != FAD_F64) return -1;
        break;
    case FAD_VM_BROADCAST:
        c->ndim = below(3) ? 2 : 3;
        c->shape[c->ndim - 2] = rows;
        c->shape[c->ndim - 1] = columns;
        if (c->ndim == 3) c->shape[0] = rows * columns > 100 ? 1 : 2;
        if (!arr && below(4) == 0) c->ndim = 1, c->shape[0] = columns;
        if (arr) {
            if (arr->ndim > c->ndim) return -1;
            for (int k = 1; k <= arr->ndim; k++)
                if (arr->shape[arr->ndim - k] != 1
                    && arr->shape[arr->ndim - k] != c->shape[c->ndim - k]) return -1;
        }
        break;
    case FAD_VM_SUM_TO:
        if (!arr) return -1;
        c->ndim = below(arr->ndim + 1);
        for (int k = 1; k <= c->ndim; k++)
            c->shape[c->ndim - k] = below(2) ? 1 : arr->shape[arr->ndim - k];
        break;
    case FAD_VM_TRANSPOSE:
        if (!arr || arr->ndim < 2 || (arr->size > 100 && below(4))) return -1;
        for (int k = 0; k < arr->ndim; k++) c->axes[k] = arr->ndim - 1 - k;
        if (arr->ndim == 3 && below(2)) c->axes[0] = 1, c->axes[1] = 0, c->axes[2] = 2;
        break;
    case FAD_VM_CAST:
        if (arr && arr->dtype == FAD_F64 && below(3)) return -1;    /* float32 stays seldom */
        if (!arr && below(3)) return -1;
        c->dtype = arr ? 1 - arr->dtype : FAD_F32;
        break;
    case FAD_VM_MATMUL: {
        s.n = 2;
        s.in[1] = any_value(m);
        const fad_array *b = x[s.in[1]].arr;
        if (!arr || !b || arr->dtype != b->dtype || arr->ndim < 1 || arr->ndim > 2 || b->ndim < 1
            || b->ndim > 2) return -1;
        c->ta = arr->ndim == 2 && below(2);
        c->tb = b->ndim == 2 && below(2);
        c->exact = below(2);
        const int64_t n = arr->ndim == 1 ? arr->shape[0] : arr->shape[!c->ta];
        const int64_t others = (arr->size / (n ? n : 1)) * b->size;
        if (n != (b->ndim == 1 ? b->shape[0] : b->shape[c->tb]) || others > 20000) return -1;
        break;
    }
    case FAD_VM_PUT:
        s.n = 2;
        s.in[1] = any_value(m);
        if (!arr || arr->dtype != FAD_F64 || !arr->size || x[s.in[1]].arr) return -1;
        c->offset = below((int)arr->size);
        c->side = below(2);
        break;
    case FAD_VM_SUM_AXES:
        if (!arr) return -1;
        for (int k = 0; k < arr->ndim; k++)
            if (!(c->axes[k] = below(2))) c->shape[c->ndim++] = arr->shape[k];
        if (!c->ndim && arr->dtype == FAD_F64) return -1;       /* a number: FAD_VM_SUM_ALL */
        break;
    case FAD_VM_SLICE: case FAD_VM_SCATTER: {
        /* every second element from the end on, or elements apart in a longer array */
        if (!arr || arr->ndim < 1) return -1;
        const int slices = c->kind == FAD_VM_SLICE;
        int64_t stride = 1;
        c->ndim = arr->ndim;
        for (int k = arr->ndim - 1; k >= 0; k--) {
            const int64_t step = k == arr->ndim - 1 ? 2 : 1, n = arr->shape[k];
            c->shape[k] = slices ? (n + step - 1) / step : n * step;
            if (!slices && arr->size > 100) return -1;
            c->places[k + 1] = slices ? -stride * step : stride * step;
            if (slices && n) c->places[0] += (n - 1) * stride;
            stride *= slices ? n : c->shape[k];
        }
        break;
    }
    case FAD_VM_JOIN: {
        s.n = 2;
        s.in[1] = any_value(m);
        const fad_array *b = x[s.in[1]].arr;
        if (!arr || !b || arr->dtype != b->dtype || !arr->ndim || arr->ndim != b->ndim
            || arr->size + b->size > 200) return -1;
        c->ndim = arr->ndim;
        for (int k = 0; k < arr->ndim; k++) {
            if (k < arr->ndim - 1 && arr->shape[k] != b->shape[k]) return -1;
            c->shape[k] = arr->shape[k] + (k == arr->ndim - 1 ? b->shape[k] : 0);
        }
        c->offset = arr->ndim - 1;
        break;
    }
    case FAD_VM_WRITE: {
        s.n = 2;
        s.in[1] = any_value(m);
        const fad_array *b = x[s.in[1]].arr;
        if (!arr || arr->ndim < 1 || !arr->size || (b ? b->dtype : FAD_F64) != arr->dtype
            || (b && !b->size)) return -1;
        const int n = 1 + below(3);
        c->side = arr->dtype == FAD_F64 && below(2);
        c->places[0] = 3 + 2 * n;
        c->places[1] = 1;
        c->places[2] = n;
        for (int k = 0; k < n; k++) {
            c->places[3 + k] = below((int)arr->size);
            c->places[3 + n + k] = b ? below((int)b->size) : 0;
        }
        break;
    }
    case FAD_VM_MASK: {
        const double number = below(2) ? 0.0 : below(100) / 50.0 - 1.0;
        if (!arr || arr->dtype != FAD_F64 || !arr->ndim) return -1;
        c->op = below(FAD_MASK_SIGNBIT + 1);
        c->side = below(3);
        if (c->op >= FAD_MASK_NOT) {
            c->side = 0;
            break;
        }
        if (c->side) {
            memcpy(&c->offset, &number, sizeof number);
        } else {
            s.n = 2;
            s.in[1] = any_value(m);
            const fad_array *b = x[s.in[1]].arr;
            if (b && (b->dtype != FAD_F64 || !fad_same_shape(arr, b))) return -1;
        }
        break;
    }
    case FAD_VM_GET:
        if (!arr || arr->dtype != FAD_F64 || !arr->size) return -1;
        c->offset = below((int)arr->size);
        break;
    case FAD_VM_ASSEMBLE:
        s.n = 1 + below(MOST_IN);
        for (int k = 0; k < s.n; k++) {
            s.in[k] = any_value(m);
            if (x[s.in[k]].arr) return -1;
        }
        c->ndim = 1 + below(2);
        c->shape[0] = c->ndim == 1 ? MOST_IN : 2;
        c->shape[1] = 3;
        for (int k = 0; k < s.n; k++) c->places[k] = (k + 2) % MOST_IN;
        break;
    case FAD_VM_ALIAS:
        if (!arr) {
            c->ndim = 1 + below(2);
            c->shape[0] = c->shape[1] = 1;
        } else if (arr->size == 1 && below(2)) {
            c->ndim = 0;
        } else if (below(2)) {
            c->ndim = 1;
            c->shape[0] = arr->size;
        } else if (arr->size == rows * columns) {
            c->ndim = 2;
            c->shape[0] = rows;
            c->shape[1] = columns;
        } else {
            c->ndim = 3;
            c->shape[0] = c->shape[1] = 1;
            c->shape[2] = arr->size;
        }
        break;
    case FAD_VM_FOREIGN:
        c->foreign = arr ? one_of(3, (const int[]){REVERSED, POSITIVE, LAST_ELEMENT}) : AFFINE;
        if (c->foreign == LAST_ELEMENT && !arr->size) return -1;
        break;
    }
    return mixed_push(m, x, &s);
}

/* Whether a guard holds for these values; with `note`, make it what it sees. */
static int sees(mixed_guard *g, const var *x, int note)
{
    const var *v = &x[g->a];
    const double a = v->number, b = x[g->b].number;
    if (note) {
        g->wanted = 1;
        g->number = g->kind == FAD_GUARD_TRUNC ? trunc(a) : a;
        g->wanted = sees(g, x, 0);
        if (g->kind == FAD_GUARD_BYTES) g->seen = fad_array_share(v->arr);
        return 1;
    }
    switch (g->kind) {
    case FAD_GUARD_LT: return (a < b) == g->wanted;
    case FAD_GUARD_LE: return (a <= b) == g->wanted;
    case FAD_GUARD_EQ: return (a == b) == g->wanted;
    case FAD_GUARD_NE: return (a != b) == g->wanted;
    case FAD_GUARD_GT: return (a > b) == g->wanted;
    case FAD_GUARD_GE: return (a >= b) == g->wanted;
    case FAD_GUARD_BITS: return !memcmp(&a, &g->number, sizeof a);
    case FAD_GUARD_TRUNC: return trunc(a) == g->number;
    case FAD_GUARD_BYTES:
        return !g->seen || !memcmp(v->arr->data, g->seen->data,
                                   (size_t)v->arr->size * fad_itemsize(v->arr->dtype));
    case FAD_GUARD_NO_NAN:
        if (!v->arr) return a == a;
        for (int64_t i = 0; i < v->arr->size; i++)
            if (isnan(get(v->arr, i))) return 0;
        return 1;
    }
    return 0;
}

/* A guard on what was made last. */
static void random_guard(mixed *m, var *x, fad_guard *out)
{
    mixed_guard *g = &m->guard[m->n_guard];
    memset(g, 0, sizeof *g);
    g->a = any_value(m);
    g->behind = m->n - 1;
    if (!is_tracked(&x[g->a])) return;
    if (!x[g->a].arr) g->kind = FAD_GUARD_LT + below(FAD_GUARD_TRUNC + 1);
    else if (!is_floating(&x[g->a]) || (x[g->a].arr->size < 10 && below(4) == 0))
        g->kind = FAD_GUARD_BYTES;
    else g->kind = FAD_GUARD_NO_NAN;
    if (g->kind == FAD_GUARD_TRUNC && !isfinite(x[g->a].number)) return;
    if (g->kind == FAD_GUARD_NO_NAN && !sees(g, x, 0)) return;
    sees(g, x, 1);                      /* input 0 is a number */
    const int compares = g->kind <= FAD_GUARD_GE;
    *out = (fad_guard){.kind = g->kind, .wanted = g->wanted, .a = x[g->a].h.idx,
                       .b = compares ? x[0].h.idx : -1, .at = t->n, .number = g->number,
                       .bytes = g->seen ? g->seen->data : NULL};
    if (g->seen) out->size = (size_t)g->seen->size * fad_itemsize(g->seen->dtype);
    m->n_guard++;
}

/* Inputs: two numbers, then arrays of the shapes that go together, the last of truth values. */
static fad_status mixed_inputs(const mixed *m, var *x)
{
    const int64_t rows = m->rows, columns = m->columns;
    const int64_t shapes[4][2] = {{rows, columns}, {1, columns}, {rows, 1}, {rows, columns}};
    for (int k = 0; k < m->n_given; k++) {
        const int64_t *shape = shapes[(k + 2) % 4];
        fad_status status = fad_reserve(t, 1);
        if (status) return status;
        if (k < 2) {
            status = number_leaf(&x[k], below(8) ? uniform(-2.0, 2.0) : k ? -0.0 : 1.0);
        } else if (k < 5) {
            status = drawn_leaf(&x[k], FAD_F64, 2, shapes[k - 2], -2.0, 2.0);
        } else {
            blank(&x[k]);
            x[k].arr = fad_array_new(FAD_BOOL, 2, shape);
            if (!x[k].arr) return FAD_NOMEM;
            for (int64_t i = 0; i < x[k].arr->size; i++)
                ((unsigned char *)x[k].arr->data)[i] = (unsigned char)below(2);
            fad_link(t, &x[k].h, fad_push_array_slow(t, FAD_OP_CONST | FAD_PASSIVE, 0, 0,
                                                     fad_array_share(x[k].arr)));
        }
        if (status) return status;
        node_of(&x[k]);
    }
    return FAD_OK;
}

static void drop_mixed(const mixed *m, var *x)
{
    for (int k = m->n_given + m->n - 1; k >= 0; k--) drop(&x[k]);
}

static void free_mixed(mixed *m)
{
    for (int k = 0; k < m->n; k++)
        if (m->step[k].constant) fad_array_release(m->step[k].constant);
    for (int k = 0; k < m->n_guard; k++)
        if (m->guard[k].seen) fad_array_release(m->guard[k].seen);
    free_kept(m);
}

/* A random function, recorded on x; its guards, and the nodes of n_out random outputs. */
static void random_mixed(mixed *m, var *x, int steps, int guards, fad_guard *guard)
{
    const int64_t shape[2] = {m->rows, m->columns};
    CHECK(mixed_inputs(m, x) == FAD_OK);
    mixed_number(m, x, below(2) ? 1.0 : uniform(-2.0, 2.0));
    mixed_number(m, x, 0.0);
    if (m->n_given > 2) {
        mixed_step s = {.constant = drawn(FAD_F64, 2, shape, -2.0, 2.0)};
        mixed_push(m, x, &s);
    }
    while (m->n < steps) {
        const int before = m->n;
        if (m->n_given > 2 ? below(3) == 0 : below(20) == 0) random_structured(m, x);
        else random_mixed_row(m, x);
        if (guards && m->n > before && m->n_guard < MIXED_GUARDS && below(8) == 0)
            random_guard(m, x, &guard[m->n_guard]);
    }
}

static fad_status mixed_program(mixed *m, var *x, fad_index start, int n_out, const int *out,
                                const fad_guard *guard, fad_program **p)
{
    fad_index in[GIVEN], outs[MIXED + GIVEN];
    m->n_foreign = 0;
    const fad_status status = fad_reserve(t, n_out + 1);
    if (status) return status;
    for (int k = 0; k < m->n_given; k++) in[k] = x[k].h.idx;
    for (int k = 0; k < n_out; k++) {
        unsigned w = 0;
        outs[k] = parent_of(&x[out[k]], &w, 0);
    }
    const fad_build b = {
        .tape = t, .start = start, .end = t->n, .in = in, .out = outs, .n_in = m->n_given,
        .n_out = n_out, .n_guard = m->n_guard, .guard = guard, .classify = classify_mixed,
        .offsets = places_in_mixed, .ctx = m};
    return fad_program_build(&b, p);
}

static void give_mixed(const mixed *m, const fad_program *p, fad_workspace *w, const var *x)
{
    for (int k = 0; k < m->n_given; k++) {
        const fad_place at = fad_program_inputs(p)[k];
        CHECK(at.is_array == (x[k].arr != NULL));
        if (at.is_array) w->array[at.where]->data = x[k].arr->data;
        else w->reg[at.where] = x[k].number;
    }
}

/* One run on new inputs, against recording anew on them. */
static void run_mixed(mixed *m, const fad_program *p, fad_workspace *w, int n_out, const int *out)
{
    static var y[MIXED + GIVEN];
    fad_array *lent[MIXED + GIVEN];
    const fad_vm_calls calls = {.ctx = m, .call = call_mixed};
    int fails = -1, same = 1;
    CHECK(mixed_inputs(m, y) == FAD_OK);
    for (int k = 0; k < m->n; k++) CHECK(do_mixed_step(m, k, y) == FAD_OK);
    for (int k = 0; k < m->n_guard && fails < 0; k++)
        if (!sees(&m->guard[k], y, 0)) fails = k;
    give_mixed(m, p, w, y);
    lend(p, w, n_out, lent);
    m->called = 0;
    m->called_behind = -1;
    w->failed = -2;
    const fad_status status = fad_program_run(p, w, &calls);
    if (fails >= 0) {
        CHECK(status == FAD_GUARD && w->failed == fails);
        CHECK(m->called_behind <= m->guard[fails].behind);
    } else {
        CHECK(status == FAD_OK);
        for (int k = 0; k < n_out; k++)
            same &= same_bits(w, fad_program_outputs(p)[k], &y[out[k]]);
        CHECK(same);
    }
    for (int k = 0; k < n_out; k++)
        if (lent[k]) fad_array_release(lent[k]);
    free_kept(m);
    drop_mixed(m, y);
}

static void check_mixed(int64_t rows, int64_t columns, int given, int every_row, int steps,
                        int runs)
{
    static mixed m;
    static var x[MIXED + GIVEN];
    fad_guard guard[MIXED_GUARDS];
    fad_workspace *w[2];
    fad_program *p = NULL;
    int out[MIXED + GIVEN], n_out = 0;
    memset(&m, 0, sizeof m);
    m.rows = rows;
    m.columns = columns;
    m.n_given = given;
    m.every_row = every_row;
    t->sweeping++;
    const fad_index start = t->n;
    random_mixed(&m, x, steps, below(2), guard);
    for (int k = 0; k < m.n_given + m.n; k++)
        if (k >= m.n_given + m.n - 2 || below(10) == 0) out[n_out++] = k;
    if (below(2)) {                     /* twice */
        out[n_out] = out[below(n_out)];
        n_out++;
    }
    CHECK(mixed_program(&m, x, start, n_out, out, guard, &p) == FAD_OK);
    drop_mixed(&m, x);
    t->sweeping--;
    fad_trim(t);
    drain();
    CHECK(t->n == start);
    CHECK(fad_workspace_new(p, &w[0]) == FAD_OK && fad_workspace_new(p, &w[1]) == FAD_OK);
    for (int k = 0; k < runs; k++) run_mixed(&m, p, w[k < 4 ? k % 2 : 0], n_out, out);
    fad_workspace_free(p, w[0]);
    fad_workspace_free(p, w[1]);
    fad_program_free(p);
    free_mixed(&m);
    drain();
}

static void a_program_has_the_bits_of_every_row(void)
{
    for (int k = 0; k < 1200; k++) check_mixed(1, 1, 2, 1, 5 + below(100), 5);
}

static void a_program_has_the_bits_of_arrays_of_mixed_shapes(void)
{
    for (int k = 0; k < 2000; k++)
        check_mixed(below(12) ? 1 + below(3) : 0, 1 + below(4), 3 + below(4), below(2),
                    5 + below(60), 6);
}

static void a_program_has_the_bits_of_large_arrays(void)
{
    for (int k = 0; k < 60; k++)
        check_mixed(1 + below(3), below(2) ? 4099 : 2050 + below(2100), 3 + below(4), below(2),
                    10 + below(40), 5);
}

/* Any row of float64 as NumPy's loops are: with strides, of which 0 spreads a number. */
static void strided_loop(char **args, const intptr_t *dims, const intptr_t *steps, void *data)
{
    const fad_row *row = data;
    for (intptr_t i = 0; i < dims[0]; i++) {
        double in[3] = {0.0}, y;
        for (int k = 0; k < row->arity; k++) memcpy(&in[k], args[k] + i * steps[k], sizeof in[k]);
        y = row->arity == 1 ? fad_eval1(row->op, in[0])
            : row->arity == 2 ? fad_eval2(row->op, in[0], in[1])
            : fad_eval3(row->op, in[0], in[1], in[2]);
        memcpy(args[row->arity] + i * steps[row->arity], &y, sizeof y);
    }
    loop_calls++;
}

static void a_program_has_the_bits_of_loops_that_were_handed_over(void)
{
    loop_calls = 0;
    for (int k = 0; k < fad_row_count; k++)
        if (*fad_rows[k].numpy && k % 4)
            fad_set_loop(fad_rows[k].op, FAD_F64, strided_loop, (void *)&fad_rows[k]);
    for (int k = 0; k < 400; k++)
        check_mixed(1 + below(3), 1 + below(4), 3 + below(4), below(2), 5 + below(60), 6);
    for (int k = 0; k < 20; k++)
        check_mixed(1 + below(3), 2050 + below(2100), 3 + below(4), below(2), 10 + below(40), 3);
    for (int k = 0; k < fad_row_count; k++) fad_set_loop(fad_rows[k].op, FAD_F64, NULL, NULL);
    CHECK(loop_calls > 1000);
}

/* A guard on an array ends a run at its place, and the next run is none the worse. */
static void guards_on_arrays_end_a_run_and_spoil_nothing(void)
{
    const int64_t shape[2] = {2, 3};
    for (int kind = FAD_GUARD_BYTES; kind <= FAD_GUARD_NO_NAN; kind++)
        for (int dtype = FAD_F64; dtype <= FAD_F32; dtype++) {
            var x, y;
            fad_program *p = NULL;
            fad_workspace *w;
            const fad_index start = t->n;
            t->sweeping++;
            CHECK(drawn_leaf(&x, dtype, 2, shape, 1.0, 2.0) == FAD_OK);
            CHECK(fad_reserve(t, 4) == FAD_OK && node_of(&x) == start);
            CHECK(op1(&y, FAD_OP_negative, &x) == FAD_OK);
            const fad_guard g[2] = {
                {.kind = FAD_GUARD_NO_NAN, .wanted = 1, .a = start, .b = -1, .at = start + 1},
                {.kind = kind, .wanted = 1, .a = y.h.idx, .b = -1, .at = t->n,
                 .bytes = y.arr->data, .size = 6 * fad_itemsize(dtype)}};
            const fad_build b = {.tape = t, .start = start, .end = t->n, .in = &start,
                                 .out = &y.h.idx, .n_in = 1, .n_out = 1, .n_guard = 2, .guard = g,
                                 .classify = classify_total};
            CHECK(fad_program_build(&b, &p) == FAD_OK && fad_workspace_new(p, &w) == FAD_OK);
            fad_array *own = fad_array_copy(x.arr), *lent = fad_array_copy(x.arr);
            w->array[fad_program_inputs(p)[0].where]->data = own->data;
            CHECK(fad_output_is_callers(p, 0));
            w->array[fad_program_outputs(p)[0].where]->data = lent->data;
            CHECK(fad_program_run(p, w, NULL) == FAD_OK && get(lent, 5) == get(y.arr, 5));
            put(own, 5, 7.0);
            const int bytes = kind == FAD_GUARD_BYTES;
            CHECK(fad_program_run(p, w, NULL) == (bytes ? FAD_GUARD : FAD_OK));
            if (bytes) CHECK(w->failed == 1);
            put(own, 5, NAN);
            CHECK(fad_program_run(p, w, NULL) == FAD_GUARD && w->failed == 0);
            put(own, 5, get(x.arr, 5));
            CHECK(fad_program_run(p, w, NULL) == FAD_OK && get(lent, 5) == get(y.arr, 5));
            fad_workspace_free(p, w);
            fad_program_free(p);
            fad_array_release(own), fad_array_release(lent);
            drop(&y), drop(&x);
            t->sweeping--;
            fad_trim(t);
            drain();
        }
}

static int refused_calls;

static int refuse_call(void *ctx, fad_workspace *w, int32_t k, int32_t n, const fad_place *in,
                       fad_place out)
{
    (void)w, (void)k, (void)n, (void)in, (void)out;
    refused_calls++;
    return *(int *)ctx;
}

static void a_foreign_call_that_refuses_ends_the_run(void)
{
    static mixed m;
    var x[3];
    fad_program *p = NULL;
    fad_workspace *w;
    int answer = 1;
    memset(&m, 0, sizeof m);
    m.n_given = 1;
    structured affine = {.kind = FAD_VM_FOREIGN, .foreign = AFFINE};
    t->sweeping++;
    CHECK(number_leaf(&x[0], 1.0) == FAD_OK && fad_reserve(t, 1) == FAD_OK);
    const fad_index start = t->n;
    node_of(&x[0]);
    CHECK(record_structured(&x[1], &affine, 1, (var *const[]){&x[0]}) == FAD_OK);
    CHECK(record_structured(&x[2], &affine, 1, (var *const[]){&x[1]}) == FAD_OK);
    CHECK(mixed_program(&m, x, start, 1, (const int[]){2}, NULL, &p) == FAD_OK);
    CHECK(fad_program_describe(p).foreign == 2);
    CHECK(fad_workspace_new(p, &w) == FAD_OK);
    const fad_vm_calls refusing = {.ctx = &answer, .call = refuse_call};
    refused_calls = 0;
    w->failed = 5;
    CHECK(fad_program_run(p, w, &refusing) == FAD_GUARD && w->failed == -1);
    answer = -1;
    CHECK(fad_program_run(p, w, &refusing) == FAD_CALLBACK && refused_calls == 2);
    const fad_vm_calls calls = {.ctx = &m, .call = call_mixed};
    w->reg[fad_program_inputs(p)[0].where] = 3.0;
    CHECK(fad_program_run(p, w, &calls) == FAD_OK);
    CLOSE(w->reg[fad_program_outputs(p)[0].where], 15.0, 0.0);
    fad_workspace_free(p, w);
    fad_program_free(p);
    for (int k = 2; k >= 0; k--) drop(&x[k]);
    t->sweeping--;
    fad_trim(t);
}

/* What a program needs of the tape it keeps, and nothing else: values of the trace are not kept. */
static void a_program_outlives_its_tape_and_keeps_no_values_of_it(void)
{
    for (int k = 0; k < 40; k++) {
        static mixed m;
        static var x[MIXED + GIVEN];
        fad_workspace *w;
        fad_program *p = NULL;
        int out[MIXED + GIVEN], n_out = 0;
        int64_t constants = 0;
        char fixed[MIXED + GIVEN] = {0};
        memset(&m, 0, sizeof m);
        m.rows = 2;
        m.columns = 4099;
        m.n_given = 6;
        t->sweeping++;
        const fad_index start = t->n;
        random_mixed(&m, x, 30, 0, NULL);
        for (int j = 0; j < m.n_given + m.n; j++)
            if (j >= m.n_given + m.n - 3) out[n_out++] = j;
        CHECK(mixed_program(&m, x, start, n_out, out, NULL, &p) == FAD_OK);
        for (int j = 0; j < m.n; j++) {     /* what no input reaches is part of the program */
            const mixed_step *step = &m.step[j];
            const int at = m.n_given + j;
            fixed[at] = 1;
            for (int i = 0; i < step->n; i++) fixed[at] &= fixed[step->in[i]];
            if (fixed[at] && x[at].arr) constants += fad_array_bytes(x[at].arr) + 4096;
        }
        drop_mixed(&m, x);
        t->sweeping--;
        fad_tape_clear(t);
        drain();
        CHECK(fad_large_bytes <= constants);
        fad_tape_init(t);
        CHECK(fad_workspace_new(p, &w) == FAD_OK);
        for (int run = 0; run < 3; run++) run_mixed(&m, p, w, n_out, out);
        fad_workspace_free(p, w);
        fad_program_free(p);
        free_mixed(&m);
        drain();
    }
}

static void any_allocation_may_fail_for_all_that_a_program_knows(void)
{
    int failures = 0, failed_runs = 0;
    for (int k = 0; k < 12; k++) {
        static mixed m;
        static var x[MIXED + GIVEN];
        fad_guard guard[MIXED_GUARDS];
        const int large = k % 4 == 0;
        const fad_vm_calls calls = {.ctx = &m, .call = call_mixed};
        memset(&m, 0, sizeof m);
        m.rows = 2;
        m.columns = large ? 2500 : 3;
        m.n_given = 6;
        t->sweeping++;
        const fad_index start = t->n;
        random_mixed(&m, x, 40, 1, guard);
        int out[20], n_out = 0;
        for (int j = m.n_given; j < m.n_given + m.n && n_out < 20; j += 3) out[n_out++] = j;
        CHECK(fad_reserve(t, n_out + 1) == FAD_OK);
        for (int left = 0;; left++) {
            fad_program *p = NULL;
            fad_workspace *w = NULL;
            fad_array *lent[20] = {NULL};
            fad_fail_allocation(left);
            fad_status status = mixed_program(&m, x, start, n_out, out, guard, &p);
            CHECK(!status == (p != NULL));
            if (!status) status = fad_workspace_new(p, &w);
            const int ready = !status;
            if (ready) {
                const int64_t more = fad_allocations_left();
                fad_fail_allocation(-1);
                give_mixed(&m, p, w, x);
                lend(p, w, n_out, lent);
                fad_fail_allocation(more);
                status = fad_program_run(p, w, &calls);
                failed_runs += status != FAD_OK;
            }
            const int done = !status;
            fad_fail_allocation(-1);
            if (ready && !done) {               /* and the workspace is as good as before */
                give_mixed(&m, p, w, x);
                CHECK(fad_program_run(p, w, &calls) == FAD_OK);
                for (int j = 0; j < n_out; j++)
                    CHECK(same_bits(w, fad_program_outputs(p)[j], &x[out[j]]));
            }
            for (int j = 0; j < n_out; j++)
                if (lent[j]) fad_array_release(lent[j]);
            free_kept(&m);
            if (w) fad_workspace_free(p, w);
            if (p) fad_program_free(p);
            if (done) break;
            CHECK(status == FAD_NOMEM);
            failures++;
        }
        drop_mixed(&m, x);
        t->sweeping--;
        fad_trim(t);
        free_mixed(&m);
        drain();
    }
    CHECK(failures > 100 && failed_runs > 0);
}

/* ---- lanes ------------------------------------------------------------------------------------ */

enum { LANE_ROWS = 40 };
static int lanes_refused, lanes_compared, lanes_failed;

static size_t bytes_of(const var *x)
{
    return x->arr ? (size_t)x->arr->size * fad_itemsize(x->arr->dtype) : sizeof(double);
}

static const void *data_of(const var *x) { return x->arr ? x->arr->data : &x->number; }

/* Whether memory holds the value x, nan for any nan. */
static int holds(const void *memory, const var *x)
{
    if (!x->arr) {
        double v;
        memcpy(&v, memory, sizeof v);
        return !memcmp(&v, &x->number, sizeof v) || (isnan(v) && isnan(x->number));
    }
    fad_array got = {.dtype = x->arr->dtype, .size = x->arr->size, .data = (void *)memory};
    for (int64_t i = 0; i < got.size; i++) {
        const double a = get(&got, i), b = get(x->arr, i);
        if (memcmp(&a, &b, sizeof a) && !(isnan(a) && isnan(b))) return 0;
    }
    return 1;
}

/* A random program over rows of which some inputs differ, against recording anew for each row. */
static void check_lanes(int64_t rows, int64_t columns, int given, int every_row, int steps)
{
    static mixed m;
    static var x[MIXED + GIVEN], base[MIXED + GIVEN], y[LANE_ROWS][MIXED + GIVEN];
    fad_guard guard[MIXED_GUARDS];
    unsigned char varies[GIVEN], failed[LANE_ROWS];
    void *in[GIVEN] = {NULL}, *result[MIXED + GIVEN];
    fad_program *p = NULL;
    fad_lanes *l = NULL;
    fad_lane_workspace *w = NULL;
    int out[MIXED + GIVEN], n_out = 0;
    const int count = 1 + below(below(3) ? 10 : LANE_ROWS);
    memset(&m, 0, sizeof m);
    m.rows = rows;
    m.columns = columns;
    m.n_given = given;
    m.every_row = every_row;
    const fad_vm_calls calls = {.ctx = &m, .call = call_mixed};
    t->sweeping++;
    const fad_index start = t->n;
    random_mixed(&m, x, steps, below(2), guard);
    for (int k = 0; k < m.n_given + m.n; k++)
        if (is_floating(&x[k]) && (k >= m.n_given + m.n - 2 || below(10) == 0)) out[n_out++] = k;
    CHECK(mixed_program(&m, x, start, n_out, out, guard, &p) == FAD_OK);
    for (int k = 0; k < given; k++) varies[k] = (unsigned char)(k < 5 ? below(3) > 0 : !below(9));
    CHECK(fad_lanes_new(p, varies, &l) == FAD_OK);
    lanes_refused += !l;
    CHECK(mixed_inputs(&m, base) == FAD_OK);
    for (int row = 0; row < count && l; row++) {
        CHECK(mixed_inputs(&m, y[row]) == FAD_OK);
        for (int k = 0; k < given; k++) {
            const size_t bytes = bytes_of(&base[k]);
            if (!row) in[k] = malloc((size_t)count * bytes + 1);
            if (!varies[k]) {
                y[row][k].number = base[k].number;
                if (!base[k].arr) t->value[y[row][k].h.idx].f = base[k].number;
                if (base[k].arr) memcpy(y[row][k].arr->data, base[k].arr->data, bytes);
            }
            memcpy((char *)in[k] + (size_t)row * bytes, data_of(&y[row][k]), bytes);
        }
        for (int k = 0; k < m.n; k++) CHECK(do_mixed_step(&m, k, y[row]) == FAD_OK);
    }
    if (l) {
        CHECK(fad_lane_workspace_new(l, &w) == FAD_OK);
        for (int k = 0; k < n_out; k++)
            result[k] = malloc((size_t)count * bytes_of(&y[0][out[k]]) + 1);
    }
    for (int round = 0; round < 2 && l; round++) {
        memset(failed, 7, sizeof failed);
        for (int from = 0; from < count; from += fad_lanes_width(l)) {
            const int to = round || from + fad_lanes_width(l) > count ? count
                : from + fad_lanes_width(l);
            give_mixed(&m, p, w->shared, base);
            CHECK(fad_lanes_run(l, w, (const void *const *)in, result, failed, from, to, &calls)
                  == FAD_OK);
            if (to == count) break;
        }
        for (int row = 0; row < count; row++) {
            int fails = 0, same = 1;
            for (int k = 0; k < m.n_guard; k++) fails |= !sees(&m.guard[k], y[row], 0);
            CHECK(failed[row] == fails);
            lanes_failed += fails;
            for (int k = 0; k < n_out && !fails; k++)
                same &= holds((char *)result[k] + (size_t)row * bytes_of(&y[row][out[k]]),
                              &y[row][out[k]]);
            CHECK(same);
            lanes_compared++;
        }
        free_kept(&m);
    }
    for (int k = 0; k < n_out && l; k++) free(result[k]);
    for (int row = count - 1; row >= 0 && l; row--) drop_mixed(&m, y[row]);
    for (int k = 0; k < given; k++) {
        free(in[k]);
        drop(&base[k]);
    }
    drop_mixed(&m, x);
    t->sweeping--;
    fad_trim(t);
    if (w) fad_lane_workspace_free(l, w);
    if (l) fad_lanes_free(l);
    fad_program_free(p);
    free_mixed(&m);
    drain();
}

static void lanes_have_the_bits_of_runs_row_by_row(void)
{
    lanes_refused = lanes_compared = lanes_failed = 0;
    for (int k = 0; k < 600; k++) check_lanes(1, 1, 2, 1, 5 + below(100));
    CHECK(!lanes_refused && lanes_compared > 5000 && lanes_failed > 100);
    for (int k = 0; k < 1000; k++)
        check_lanes(below(12) ? 1 + below(3) : 0, 1 + below(4), 3 + below(4), below(2),
                    5 + below(60));
    for (int k = 0; k < 60; k++)        /* few lanes at once */
        check_lanes(1 + below(3), 250 + below(300), 3 + below(3), below(2), 40 + below(100));
    for (int k = 0; k < 20; k++)
        check_lanes(2, 4000 + below(1000), 3 + below(3), below(2), 10 + below(40));
    CHECK(lanes_refused > 10);
}

static void lanes_have_the_bits_of_loops_that_were_handed_over(void)
{
    loop_calls = 0;
    for (int k = 0; k < fad_row_count; k++)
        if (*fad_rows[k].numpy && k % 4)
            fad_set_loop(fad_rows[k].op, FAD_F64, strided_loop, (void *)&fad_rows[k]);
    for (int k = 0; k < 200; k++) check_lanes(1, 1, 2, 1, 5 + below(100));
    for (int k = 0; k < 300; k++)
        check_lanes(1 + below(3), 1 + below(4), 3 + below(4), below(2), 5 + below(60));
    for (int k = 0; k < fad_row_count; k++) fad_set_loop(fad_rows[k].op, FAD_F64, NULL, NULL);
    CHECK(loop_calls > 1000);
}

/* A loop whose results are off by a little, as vector code is. */
static void loop_off(char **args, const intptr_t *dims, const intptr_t *steps, void *data)
{
    const fad_row *row = data;
    for (intptr_t i = 0; i < dims[0]; i++) {
        double x, y;
        memcpy(&x, args[0] + i * steps[0], sizeof x);
        y = fad_eval1(row->op, x) * (1.0 + 0x1p-40);
        memcpy(args[1] + i * steps[1], &y, sizeof y);
    }
    loop_calls++;
}

static void what_a_guard_or_a_step_sees_has_the_bits_of_a_single_run(void)
{
    var x[INPUTS], y[6];
    fad_program *p = NULL;
    fad_lanes *l = NULL;
    fad_lane_workspace *w = NULL;
    const fad_index start = t->n;
    const unsigned char varies[INPUTS] = {1, 0, 0};
    double in[9], results[3][9];
    unsigned char failed[9];
    const void *rows[INPUTS] = {in, NULL, NULL};
    void *out[] = {results[0], results[1], results[2]};
    fad_set_loop(FAD_OP_exp, FAD_F64, loop_off, (void *)fad_row_of(FAD_OP_exp));
    fad_set_loop(FAD_OP_sin, FAD_F64, loop_off, (void *)fad_row_of(FAD_OP_sin));
    loop_calls = 0;
    t->sweeping++;
    for (int k = 0; k < INPUTS; k++) {
        CHECK(number_leaf(&x[k], 0.5) == FAD_OK);
        CHECK(fad_reserve(t, 1) == FAD_OK);
        node_of(&x[k]);
    }
    CHECK(op1(&y[0], FAD_OP_exp, &x[0]) == FAD_OK);         /* seen by a step */
    CHECK(op1(&y[1], FAD_OP_floor, &y[0]) == FAD_OK);
    CHECK(op1(&y[2], FAD_OP_sin, &x[0]) == FAD_OK);         /* by a guard, through a product */
    CHECK(op2(&y[3], FAD_OP_multiply, &y[2], &x[1]) == FAD_OK);
    CHECK(op1(&y[4], FAD_OP_exp, &y[3]) == FAD_OK);         /* by nobody */
    const fad_guard guard = {.kind = FAD_GUARD_LT, .wanted = 1, .a = y[3].h.idx, .b = x[2].h.idx,
                             .at = t->n};
    const int outs[] = {1, 3, 4};
    fad_index in_nodes[INPUTS], out_nodes[3];
    for (int k = 0; k < INPUTS; k++) in_nodes[k] = x[k].h.idx;
    for (int k = 0; k < 3; k++) out_nodes[k] = y[outs[k]].h.idx;
    const fad_build b = {.tape = t, .start = start, .end = t->n, .in = in_nodes, .out = out_nodes,
                         .n_in = INPUTS, .n_out = 3, .n_guard = 1, .guard = &guard,
                         .classify = classify_total};
    CHECK(fad_program_build(&b, &p) == FAD_OK);
    CHECK(fad_lanes_new(p, varies, &l) == FAD_OK && l);
    CHECK(fad_lane_workspace_new(l, &w) == FAD_OK);
    w->shared->reg[fad_program_inputs(p)[1].where] = 0.75;
    w->shared->reg[fad_program_inputs(p)[2].where] = 0.5;
    for (int k = 0; k < 9; k++) in[k] = 0.1 * k;
    CHECK(fad_lanes_run(l, w, rows, out, failed, 0, 9, NULL) == FAD_OK);
    for (int k = 0; k < 9; k++) {
        const double seen = sin(in[k]) * 0.75;
        CHECK(failed[k] == !(seen < 0.5));
        if (failed[k]) continue;
        CHECK(results[0][k] == floor(exp(in[k])));
        CHECK(results[1][k] == seen);
        CHECK(results[2][k] == exp(seen) * (1.0 + 0x1p-40));
    }
    CHECK(loop_calls == 1);
    fad_lane_workspace_free(l, w);
    fad_lanes_free(l);
    fad_program_free(p);
    fad_set_loop(FAD_OP_exp, FAD_F64, NULL, NULL);
    fad_set_loop(FAD_OP_sin, FAD_F64, NULL, NULL);
    for (int k = 4; k >= 0; k--) drop(&y[k]);
    for (int k = 0; k < INPUTS; k++) drop(&x[k]);
    t->sweeping--;
    fad_trim(t);
    drain();
}

static int fail_all_of_lanes(const fad_program *p, const unsigned char *varies, int *refused)
{
    for (int failures = 0;; failures++) {
        fad_lanes *l = NULL;
        fad_lane_workspace *w = NULL;
        fad_fail_allocation(failures);
        fad_status status = fad_lanes_new(p, varies, &l);
        CHECK(!status || !l);
        if (l) status = fad_lane_workspace_new(l, &w);
        CHECK(!status || !w);
        fad_fail_allocation(-1);
        if (!status) *refused += !l;
        if (w) fad_lane_workspace_free(l, w);
        if (l) fad_lanes_free(l);
        if (!status) return failures;
        CHECK(status == FAD_NOMEM);
    }
}

static void any_allocation_of_lanes_may_fail(void)
{
    static mixed m;
    static var x[MIXED + GIVEN];
    const unsigned char varies[GIVEN] = {1, 0, 1, 0, 1, 0};
    int failures = 0, refused = 0;
    for (int round = 0; round < 20; round++) {
        fad_guard guard[MIXED_GUARDS];
        fad_program *p = NULL;
        memset(&m, 0, sizeof m);
        m.rows = 2;
        m.columns = 3;
        m.n_given = 6;
        t->sweeping++;
        const fad_index start = t->n;
        random_mixed(&m, x, 150, 1, guard);
        int out[20], n_out = 0;
        for (int j = m.n_given; j < m.n_given + m.n && n_out < 20; j++)
            if (is_floating(&x[j])) out[n_out++] = j;
        CHECK(mixed_program(&m, x, start, n_out, out, guard, &p) == FAD_OK);
        failures += fail_all_of_lanes(p, varies, &refused);
        drop_mixed(&m, x);
        t->sweeping--;
        fad_trim(t);
        fad_program_free(p);
        free_mixed(&m);
        drain();
    }
    CHECK(failures > 150 && refused < 20);
}

/* Random scalar graphs of rows whose formulas were handed over. */
static void recorded_sweeps_agree_with_reverse_sweeps_of_random_graphs(void)
{
    int compared = 0;
    static const int ops[] = {
        FAD_OP_add, FAD_OP_subtract, FAD_OP_multiply, FAD_OP_divide, FAD_OP_negative,
        FAD_OP_positive, FAD_OP_sin, FAD_OP_cos, FAD_OP_exp, FAD_OP_zmul, FAD_OP_rint};
    enum { LEAVES = 3, NODES = 40 };
    hand_over_some_formulas();
    for (int round = 0; round < 500; round++) {
        static var x[LEAVES + 1 + NODES];
        static fad_index bar[4000];
        const int n = 3 + below(NODES - 3);
        fad_sweep s;
        context c = {0};
        for (int k = 0; k < LEAVES; k++) CHECK(number_leaf(&x[k], uniform(-1.5, 1.5)) == FAD_OK);
        x[LEAVES] = number_var(below(3) ? uniform(-1.5, 1.5) : 0.0);
        for (int k = LEAVES + 1; k <= LEAVES + n; k++) {
            const int op = ops[below((int)(sizeof ops / sizeof *ops))];
            const int a = below(k), b = below(4) ? below(k) : a;
            CHECK(record(&x[k], op, fad_row_of(op)->arity, (var *const[]){&x[a], &x[b]}) == FAD_OK);
        }
        var *y = &x[LEAVES + n];
        for (int k = 0; k < LEAVES; k++) node_of(&x[k]);
        if (y->h.idx >= 0) {
            double want[LEAVES];
            CHECK(reverse_from(y, 1.0, NULL, KEEP, &s, &c) == FAD_OK);
            for (int k = 0; k < LEAVES; k++) want[k] = received(&s, &x[k], 0);
            finish(y, &s, KEEP);
            t->sweeping++;
            fad_index low = y->h.idx;
            for (int i = 0; i <= y->h.idx; i++) bar[i] = -1;
            CHECK(fad_reserve(t, 1) == FAD_OK);
            bar[y->h.idx] = fad_const(t, 1.0);
            for (fad_index i = y->h.idx; i >= low; i--)
                if (bar[i] >= 0 && !fad_stops(t, i) && (t->op[i] & FAD_OPCODE) != FAD_OP_LEAF)
                    CHECK(fad_expand(t, i, bar[i], bar, &low) == FAD_OK);
            for (int k = 0; k < LEAVES; k++) {
                const fad_index at = x[k].h.idx;
                const double got = at >= 0 && at <= y->h.idx && bar[at] >= 0
                    ? t->value[bar[at]].f : 0.0;
                CLOSE(got, want[k], 0.0);
            }
            int usual = 1;      /* where all is finite and nothing cancels, both ways agree */
            for (fad_index i = 0; i <= y->h.idx; i++)
                usual &= fabs(t->value[i].f) < 1e3
                         && (bar[i] < 0 || fabs(t->value[bar[i]].f) < 1e3);
            for (int k = 0; k < LEAVES && usual; k++) {
                if (x[k].h.idx < 0 || x[k].h.idx > y->h.idx) continue;
                for (int i = 0; i <= y->h.idx; i++) bar[i] = -1;
                CHECK(fad_reserve(t, 1) == FAD_OK);
                bar[x[k].h.idx] = fad_const(t, 1.0);
                for (fad_index i = 0; i <= y->h.idx; i++)
                    if (bar[i] < 0 && !fad_stops(t, i) && (t->op[i] & FAD_OPCODE) > FAD_OP_LEAF)
                        CHECK(fad_expand_forward(t, i, bar) == FAD_OK);
                CLOSE(bar[y->h.idx] < 0 ? 0.0 : t->value[bar[y->h.idx]].f, want[k], 1e-9);
                compared++;
            }
            t->sweeping--;
        }
        for (int k = LEAVES + n; k >= 0; k--) drop(&x[k]);
        fad_trim(t);
    }
    CHECK(compared > 300);
}

/* Numbers of a formula that push each other out of the tape's cache of constants. */
static void a_recorded_sweep_reserves_enough_for_any_formula(void)
{
    enum { LONGEST = 24 };
    double number[2] = {1.0, 0.0};
    unsigned at[2];
    for (double v = 1.5; number[1] == 0.0; v += 0.25) {
        const double pair[2] = {1.0, v};
        for (int k = 0; k < 2; k++) {
            uint64_t bits;
            memcpy(&bits, &pair[k], 8);
            at[k] = (unsigned)((bits * UINT64_C(0x9E3779B97F4A7C15)) >> 56);
        }
        if (at[0] == at[1]) number[1] = v;
    }
    fad_formula_step steps[LONGEST];
    for (int k = 0; k < LONGEST; k++)
        steps[k] = (fad_formula_step){FAD_OP_add, FAD_REF_NUMBER, FAD_REF_NUMBER + 1};
    for (int side = 0; side < 2; side++)
        CHECK(fad_set_formula(FAD_OP_logaddexp, side, LONGEST, steps, 2, number));
    CHECK(!fad_set_formula(FAD_OP_logaddexp, 0, LONGEST + 1, steps, 2, number));
    CHECK(!fad_set_formula(FAD_OP_logaddexp, 0, LONGEST, steps, 9, number));
    for (int left = 60; left < 460; left++) {
        const int forward = left >= 260;
        static fad_index bar[70000];
        var x, z, y;
        fad_tape_clear(t);
        fad_tape_init(t);
        CHECK(number_leaf(&x, 1.0) == FAD_OK && number_leaf(&z, 2.0) == FAD_OK);
        CHECK(op2(&y, FAD_OP_logaddexp, &x, &z) == FAD_OK);
        t->sweeping++;
        const fad_index cap = t->cap;
        while (t->n < cap - (forward ? left - 200 : left)) fad_push(t, FAD_OP_CONST | FAD_PASSIVE, 0, 0, 0.0);
        for (fad_index i = 0; i <= y.h.idx; i++) bar[i] = -1;
        fad_index low = y.h.idx;
        if (forward) {
            bar[x.h.idx] = bar[z.h.idx] = x.h.idx;
            CHECK(fad_expand_forward(t, y.h.idx, bar) == FAD_OK && bar[y.h.idx] >= 0);
        } else CHECK(fad_expand(t, y.h.idx, x.h.idx, bar, &low) == FAD_OK);
        CHECK(t->n <= t->cap);
        t->sweeping--;
        drop(&y), drop(&x), drop(&z);
        fad_trim(t);
    }
    for (int side = 0; side < 2; side++) fad_set_formula(FAD_OP_logaddexp, side, 0, steps, 0, NULL);
}

/* ---- programs called from C ------------------------------------------------------------------ */

/* The program of op(x0, x2) where (x0 < x1) == less, over numbers; x2 an array where `length`. */
static fad_program *guarded_program(int op, int less, int64_t length)
{
    var x[INPUTS], y;
    fad_program *p = NULL;
    const fad_index start = t->n;
    t->sweeping++;
    CHECK(number_leaf(&x[0], less ? 1.0 : 3.0) == FAD_OK && number_leaf(&x[1], 2.0) == FAD_OK);
    if (length) CHECK(drawn_leaf(&x[2], FAD_F64, 1, &length, 1.0, 2.0) == FAD_OK);
    else CHECK(number_leaf(&x[2], 5.0) == FAD_OK);
    CHECK(fad_reserve(t, 4) == FAD_OK);
    for (int k = 0; k < INPUTS; k++) node_of(&x[k]);
    CHECK(op2(&y, op, &x[0], &x[2]) == FAD_OK);
    const fad_guard g = {.kind = FAD_GUARD_LT, .wanted = less, .a = x[0].h.idx, .b = x[1].h.idx,
                         .at = t->n};
    const fad_index in[INPUTS] = {x[0].h.idx, x[1].h.idx, x[2].h.idx};
    const fad_index out[3] = {y.h.idx, x[0].h.idx, y.h.idx};
    const fad_build b = {.tape = t, .start = start, .end = t->n, .in = in, .out = out,
                         .n_in = INPUTS, .n_out = 3, .n_guard = 1, .guard = &g,
                         .classify = classify_total};
    CHECK(fad_program_build(&b, &p) == FAD_OK);
    drop(&y);
    for (int k = 0; k < INPUTS; k++) drop(&x[k]);
    t->sweeping--;
    fad_trim(t);
    drain();
    return p;
}

static void a_c_function_tries_each_recording_and_fails_with_nan(void)
{
    fad_program *p[2] = {guarded_program(FAD_OP_multiply, 1, 0), guarded_program(FAD_OP_add, 0, 0)};
    const double five = 5.0, *outer[1] = {&five};
    const fad_native_way way[2] = {{p[0], outer}, {p[1], outer}};
    fad_native *both, *first;
    double in[2] = {1.0, 2.0}, value, rest[2];
    CHECK(fad_native_new(2, way, 2, 1, &both) == FAD_OK);
    CHECK(fad_native_new(1, way, 2, 1, &first) == FAD_OK);
    const fad_native_sizes size = fad_native_size(both);
    CHECK(size.in == 2 && size.value == 1 && size.rest == 2);
    for (int k = 0; k < 6; k++) {
        in[0] = k;
        CHECK(fad_native_call(in, &value, rest, both) == FAD_NATIVE_OK);
        CHECK(value == (k < 2 ? 5.0 * k : 5.0 + k) && rest[0] == k && rest[1] == value);
        CHECK(fad_native_call(in, &value, rest, first) == (k < 2 ? FAD_NATIVE_OK : FAD_NATIVE_GUARD));
        CHECK(k < 2 ? value == 5.0 * k : isnan(value) && isnan(rest[0]) && isnan(rest[1]));
    }
    CHECK(isnan(fad_native_numbers(2, in, both)));          /* it gives three numbers */
    fad_native_free(both), fad_native_free(first);
    CHECK(fad_native_new(1, way, 2, 3, &first) == FAD_OK);
    in[0] = 1.0;
    double line[3];
    intptr_t at[2] = {1, 2};
    CHECK(fad_native_filter1d(in, 2, line, 3, first) && line[0] == 5.0 && line[1] == 1.0);
    CHECK(fad_native_mapping(at, line, 2, 3, first) && line[2] == 5.0);
    CHECK(!fad_native_filter1d(in, 3, line, 3, first) && !fad_native_mapping(at, line, 1, 3, first));
    CHECK(!fad_native_filter(in, 2, line, first));
    in[0] = 3.0;
    CHECK(!fad_native_filter1d(in, 2, line, 3, first) && isnan(line[0]));
    fad_native_free(first);
    for (int k = 0; k < 2; k++) fad_program_free(p[k]);
}

static void a_c_function_lends_arrays_and_copies_what_is_shown_twice(void)
{
    fad_program *p = guarded_program(FAD_OP_multiply, 1, 7);
    const fad_native_way way = {p, NULL};
    fad_native *f;
    double in[9] = {1.5, 2.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0}, value[8], rest[7];
    CHECK(fad_native_new(1, &way, 3, 2, &f) == FAD_OK);
    CHECK(fad_native_size(f).in == 9 && fad_native_size(f).value == 8);
    CHECK(fad_native_call(in, value, rest, f) == FAD_NATIVE_OK);
    for (int k = 0; k < 7; k++) CHECK(value[k] == 1.5 * (k + 1) && rest[k] == value[k]);
    CHECK(value[7] == 1.5);
    in[0] = 2.0;
    CHECK(fad_native_call(in, value, rest, f) == FAD_NATIVE_GUARD && isnan(rest[6]));
    fad_native_free(f);
    fad_program *other = guarded_program(FAD_OP_add, 0, 6);
    const fad_native_way unlike[2] = {{p, NULL}, {other, NULL}};
    CHECK(fad_native_new(2, unlike, 3, 2, &f) == FAD_SHAPE && !f);
    fad_program_free(p), fad_program_free(other);
}

static void slots_are_given_out_until_none_is_free_and_fail_when_given_back(void)
{
    fad_program *p = guarded_program(FAD_OP_multiply, 1, 0);
    const double two = 2.0, five = 5.0, *outer[2] = {&two, &five};
    const fad_native_way way = {p, outer};
    fad_native *f;
    int slot[FAD_NATIVE_SLOTS];
    double x = 1.0, value[3];
    CHECK(fad_native_new(1, &way, 1, 3, &f) == FAD_OK);
    for (int k = 0; k < FAD_NATIVE_SLOTS; k++) {
        slot[k] = fad_native_take_slot(f);
        CHECK(slot[k] >= 0 && slot[k] < FAD_NATIVE_SLOTS);
        for (int j = 0; j < k; j++) CHECK(slot[j] != slot[k]);
    }
    CHECK(fad_native_take_slot(f) == -1);
    for (int k = 0; k < FAD_NATIVE_SLOTS; k++) {
        const fad_native_plain form = fad_native_slot(slot[k]);
        CHECK(form.call(&x, value, NULL) == FAD_NATIVE_OK && value[0] == 5.0);
        CHECK(isnan(form.number(x)) && isnan(form.numbers(1, &x)));
        fad_native_give_slot(slot[k]);
        CHECK(form.call(&x, value, NULL) == FAD_NATIVE_FAILED);
    }
    fad_native_free(f);
    fad_program_free(p);
}

static void any_allocation_of_a_c_function_may_fail(void)
{
    fad_program *p = guarded_program(FAD_OP_multiply, 1, 7);
    const fad_native_way way = {p, NULL};
    double in[9] = {1.5, 2.0}, value[15];
    int failures = 0, calls = 0;
    for (;; failures++) {
        fad_native *f = NULL;
        fad_fail_allocation(failures);
        const fad_status status = fad_native_new(1, &way, 3, 3, &f);
        const int ran = status ? FAD_NATIVE_NOMEM : fad_native_call(in, value, NULL, f);
        fad_fail_allocation(-1);
        CHECK(status == FAD_OK || (status == FAD_NOMEM && !f));
        CHECK(ran == FAD_NATIVE_OK || ran == FAD_NATIVE_NOMEM);
        if (!status && ran) {
            calls++;
            CHECK(isnan(value[0]) && isnan(value[14]));
            CHECK(fad_native_call(in, value, NULL, f) == FAD_NATIVE_OK);
        }
        if (f) fad_native_free(f);
        if (!ran) break;
    }
    CHECK(failures > 5 && calls > 3);
    fad_program_free(p);
}

static void instructions_have_names(void)
{
    CHECK(!strcmp(fad_array_ins_name(FAD_VM_FOREIGN), "foreign"));
    CHECK(!strcmp(fad_array_ins_name(VM_TILES), "tiles") && !fad_array_ins_name(200));
    CHECK(!strcmp(fad_guard_name(FAD_GUARD_NO_NAN), "no_nan") && !fad_guard_name(200));
    CHECK(!strcmp(fad_word_text(VM_ADDL), "value = reg[ip->a] + value"));
    CHECK(!*fad_word_text(VM_END) && !*fad_word_text(VM_GUARD) && !*fad_word_text(FAD_OP_add));
}

/* ---- complex numbers -------------------------------------------------------------------------- */

static int single_of(int dtype) { return dtype == FAD_F32 || dtype == FAD_C64; }

/* Part 0 (real) or 1 (imaginary) of element i; of a real array the number and 0. */
static double part_at(const fad_array *arr, int64_t i, int part)
{
    const int64_t at = fad_is_complex(arr->dtype) ? 2 * i + part : i;
    if (part && !fad_is_complex(arr->dtype)) return 0.0;
    return single_of(arr->dtype) ? ((float *)arr->data)[at] : ((double *)arr->data)[at];
}

static fad_array *drawn_complex(int dtype, int ndim, const int64_t *shape)
{
    fad_array *arr = fad_array_new(dtype, ndim, shape);
    const int64_t n = arr ? arr->size * (1 + fad_is_complex(dtype)) : 0;
    for (int64_t k = 0; k < n; k++) {
        if (single_of(dtype)) ((float *)arr->data)[k] = (float)uniform(-2.0, 2.0);
        else ((double *)arr->data)[k] = uniform(-2.0, 2.0);
    }
    return arr;
}

static void complex_arrays_are_filled_cast_and_added(void)
{
    static const int dtypes[] = {FAD_F64, FAD_F32, FAD_C128, FAD_C64};
    const int64_t shape[] = {2, 37};
    CHECK(fad_itemsize(FAD_C128) == 16 && fad_itemsize(FAD_C64) == 8 && fad_itemsize(FAD_BOOL) == 1);
    for (int p = 0; p < 4; p++) {
        for (int q = 0; q < 4; q++) {
            fad_array *x = drawn_complex(dtypes[p], 2, shape), *y = fad_array_cast(x, dtypes[q]);
            CHECK(y->dtype == dtypes[q] && fad_same_shape(x, y));
            for (int64_t i = 0; i < x->size; i++)
                for (int k = 0; k < 2; k++) {
                    double want = k && !fad_is_complex(dtypes[q]) ? 0.0 : part_at(x, i, k);
                    if (single_of(dtypes[q])) want = (float)want;
                    CLOSE(part_at(y, i, k), want, 0.0);
                }
            fad_array_release(x);
            fad_array_release(y);
        }
        fad_array *x = drawn_complex(dtypes[p], 2, shape), *y = drawn_complex(dtypes[p], 2, shape);
        fad_array *sum = fad_array_copy(x), *full;
        fad_add_into(sum, y);
        for (int64_t i = 0; i < x->size; i++)
            for (int k = 0; k < 2; k++)
                CLOSE(part_at(sum, i, k), part_at(x, i, k) + part_at(y, i, k), 1e-6);
        CHECK(!fad_has_nan(x));
        if (single_of(dtypes[p])) ((float *)x->data)[x->size - 1] = NAN;
        else ((double *)x->data)[x->size - 1] = NAN;
        CHECK(fad_has_nan(x));
        CHECK(fad_fill(dtypes[p], 2, shape, 2.5, &full) == FAD_OK);
        for (int64_t i = 0; i < full->size; i++)
            CHECK(part_at(full, i, 0) == 2.5 && part_at(full, i, 1) == 0.0);
        fad_array_release(x);
        fad_array_release(y);
        fad_array_release(sum);
        fad_array_release(full);
    }
    fad_array *z = fad_array_new(FAD_C128, 1, shape);
    CHECK((uintptr_t)z->data % 16 == 0);
    fad_array_release(z);
}

static void parts_of_complex_arrays_are_those_of_the_definition(void)
{
    const int64_t shape[] = {5};
    for (int single = 0; single < 2; single++) {
        fad_array *z = drawn_complex(single ? FAD_C64 : FAD_C128, 1, shape), *conj, *imag, *times_i;
        CHECK(fad_part(FAD_CONJUGATE, z, &conj) == FAD_OK && conj->dtype == z->dtype);
        CHECK(fad_part(FAD_IMAG, z, &imag) == FAD_OK);
        CHECK(imag->dtype == (single ? FAD_F32 : FAD_F64));
        CHECK(fad_part(FAD_TIMES_I, imag, &times_i) == FAD_OK && times_i->dtype == z->dtype);
        for (int64_t i = 0; i < 5; i++) {
            CHECK(part_at(conj, i, 0) == part_at(z, i, 0));
            CHECK(part_at(conj, i, 1) == -part_at(z, i, 1));
            CHECK(part_at(imag, i, 0) == part_at(z, i, 1));
            CHECK(part_at(times_i, i, 0) == 0.0 && part_at(times_i, i, 1) == part_at(z, i, 1));
        }
        fad_array *none = z;
        CHECK(fad_part(FAD_CONJUGATE, imag, &none) == FAD_DTYPE);
        CHECK(fad_part(FAD_TIMES_I, z, &none) == FAD_DTYPE);
        fad_fail_allocation(0);
        CHECK(fad_part(FAD_IMAG, z, &none) == FAD_NOMEM);
        fad_fail_allocation(-1);
        fad_array_release(z);
        fad_array_release(conj);
        fad_array_release(imag);
        fad_array_release(times_i);
    }
}

/* Two parts of the sum of elements with coordinates that agree with those of `at` in `out`. */
static void naive_sum(const fad_array *x, const fad_array *out, int64_t at, double *sum)
{
    sum[0] = sum[1] = 0.0;
    for (int64_t i = 0; i < x->size; i++) {
        int64_t rest = i, place = 0, step = 1;
        for (int k = x->ndim - 1, j = out->ndim - 1; k >= 0; k--, j--) {
            const int64_t index = rest % x->shape[k];
            rest /= x->shape[k];
            if (j < 0) continue;
            if (out->shape[j] != 1) place += index * step;
            step *= out->shape[j];
        }
        if (place != at) continue;
        for (int k = 0; k < 2; k++) sum[k] += part_at(x, i, k);
    }
}

static void sums_of_complex_numbers_are_those_of_their_parts(void)
{
    static const int64_t shapes[][3] = {{3, 4, 5}, {1, 2, 300}, {7, 1, 2}, {2, 0, 3}};
    for (int k = 0; k < 4; k++)
        for (int mask = 0; mask < 8; mask++)
            for (int single = 0; single < 2; single++) {
                fad_array *x = drawn_complex(single ? FAD_C64 : FAD_C128, 3, shapes[k]), *y;
                int64_t to[3];
                for (int j = 0; j < 3; j++) to[j] = mask >> j & 1 ? 1 : shapes[k][j];
                CHECK(fad_sum_to(x, 3, to, &y) == FAD_OK && y->dtype == x->dtype);
                for (int64_t i = 0; i < y->size; i++) {
                    double want[2];
                    naive_sum(x, y, i, want);
                    for (int part = 0; part < 2; part++)
                        CLOSE(part_at(y, i, part), want[part], single ? 1e-4 : 1e-12);
                }
                fad_array_release(x);
                fad_array_release(y);
            }
    /* in pairs of halves: an imaginary part of nothing does not disturb, nor does a real one */
    double z[2 * 1000], x[1000], sum[2];
    for (int i = 0; i < 1000; i++) {
        z[2 * i] = z[2 * i + 1] = x[i] = uniform(-1.0, 1.0);
    }
    fad_pairwise_c128(z, 1000, sum);
    CHECK(sum[0] == sum[1]);
    CLOSE(sum[0], fad_pairwise_f64(x, 1000), 1e-13);
    fad_pairwise_c128(z, 0, sum);
    CHECK(sum[0] == 0.0 && signbit(sum[0]) && signbit(sum[1]));
}

static void complex_arrays_move_as_arrays_of_their_parts_do(void)
{
    const int64_t shape[] = {3, 4}, wide[] = {2, 3, 4}, flipped[] = {4, 3};
    const int axes[] = {1, 0};
    const int64_t place[] = {11, -4, -2};       /* x[::-1, 3::-2] of which there are 3 by 2 */
    const int64_t taken[] = {3, 2};
    for (int single = 0; single < 2; single++) {
        const int dtype = single ? FAD_C64 : FAD_C128;
        fad_array *x = drawn_complex(dtype, 2, shape), *y;
        CHECK(fad_transpose(x, axes, &y) == FAD_OK && y->shape[0] == flipped[0]);
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 4; j++)
                for (int k = 0; k < 2; k++)
                    CHECK(part_at(y, 3 * j + i, k) == part_at(x, 4 * i + j, k));
        fad_array_release(y);
        CHECK(fad_broadcast_to(x, 3, wide, &y) == FAD_OK);
        for (int i = 0; i < 24; i++)
            for (int k = 0; k < 2; k++) CHECK(part_at(y, i, k) == part_at(x, i % 12, k));
        fad_array_release(y);
        y = fad_array_new(dtype, 2, taken);
        fad_slice_into(x, place, y);
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 2; j++)
                for (int k = 0; k < 2; k++)
                    CHECK(part_at(y, 2 * i + j, k) == part_at(x, 11 - 4 * i - 2 * j, k));
        fad_array *back = fad_array_new(dtype, 2, shape);
        fad_scatter_into(y, place, back);
        for (int i = 0; i < 12; i++)
            for (int k = 0; k < 2; k++)
                CHECK(part_at(back, i, k) == (i % 2 ? part_at(x, i, k) : 0.0));
        fad_array_release(back);
        fad_array_release(x);
        fad_array_release(y);
    }
}

static void products_of_complex_matrices_are_sums_of_products(void)
{
    for (int single = 0; single < 2; single++)
        for (int ta = 0; ta < 2; ta++)
            for (int tb = 0; tb < 2; tb++) {
                const int dtype = single ? FAD_C64 : FAD_C128;
                fad_array *a = drawn_complex(dtype, 2, ta ? (int64_t[]){4, 3} : (int64_t[]){3, 4});
                fad_array *b = drawn_complex(dtype, 2, tb ? (int64_t[]){2, 4} : (int64_t[]){4, 2});
                fad_array *y;
                CHECK(fad_matmul2(a, ta, b, tb, 1, &y) == FAD_OK && y->dtype == dtype);
                for (int i = 0; i < 3; i++)
                    for (int j = 0; j < 2; j++) {
                        double re = 0.0, im = 0.0;
                        for (int k = 0; k < 4; k++) {
                            const int at = ta ? 3 * k + i : 4 * i + k;
                            const int bt = tb ? 4 * j + k : 2 * k + j;
                            const double ar = part_at(a, at, 0), ai = part_at(a, at, 1);
                            const double br = part_at(b, bt, 0), bi = part_at(b, bt, 1);
                            re += ar * br - ai * bi;
                            im += ar * bi + ai * br;
                        }
                        CLOSE(part_at(y, 2 * i + j, 0), re, single ? 1e-6 : 1e-14);
                        CLOSE(part_at(y, 2 * i + j, 1), im, single ? 1e-6 : 1e-14);
                    }
                fad_array_release(a);
                fad_array_release(b);
                fad_array_release(y);
            }
}

static void complex_rows_need_a_loop_and_zero_wins_in_products_with_cotangents(void)
{
    const int64_t shape[] = {3}, column[] = {2, 1};
    fad_array *g = drawn_complex(FAD_C128, 2, column), *p = drawn_complex(FAD_C128, 1, shape), *y;
    fad_operand in[2] = {{g, 0.0}, {p, 0.0}};
    CHECK(fad_elementwise(FAD_OP_exp, FAD_C128, in, &y) == FAD_DTYPE);
    fad_set_complex_loops();
    memset(g->data, 0, 16);
    ((double *)p->data)[1] = INFINITY;
    CHECK(fad_elementwise(FAD_OP_zmul, FAD_C128, in, &y) == FAD_OK && y->size == 6);
    for (int j = 0; j < 3; j++) CHECK(part_at(y, j, 0) == 0.0 && part_at(y, j, 1) == 0.0);
    CHECK(isinf(part_at(y, 3, 0)) && isinf(part_at(y, 3, 1)));
    for (int j = 1; j < 3; j++) {
        const double gr = part_at(g, 1, 0), gi = part_at(g, 1, 1);
        CLOSE(part_at(y, 3 + j, 0), gr * part_at(p, j, 0) - gi * part_at(p, j, 1), 1e-15);
        CLOSE(part_at(y, 3 + j, 1), gr * part_at(p, j, 1) + gi * part_at(p, j, 0), 1e-15);
    }
    fad_array_release(y);
    in[1] = (fad_operand){NULL, 2.0};           /* a number is a real one */
    CHECK(fad_elementwise(FAD_OP_zmul, FAD_C128, in, &y) == FAD_OK);
    CHECK(part_at(y, 1, 0) == 2.0 * part_at(g, 1, 0) && part_at(y, 1, 1) == 2.0 * part_at(g, 1, 1));
    fad_array_release(y);
    fad_array *s = fad_array_cast(p, FAD_C64);
    in[0] = (fad_operand){s, 0.0};
    CHECK(fad_elementwise(FAD_OP_one_minus_square, FAD_C64, in, &y) == FAD_OK);
    for (int j = 1; j < 3; j++) {
        const double re = part_at(s, j, 0), im = part_at(s, j, 1);
        CLOSE(part_at(y, j, 0), 1.0 - re * re + im * im, 1e-5);
        CLOSE(part_at(y, j, 1), -2.0 * re * im, 1e-5);
    }
    fad_array_release(y);
    fad_array_release(s);
    fad_array_release(g);
    fad_array_release(p);
}

static void complex_cotangents_and_tangents_pass_through_copies(void)
{
    const int64_t shape[] = {3};
    var z, y;
    fad_sweep s;
    CHECK(array_leaf(&z, drawn_complex(FAD_C128, 1, shape)) == FAD_OK);
    CHECK(fad_reserve(t, 2) == FAD_OK);
    blank(&y);
    y.arr = fad_array_share(z.arr);
    const fad_index at = node_of(&z);
    fad_link(t, &y.h, fad_push_array_slow(t, FAD_OP_positive, at, 0, fad_array_share(y.arr)));
    fad_array *g = drawn_complex(FAD_C128, 1, shape), *h = fad_array_copy(g);
    CHECK(fad_sweep_begin(t, &s, at, y.h.idx + 1) == FAD_OK);
    CHECK(fad_contribute_array(t, &s, at, fad_array_share(g)) == FAD_OK);
    CHECK(fad_forward(t, &s, at, y.h.idx) == FAD_OK);
    for (int i = 0; i < 6; i++)
        CHECK(((double *)s.own[y.h.idx].arr->data)[i] == ((double *)g->data)[i]);
    fad_sweep_end(t, &s);
    CHECK(fad_sweep_begin(t, &s, 0, 0) == FAD_OK);
    CHECK(fad_contribute_array(t, &s, y.h.idx, g) == FAD_OK);
    CHECK(fad_contribute_array(t, &s, at, fad_array_share(h)) == FAD_OK);
    CHECK(fad_reverse(t, &s) == FAD_OK && s.leaf_n == 1);
    for (int i = 0; i < 6; i++)
        CHECK(((double *)s.leaves[0].bar.arr->data)[i] == 2.0 * ((double *)h->data)[i]);
    fad_sweep_end(t, &s);
    fad_array_release(h);
    drop(&y);
    drop(&z);
}

static int classify_complex(void *ctx, fad_index i, const fad_call *call, fad_vm_call *what)
{
    (void)ctx;
    (void)i;
    *what = *(const fad_vm_call *)call->rule;
    return 0;
}

/* y = what `rule` says of x, which has the value `value`. */
static void complex_step(var *y, fad_vm_call *rule, int n, var *const *in, fad_array *value)
{
    fad_call *call = fad_call_new(n);
    CHECK(call && fad_reserve(t, 4) == FAD_OK);
    for (int k = 0; k < n; k++) call->parent[k] = in[k]->h.idx;
    call->rule = rule;
    blank(y);
    y->arr = value;
    const fad_slot slot = {.arr = fad_array_share(value)};
    fad_link(t, &y->h, fad_push_call(t, FAD_OP_CALL, call, slot, 1));
}

/* re(z) + im(conj(z) zmul z), and i times it, on other numbers than were recorded. */
static void a_program_computes_complex_rows_and_parts(void)
{
    const int64_t shape[] = {4};
    static fad_vm_call conj = {.kind = FAD_VM_PART, .side = FAD_CONJUGATE, .pure = 1},
        imag = {.kind = FAD_VM_PART, .side = FAD_IMAG, .pure = 1},
        times_i = {.kind = FAD_VM_PART, .side = FAD_TIMES_I, .pure = 1},
        real = {.kind = FAD_VM_CAST, .pure = 1},
        product = {.kind = FAD_VM_ROW, .op = FAD_OP_zmul, .pure = 1};
    var z, c, p, x, y, out;
    fad_program *program = NULL;
    fad_workspace *w;
    fad_set_complex_loops();
    t->sweeping++;
    CHECK(array_leaf(&z, drawn_complex(FAD_C128, 1, shape)) == FAD_OK);
    CHECK(fad_reserve(t, 1) == FAD_OK);
    const fad_index start = t->n;
    node_of(&z);
    complex_step(&c, &conj, 1, (var *const[]){&z}, fad_array_new(FAD_C128, 1, shape));
    complex_step(&p, &product, 2, (var *const[]){&z, &z}, fad_array_new(FAD_C128, 1, shape));
    complex_step(&x, &real, 1, (var *const[]){&c}, fad_array_new(FAD_F64, 1, shape));
    complex_step(&y, &imag, 1, (var *const[]){&p}, fad_array_new(FAD_F64, 1, shape));
    complex_step(&out, &times_i, 1, (var *const[]){&y}, fad_array_new(FAD_C128, 1, shape));
    const fad_index ins[] = {z.h.idx}, outs[] = {x.h.idx, out.h.idx, p.h.idx};
    const fad_build b = {.tape = t, .start = start, .end = t->n, .in = ins, .out = outs, .n_in = 1,
                         .n_out = 3, .classify = classify_complex};
    CHECK(fad_program_build(&b, &program) == FAD_OK);
    CHECK(fad_workspace_new(program, &w) == FAD_OK);
    fad_array *other = drawn_complex(FAD_C128, 1, shape);
    double room[3][8] = {{0.0}};
    w->array[fad_program_inputs(program)[0].where]->data = other->data;
    for (int k = 0; k < 3; k++) {
        CHECK(fad_output_is_callers(program, k));
        w->array[fad_program_outputs(program)[k].where]->data = room[k];
    }
    const fad_vm_calls calls = {.ctx = NULL};
    CHECK(fad_program_run(program, w, &calls) == FAD_OK);
    for (int i = 0; i < 4; i++) {
        const double re = part_at(other, i, 0), im = part_at(other, i, 1);
        CHECK(room[0][i] == re);
        CHECK(room[1][2 * i] == 0.0);
        CLOSE(room[1][2 * i + 1], 2.0 * re * im, 1e-15);
        CLOSE(room[2][2 * i], re * re - im * im, 1e-15);
        CLOSE(room[2][2 * i + 1], 2.0 * re * im, 1e-15);
    }
    fad_array_release(other);
    fad_workspace_free(program, w);
    fad_program_free(program);
    drop(&out);
    drop(&y);
    drop(&x);
    drop(&p);
    drop(&c);
    drop(&z);
    t->sweeping--;
    fad_trim(t);
}

int main(int argc, char **argv)
{
    static void (*const tests[])(void) = {
#define TEST(name) name,
#define TESTS \
    TEST(two_paths_of_a_scalar_graph_add_up) \
    TEST(a_consumed_graph_refuses_a_second_sweep) \
    TEST(released_graphs_are_consumed_without_computing) \
    TEST(a_sweep_to_goals_passes_only_what_leads_there) \
    TEST(an_exact_zero_contributes_exact_zero) \
    TEST(every_row_agrees_with_differences) \
    TEST(every_row_treats_arrays_as_it_treats_numbers) \
    TEST(broadcast_operands_receive_sums) \
    TEST(shapes_that_do_not_broadcast_are_refused) \
    TEST(a_sum_that_is_fed_in_pieces_has_the_bits_of_the_whole) \
    TEST(slices_and_sums_over_axes_are_those_of_the_definition) \
    TEST(sums_and_copies_are_those_of_the_definition) \
    TEST(products_are_those_of_the_definition) \
    TEST(a_loop_that_was_handed_over_is_used) \
    TEST(a_product_loop_serves_what_is_large_or_must_be_exact) \
    TEST(freed_large_blocks_are_reused_and_can_be_given_back) \
    TEST(leaf_slots_are_reused_only_when_nothing_refers_to_them) \
    TEST(a_leaf_that_was_given_a_new_value_is_a_new_node) \
    TEST(hooks_see_and_change_adjoints_and_follow_their_node) \
    TEST(hooks_of_a_consumed_node_are_not_called) \
    TEST(foreign_keepers_are_handed_back) \
    TEST(a_dropped_big_value_that_nobody_reads_is_let_go) \
    TEST(compaction_keeps_what_live_handles_reach) \
    TEST(graphs_built_and_dropped_for_ever_need_no_more_room) \
    TEST(clearing_a_tape_tells_the_handles) \
    TEST(a_chain_of_two_million_nodes_is_ordinary) \
    TEST(a_full_index_space_is_an_error_that_can_be_mended) \
    TEST(a_callback_may_record_and_sweep) \
    TEST(a_callback_that_fails_leaves_the_tape_as_it_was) \
    TEST(a_nested_sweep_may_consume_what_the_outer_one_needs) \
    TEST(a_leaf_reports_once_although_a_nested_sweep_meets_it_too) \
    TEST(random_graphs_agree_in_both_modes_through_any_reclamation) \
    TEST(large_runs_agree_in_both_modes) \
    TEST(a_tape_under_random_use_stays_intact) \
    TEST(every_allocation_may_fail) \
    TEST(a_program_computes_what_was_recorded_from_other_numbers) \
    TEST(a_program_computes_what_was_recorded_from_other_arrays) \
    TEST(a_program_of_large_arrays_computes_tile_by_tile) \
    TEST(guards_end_a_run_where_python_would_have_seen_something_else) \
    TEST(recorded_sweeps_have_the_values_of_plain_ones_to_second_order) \
    TEST(any_allocation_of_a_program_may_fail) \
    TEST(a_program_has_the_bits_of_every_row) \
    TEST(a_program_has_the_bits_of_arrays_of_mixed_shapes) \
    TEST(a_program_has_the_bits_of_large_arrays) \
    TEST(a_program_has_the_bits_of_loops_that_were_handed_over) \
    TEST(guards_on_arrays_end_a_run_and_spoil_nothing) \
    TEST(a_foreign_call_that_refuses_ends_the_run) \
    TEST(a_program_outlives_its_tape_and_keeps_no_values_of_it) \
    TEST(masks_of_operands_that_broadcast_are_those_of_the_definition) \
    TEST(values_are_written_at_regular_places_and_one_by_one) \
    TEST(products_of_many_matrices_are_products_of_each) \
    TEST(taking_and_giving_are_adjoint_and_places_may_come_again) \
    TEST(sums_extrema_and_ties_run_along_any_axis) \
    TEST(any_allocation_may_fail_for_all_that_a_program_knows) \
    TEST(recorded_sweeps_agree_with_reverse_sweeps_of_random_graphs) \
    TEST(a_recorded_sweep_reserves_enough_for_any_formula) \
    TEST(a_c_function_tries_each_recording_and_fails_with_nan) \
    TEST(a_c_function_lends_arrays_and_copies_what_is_shown_twice) \
    TEST(slots_are_given_out_until_none_is_free_and_fail_when_given_back) \
    TEST(any_allocation_of_a_c_function_may_fail) \
    TEST(instructions_have_names) \
    TEST(complex_arrays_are_filled_cast_and_added) \
    TEST(parts_of_complex_arrays_are_those_of_the_definition) \
    TEST(sums_of_complex_numbers_are_those_of_their_parts) \
    TEST(complex_arrays_move_as_arrays_of_their_parts_do) \
    TEST(products_of_complex_matrices_are_sums_of_products) \
    TEST(complex_rows_need_a_loop_and_zero_wins_in_products_with_cotangents) \
    TEST(complex_cotangents_and_tangents_pass_through_copies) \
    TEST(a_program_computes_complex_rows_and_parts) \
    TEST(lanes_have_the_bits_of_runs_row_by_row) \
    TEST(lanes_have_the_bits_of_loops_that_were_handed_over) \
    TEST(what_a_guard_or_a_step_sees_has_the_bits_of_a_single_run) \
    TEST(any_allocation_of_lanes_may_fail)
        TESTS
#undef TEST
    };
    static const char *const names[] = {
#define TEST(name) #name,
        TESTS
#undef TEST
    };
    int good = 0, bad = 0;
    if (argc > 1 && !strcmp(argv[1], "--leak")) {
        const int64_t shape[] = {3};
        start();
        return fad_array_new(FAD_F64, 1, shape) == NULL;
    }
    for (size_t k = 0; k < sizeof tests / sizeof tests[0]; k++) {
        if (argc > 1 && !strstr(names[k], argv[1])) continue;
        running = names[k];
        failed_before = failed;
        start();
        tests[k]();
        end();
        if (failed > failed_before) {
            printf("FAILED %s\n", running);
            bad++;
        } else {
            good++;
        }
        fflush(stdout);
    }
    printf("%d checks\n%d passed, %d failed\n", passed + failed, good, bad);
    return bad != 0;
}
