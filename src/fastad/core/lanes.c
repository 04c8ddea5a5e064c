/* Lanes: a program that runs for many rows of inputs at once, an instruction at a time.
 *
 *     shared         reg[r]      array          what no row changes: the machine's own workspace
 *     lane by lane   reg[r][B]   array[B][..]   what depends on the inputs that vary
 *
 * The code is walked once, in order.  Registers are used again and again, so whether one varies is
 * asked anew at each instruction.  A stretch of instructions that do not vary is left to the
 * machine.  Where one that varies reads a register that does not, the number is spread over the
 * lanes first.  An array instruction runs lane by lane through the machine's own functions, with
 * the headers of its arrays pointing at the lane's copies, unless one loop does for all lanes.
 *
 * Bits.  A row has the same results wherever it stands among whichever others: lanes are computed
 * in whole vectors.  Sums, products and other single operations of the processor have the bits of
 * a plain run.  For functions such as exp NumPy's loops serve, whose last bits may be others than
 * libm's, except where a guard or a step function (floor) sees the result: what it sees must be
 * what it sees in a plain run.
 */
#include <stdlib.h>

#include "kernels.h"
#include "special.h"
#include "vm_impl.h"

/* Rows are filled up to whole vectors of VECTOR numbers, the widest that loops use.  A workspace
 * of WORKSPACE bytes stays in the second cache; beyond MOST lanes nothing is gained.  An array that
 * fills a cache by itself is as fast alone. */
enum { VECTOR = 8, MOST = 256, WORKSPACE = 512 << 10, LARGE = 32 << 10 };

enum { ON_MACHINE, SPREAD, ROW, LOOP, PRODUCT, GATHER, SCATTER, EACH, EACH_GUARD };
typedef struct {
    uint8_t kind, exact;
    uint16_t op;
    int32_t d, a, b, c;         /* ROW, PRODUCT: registers; else see `lanes_step` */
    int32_t first, n, n_out;    /* EACH: places that vary, n_out results last */
} lane_ins;

typedef struct { unsigned char varies; int32_t root; size_t offset, bytes; } lane_array;

struct fad_lanes {
    const fad_program *p;
    lane_ins *code;
    word *words;                /* stretches for the machine, each ends with VM_END */
    fad_place *place;
    lane_array *array;          /* of those that vary, or that the caller would lend */
    unsigned char *varies, *out_varies;
    int32_t n_code, n_words, n_place, width;
    size_t arena;
};

/* ---- what varies ----------------------------------------------------------------------------- */

typedef struct {
    fad_lanes *l;
    unsigned char *reg, *spread, *array;    /* reg, array: 1 where it varies by now */
    int32_t cap_code, cap_words, cap_place;
    int32_t latest;             /* the register of the latest number */
    int open;                   /* the last instruction is a stretch that goes on */
} analysis;

static int32_t root_of(const fad_program *p, int32_t array)
{
    while (p->array[array].from == FROM_ALIAS) array = p->array[array].root;
    return array;
}

static int varies(const analysis *u, fad_place at)
{
    return at.is_array ? u->array[root_of(u->l->p, at.where)] : u->reg[at.where];
}

/* The same word with all operands in registers. */
static word from_registers(word i, int32_t latest)
{
    switch (i.op) {
    case VM_ADDL: return (word){FAD_OP_add, 0, i.d, i.a, latest, i.a};
    case VM_MULTIPLYL: return (word){FAD_OP_multiply, 0, i.d, i.a, latest, i.a};
    case VM_ZMULL: return (word){FAD_OP_zmul, 0, i.d, i.a, latest, i.a};
    case VM_MULADD_PRODUCTL: return (word){VM_MULADD, 0, i.d, i.a, latest, i.c};
    case VM_MULADD_SUML: return (word){VM_MULADD, 0, i.d, i.a, i.b, latest};
    case VM_ZMULADD_PRODUCTL: return (word){VM_ZMULADD, 0, i.d, i.a, latest, i.c};
    case VM_ZMULADD_SUML: return (word){VM_ZMULADD, 0, i.d, i.a, i.b, latest};
    case VM_ABSADD_PRODUCTL: return (word){VM_ABSADD, 0, i.d, i.a, latest, i.c};
    case VM_ABSADD_SUML: return (word){VM_ABSADD, 0, i.d, i.a, i.b, latest};
    }
    return i;
}

static int push(analysis *u, lane_ins i)
{
    u->open = 0;
    return FAD_PUSH(u->l->code, u->l->n_code, u->cap_code, i);
}

/* Leave a word to the machine. */
static int push_word(analysis *u, word i)
{
    fad_lanes *l = u->l;
    const word end = {VM_END, 0, 0, 0, 0, 0};
    if (u->open) {
        l->n_words--;           /* the end of the stretch moves on */
    } else {
        if (!push(u, (lane_ins){.kind = ON_MACHINE, .a = l->n_words})) return 0;
        u->open = 1;
    }
    return FAD_PUSH(l->words, l->n_words, u->cap_words, i)
        && FAD_PUSH(l->words, l->n_words, u->cap_words, end);
}

static int spread(analysis *u, int32_t r)
{
    if (u->reg[r] || u->spread[r]) return 1;
    u->spread[r] = 1;
    return push(u, (lane_ins){.kind = SPREAD, .d = r});
}

static int take_number(analysis *u, word i)
{
    const int product = i.op == VM_MULADD || i.op == VM_ZMULADD || i.op == VM_ABSADD;
    const int varying = u->reg[i.a] | u->reg[i.b] | u->reg[i.c];
    u->latest = i.d;
    if (varying && (!spread(u, i.a) || !spread(u, i.b) || !spread(u, i.c))) return 0;
    u->reg[i.d] = (unsigned char)varying;
    u->spread[i.d] = 0;
    if (!varying) return push_word(u, i);
    return push(u, (lane_ins){.kind = product ? PRODUCT : ROW, .op = i.op, .d = i.d, .a = i.a,
                              .b = i.b, .c = i.c});
}

/* The places that the instruction behind a word reads, and those of its results, into `place`. */
static int places_of(analysis *u, word i, int32_t *n_in)
{
    fad_lanes *l = u->l;
    const fad_program *p = l->p;
    const int32_t first = l->n_place;
    const tile_step *tile = NULL;
    int32_t tiles = 0;
    if (fad_is_guard_word(i.op)) {
        const guard_ins *g = &p->guard[i.a];
        *n_in = g->kind <= FAD_GUARD_GE ? 2 : 1;
        return FAD_PUSH(l->place, l->n_place, u->cap_place, g->a)
            && (*n_in == 1 || FAD_PUSH(l->place, l->n_place, u->cap_place, g->b));
    }
    if (i.op == VM_LOOP) {
        tile = &p->tile[i.a];
        tiles = 1;
    } else if (p->arrays_code[i.a].kind == VM_TILES) {
        tile = p->tile + p->arrays_code[i.a].first_in;
        tiles = p->arrays_code[i.a].n_in;
    }
    if (!tile) {
        const array_ins *ins = &p->arrays_code[i.a];
        for (int32_t k = 0; k < ins->n_in; k++)
            if (!FAD_PUSH(l->place, l->n_place, u->cap_place, p->arglist[ins->first_in + k])) return 0;
        *n_in = ins->n_in;
        return FAD_PUSH(l->place, l->n_place, u->cap_place, ins->out);
    }
    for (int32_t k = 0; k < tiles; k++)
        for (int j = 0; j < tile[k].n; j++) {
            const tile_place at = tile[k].in[j];
            const fad_place place = {at.kind == IN_ARRAY, at.where};
            if (at.kind != IN_SCRATCH && !FAD_PUSH(l->place, l->n_place, u->cap_place, place)) return 0;
        }
    *n_in = l->n_place - first;
    for (int32_t k = 0; k < tiles; k++) {
        const fad_place place = {tile[k].out.kind == IN_ARRAY, tile[k].out.where};
        if (tile[k].out.kind != IN_SCRATCH && !FAD_PUSH(l->place, l->n_place, u->cap_place, place))
            return 0;
    }
    return 1;
}

static int take_other(analysis *u, word i)
{
    fad_lanes *l = u->l;
    const fad_program *p = l->p;
    const int32_t first = l->n_place;
    int32_t n_in = 0, kept = first;
    int varying = 0;
    if (!places_of(u, i, &n_in)) return 0;
    for (int32_t k = 0; k < n_in; k++) varying |= varies(u, l->place[first + k]);
    for (int32_t k = first + n_in; k < l->n_place; k++) {
        const fad_place out = l->place[k];
        if (out.is_array) {
            u->array[root_of(p, out.where)] = (unsigned char)varying;
        } else {
            u->reg[out.where] = (unsigned char)varying;
            u->spread[out.where] = 0;
        }
    }
    if (!varying) {
        l->n_place = first;
        return push_word(u, i);
    }
    lane_ins ins = {.kind = fad_is_guard_word(i.op) ? EACH_GUARD : EACH, .op = i.op, .a = i.a, .c = i.c,
                    .first = first, .n_out = l->n_place - first - n_in};
    const array_ins *array = fad_is_array_word(i.op) ? &p->arrays_code[i.a] : NULL;
    if (array && array->kind == FAD_VM_GET) ins.kind = GATHER;
    if (array && array->kind == FAD_VM_ASSEMBLE) {
        ins.kind = SCATTER;
        for (int32_t k = 0; k < n_in; k++)
            if (!spread(u, l->place[first + k].where)) return 0;
        ins.n = n_in + 1;
        return push(u, ins);
    }
    if (i.op == VM_LOOP) {      /* arrays that all vary, and numbers that do not */
        const tile_step *s = &p->tile[i.a];
        int all = 1;
        for (int j = 0; j < s->n; j++)
            all &= (s->in[j].kind == IN_ARRAY) == varies(u, l->place[first + j]);
        if (all) ins.kind = LOOP;
    }
    /* what does not vary stays where the machine has it */
    for (int32_t k = first; k < l->n_place; k++)
        if (k >= first + n_in || varies(u, l->place[k])) l->place[kept++] = l->place[k];
    l->n_place = kept;
    ins.n = kept - first;
    return push(u, ins);
}

/* ---- which bits ------------------------------------------------------------------------------ */

/* Whether a row calls a function that libm approximates, for which NumPy may have faster loops. */
static int calls_libm(int op)
{
    static const char *const exact[] = {"where", "zmul", "sqrt", "fabs", "sign", "rint", "floor",
        "ceil", "trunc", "copysign", "clip", "one_minus_square", "fmod", "remainder_",
        "floor_divide"};
    const char *text = fad_row_of(op)->primal;
    for (const char *end = strchr(text, '('); end; end = strchr(end + 1, '(')) {
        const char *name = end;
        int is_exact = 0;
        while (name > text && (name[-1] == '_' || (name[-1] >= 'a' && name[-1] <= 'z')
                               || (name[-1] >= '0' && name[-1] <= '9'))) name--;
        for (size_t k = 0; k < sizeof exact / sizeof exact[0]; k++)
            is_exact |= strlen(exact[k]) == (size_t)(end - name)
                && !strncmp(exact[k], name, (size_t)(end - name));
        if (!is_exact) return 1;
    }
    return 0;
}

/* Whether the last bit of operand k can move the result of a row by more than that: the table gives
 * steps the slope zero, and remainders one that is rounded. */
static int steps_in(int op, int k)
{
    const char *slope = fad_row_of(op)->partial[k];
    return !strcmp(slope, "0.0") || strstr(slope, "rint(") != NULL;
}

/* From the end to the start: whose bits a guard or a step sees. */
static fad_status mark_exact(analysis *u)
{
    enum { LIBM = 1, STEP_A = 2 };
    fad_lanes *l = u->l;
    const fad_program *p = l->p;
    unsigned char of_row[FAD_OP_END] = {0};
    unsigned char *reg = u->reg, *array = u->array;
    for (int op = FAD_OP_FIRST_ROW; op < FAD_OP_END; op++) {
        if (!fad_row_of(op)) continue;
        of_row[op] = calls_libm(op) ? LIBM : 0;
        for (int k = 0; k < fad_row_of(op)->arity; k++)
            if (steps_in(op, k)) of_row[op] |= (unsigned char)(STEP_A << k);
    }
    memset(reg, 0, (size_t)p->n_reg);
    memset(array, 0, (size_t)p->n_array);
    for (int32_t k = l->n_code - 1; k >= 0; k--) {
        lane_ins *i = &l->code[k];
        if (i->kind == ON_MACHINE || i->kind == SPREAD) continue;
        if (i->kind == ROW || i->kind == PRODUCT) {
            const int flags = i->kind == ROW ? of_row[i->op] : 0;
            const int exact = reg[i->d];
            i->exact = (uint8_t)(exact || !(flags & LIBM));
            reg[i->d] = 0;
            if (exact || (flags & STEP_A)) reg[i->a] = 1;
            if (exact || (flags & STEP_A << 1)) reg[i->b] = 1;
            if (exact || (flags & STEP_A << 2)) reg[i->c] = 1;
            continue;
        }
        const fad_place *place = l->place + i->first;
        const array_ins *ins = fad_is_array_word(i->op) ? &p->arrays_code[i->a] : NULL;
        const tile_step *tile = i->op == VM_LOOP ? &p->tile[i->a]
            : ins && ins->kind == VM_TILES ? p->tile + ins->first_in : NULL;
        const int32_t tiles = i->op == VM_LOOP ? 1 : tile ? ins->n_in : 0;
        int sees = i->kind == EACH_GUARD;
        for (int32_t j = i->n - i->n_out; j < i->n; j++) {
            unsigned char *flag = place[j].is_array ? &array[root_of(p, place[j].where)]
                                                    : &reg[place[j].where];
            sees |= *flag;
            if (!place[j].is_array) *flag = 0;
        }
        if (i->kind == LOOP && sees && tile->op >= 0 && (of_row[tile->op] & LIBM)) i->kind = EACH;
        /* these choose */
        sees |= ins && (ins->kind == FAD_VM_PARTIAL || ins->kind == FAD_VM_FOREIGN
                        || ins->kind == FAD_VM_MASK || ins->kind == FAD_VM_TIES);
        sees |= ins && ins->kind == VM_ROW && of_row[ins->op] >= STEP_A;
        for (int32_t j = 0; j < tiles; j++)
            sees |= tile[j].op >= 0 && of_row[tile[j].op] >= STEP_A;
        for (int32_t j = 0; sees && j < i->n - i->n_out; j++)
            if (place[j].is_array) array[root_of(p, place[j].where)] = 1;
            else reg[place[j].where] = 1;
    }
    return FAD_OK;
}

/* ---- making them ------------------------------------------------------------------------------- */

void fad_lanes_free(fad_lanes *l)
{
    fad_free(l->code);
    fad_free(l->words);
    fad_free(l->place);
    fad_free(l->array);
    fad_free(l->varies);
    fad_free(l->out_varies);
    fad_free(l);
}

int32_t fad_lanes_width(const fad_lanes *l) { return l->width; }

/* Whether arrays that vary can have a copy for each lane, and should. */
static int worth_while(const analysis *u)
{
    const fad_program *p = u->l->p;
    for (int32_t k = 0; k < p->n_array; k++) {
        const fad_array *like = p->array[k].like;
        if (!u->array[root_of(p, k)]) continue;
        if (like->dtype >= FAD_BOOL) return 0;
        if (like->size * (int64_t)fad_itemsize(like->dtype) > LARGE) return 0;
    }
    for (int32_t k = 0; k < p->n_out; k++)
        if (p->out[k].is_array && p->array[p->out[k].where].like->dtype >= FAD_BOOL) return 0;
    return 1;
}

/* FAD_DTYPE: rows go one by one. */
static fad_status analyse(analysis *u, const unsigned char *varying)
{
    fad_lanes *l = u->l;
    const fad_program *p = l->p;
    memcpy(l->varies, varying, (size_t)p->n_in);
    for (int32_t k = 0; k < p->n_in; k++)
        if (p->in[k].is_array) u->array[p->in[k].where] = varying[k];
        else u->reg[p->in[k].where] = varying[k];
    memset(u->spread, 1, (size_t)p->n_constant);
    for (const word *ip = p->code; ip->op != VM_END; ip++) {
        if (ip->op >= VM_LOOP) {
            if (!take_other(u, *ip)) return FAD_NOMEM;
        } else if (!take_number(u, from_registers(*ip, u->latest))) {
            return FAD_NOMEM;
        }
    }
    for (int32_t k = 0; k < p->n_out; k++) l->out_varies[k] = (unsigned char)varies(u, p->out[k]);
    if (!worth_while(u)) return FAD_DTYPE;
    size_t bytes = p->arena;
    for (int32_t k = 0; k < p->n_array; k++) {
        const array_place *at = &p->array[k];
        lane_array *mine = &l->array[k];
        const int32_t root = root_of(p, k);
        mine->varies = u->array[root];
        mine->root = root;
        if (at->from == FROM_ALIAS || at->like->dtype >= FAD_BOOL) continue;
        mine->bytes = (size_t)at->like->size * fad_itemsize(at->like->dtype);
        mine->offset = at->offset;
        if (at->from != FROM_OUTPUT && !(at->from == FROM_INPUT && mine->varies)) continue;
        mine->offset = bytes;
        bytes += (mine->bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    size_t each = bytes + ((size_t)p->n_reg + 1) * sizeof(double);
    l->width = MOST;
    while (l->width > VECTOR && (size_t)l->width * each > WORKSPACE) l->width /= 2;
    l->arena = bytes * (size_t)l->width;
    return mark_exact(u);
}

fad_status fad_lanes_new(const fad_program *p, const unsigned char *varying, fad_lanes **out)
{
    analysis u;
    fad_status status = FAD_NOMEM;
    *out = NULL;
    memset(&u, 0, sizeof u);
    fad_lanes *l = u.l = fad_malloc(sizeof *l);
    if (!l) return FAD_NOMEM;
    memset(l, 0, sizeof *l);
    l->p = p;
    const size_t n_reg = (size_t)p->n_reg + 1, n_array = (size_t)p->n_array + 1;
    l->varies = fad_malloc((size_t)p->n_in + 1);
    l->out_varies = fad_malloc((size_t)p->n_out + 1);
    l->array = fad_malloc(n_array * sizeof *l->array);
    u.reg = fad_malloc(n_reg);
    u.spread = fad_malloc(n_reg);
    u.array = fad_malloc(n_array);
    if (l->varies && l->out_varies && l->array && u.reg && u.spread && u.array) {
        memset(l->array, 0, n_array * sizeof *l->array);
        memset(u.reg, 0, n_reg);
        memset(u.spread, 0, n_reg);
        memset(u.array, 0, n_array);
        status = analyse(&u, varying);
    }
    fad_free(u.reg);
    fad_free(u.spread);
    fad_free(u.array);
    if (status) fad_lanes_free(l);
    else *out = l;
    return status == FAD_DTYPE ? FAD_OK : status;
}

static char *lanes_at(const fad_lanes *l, const fad_lane_workspace *w, int32_t array)
{
    const size_t alignment = (ALIGN - (uintptr_t)w->arena % ALIGN) % ALIGN;
    return w->arena + alignment + l->array[l->array[array].root].offset * (size_t)l->width;
}

fad_status fad_lane_workspace_new(const fad_lanes *l, fad_lane_workspace **out)
{
    const fad_program *p = l->p;
    const size_t width = (size_t)l->width;
    fad_lane_workspace *w = *out = fad_malloc(sizeof *w);
    if (!w) return FAD_NOMEM;
    memset(w, 0, sizeof *w);
    w->numbers = fad_malloc(((size_t)p->n_reg + 1) * width * sizeof *w->reg + ALIGN);
    w->arena = fad_malloc(l->arena + ALIGN);
    w->failed = fad_malloc(width);
    w->given = fad_malloc(((size_t)p->n_in + 1) * sizeof *w->given);
    if (!w->numbers || !w->arena || !w->failed || !w->given || fad_workspace_new(p, &w->shared)) {
        fad_lane_workspace_free(l, w);
        *out = NULL;
        return FAD_NOMEM;
    }
    w->reg = (double *)(w->numbers + (ALIGN - (uintptr_t)w->numbers % ALIGN) % ALIGN);
    for (int32_t k = 0; k < p->n_constant; k++)
        for (size_t i = 0; i < width; i++) w->reg[(size_t)k * width + i] = p->constants[k];
    for (int32_t k = 0; k < p->n_array; k++)
        if (p->array[k].from == FROM_OUTPUT) w->shared->array[k]->data = lanes_at(l, w, k);
    return FAD_OK;
}

/* The caller has taken its owners off before. */
void fad_lane_workspace_free(const fad_lanes *l, fad_lane_workspace *w)
{
    if (w->shared) fad_workspace_free(l->p, w->shared);
    fad_free(w->numbers);
    fad_free(w->arena);
    fad_free(w->failed);
    fad_free(w->given);
    fad_free(w);
}

/* ---- running ------------------------------------------------------------------------------------- */

FAD_CLONES static void product_of_lanes(const double *a, const double *b, const double *c,
                                        double *out, int32_t n)
{
    FAD_IVDEP
    for (int32_t i = 0; i < n; i++) out[i] = a[i] * b[i] + c[i];
}

FAD_CLONES static void zero_product_of_lanes(const double *a, const double *b, const double *c,
                                             double *out, int32_t n)
{
    FAD_IVDEP
    for (int32_t i = 0; i < n; i++) out[i] = c[i] + zmul(a[i], b[i]);
}

FAD_CLONES static void product_sizes_of_lanes(const double *a, const double *b, const double *c,
                                              double *out, int32_t n)
{
    FAD_IVDEP
    for (int32_t i = 0; i < n; i++) out[i] = c[i] + fabs(zmul(a[i], b[i]));
}

/* A row that is one operation, or a sum with a product, over a single vector of lanes, as when a
 * sweep runs for the columns of a Jacobian: here a call and a loop would take most of the time.
 * 0: another row. */
static inline int single_vector(int op, const double *a, const double *b, const double *c,
                                double *out)
{
#define EACH(value) \
        FAD_IVDEP FAD_ROLLED for (int k = 0; k < VECTOR; k++) out[k] = value; \
        break
    switch (op) {
    case FAD_OP_add: EACH(a[k] + b[k]);
    case FAD_OP_subtract: EACH(a[k] - b[k]);
    case FAD_OP_multiply: EACH(a[k] * b[k]);
    case FAD_OP_negative: EACH(-a[k]);
    case FAD_OP_zmul: EACH(zmul(a[k], b[k]));
    case VM_MULADD: EACH(a[k] * b[k] + c[k]);
    case VM_ZMULADD: EACH(c[k] + zmul(a[k], b[k]));
    case VM_ABSADD: EACH(c[k] + fabs(zmul(a[k], b[k])));
    default: return 0;
    }
#undef EACH
    return 1;
}

/* NumPy's loop over n lanes.  A result may stand in the place of an operand, which loops take for
 * an overlap that needs care: it goes to a block of its own first. */
static void numpy_row(const lane_ins *i, fad_loop loop, void *data, const double *a,
                      const double *b, double *out, intptr_t n)
{
    static const intptr_t step[4] = {sizeof(double), sizeof(double), sizeof(double),
                                     sizeof(double)};
    double block[MOST];
    const int two = fad_row_of(i->op)->arity > 1;
    const int in_place = out == a || (two && out == b);
    char *ptr[4] = {(char *)a, two ? (char *)b : NULL, NULL, NULL};
    ptr[two ? 2 : 1] = (char *)(in_place ? block : out);
    loop(ptr, &n, step, data);
    if (in_place) memcpy(out, block, (size_t)n * sizeof *out);
}

/* Let the machine see what varies as lane `at` has it. */
static void show(const fad_lanes *l, fad_lane_workspace *w, const lane_ins *i, int32_t at)
{
    for (int32_t k = 0; k < i->n; k++) {
        const fad_place place = l->place[i->first + k];
        if (!place.is_array) {
            w->shared->reg[place.where] = w->reg[(size_t)place.where * (size_t)l->width
                                                 + (size_t)at];
            continue;
        }
        w->shared->array[place.where]->data = lanes_at(l, w, place.where)
            + l->array[l->array[place.where].root].bytes * (size_t)at;
    }
}

static fad_status each(const fad_lanes *l, fad_lane_workspace *w, const lane_ins *i, int32_t n,
                       const fad_vm_calls *calls)
{
    const fad_program *p = l->p;
    const fad_place *const out = l->place + i->first + i->n - i->n_out;
    for (int32_t at = 0; at < n; at++) {
        if (w->failed[at]) continue;    /* foreign code must not see what never was */
        show(l, w, i, at);
        if (i->op == VM_LOOP) {
            fad_vm_step(&p->tile[i->a], w->shared, i->c);
        } else {
            const fad_status status = fad_vm_array(p, w->shared, &p->arrays_code[i->a], calls);
            if (status && status != FAD_GUARD) return status;
            w->failed[at] = status == FAD_GUARD;
        }
        for (int32_t k = 0; k < i->n_out; k++)
            if (!out[k].is_array)
                w->reg[(size_t)out[k].where * (size_t)l->width + (size_t)at]
                    = w->shared->reg[out[k].where];
    }
    return FAD_OK;
}

/* An array of numbers: number k of each lane to its place. */
static void scatter(const fad_lanes *l, fad_lane_workspace *w, const lane_ins *i, int32_t n)
{
    const array_ins *ins = &l->p->arrays_code[i->a];
    const int64_t *to = l->p->offset + ins->offset;
    const size_t size = (size_t)w->shared->array[ins->out.where]->size;
    double *q = (double *)lanes_at(l, w, ins->out.where);
    if ((size_t)ins->n_in < size) memset(q, 0, (size_t)n * size * sizeof *q);
    for (int32_t k = 0; k < ins->n_in; k++) {
        const double *x = w->reg + (size_t)l->place[i->first + k].where * (size_t)l->width;
        for (int32_t at = 0; at < n; at++) q[(size_t)at * size + (size_t)to[k]] = x[at];
    }
}

static void gather(const fad_lanes *l, fad_lane_workspace *w, const lane_ins *i, int32_t n)
{
    const array_ins *ins = &l->p->arrays_code[i->a];
    const size_t size = (size_t)w->shared->array[ins->in[0].where]->size;
    const double *x = (const double *)lanes_at(l, w, ins->in[0].where) + ins->offset;
    double *q = w->reg + (size_t)ins->out.where * (size_t)l->width;
    for (int32_t at = 0; at < n; at++) q[at] = x[(size_t)at * size];
}

/* One loop over the elements of all lanes. */
static void loop_over_all(const fad_lanes *l, fad_lane_workspace *w, const lane_ins *i, int32_t n)
{
    show(l, w, i, 0);
    fad_vm_step(&l->p->tile[i->a], w->shared, (intptr_t)i->c * n);
}

/* Run n lanes; failed lanes go on with whatever numbers they have. */
FAD_CLONES static fad_status run(const fad_lanes *l, fad_lane_workspace *w, int32_t n,
                                 const fad_vm_calls *calls)
{
    const size_t width = (size_t)l->width;
    double *const reg = w->reg;
    for (const lane_ins *i = l->code, *end = i + l->n_code; i < end; i++) {
        fad_status status = FAD_OK;
        void *data;
        switch (i->kind) {
        case ON_MACHINE:
            status = fad_vm_words(l->p, w->shared, l->words + i->a, calls);
            break;
        case SPREAD: {
            const double v = w->shared->reg[i->d];
            for (int32_t k = 0; k < n; k++) reg[(size_t)i->d * width + (size_t)k] = v;
            break;
        }
        case ROW: {
            const double *a = reg + (size_t)i->a * width, *b = reg + (size_t)i->b * width;
            double *out = reg + (size_t)i->d * width;
            if (n == VECTOR && single_vector(i->op, a, b, b, out)) break;
            const fad_loop loop = i->exact ? NULL : fad_loop_of(i->op, FAD_F64, &data);
            if (loop) numpy_row(i, loop, data, a, b, out, n);
            else fad_values[i->op](a, b, reg + (size_t)i->c * width, out, n);
            break;
        }
        case PRODUCT:
            if (n == VECTOR
                && single_vector(i->op, reg + (size_t)i->a * width, reg + (size_t)i->b * width,
                                 reg + (size_t)i->c * width, reg + (size_t)i->d * width))
                break;
            (i->op == VM_MULADD ? product_of_lanes : i->op == VM_ZMULADD ? zero_product_of_lanes
             : product_sizes_of_lanes)(
                reg + (size_t)i->a * width, reg + (size_t)i->b * width,
                reg + (size_t)i->c * width, reg + (size_t)i->d * width, n);
            break;
        case LOOP: loop_over_all(l, w, i, n); break;
        case GATHER: gather(l, w, i, n); break;
        case SCATTER: scatter(l, w, i, n); break;
        case EACH: status = each(l, w, i, n, calls); break;
        case EACH_GUARD:
            for (int32_t at = 0; at < n; at++) {
                if (w->failed[at]) continue;
                show(l, w, i, at);
                w->failed[at] = (unsigned char)!fad_vm_guard_holds(&l->p->guard[i->a], w->shared);
            }
            break;
        }
        if (status) return status;
    }
    return FAD_OK;
}

/* Numbers that do not vary: kept before the first lanes run, which use their registers again, and
 * put back before each of the next. */
static void keep_numbers(const fad_lanes *l, fad_lane_workspace *w, int back)
{
    const fad_program *p = l->p;
    for (int32_t k = 0; k < p->n_in; k++) {
        if (l->varies[k] || p->in[k].is_array) continue;
        double *reg = &w->shared->reg[p->in[k].where];
        if (back) *reg = w->given[k];
        else w->given[k] = *reg;
    }
}

/* Rows first .. first + count - 1 of the inputs that vary to the lanes; the last one fills up to
 * n lanes. */
static void put_rows(const fad_lanes *l, fad_lane_workspace *w, const void *const *rows,
                     int64_t first, int32_t count, int32_t n)
{
    const fad_program *p = l->p;
    for (int32_t k = 0; k < p->n_in; k++) {
        const fad_place at = p->in[k];
        if (!l->varies[k]) continue;
        const size_t item = at.is_array ? l->array[at.where].bytes : sizeof(double);
        char *q = at.is_array ? lanes_at(l, w, at.where)
            : (char *)(w->reg + (size_t)at.where * (size_t)l->width);
        if (!item) continue;
        memcpy(q, (const char *)rows[k] + (size_t)first * item, (size_t)count * item);
        for (int32_t j = count; j < n; j++)
            memcpy(q + (size_t)j * item, q + (size_t)(count - 1) * item, item);
    }
}

static void take_rows(const fad_lanes *l, const fad_lane_workspace *w, void *const *results,
                      int64_t first, int32_t count)
{
    const fad_program *p = l->p;
    for (int32_t k = 0; k < p->n_out; k++) {
        const fad_place at = p->out[k];
        const fad_array *arr = at.is_array ? w->shared->array[at.where] : NULL;
        const size_t item = arr ? (size_t)arr->size * fad_itemsize(arr->dtype) : sizeof(double);
        const int moves = l->out_varies[k];
        const char *x = moves
            ? (at.is_array ? lanes_at(l, w, at.where)
                           : (const char *)(w->reg + (size_t)at.where * (size_t)l->width))
            : arr ? (const char *)arr->data : (const char *)&w->shared->reg[at.where];
        char *q = (char *)results[k] + (size_t)first * item;
        if (!item) continue;
        if (moves) memcpy(q, x, (size_t)count * item);
        else for (int32_t j = 0; j < count; j++) memcpy(q + (size_t)j * item, x, item);
    }
}

fad_status fad_lanes_run(const fad_lanes *l, fad_lane_workspace *w, const void *const *rows,
                         void *const *results, unsigned char *failed, int64_t from, int64_t to,
                         const fad_vm_calls *calls)
{
    fad_vm_aliases(l->p, w->shared);
    keep_numbers(l, w, 0);
    for (int64_t at = from; at < to; at += l->width) {
        const int32_t count = (int32_t)(to - at < l->width ? to - at : l->width);
        const int32_t n = (count + VECTOR - 1) / VECTOR * VECTOR;
        keep_numbers(l, w, 1);
        put_rows(l, w, rows, at, count, n);
        memset(w->failed, 0, (size_t)n);
        const fad_status status = run(l, w, n, calls);
        if (status == FAD_GUARD) {
            memset(failed + at, 1, (size_t)count);
            continue;
        }
        if (status) return status;
        memcpy(failed + at, w->failed, (size_t)count);
        take_rows(l, w, results, at, count);
    }
    return FAD_OK;
}
