/* Sweeps that are recorded, one node at a time: the partials as formulas on the tape. */
#include "kernels.h"

/* A partial as steps over a, b, c, y, numbers and earlier steps; none: the caller expands it. */
enum { MAX_STEPS = 24, MAX_NUMBERS = 8 };
typedef struct {
    int n, numbers;
    fad_formula_step step[MAX_STEPS];
    double number[MAX_NUMBERS];
} formula;

static formula formulas[FAD_OP_END][3];

int fad_set_formula(int op, int side, int n, const fad_formula_step *step, int numbers,
                    const double *number)
{
    if (n > MAX_STEPS || numbers > MAX_NUMBERS) return 0;
    formula *f = &formulas[op][side];
    memcpy(f->step, step, (size_t)n * sizeof *step);
    if (numbers) memcpy(f->number, number, (size_t)numbers * sizeof *number);
    f->n = n;
    f->numbers = numbers;
    return 1;
}

/* Complete the op word of a node that was recorded in a trace: operands at which cotangents stop,
 * and whether any flows through at all. */
void fad_note(fad_tape *t, fad_index i, int passive)
{
    unsigned w = t->op[i];
    const int op = (int)(w & FAD_OPCODE);
    int flows = 0;
    if (op > FAD_OP_LAST_OWNING) {
        if (fad_stops(t, t->args[i].a)) w |= FAD_CA;
        else flows = 1;
        if (op >= FAD_OP_FIRST_BINARY) {
            if (fad_stops(t, t->args[i].b)) w |= FAD_CB;
            else flows = 1;
        }
    } else {
        const fad_call *call = fad_call_of(t, i);
        for (int32_t k = 0; k < call->n; k++) flows |= !fad_stops(t, call->parent[k]);
    }
    if (!flows || passive || ((w & FAD_ARRAY) && t->value[i].arr->dtype >= FAD_BOOL))
        w |= FAD_PASSIVE;
    t->op[i] = (uint16_t)w;
}

/* Whether node i has its value in every run. */
static int is_number(const fad_tape *t, fad_index i)
{
    return (t->op[i] & (FAD_OPCODE | FAD_PASSIVE)) == FAD_OP_CONST;
}

fad_index fad_push_row(fad_tape *t, int op, fad_index a, fad_index b)
{
    const double va = t->value[a].f;
    const double y = op >= FAD_OP_FIRST_BINARY ? fad_eval2(op, va, t->value[b].f)
                                               : fad_eval1(op, va);
    if (is_number(t, a) && (op < FAD_OP_FIRST_BINARY || is_number(t, b))) return fad_const(t, y);
    const fad_index i = fad_push(t, (unsigned)op, a, op >= FAD_OP_FIRST_BINARY ? b : 0, y);
    fad_note(t, i, 0);
    return i;
}

static fad_index operand_of(fad_tape *t, const formula *f, int ref, fad_index i,
                            const fad_index *done)
{
    if (ref >= FAD_REF_STEP) return done[ref - FAD_REF_STEP];
    if (ref >= FAD_REF_NUMBER) return fad_const(t, f->number[ref - FAD_REF_NUMBER]);
    return ref == FAD_REF_Y ? i : ref == FAD_REF_A ? t->args[i].a : t->args[i].b;
}

/* Whether node i is one for these functions: a row over numbers with formulas for its partials. */
static int expandable(const fad_tape *t, fad_index i)
{
    const unsigned w = t->op[i];
    const int op = (int)(w & FAD_OPCODE), arity = op >= FAD_OP_FIRST_BINARY ? 2 : 1;
    if (op <= FAD_OP_LAST_OWNING || (w & (FAD_ARRAY | FAD_HOOK))) return 0;
    for (int k = 0; k < arity; k++) {
        const fad_index p = k ? t->args[i].b : t->args[i].a;
        if (t->op[p] & FAD_ARRAY) return 0;
        if (!(w & (k ? FAD_CB : FAD_CA)) && fad_trivial[op][k] == FAD_IS_FORMULA
            && !formulas[op][k].n)
            return 0;
    }
    return 1;
}

/* Each step may push both of its operands too: constants can miss the cache every time. */
static fad_status reserve_two_sides(fad_tape *t)
{
    return fad_reserve(t, 2 * (3 * MAX_STEPS + 2));
}

/* Record g times the partial of node i to its k-th parent.  Reserved. */
static fad_index times_partial(fad_tape *t, fad_index i, int k, fad_index g)
{
    const int op = (int)(t->op[i] & FAD_OPCODE);
    const formula *f = &formulas[op][k];
    fad_index done[MAX_STEPS];
    switch (fad_trivial[op][k]) {
    case FAD_IS_ONE: return g;
    case FAD_IS_MINUS_ONE: return fad_push_row(t, FAD_OP_negative, g, 0);
    case FAD_IS_ZERO: return fad_const(t, 0.0);
    }
    for (int j = 0; j < f->n; j++) {
        const fad_formula_step *s = &f->step[j];
        const fad_index a = operand_of(t, f, s->a, i, done);
        done[j] = s->op < 0 ? a : fad_push_row(t, s->op, a, operand_of(t, f, s->b, i, done));
    }
    return fad_push_row(t, FAD_OP_zmul, g, done[f->n - 1]);
}

/* Record what number node i, whose cotangent is node g, contributes to its parents' cotangents
 * (`bar`: by node, or -1), and lower `*low` to them.  FAD_DTYPE: not a case for this function. */
fad_status fad_expand(fad_tape *t, fad_index i, fad_index g, fad_index *bar, fad_index *low)
{
    const unsigned w = t->op[i];
    const int arity = (int)(w & FAD_OPCODE) >= FAD_OP_FIRST_BINARY ? 2 : 1;
    if ((t->op[g] & FAD_ARRAY) || !expandable(t, i)) return FAD_DTYPE;
    const fad_status status = reserve_two_sides(t);
    if (status) return status;
    for (int k = 0; k < arity; k++) {
        const fad_index p = k ? t->args[i].b : t->args[i].a;
        if ((w & (k ? FAD_CB : FAD_CA)) || fad_stops(t, p)) continue;
        const fad_index c = times_partial(t, i, k, g);
        bar[p] = bar[p] < 0 ? c : fad_push_row(t, FAD_OP_add, bar[p], c);
        if (p < *low) *low = p;
    }
    return FAD_OK;
}

/* Record the tangent of number node i from those of its parents (`dot`: by node, or -1 for none,
 * which it stays where no parent has one).  FAD_DTYPE: not a case for this function. */
fad_status fad_expand_forward(fad_tape *t, fad_index i, fad_index *dot)
{
    const unsigned w = t->op[i];
    const int arity = (int)(w & FAD_OPCODE) >= FAD_OP_FIRST_BINARY ? 2 : 1;
    if (!expandable(t, i)) return FAD_DTYPE;
    const fad_status status = reserve_two_sides(t);
    if (status) return status;
    for (int k = 0; k < arity; k++) {
        const fad_index p = k ? t->args[i].b : t->args[i].a;
        if (dot[p] < 0 || (w & (k ? FAD_CB : FAD_CA)) || fad_stops(t, p)) continue;
        const fad_index d = times_partial(t, i, k, dot[p]);
        dot[i] = dot[i] < 0 ? d : fad_push_row(t, FAD_OP_add, dot[i], d);
    }
    return FAD_OK;
}
