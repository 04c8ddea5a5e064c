/* Programs: from the tape to code. */
#include <stdlib.h>

#include "kernels.h"
#include "vm_impl.h"

/* ---- from the tape to values and steps --------------------------------------------------------- */

typedef struct {
    uint8_t is_array, constant, pinned, output, local;
    uint8_t plus_zero;          /* no element is ever -0.0 */
    int32_t uniform;            /* the number that every element is, or -1 */
    int32_t where;              /* register or array, once it has one; -1 before */
    int32_t root;               /* of an alias, the value whose bytes it shows; else itself */
    int32_t uses, last;         /* steps that read it; the last of them */
    int32_t step;               /* the step that makes it, or -1 */
    fad_array *like;            /* borrowed from the tape */
    double number;
} value;

/* `group` numbers the elementwise steps that run together, tile by tile; -1: none.  Steps that are
 * compared with later ones have 0 for the arguments that are not there. */
enum { STEP_ROW, STEP_CALL, STEP_GUARD, STEP_MULADD, STEP_ZMULADD, STEP_ABSADD, STEP_FUSED,
       STEP_NONE };
/* Sums with a product: the words of a step, and where the product or the sum is the latest. */
static const struct { uint16_t plain, product, sum; } sums_with_product[] = {
    [STEP_MULADD - STEP_MULADD] = {VM_MULADD, VM_MULADD_PRODUCTL, VM_MULADD_SUML},
    [STEP_ZMULADD - STEP_MULADD] = {VM_ZMULADD, VM_ZMULADD_PRODUCTL, VM_ZMULADD_SUML},
    [STEP_ABSADD - STEP_MULADD] = {VM_ABSADD, VM_ABSADD_PRODUCTL, VM_ABSADD_SUML},
};
typedef struct {
    uint8_t kind;
    uint16_t op;
    int32_t n, arg[3], many;    /* more than three arguments stand in `args` from `many` on */
    int32_t out;
    int32_t what;               /* call or guard */
    int32_t group;
} step;

enum { HELD = 8 };
typedef struct {
    const fad_build *b;
    fad_program *p;
    unsigned char *needed;
    int32_t *value_of;          /* node -> value, or -1 */
    value *values;
    step *steps;
    int32_t *args;
    fad_vm_call *calls;
    int32_t *table;             /* common subexpressions and numbers, by where find_equal looks */
    int32_t n_values, cap_values, n_steps, cap_steps, n_args, cap_args, n_calls, cap_calls;
    uint32_t table_mask, noted;
    int has_arrays;             /* elementwise, or summed up */
    int32_t held[HELD], next_held;      /* constant arrays found lately, 1 + the value each */
    int32_t cap_in, cap_out;
} builder;

static const int32_t *args_of(const builder *u, const step *s)
{
    return s->kind == STEP_CALL ? u->args + s->many : s->arg;
}

/* Which nodes the outputs and guards need; returns how many. */
static int32_t mark_needed(builder *u)
{
    const fad_build *b = u->b;
    const fad_tape *t = b->tape;
    for (int32_t k = 0; k < b->n_out; k++) u->needed[b->out[k]] = 1;
    for (int32_t k = 0; k < b->n_guard; k++) {
        u->needed[b->guard[k].a] = 1;
        if (b->guard[k].b >= 0) u->needed[b->guard[k].b] = 1;
    }
    int32_t count = 0;
    for (fad_index i = b->end - 1; i >= b->start; i--) {
        const unsigned code = t->op[i] & FAD_OPCODE;
        count += u->needed[i];
        if (!u->needed[i] || code < FAD_OP_CALL) continue;
        if (code <= FAD_OP_LAST_OWNING) {
            const fad_call *call = fad_call_of(t, i);
            for (int32_t k = 0; k < call->n; k++) u->needed[call->parent[k]] = 1;
        } else {
            u->needed[t->args[i].a] = 1;
            if (code >= FAD_OP_FIRST_BINARY) u->needed[t->args[i].b] = 1;
        }
    }
    return count;
}

/* A new value of the kind of tape node i; -1 without memory. */
static int32_t new_value(builder *u, fad_index i, int constant, int32_t made_by)
{
    const fad_tape *t = u->b->tape;
    value v = {.is_array = (t->op[i] & FAD_ARRAY) != 0, .constant = (uint8_t)constant,
               .where = -1, .root = u->n_values, .uniform = -1, .last = -1, .step = made_by};
    if (v.is_array) v.like = t->value[i].arr;
    else v.number = t->value[i].f;
    return FAD_PUSH(u->values, u->n_values, u->cap_values, v) ? u->n_values - 1 : -1;
}

enum { EMPTY = -1, NUMBER = -2 };       /* in the table; number v stands there as NUMBER - v */

/* Enter what find_equal or number_value did not find; a full table knows the earlier ones alone. */
static void note(builder *u, uint32_t at, int32_t entry)
{
    if (u->noted >= u->table_mask / 4 * 3 || u->table[at] != EMPTY) return;
    u->table[at] = entry;
    u->noted++;
}

/* The constant with these bits; -1 without memory. */
static int32_t number_value(builder *u, double number)
{
    uint64_t bits;
    value v;
    memcpy(&bits, &number, sizeof bits);
    uint32_t h = (uint32_t)((bits * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & u->table_mask;
    for (; u->table[h] != EMPTY; h = (h + 1) & u->table_mask) {
        const int32_t have = NUMBER - u->table[h];
        if (have >= 0 && !memcmp(&u->values[have].number, &number, sizeof number)) return have;
    }
    memset(&v, 0, sizeof v);
    v.constant = 1;
    v.number = number;
    v.where = v.last = v.step = v.uniform = -1;
    v.root = u->n_values;
    if (!FAD_PUSH(u->values, u->n_values, u->cap_values, v)) return -1;
    note(u, h, NUMBER - v.root);
    return v.root;
}

/* The value of a node; one that nothing in the program makes is a constant. */
static int32_t value_at(builder *u, fad_index i)
{
    const fad_tape *t = u->b->tape;
    if (u->value_of[i] >= 0) return u->value_of[i];
    if (!(t->op[i] & FAD_ARRAY)) return u->value_of[i] = number_value(u, t->value[i].f);
    const fad_array *arr = t->value[i].arr;
    for (int32_t k = 0; k < HELD && u->held[k] > 0; k++)    /* several nodes may hold one array */
        if (u->values[u->held[k] - 1].like == arr) return u->value_of[i] = u->held[k] - 1;
    const int32_t v = u->value_of[i] = new_value(u, i, 1, -1);
    if (v < 0) return v;
    u->held[u->next_held++ % HELD] = v + 1;
    const double *x = arr->data;
    if (arr->dtype == FAD_F64 && arr->size > 0 && !arr->hollow && x
        && !memcmp(x, x + 1, (size_t)(arr->size - 1) * sizeof *x)) {
        const int32_t number = number_value(u, x[0]);
        if (number < 0) return -1;
        u->values[v].uniform = number;
    }
    return v;
}

/* The value of an equal earlier step, with its first arguments in either order if it `commutes`, or
 * -1; `at` is where to note the new one.  A step stands near
 * the place that its latest operand names, so that building walks through the table as it walks
 * through the tape, in cache; those for whom there is no room stand where a hash puts them. */
static int32_t find_equal(const builder *u, unsigned op, const int32_t arg[3], int commutes,
                          uint32_t *at)
{
    enum { NEAR = 8 };
    int32_t latest = arg[0] > arg[1] ? arg[0] : arg[1];
    if (latest < arg[2]) latest = arg[2];
    uint32_t h = 2 * (uint32_t)latest;
    for (int probe = 0;; probe++, h++) {
        if (probe == NEAR) {
            uint64_t far = op ^ (uint64_t)arg[2] << 32;
            for (int k = 0; k < 2; k++)         /* the same in either order */
                far += ((uint64_t)arg[k] + 1) * ((uint64_t)arg[k] ^ UINT64_C(0x9E3779B97F4A7C15));
            h = (uint32_t)((far ^ far >> 29) * UINT64_C(0xBF58476D1CE4E5B9) >> 32);
        }
        const int32_t s = u->table[h & u->table_mask];
        if (s == EMPTY) break;
        if (s < 0) continue;
        const step *have = &u->steps[s];
        if (have->op != op || have->arg[2] != arg[2]) continue;
        if ((have->arg[0] == arg[0] && have->arg[1] == arg[1])
            || (commutes && have->arg[0] == arg[1] && have->arg[1] == arg[0]))
            return have->out;
    }
    *at = h & u->table_mask;
    return -1;
}

/* Append a step to the code and count what it reads.  0 without memory. */
static int push_step(builder *u, const step *s)
{
    if (!FAD_PUSH(u->steps, u->n_steps, u->cap_steps, *s)) return 0;
    const int32_t *arg = args_of(u, s);
    for (int32_t j = 0; j < s->n; j++) u->values[arg[j]].uses++;
    return 1;
}

/* Whether a value has the kind of tape node i. */
static int same_kind(const builder *u, int32_t v, fad_index i)
{
    const fad_tape *t = u->b->tape;
    const int is_array = (t->op[i] & FAD_ARRAY) != 0;
    if (u->values[v].is_array != is_array) return 0;
    return !is_array || (u->values[v].like->dtype == t->value[i].arr->dtype
                         && fad_same_shape(u->values[v].like, t->value[i].arr));
}

static int is_number(const value *v, double f)
{
    return v->constant && !v->is_array && v->number == f && !signbit(v->number) == !signbit(f);
}

/* An operand that the row passes on bit for bit, or -1. */
static int32_t passed_on(const builder *u, unsigned op, const int32_t *arg, fad_index i)
{
    const value *a = &u->values[arg[0]], *b = &u->values[arg[1]];
    const int32_t same = op == FAD_OP_multiply && is_number(a, 1.0) ? arg[1]
        : op == FAD_OP_positive || (op == FAD_OP_multiply && is_number(b, 1.0))
        || (op == FAD_OP_divide && is_number(b, 1.0))
        || (op == FAD_OP_subtract && is_number(b, 0.0)) ? arg[0] : -1;
    return same >= 0 && same_kind(u, same, i) ? same : -1;
}

/* Whether a row never gives -0.0, whatever its operands that may be. */
static int gives_plus_zero(const builder *u, const step *s)
{
    const value *a = &u->values[s->arg[0]], *b = &u->values[s->n > 1 ? s->arg[1] : s->arg[0]];
    const int constant = b->constant && !b->is_array && b->number != 0.0;
    switch (s->op) {
    case FAD_OP_exp: case FAD_OP_exp2: case FAD_OP_cosh: case FAD_OP_square:
    case FAD_OP_absolute: case FAD_OP_fabs: case FAD_OP_sigmoid:
        return 1;
    case FAD_OP_multiply:
        return s->arg[0] == s->arg[1];
    case FAD_OP_add:            /* -0.0 only of two of them */
        return a->plus_zero || b->plus_zero || constant || is_number(b, 0.0)
            || (a->constant && !a->is_array && (a->number != 0.0 || is_number(a, 0.0)));
    case FAD_OP_subtract:       /* -0.0 only of -0.0 and 0.0 */
        return a->plus_zero || constant
            || (a->constant && !a->is_array && (a->number != 0.0 || is_number(a, 0.0)));
    }
    return 0;
}

/* What stands behind `x + 0.0`, which differs from x in the sign of zeros alone; else v itself. */
static int32_t without_zero(const builder *u, int32_t v)
{
    const value *x = &u->values[v];
    if (x->step < 0) return v;
    const step *s = &u->steps[x->step];
    if (s->kind != STEP_ROW || s->op != FAD_OP_add || !is_number(&u->values[s->arg[1]], 0.0))
        return v;
    const value *y = &u->values[s->arg[0]];
    if (y->is_array != x->is_array) return v;
    if (x->is_array && (y->like->dtype != x->like->dtype || !fad_same_shape(y->like, x->like)))
        return v;
    return s->arg[0];
}

/* Take a row into the program, unless it is there already. */
static int add_step(builder *u, step *s, fad_index i)
{
    uint32_t at = 0;
    if (s->op == FAD_OP_add && u->values[s->arg[0]].plus_zero && same_kind(u, s->arg[0], i)
        && is_number(&u->values[s->arg[1]], 0.0)) {
        u->value_of[i] = s->arg[0];
        return 1;
    }
    if (s->op == FAD_OP_zmul)           /* does not mind the sign of a zero */
        for (int k = 0; k < 2; k++) s->arg[k] = without_zero(u, s->arg[k]);
    /* equal arguments may have unequal shapes: arrays of numbers stand for any */
    const int comparable = !(u->b->tape->op[i] & FAD_ARRAY)
        || u->values[s->arg[0]].is_array || (s->n > 1 && u->values[s->arg[1]].is_array);
    if (comparable) {
        const value *a = &u->values[s->arg[0]], *b = &u->values[s->arg[1]];
        /* NumPy's products of complex numbers do mind the order */
        const int commutes = (s->op == FAD_OP_add || s->op == FAD_OP_multiply || s->op == FAD_OP_zmul)
            && a->is_array == b->is_array && !(a->is_array && fad_is_complex(a->like->dtype));
        const int32_t have = find_equal(u, s->op, s->arg, commutes, &at);
        if (have >= 0 && same_kind(u, have, i)) {
            u->value_of[i] = have;
            return 1;
        }
    }
    s->group = -1;
    s->out = new_value(u, i, 0, u->n_steps);
    if (s->out < 0 || !push_step(u, s)) return 0;
    u->has_arrays |= u->values[s->out].is_array;
    u->values[s->out].plus_zero = (uint8_t)gives_plus_zero(u, s);
    if (comparable) note(u, at, u->n_steps - 1);
    u->value_of[i] = s->out;
    return 1;
}

/* A number serves where it was spread before, unless it gave the result i its shape, or the row's
 * loop may take a number in another way than an array (NumPy squares where the exponent is 2). */
static void unspread(const builder *u, step *s, fad_index i)
{
    const fad_array *like = u->b->tape->value[i].arr;
    int arrays = 0, full = 0;
    if (!fad_rounded_once(s->op) && s->op != FAD_OP_zmul) return;
    for (int k = 0; k < s->n; k++) {
        const value *v = &u->values[s->arg[k]];
        if (!v->is_array || v->uniform >= 0) continue;
        arrays++;
        full += fad_same_shape(v->like, like);
    }
    if (arrays && !full) return;
    for (int k = 0; k < s->n; k++)
        if (u->values[s->arg[k]].uniform >= 0) s->arg[k] = u->values[s->arg[k]].uniform;
}

/* Whether the tape has the value of a node: one that was changed in place is computed again. */
static int is_there(const fad_tape *t, fad_index i)
{
    return !(t->op[i] & FAD_ARRAY) || !t->value[i].arr->hollow;
}

static int take_row(builder *u, fad_index i)
{
    const fad_tape *t = u->b->tape;
    const unsigned code = t->op[i] & FAD_OPCODE;
    step s;
    int constant = 1;
    memset(&s, 0, sizeof s);
    s.kind = STEP_ROW;
    s.op = (uint16_t)code;
    s.n = fad_row_of((int)code)->arity;
    for (int k = 0; k < s.n; k++) {
        const fad_index p = s.n == 3 ? fad_call_of(t, i)->parent[k]
            : k ? t->args[i].b : t->args[i].a;
        s.arg[k] = value_at(u, p);
        if (s.arg[k] < 0) return 0;
        constant &= u->values[s.arg[k]].constant;
    }
    if (s.n < 2) s.arg[1] = s.arg[0];
    if (constant && is_there(t, i)) return value_at(u, i) >= 0;
    if ((t->op[i] & FAD_ARRAY) && t->value[i].arr->dtype == FAD_F64) unspread(u, &s, i);
    const int32_t same = passed_on(u, code, s.arg, i);
    if (same >= 0) {
        u->value_of[i] = same;
        return 1;
    }
    if (s.n < 2) s.arg[1] = 0;
    if (code == FAD_OP_zmul)                    /* 1 * p, whose zeros are positive */
        for (int k = 0; k < 2; k++)
            if (is_number(&u->values[s.arg[k]], 1.0)) {
                s.op = FAD_OP_add;
                s.arg[0] = s.arg[1 - k];
                s.arg[1] = number_value(u, 0.0);
                if (s.arg[1] < 0) return 0;
                return add_step(u, &s, i);
            }
    return add_step(u, &s, i);
}

static fad_status take_call(builder *u, fad_index i)
{
    const fad_tape *t = u->b->tape;
    const fad_call *call = fad_call_of(t, i);
    fad_vm_call what;
    step s;
    uint32_t at = 0;
    int constant = 1;
    memset(&what, 0, sizeof what);
    memset(&s, 0, sizeof s);
    s.kind = STEP_CALL;
    s.op = FAD_OP_CALL;
    s.group = -1;
    s.n = call->n;
    s.many = u->n_args;
    for (int32_t k = 0; k < call->n; k++) {
        const int32_t v = value_at(u, call->parent[k]);
        if (v < 0 || !FAD_PUSH(u->args, u->n_args, u->cap_args, v)) return FAD_NOMEM;
        if (k < 3) s.arg[k] = v;
        constant &= u->values[v].constant;
    }
    if (u->b->classify(u->b->ctx, i, call, &what)) return FAD_CALLBACK;
    const int32_t uniform = what.kind == FAD_VM_BROADCAST && !u->values[s.arg[0]].is_array
        ? s.arg[0] : -1;
    if (constant && what.pure && is_there(t, i)) {
        const int32_t v = value_at(u, i);
        if (v < 0) return FAD_NOMEM;
        if (uniform >= 0) u->values[v].uniform = uniform;
        return FAD_OK;
    }
    if (what.kind == FAD_VM_ROW) {
        s.kind = STEP_ROW;
        s.op = (uint16_t)what.op;
        if (s.n < 2) s.arg[1] = s.arg[0];
        const int32_t same = passed_on(u, s.op, s.arg, i);
        if (same >= 0) {
            u->value_of[i] = same;
            return FAD_OK;
        }
        if (s.n < 2) s.arg[1] = 0;
        return add_step(u, &s, i) ? FAD_OK : FAD_NOMEM;
    }
    if (what.kind == FAD_VM_SUM_TO && !(t->op[i] & FAD_ARRAY)) what.kind = FAD_VM_SUM_ALL;
    if (what.kind == FAD_VM_SUM_ALL || what.kind == FAD_VM_GET)    /* the same in any shape */
        s.arg[0] = u->args[s.many] = u->values[s.arg[0]].root;
    const int comparable = what.kind == FAD_VM_GET && what.offset <= INT32_MAX;
    if (comparable) {
        s.arg[1] = (int32_t)what.offset;
        s.arg[2] = 0;
        const int32_t have = find_equal(u, s.op, s.arg, 0, &at);
        if (have >= 0) {
            u->value_of[i] = have;
            return FAD_OK;
        }
    }
    s.what = u->n_calls;
    s.out = new_value(u, i, 0, u->n_steps);
    if (s.out < 0 || !FAD_PUSH(u->calls, u->n_calls, u->cap_calls, what)
        || !push_step(u, &s)) return FAD_NOMEM;
    if (comparable) note(u, at, u->n_steps - 1);
    u->has_arrays |= what.kind == FAD_VM_SUM_ALL;
    if (what.kind == FAD_VM_ALIAS && u->values[s.arg[0]].is_array && u->values[s.out].is_array)
        u->values[s.out].root = u->values[s.arg[0]].root;
    u->values[s.out].uniform = uniform;
    u->value_of[i] = s.out;
    return FAD_OK;
}

static fad_status take_guard(builder *u, int32_t k)
{
    const fad_guard *g = &u->b->guard[k];
    step s;
    memset(&s, 0, sizeof s);
    s.kind = STEP_GUARD;
    s.group = -1;
    s.what = k;
    s.out = -1;
    s.n = g->b >= 0 ? 2 : 1;
    s.arg[0] = value_at(u, g->a);
    s.arg[1] = g->b >= 0 ? value_at(u, g->b) : 0;
    if (s.arg[0] < 0 || s.arg[1] < 0) return FAD_NOMEM;
    if (u->values[s.arg[0]].constant && u->values[s.arg[1]].constant) return FAD_OK;
    return push_step(u, &s) ? FAD_OK : FAD_NOMEM;
}

static fad_status take_nodes(builder *u)
{
    const fad_build *b = u->b;
    int32_t next = 0;
    for (int32_t k = 0; k < b->n_in; k++) {
        const int32_t v = new_value(u, b->in[k], 0, -1);
        if (v < 0) return FAD_NOMEM;
        u->value_of[b->in[k]] = v;
    }
    for (fad_index i = b->start; i < b->end; i++) {
        while (next < b->n_guard && b->guard[next].at <= i) {
            const fad_status status = take_guard(u, next++);
            if (status) return status;
        }
        const unsigned code = b->tape->op[i] & FAD_OPCODE;
        if (!u->needed[i] || u->value_of[i] >= 0 || code < FAD_OP_CALL) continue;
        if (code == FAD_OP_CALL) {
            const fad_status status = take_call(u, i);
            if (status) return status;
        } else if (!take_row(u, i)) {
            return FAD_NOMEM;
        }
    }
    while (next < b->n_guard) {
        const fad_status status = take_guard(u, next++);
        if (status) return status;
    }
    for (int32_t k = 0; k < b->n_out; k++) {
        const int32_t v = value_at(u, b->out[k]);
        if (v < 0) return FAD_NOMEM;
        u->values[v].pinned = u->values[u->values[v].root].pinned = 1;
        u->values[v].output = 1;
    }
    return FAD_OK;
}

/* ---- from steps to code ---------------------------------------------------------------------- */

/* Who reads each value last, and how often it is read. */
static void count_uses(builder *u)
{
    for (int32_t k = 0; k < u->n_values; k++) u->values[k].uses = 0;
    for (int32_t k = 0; k < u->n_steps; k++) {
        const step *s = &u->steps[k];
        if (s->kind == STEP_NONE) continue;
        const int32_t *arg = args_of(u, s);
        for (int32_t j = 0; j < s->n; j++) {
            value *v = &u->values[arg[j]];
            v->uses++;
            v->last = k;
            if (u->values[v->root].last < k) u->values[v->root].last = k;
        }
    }
}

/* The row of numbers that computes a value which only one step reads, or NULL. */
static step *only_read(builder *u, int32_t at)
{
    const value *v = &u->values[at];
    if (v->uses != 1 || v->pinned || v->step < 0) return NULL;
    step *s = &u->steps[v->step];
    return s->kind == STEP_ROW ? s : NULL;
}

/* A sum with a product that nobody else reads, or with the absolute value of one as in bounds of
 * rounding errors, becomes one step. */
static void fuse(builder *u)
{
    for (int32_t k = 0; k < u->n_steps; k++) {
        step *s = &u->steps[k];
        if (s->kind != STEP_ROW || s->op != FAD_OP_add || u->values[s->out].is_array) continue;
        for (int side = 1; side >= 0; side--) {
            step *m = only_read(u, s->arg[side]), *size = NULL;
            if (m && m->op == FAD_OP_absolute) {
                size = m;
                m = only_read(u, m->arg[0]);
            }
            if (!m || (m->op != FAD_OP_zmul && (size || m->op != FAD_OP_multiply))) continue;
            if (size) {
                size->kind = STEP_NONE;
                u->values[size->out].uses = 0;
            }
            s->arg[2] = s->arg[1 - side];
            s->kind = size ? STEP_ABSADD : m->op == FAD_OP_zmul ? STEP_ZMULADD : STEP_MULADD;
            s->arg[0] = m->arg[0];
            s->arg[1] = m->arg[1];
            s->n = 3;
            m->kind = STEP_NONE;
            u->values[m->out].uses = 0;
            break;
        }
    }
}

/* Steps whose result nobody reads, now that operands were replaced. */
static void prune(builder *u)
{
    for (int32_t k = u->n_steps - 1; k >= 0; k--) {
        step *s = &u->steps[k];
        if (s->kind == STEP_GUARD || s->kind == STEP_NONE) continue;
        const value *out = &u->values[s->out];
        if (out->uses || out->pinned) continue;
        const int32_t *arg = args_of(u, s);
        for (int32_t j = 0; j < s->n; j++) u->values[arg[j]].uses--;
        s->kind = STEP_NONE;
    }
}

static int is_sum(const builder *u, const step *s)
{
    return s->kind == STEP_CALL && u->calls[s->what].kind == FAD_VM_SUM_ALL;
}

/* The shape over which a step can run tile by tile, or NULL: a row over float64 arrays of one
 * large shape and numbers, or the sum of such an array. */
static const fad_array *tiled_shape(const builder *u, const step *s)
{
    const int sum = is_sum(u, s);
    if (!sum && (s->kind != STEP_ROW || !u->values[s->out].is_array)) return NULL;
    const fad_array *like = u->values[sum ? s->arg[0] : s->out].like;
    if (like->dtype != FAD_F64 || like->size < TILED_ABOVE) return NULL;
    for (int32_t j = 0; j < s->n; j++) {
        const value *v = &u->values[s->arg[j]];
        if (v->is_array && (v->like->dtype != FAD_F64 || !fad_same_shape(v->like, like)))
            return NULL;
    }
    return like;
}

/* Two rows in one pass, in a group or over small arrays: what a result that nobody else reads
 * would cost is a way to memory and back. */
static const struct { uint16_t row, side, product, fused; } fusions[] = {
    {FAD_OP_add, 1, FAD_OP_multiply, FAD_FUSED_multiply_add},
    {FAD_OP_add, 0, FAD_OP_multiply, FAD_FUSED_multiply_add},
    {FAD_OP_add, 1, FAD_OP_zmul, FAD_FUSED_zmul_add},
    {FAD_OP_add, 0, FAD_OP_zmul, FAD_FUSED_zmul_add},
    {FAD_OP_subtract, 0, FAD_OP_multiply, FAD_FUSED_multiply_subtract},
    {FAD_OP_subtract, 1, FAD_OP_multiply, FAD_FUSED_subtract_product},
};

/* The step that makes v and may run as a part of step s, the only one that reads it; or NULL. */
static step *part_of(const builder *u, int32_t v, const step *s)
{
    const value *x = &u->values[v], *out = &u->values[s->out];
    if (!x->is_array || x->uses != 1 || x->pinned || x->step < 0) return NULL;
    step *m = &u->steps[x->step];
    if (m->kind != STEP_ROW || m->group != s->group) return NULL;
    if (x->like->dtype != FAD_F64 || !fad_same_shape(x->like, out->like)) return NULL;
    for (int32_t j = 0; j < m->n && s->group < 0; j++) {
        const value *a = &u->values[m->arg[j]];
        if (!a->is_array || a->like->dtype != FAD_F64 || !fad_same_shape(a->like, out->like))
            return NULL;
    }
    return m;
}

static void fuse_arrays(builder *u)
{
    enum { N = sizeof fusions / sizeof fusions[0] };
    for (int32_t k = 0; k < u->n_steps; k++) {
        step *s = &u->steps[k];
        if (s->kind != STEP_ROW || !u->values[s->out].is_array) continue;
        const fad_array *like = u->values[s->out].like;
        if (like->dtype != FAD_F64 || (s->group < 0 && like->size >= TILED_ABOVE)) continue;
        for (int f = 0; f < N; f++) {
            if (s->op != fusions[f].row) continue;
            const int32_t other = s->arg[1 - fusions[f].side];
            const value *c = &u->values[other];
            step *m = part_of(u, s->arg[fusions[f].side], s);
            if (!m || m->op != fusions[f].product) continue;
            if (s->group < 0 && (!c->is_array || c->like->dtype != FAD_F64
                                 || !fad_same_shape(c->like, like))) continue;
            s->kind = STEP_FUSED;
            s->op = fusions[f].fused;
            s->n = 3;
            s->arg[0] = m->arg[0];
            s->arg[1] = m->arg[1];
            s->arg[2] = other;
            m->kind = STEP_NONE;
            if (s->op != FAD_FUSED_zmul_add) break;
            step *positive = part_of(u, other, s);
            if (!positive || positive->op != FAD_OP_add) break;
            if (without_zero(u, other) == other) break;
            s->op = FAD_FUSED_zmul_add_positive;
            s->arg[2] = positive->arg[0];
            positive->kind = STEP_NONE;
            break;
        }
    }
}

/* The step behind those of the group of step k; k + 1 where it has none. */
static int32_t group_end(const builder *u, int32_t k)
{
    int32_t end = k + 1;
    while (end < u->n_steps && u->steps[k].group >= 0 && u->steps[end].group == u->steps[k].group)
        end++;
    return end;
}

/* Move tileable steps up to the first of their group, where their other operands are there by
 * then, so that groups stand together.  0 without memory. */
static int group_steps(builder *u)
{
    enum { OPEN = 8 };
    const int32_t n = u->n_steps;
    int32_t open[OPEN], sums[OPEN], opened = 0, found = 0;
    for (int32_t k = 0; k < n; k++) u->steps[k].group = -1;
    for (int32_t k = 0; k < n; k++) {
        step *s = &u->steps[k];
        int slot = 0;
        const fad_array *like = tiled_shape(u, s);
        if (!like) continue;
        const int sum = is_sum(u, s);
        while (slot < opened && !fad_same_shape(tiled_shape(u, &u->steps[open[slot]]), like))
            slot++;
        int joins = slot < opened && sums[slot] + sum <= GROUP_SUMS;
        for (int32_t j = 0; joins && j < s->n; j++) {
            const int32_t d = u->values[s->arg[j]].step;
            if (d < 0) continue;
            const int32_t at = u->steps[d].group >= 0 ? u->steps[d].group : d;
            /* a sum is there only behind the last tile */
            joins = at < open[slot] || (u->steps[d].group == open[slot] && !is_sum(u, &u->steps[d]));
        }
        if (joins) {
            s->group = open[slot];
            sums[slot] += sum;
            found = 1;
            continue;
        }
        s->group = k;
        if (slot == opened) slot = opened < OPEN ? opened++ : k % OPEN;
        open[slot] = k;
        sums[slot] = sum;
    }
    if (!found) {
        for (int32_t k = 0; k < n; k++) u->steps[k].group = -1;
        fuse_arrays(u);
        count_uses(u);
        return 1;
    }
    step *sorted = fad_malloc((size_t)n * sizeof *sorted);
    int32_t *start = fad_malloc(((size_t)n + 1) * sizeof *start);
    if (!sorted || !start) {
        fad_free(sorted);
        fad_free(start);
        return 0;
    }
    /* a counting sort by the place to go to, stable */
    memset(start, 0, ((size_t)n + 1) * sizeof *start);
    for (int32_t k = 0; k < n; k++) start[(u->steps[k].group >= 0 ? u->steps[k].group : k) + 1]++;
    for (int32_t k = 0; k < n; k++) start[k + 1] += start[k];
    for (int32_t k = 0; k < n; k++) {
        const int32_t to = start[u->steps[k].group >= 0 ? u->steps[k].group : k]++;
        sorted[to] = u->steps[k];
        if (sorted[to].out >= 0) u->values[sorted[to].out].step = to;
    }
    memcpy(u->steps, sorted, (size_t)n * sizeof *sorted);
    fad_free(sorted);
    fad_free(start);
    /* single ones need no tiles; results that stay inside their group need no array */
    for (int32_t k = 0; k < n;) {
        const int32_t end = group_end(u, k);
        if (end == k + 1) u->steps[k].group = -1;
        k = end;
    }
    fuse_arrays(u);
    count_uses(u);
    for (int32_t k = 0; k < n;) {
        const int32_t end = group_end(u, k);
        for (int32_t j = k; end > k + 1 && j < end; j++) {
            if (u->steps[j].kind == STEP_NONE) continue;
            value *v = &u->values[u->steps[j].out];
            v->local = v->is_array && !v->pinned && v->last < end;
        }
        k = end;
    }
    return 1;
}

/* Free stretches of the arena, by offset; neighbours are joined. */
typedef struct { size_t offset, bytes; } stretch;
typedef struct { stretch *free; int32_t n, cap; size_t top; } arena_plan;

static size_t padded(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

static size_t arena_take(arena_plan *a, size_t bytes)
{
    int32_t best = -1;
    for (int32_t k = 0; k < a->n; k++)
        if (a->free[k].bytes >= bytes && (best < 0 || a->free[k].bytes < a->free[best].bytes))
            best = k;
    if (best >= 0) {
        const size_t offset = a->free[best].offset;
        a->free[best].offset += bytes;
        a->free[best].bytes -= bytes;
        if (!a->free[best].bytes)
            memmove(a->free + best, a->free + best + 1,
                    (size_t)(--a->n - best) * sizeof *a->free);
        return offset;
    }
    if (a->n && a->free[a->n - 1].offset + a->free[a->n - 1].bytes == a->top) {
        const size_t offset = a->free[--a->n].offset;
        a->top = offset + bytes;
        return offset;
    }
    a->top += bytes;
    return a->top - bytes;
}

static int arena_give(arena_plan *a, size_t offset, size_t bytes)
{
    const stretch new = {offset, bytes};
    int32_t k = 0;
    if (!bytes) return 1;
    if (!FAD_PUSH(a->free, a->n, a->cap, new)) return 0;
    while (a->free[k].offset < offset) k++;
    memmove(a->free + k + 1, a->free + k, (size_t)(a->n - 1 - k) * sizeof *a->free);
    a->free[k] = new;
    if (k + 1 < a->n && a->free[k].offset + a->free[k].bytes == a->free[k + 1].offset) {
        a->free[k].bytes += a->free[k + 1].bytes;
        memmove(a->free + k + 1, a->free + k + 2, (size_t)(--a->n - k - 1) * sizeof *a->free);
    }
    if (k && a->free[k - 1].offset + a->free[k - 1].bytes == a->free[k].offset) {
        a->free[k - 1].bytes += a->free[k].bytes;
        memmove(a->free + k, a->free + k + 1, (size_t)(--a->n - k) * sizeof *a->free);
    }
    return 1;
}

typedef struct {
    builder *u;
    arena_plan arena;
    int32_t done;               /* the step behind the group that is emitted */
    int32_t latest;             /* the number that the last word made, or -1 */
    int32_t *spare;             /* registers that are free again */
    int32_t n_spare, cap_spare;
    int32_t cap_code, cap_arrays_code, cap_array, cap_arglist, cap_axes, cap_guard, cap_offset, cap_tile;
} emitter;

static size_t bytes_of(const fad_array *arr)
{
    return padded((size_t)arr->size * fad_itemsize(arr->dtype));
}

static int new_array(emitter *e, int32_t v, int from)
{
    fad_program *p = e->u->p;
    value *x = &e->u->values[v];
    array_place place;
    memset(&place, 0, sizeof place);
    /* of other arrays the header alone: their contents are the trace's, and large */
    place.like = from == FROM_CONSTANT ? fad_array_share(x->like)
        : fad_array_borrow(x->like->dtype, x->like->ndim, x->like->shape, NULL, NULL);
    if (!place.like) return 0;
    place.from = (uint8_t)from;
    if (from == FROM_ARENA) place.offset = arena_take(&e->arena, bytes_of(x->like));
    else if (from == FROM_ALIAS) place.root = e->u->values[x->root].where;
    x->where = p->n_array;
    if (FAD_PUSH(p->array, p->n_array, e->cap_array, place)) return 1;
    fad_array_release(place.like);
    return 0;
}

static int new_register(emitter *e, int32_t v)
{
    value *x = &e->u->values[v];
    x->where = e->n_spare ? e->spare[--e->n_spare] : e->u->p->n_reg++;
    return 1;
}

static fad_place place_of(const emitter *e, int32_t v)
{
    return (fad_place){e->u->values[v].is_array, e->u->values[v].where};
}

/* Give back what the operands of step k held, unless somebody reads it later; `kept` stays.  With
 * k < 0 the step is one of a group that ends before e->done. */
static int drop_dead(emitter *e, const step *s, int32_t k, int32_t kept)
{
    const int32_t *arg = args_of(e->u, s);
    for (int32_t j = 0; j < s->n; j++) {
        const int32_t r = e->u->values[arg[j]].root;
        value *v = &e->u->values[r];
        if (v->constant || v->pinned || v->local || v->where < 0) continue;
        if (k < 0 ? v->last < 0 || v->last >= e->done : v->last != k) continue;
        v->last = -2;                   /* once */
        if (r == kept) continue;
        if (!v->is_array) {
            if (!FAD_PUSH(e->spare, e->n_spare, e->cap_spare, v->where)) return 0;
        } else if (e->u->p->array[v->where].from == FROM_ARENA) {
            if (!arena_give(&e->arena, e->u->p->array[v->where].offset, bytes_of(v->like)))
                return 0;
        }
    }
    return 1;
}

static int emit_word(emitter *e, unsigned op, int32_t d, int32_t a, int32_t b, int32_t c)
{
    const word w = {(uint16_t)op, 0, d, a, b, c};
    return FAD_PUSH(e->u->p->code, e->u->p->n_code, e->cap_code, w);
}

/* Whether a row needs no broadcasting: float64 arrays of one shape, not empty and not huge, and
 * numbers where a loop takes them. */
static int plain_loop(const builder *u, const step *s)
{
    const fad_array *like = u->values[s->out].like;
    void *data;
    if (like->dtype != FAD_F64 || like->size == 0 || like->size > INT32_MAX) return 0;
    const int takes_numbers = fad_loop_of(s->op, FAD_F64, &data) != NULL;
    for (int32_t j = 0; j < s->n; j++) {
        const value *v = &u->values[s->arg[j]];
        if (!v->is_array ? !takes_numbers
            : v->like->dtype != FAD_F64 || !fad_same_shape(v->like, like)) return 0;
    }
    return 1;
}

/* The operand whose bytes a result may take over: of its shape, read last here. */
static int32_t reusable(const emitter *e, const step *s, int32_t k)
{
    const value *out = &e->u->values[s->out];
    for (int32_t j = 0; j < s->n; j++) {
        const int32_t r = e->u->values[args_of(e->u, s)[j]].root;
        const value *v = &e->u->values[r], *shown = &e->u->values[args_of(e->u, s)[j]];
        if (!v->is_array || v->constant || v->pinned || v->last != k) continue;
        if (e->u->p->array[v->where].from != FROM_ARENA) continue;
        if (shown->like->dtype == out->like->dtype && fad_same_shape(shown->like, out->like))
            return r;
    }
    return -1;
}

/* What computes a row or a fused pair of rows on blocks; `numbers` are left to the loop. */
static void kernel_of(const step *s, int numbers, tile_step *t)
{
    t->op = s->kind == STEP_FUSED ? -1 : s->op;
    t->fused = s->kind == STEP_FUSED ? s->op : -1;
    if (s->kind == STEP_FUSED) t->values = fad_fused[s->op];
    else if (fad_rounded_once(s->op) && !numbers) t->values = fad_values[s->op];
    else if (!(t->loop = fad_loop_of(s->op, FAD_F64, &t->data))) t->values = fad_values[s->op];
}

static int emit_array_step(emitter *e, const step *s, int32_t k)
{
    builder *u = e->u;
    fad_program *p = u->p;
    value *out = &u->values[s->out];
    const int32_t *arg = args_of(u, s);
    array_ins ins;
    int32_t taken = -1;
    memset(&ins, 0, sizeof ins);
    ins.n_in = s->n;
    ins.first_in = p->n_arglist;
    if (s->kind != STEP_CALL) {
        ins.kind = VM_ROW;
        ins.op = s->op;
        ins.dtype = out->like->dtype;
        taken = reusable(e, s, k);
    } else {
        const fad_vm_call *what = &u->calls[s->what];
        ins.kind = (uint8_t)what->kind;
        ins.ta = (uint8_t)what->ta;
        ins.tb = (uint8_t)what->tb;
        ins.exact = (uint8_t)what->exact;
        ins.op = (uint16_t)what->op;
        ins.side = (uint8_t)what->side;
        ins.foreign = what->foreign;
        ins.offset = what->offset;
        ins.axes = p->n_axes;
        if (what->kind == FAD_VM_FOREIGN) p->n_foreign++;
        if (what->kind == FAD_VM_PUT || what->kind == FAD_VM_WRITE) {
            taken = reusable(e, s, k);      /* the bytes of what is written to, and not of the value */
            const int32_t old = u->values[arg[0]].root;
            if (taken != old || u->values[arg[1]].root == old) taken = -1;
        }
        if (what->kind == FAD_VM_TRANSPOSE || what->kind == FAD_VM_SUM_AXES)
            for (int j = 0; j < u->values[arg[0]].like->ndim; j++)
                if (!FAD_PUSH(p->axes, p->n_axes, e->cap_axes, what->axes[j])) return 0;
        const int64_t most = what->kind == FAD_VM_ASSEMBLE ? s->n
            : what->kind == FAD_VM_SLICE ? out->like->ndim + 1
            : what->kind == FAD_VM_SCATTER ? u->values[arg[0]].like->ndim + 1
            : what->kind == FAD_VM_TAKE ? out->like->size
            : what->kind == FAD_VM_GIVE ? u->values[arg[0]].like->size : 0;
        if (most || what->kind == FAD_VM_WRITE) {
            const int64_t *from = u->b->offsets(u->b->ctx, what->offset);
            const int64_t places = what->kind == FAD_VM_WRITE ? from[0] : most;
            ins.offset = p->n_offset;
            if (places > INT32_MAX - p->n_offset) return 0;
            for (int64_t j = 0; j < places; j++)
                if (!FAD_PUSH(p->offset, p->n_offset, e->cap_offset, from[j])) return 0;
        }
    }
    for (int32_t j = 0; j < s->n; j++) {
        const fad_place place = place_of(e, arg[j]);
        if (j < 4) ins.in[j] = place;
        if (!FAD_PUSH(p->arglist, p->n_arglist, e->cap_arglist, place)) return 0;
    }
    const int alias = out->root != s->out;
    const int direct = out->output && !alias && out->is_array && out->like->dtype < FAD_BOOL;
    if (direct) taken = -1;
    if (!out->is_array) {
        if (!new_register(e, s->out)) return 0;
    } else if (alias) {
        if (!new_array(e, s->out, FROM_ALIAS)) return 0;
    } else if (out->like->dtype >= FAD_BOOL && ins.kind != FAD_VM_MASK) {
        if (!new_array(e, s->out, FROM_FOREIGN)) return 0;
    } else if (direct) {
        if (!new_array(e, s->out, FROM_OUTPUT)) return 0;
    } else if (taken >= 0) {
        const size_t offset = p->array[u->values[taken].where].offset;
        if (!new_array(e, s->out, FROM_ALIAS)) return 0;
        p->array[out->where].from = FROM_ARENA;
        p->array[out->where].offset = offset;
    } else if (!new_array(e, s->out, FROM_ARENA)) {
        return 0;
    }
    ins.out = place_of(e, s->out);
    p->work += out->is_array ? out->like->size : 1;
    if (s->kind == STEP_CALL && ins.kind != FAD_VM_GET && u->values[arg[0]].is_array)
        p->work += u->values[arg[0]].like->size;
    if (!drop_dead(e, s, k, taken)) return 0;
    if (alias) return 1;                /* nothing to do when it runs */
    if (s->kind == STEP_FUSED || (s->kind == STEP_ROW && out->is_array && plain_loop(u, s))) {
        tile_step t;
        memset(&t, 0, sizeof t);
        t.n = s->n;
        int numbers = 0;
        for (int32_t j = 0; j < s->n; j++) numbers |= !u->values[s->arg[j]].is_array;
        kernel_of(s, numbers, &t);
        for (int32_t j = 0; j < s->n; j++)
            t.in[j] = (tile_place){u->values[s->arg[j]].is_array ? IN_ARRAY : IN_REGISTER, 0,
                                   ins.in[j].where};
        t.out = (tile_place){IN_ARRAY, 0, out->where};
        e->latest = -1;
        return FAD_PUSH(p->tile, p->n_tile, e->cap_tile, t)
            && emit_word(e, VM_LOOP, 0, p->n_tile - 1, 0, (int32_t)out->like->size);
    }
    if (!FAD_PUSH(p->arrays_code, p->n_arrays_code, e->cap_arrays_code, ins)) return 0;
    e->latest = -1;
    if (ins.kind == FAD_VM_GET && ins.offset <= INT32_MAX)
        return emit_word(e, VM_GET, out->where, p->n_arrays_code - 1, ins.in[0].where,
                         (int32_t)ins.offset);
    return emit_word(e, VM_ARRAY, 0, p->n_arrays_code - 1, 0, 0);
}

/* A row over numbers, or a sum with a product. */
static int emit_numbers(emitter *e, const step *s, int32_t k)
{
    const value *values = e->u->values;
    int32_t a = s->arg[0], b = s->n > 1 ? s->arg[1] : a, c = s->n > 2 ? s->arg[2] : a;
    const int product = s->kind >= STEP_MULADD && s->kind <= STEP_ABSADD;
    const int which = product ? s->kind - STEP_MULADD : 0;
    unsigned op = product ? sums_with_product[which].plain : s->op;
    if (e->latest >= 0 && (product || op == FAD_OP_add || op == FAD_OP_multiply
                           || op == FAD_OP_zmul)) {
        if (a == e->latest) {           /* these do not mind the order */
            a = b;
            b = e->latest;
        }
        if (b == e->latest && a != b)
            op = product ? sums_with_product[which].product
                : op == FAD_OP_add ? VM_ADDL : op == FAD_OP_multiply ? VM_MULTIPLYL : VM_ZMULL;
        else if (product && c == e->latest)
            op = sums_with_product[which].sum;
    }
    a = values[a].where;
    b = values[b].where;
    c = values[c].where;
    if (!drop_dead(e, s, k, -1) || !new_register(e, s->out)) return 0;
    e->latest = s->out;
    return emit_word(e, op, values[s->out].where, a, b, c);
}

static int emit_step(emitter *e, int32_t k)
{
    builder *u = e->u;
    fad_program *p = u->p;
    const step *s = &u->steps[k];
    if (s->kind == STEP_NONE) return 1;
    if (s->kind == STEP_GUARD) {
        const fad_guard *g = &u->b->guard[s->what];
        guard_ins ins;
        memset(&ins, 0, sizeof ins);
        ins.kind = g->kind;
        ins.wanted = g->wanted;
        ins.number = g->number;
        ins.bytes = g->bytes;
        ins.size = g->size;
        ins.a = place_of(e, s->arg[0]);
        if (s->n > 1) ins.b = place_of(e, s->arg[1]);
        if (!FAD_PUSH(p->guard, p->n_guard, e->cap_guard, ins)) return 0;
        const int compares = g->kind <= FAD_GUARD_GE && !ins.a.is_array && !ins.b.is_array;
        const unsigned op = compares
            ? VM_GUARD_LT + (unsigned)g->kind + (g->wanted ? 0 : VM_GUARD_NOT_LT - VM_GUARD_LT)
            : VM_GUARD;
        return emit_word(e, op, ins.a.where, p->n_guard - 1, ins.b.where, 0)
            && drop_dead(e, s, k, -1);
    }
    if (s->kind == STEP_CALL || u->values[s->out].is_array) return emit_array_step(e, s, k);
    for (int32_t j = 0; j < s->n; j++)          /* a number out of arrays of no axes */
        if (u->values[s->arg[j]].is_array) return emit_array_step(e, s, k);
    p->work++;
    return emit_numbers(e, s, k);
}

/* Whether operand j of a step is the first mention of its array in the group that starts at
 * `from`, results included. */
static int first_use(const fad_program *p, int32_t from, const tile_step *t, int j)
{
    const int32_t array = t->in[j].where;
    for (int i = 0; i < j; i++)
        if (t->in[i].kind == IN_ARRAY && t->in[i].where == array) return 0;
    for (int32_t k = from; k < p->n_tile; k++) {
        const tile_step *s = &p->tile[k];
        if (s->out.kind == IN_ARRAY && s->out.where == array) return 0;
        for (int i = 0; i < s->n; i++)
            if (s->in[i].kind == IN_ARRAY && s->in[i].where == array) return 0;
    }
    return 1;
}

/* An array that the steps of a group read for the last time up to step k, or -1: the result of k may
 * take its bytes over, of which each tile is read before it is written. */
static int32_t read_up(const emitter *e, int32_t from, int32_t k)
{
    const builder *u = e->u;
    const fad_array *like = u->values[u->steps[k].out].like;
    for (int32_t i = from; i <= k; i++) {
        const step *s = &u->steps[i];
        for (int32_t j = 0; s->kind != STEP_NONE && j < s->n; j++) {
            const int32_t r = u->values[s->arg[j]].root;
            const value *v = &u->values[r];
            if (!v->is_array || v->constant || v->pinned || v->local || v->where < 0) continue;
            if (v->last < from || v->last > k || v->like->dtype != FAD_F64) continue;
            if (v->like->size == like->size && u->p->array[v->where].from == FROM_ARENA) return r;
        }
    }
    return -1;
}

/* A group of steps, tile by tile.  What dies in it is given back only behind it: while a tile is
 * computed, others of the same arrays are yet to be read. */
static int emit_tiles(emitter *e, int32_t from, int32_t end)
{
    builder *u = e->u;
    fad_program *p = u->p;
    array_ins ins;
    int32_t blocks = 0, n_spare = 0;
    int32_t *spare = fad_malloc((size_t)(end - from) * sizeof *spare);
    if (!spare) return 0;
    memset(&ins, 0, sizeof ins);
    ins.kind = VM_TILES;
    ins.first_in = p->n_tile;
    for (int32_t k = from; k < end; k++) {
        const step *s = &u->steps[k];
        if (s->kind == STEP_NONE) continue;
        const int sum = is_sum(u, s);
        value *out = &u->values[s->out];
        tile_step t;
        memset(&t, 0, sizeof t);
        t.n = s->n;
        t.op = t.fused = -1;
        if (!sum) kernel_of(s, 0, &t);
        ins.offset = u->values[sum ? s->arg[0] : s->out].like->size;
        for (int32_t j = 0; j < s->n; j++) {
            const value *v = &u->values[s->arg[j]];
            t.in[j].kind = v->local ? IN_SCRATCH : v->is_array ? IN_ARRAY : IN_REGISTER;
            t.in[j].where = v->where;
            t.in[j].first = t.in[j].kind == IN_ARRAY && first_use(p, ins.first_in, &t, j);
        }
        if (sum) {
            if (!new_register(e, s->out)) goto failed;
            t.out = (tile_place){OUT_SUM, 0, out->where};
        } else if (out->local) {
            for (int32_t j = 0; j < s->n; j++) {        /* may be overwritten as they are read */
                value *v = &u->values[s->arg[j]];
                if (!v->local || v->last != k) continue;
                v->last = -2;
                spare[n_spare++] = v->where;
            }
            out->where = n_spare ? spare[--n_spare] : blocks++;
            t.out = (tile_place){IN_SCRATCH, 0, out->where};
        } else {
            const int output = out->output && out->root == s->out;
            const int32_t taken = output ? -1 : read_up(e, from, k);
            const size_t offset = taken >= 0 ? p->array[u->values[taken].where].offset : 0;
            if (!new_array(e, s->out, output ? FROM_OUTPUT : taken >= 0 ? FROM_ALIAS : FROM_ARENA))
                goto failed;
            if (taken >= 0) {
                u->values[taken].last = -2;         /* not given back: the result's now */
                p->array[out->where].from = FROM_ARENA;
                p->array[out->where].offset = offset;
            }
            t.out = (tile_place){IN_ARRAY, 1, out->where};
        }
        p->work += ins.offset;
        if (!FAD_PUSH(p->tile, p->n_tile, e->cap_tile, t)) goto failed;
    }
    /* results that later tiles read are theirs too: from there on they belong into the cache */
    int64_t far = 0;
    for (int32_t k = ins.first_in; k < p->n_tile; k++) {
        tile_step *t = &p->tile[k];
        for (int j = 0; j < t->n; j++) {
            far += t->in[j].kind == IN_ARRAY && t->in[j].first;
            for (int32_t i = ins.first_in; i < k && t->in[j].kind == IN_ARRAY; i++)
                if (p->tile[i].out.kind == IN_ARRAY && p->tile[i].out.where == t->in[j].where)
                    p->tile[i].out.first = 0;
        }
        far += t->out.kind == IN_ARRAY;
    }
    ins.far_out = far * ins.offset * (int64_t)sizeof(double) > FAR_ABOVE;
    blocks++;                   /* for results on their way out */
    /* blocks for numbers that a step wants spread, one for each operand */
    for (int32_t k = ins.first_in; k < p->n_tile; k++)
        for (int j = 0; p->tile[k].values && j < p->tile[k].n; j++)
            if (p->tile[k].in[j].kind == IN_REGISTER) blocks++;
    if (blocks > p->scratch_blocks) p->scratch_blocks = blocks;
    ins.n_in = p->n_tile - ins.first_in;
    e->done = end;
    for (int32_t k = from; k < end; k++)
        if (u->steps[k].kind != STEP_NONE && !drop_dead(e, &u->steps[k], -1, -1)) goto failed;
    fad_free(spare);
    e->latest = -1;
    if (!FAD_PUSH(p->arrays_code, p->n_arrays_code, e->cap_arrays_code, ins)) return 0;
    return emit_word(e, VM_ARRAY, 0, p->n_arrays_code - 1, 0, 0);
failed:
    fad_free(spare);
    return 0;
}

static fad_status emit(builder *u)
{
    emitter e;
    fad_program *p = u->p;
    const fad_build *b = u->b;
    int ok = 1;
    int32_t cap_constants = 0;
    memset(&e, 0, sizeof e);
    e.u = u;
    e.latest = -1;
    ok = fad_reserve_vector((void **)&p->code, &e.cap_code, sizeof *p->code, u->n_steps + 1);
    /* constants first: their registers are filled once per workspace */
    for (int32_t v = 0; v < u->n_values && ok; v++) {
        value *x = &u->values[v];
        if (!x->constant || (!x->uses && !x->pinned)) continue;
        if (x->is_array) {
            ok = new_array(&e, v, FROM_CONSTANT);
        } else {
            x->where = p->n_reg++;
            ok = FAD_PUSH(p->constants, p->n_constant, cap_constants, x->number);
        }
    }
    for (int32_t k = 0; k < b->n_in && ok; k++) {
        const int32_t v = u->value_of[b->in[k]];
        if (u->values[v].is_array) ok = new_array(&e, v, FROM_INPUT);
        else ok = new_register(&e, v);
        const fad_place place = place_of(&e, v);
        ok = ok && FAD_PUSH(p->in, p->n_in, u->cap_in, place);
    }
    for (int32_t k = 0; k < u->n_steps && ok;) {
        const int32_t end = group_end(u, k);
        ok = u->steps[k].group >= 0 ? emit_tiles(&e, k, end) : emit_step(&e, k);
        k = end;
    }
    for (int32_t k = 0; k < b->n_out && ok; k++) {
        const fad_place place = place_of(&e, u->value_of[b->out[k]]);
        ok = FAD_PUSH(p->out, p->n_out, u->cap_out, place);
    }
    ok = ok && emit_word(&e, VM_END, 0, 0, 0, 0);
    p->arena = e.arena.top;
    fad_free(e.arena.free);
    fad_free(e.spare);
    return ok ? FAD_OK : FAD_NOMEM;
}

fad_status fad_program_build(const fad_build *b, fad_program **out)
{
    builder u;
    fad_status status = FAD_NOMEM;
    uint32_t size = 1024;
    *out = NULL;
    memset(&u, 0, sizeof u);
    u.b = b;
    while (size / 2 < (uint32_t)(b->end - b->start) && size < UINT32_C(1) << 31) size *= 2;
    u.table_mask = size - 1;
    u.p = fad_malloc(sizeof *u.p);
    if (u.p) memset(u.p, 0, sizeof *u.p);
    u.needed = fad_malloc((size_t)b->end);
    u.value_of = fad_malloc((size_t)b->end * sizeof *u.value_of);
    u.table = fad_malloc((size_t)size * sizeof *u.table);
    if (u.p && u.needed && u.value_of && u.table) {
        memset(u.needed, 0, (size_t)b->end);
        memset(u.value_of, 0xff, (size_t)b->end * sizeof *u.value_of);
        memset(u.table, 0xff, (size_t)size * sizeof *u.table);
        /* room for most of what follows: growing moves it each time */
        const int32_t most = mark_needed(&u) + b->n_in;
        if (fad_reserve_vector((void **)&u.values, &u.cap_values, sizeof *u.values, most)
            && fad_reserve_vector((void **)&u.steps, &u.cap_steps, sizeof *u.steps, most))
            status = take_nodes(&u);
    }
    if (!status) {
        fuse(&u);
        prune(&u);
        status = FAD_OK;
        if (!u.has_arrays || b->plain) count_uses(&u);
        else if (!group_steps(&u)) status = FAD_NOMEM;
        if (!status) status = emit(&u);
    }
    fad_free(u.needed);
    fad_free(u.value_of);
    fad_free(u.table);
    fad_free(u.values);
    fad_free(u.steps);
    fad_free(u.args);
    fad_free(u.calls);
    if (status) {
        if (u.p) fad_program_free(u.p);
        return status;
    }
    *out = u.p;
    return FAD_OK;
}

void fad_program_free(fad_program *p)
{
    for (int32_t k = 0; k < p->n_array; k++) fad_array_release(p->array[k].like);
    fad_free(p->code);
    fad_free(p->arrays_code);
    fad_free(p->array);
    fad_free(p->guard);
    fad_free(p->in);
    fad_free(p->out);
    fad_free(p->arglist);
    fad_free(p->constants);
    fad_free(p->axes);
    fad_free(p->offset);
    fad_free(p->tile);
    fad_free(p);
}

const fad_place *fad_program_inputs(const fad_program *p) { return p->in; }
const fad_place *fad_program_outputs(const fad_program *p) { return p->out; }

int fad_output_is_callers(const fad_program *p, int32_t k)
{
    return p->out[k].is_array && p->array[p->out[k].where].from == FROM_OUTPUT;
}

fad_program_stats fad_program_describe(const fad_program *p)
{
    return (fad_program_stats){
        .instructions = p->n_code - 1, .registers = p->n_reg, .constants = p->n_constant,
        .arrays = p->n_array, .arena_bytes = (int64_t)p->arena, .guards = p->n_guard,
        .foreign = p->n_foreign, .work = p->work};
}
