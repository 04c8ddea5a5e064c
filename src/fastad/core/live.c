/* What a program must hold at least: apart from the builder's planning, from the finished code. */
#include "vm_impl.h"

typedef struct {
    const fad_program *p;
    unsigned char *reg, *array;
    int64_t bytes;
} living;

static void mark(living *l, fad_place at, int alive)
{
    unsigned char *have = &l->reg[at.where];
    int64_t bytes = sizeof(double);
    if (at.is_array) {
        while (l->p->array[at.where].from == FROM_ALIAS) at.where = l->p->array[at.where].root;
        const array_place *a = &l->p->array[at.where];
        if (a->from != FROM_ARENA) return;
        have = &l->array[at.where];
        bytes = a->like->size * (int64_t)fad_itemsize(a->like->dtype);
    } else if (at.where < l->p->n_constant) {
        return;
    }
    if (*have != alive) l->bytes += alive ? bytes : -bytes;
    *have = (unsigned char)alive;
}

static void mark_tile(living *l, tile_place at, int alive)
{
    if (at.kind == IN_SCRATCH) return;
    mark(l, (fad_place){at.kind == IN_ARRAY, at.where}, alive);
}

/* Results of an instruction begin to live at it; operands have lived until then. */
static void step_back(living *l, const word *w)
{
    const fad_program *p = l->p;
    const tile_step *tiles = NULL;
    int32_t n = 0;
    if (fad_is_guard_word(w->op)) {
        mark(l, p->guard[w->a].a, 1);
        if (p->guard[w->a].kind <= FAD_GUARD_GE) mark(l, p->guard[w->a].b, 1);
    } else if (w->op == VM_LOOP) {
        tiles = &p->tile[w->a];
        n = 1;
    } else if (fad_is_array_word(w->op) && p->arrays_code[w->a].kind == VM_TILES) {
        tiles = &p->tile[p->arrays_code[w->a].first_in];
        n = p->arrays_code[w->a].n_in;
    } else if (fad_is_array_word(w->op)) {
        const array_ins *ins = &p->arrays_code[w->a];
        mark(l, ins->out, 0);
        for (int32_t k = 0; k < ins->n_in; k++) mark(l, p->arglist[ins->first_in + k], 1);
    } else if (w->op != VM_END) {
        mark(l, (fad_place){0, w->d}, 0);
        mark(l, (fad_place){0, w->a}, 1);       /* where a row has fewer operands, the first again */
        mark(l, (fad_place){0, w->b}, 1);
        mark(l, (fad_place){0, w->c}, 1);
    }
    for (int32_t k = n - 1; k >= 0; k--) {
        mark_tile(l, tiles[k].out, 0);
        for (int j = 0; j < tiles[k].n; j++) mark_tile(l, tiles[k].in[j], 1);
    }
}

int64_t fad_program_live_bytes(const fad_program *p)
{
    living l = {.p = p};
    int64_t most = -1;
    l.reg = fad_malloc((size_t)p->n_reg + 1);
    l.array = fad_malloc((size_t)p->n_array + 1);
    if (l.reg && l.array) {
        memset(l.reg, 0, (size_t)p->n_reg + 1);
        memset(l.array, 0, (size_t)p->n_array + 1);
        for (int32_t k = 0; k < p->n_out; k++) mark(&l, p->out[k], 1);
        most = l.bytes;
        for (int32_t k = p->n_code - 1; k >= 0; k--) {
            step_back(&l, &p->code[k]);
            if (l.bytes > most) most = l.bytes;
        }
        most += p->n_constant * (int64_t)sizeof(double);
    }
    fad_free(l.reg);
    fad_free(l.array);
    return most;
}
