/* What programs are made of: shared by the builder, the machine and what else walks their code. */
#ifndef FAD_VM_IMPL_H
#define FAD_VM_IMPL_H

#include "kernels.h"
#include "vm.h"

/* reg[d] = op(reg[a], reg[b], reg[c]).  Below 256 the opcodes are the tape's rows over registers. */
typedef struct { uint16_t op, spare; int32_t d, a, b, c; } word;

/* Those that end in L read the result of the word before from the machine's register instead of
 * memory: in a chain of dependent operations the way through memory is most of the time. */
#define SPECIAL_OPS(_) \
    _(END, ) \
    _(ADDL, value = reg[ip->a] + value) \
    _(MULTIPLYL, value = reg[ip->a] * value) \
    _(ZMULL, value = zmul(reg[ip->a], value)) \
    _(MULADD, value = reg[ip->a] * reg[ip->b] + reg[ip->c]) \
    _(MULADD_PRODUCTL, value = reg[ip->a] * value + reg[ip->c]) \
    _(MULADD_SUML, value = reg[ip->a] * reg[ip->b] + value) \
    _(ZMULADD, value = reg[ip->c] + zmul(reg[ip->a], reg[ip->b])) \
    _(ZMULADD_PRODUCTL, value = reg[ip->c] + zmul(reg[ip->a], value)) \
    _(ZMULADD_SUML, value = value + zmul(reg[ip->a], reg[ip->b])) \
    _(ABSADD, value = reg[ip->c] + fabs(zmul(reg[ip->a], reg[ip->b]))) \
    _(ABSADD_PRODUCTL, value = reg[ip->c] + fabs(zmul(reg[ip->a], value))) \
    _(ABSADD_SUML, value = value + fabs(zmul(reg[ip->a], reg[ip->b])))

/* Guards on two numbers, held and not held: reg[d] and reg[b] are compared, `a` is the guard. */
#define GUARD_OPS(_) \
    _(LT, a < b) _(LE, a <= b) _(EQ, a == b) _(NE, a != b) _(GT, a > b) _(GE, a >= b) \
    _(NOT_LT, !(a < b)) _(NOT_LE, !(a <= b)) _(NOT_EQ, !(a == b)) _(NOT_NE, !(a != b)) \
    _(NOT_GT, !(a > b)) _(NOT_GE, !(a >= b))

enum {
    VM_FIRST_SPECIAL = 255,
#define NAMED(name, code) VM_##name,
    SPECIAL_OPS(NAMED)
#undef NAMED
    VM_LOOP,        /* elementwise step a over c elements */
    VM_ARRAY,       /* array instruction a */
    VM_GET,         /* the same where it is FAD_VM_GET: number c of array b */
    VM_GUARD,       /* guard a */
#define NAMED(name, holds) VM_GUARD_##name,
    GUARD_OPS(NAMED)
#undef NAMED
    VM_OPS
};

typedef struct {
    uint8_t kind;               /* VM_ROW or a fad_vm_kind */
    uint8_t dtype, ta, tb, exact, side;
    uint8_t far_out;            /* VM_TILES: its arrays exceed the caches, results go past them */
    uint16_t op;
    int32_t foreign, n_in, first_in;
    fad_place in[4], out;
    int64_t offset;
    int32_t axes;               /* where in program->axes */
} array_ins;
enum { VM_ROW = 64, VM_TILES };

/* One elementwise step inside a tile.  Operands and result: whole arrays, of which the tile's part
 * is meant, scratch blocks of the tile's length, or blocks filled with a number.  A step whose
 * result is OUT_SUM adds its only operand up; the sum is in the register behind the last tile. */
enum { IN_ARRAY, IN_SCRATCH, IN_REGISTER, OUT_SUM };
/* first: nothing before it in the group names this array; of a result: nothing behind it either */
typedef struct { uint8_t kind, first; int32_t where; } tile_place;
typedef struct {
    fad_loop loop;              /* this or `values`; neither in a sum */
    void *data;
    fad_values_fn values;
    int n, op, fused;           /* the row, or which of FAD_FUSED; -1 */
    tile_place in[3], out;
} tile_step;
/* Scratch blocks stand apart by a little more than a tile: at a distance of 4096 bytes a store
 * holds up the loads of other blocks, whose addresses end alike. */
enum { TILE = 512, STRIDE = TILE + 40, TILED_ABOVE = 8 * TILE };
enum { GROUP_SUMS = 8 };        /* at most so many sums run in one group */
static const int64_t FAR_ABOVE = 16 << 20;      /* bytes of a group's arrays */

/* Who owns the bytes of an array of the workspace. */
enum { FROM_ARENA, FROM_CONSTANT, FROM_INPUT, FROM_FOREIGN, FROM_ALIAS, FROM_OUTPUT };
typedef struct {
    fad_array *like;            /* shape and dtype; of a constant, a reference to its contents */
    uint8_t from;
    int32_t root;               /* FROM_ALIAS: whose bytes */
    size_t offset;              /* FROM_ARENA */
} array_place;

typedef struct { int kind, wanted; fad_place a, b; double number; const void *bytes; size_t size; }
    guard_ins;

struct fad_program {
    word *code;
    array_ins *arrays_code;
    array_place *array;
    guard_ins *guard;
    fad_place *in, *out, *arglist;
    double *constants;          /* what the first registers hold */
    int *axes;
    int64_t *offset;            /* of numbers in assembled arrays */
    tile_step *tile;
    int32_t n_code, n_arrays_code, n_array, n_guard, n_in, n_out, n_arglist, n_constant, n_reg;
    int32_t n_axes, n_offset, n_foreign, n_tile, scratch_blocks;
    size_t arena;
    int64_t work;
};

static inline int fad_is_array_word(int op) { return op == VM_ARRAY || op == VM_GET; }
static inline int fad_is_guard_word(int op) { return VM_GUARD <= op && op < VM_OPS; }

enum { ALIGN = 64 };           /* of arrays in the arena */

/* A vector that grows; `n` counts elements.  0 without memory. */
#define FAD_PUSH(v, n, cap, item) \
    ((n) < (cap) || fad_grow_vector((void **)&(v), &(cap), sizeof *(v)) \
         ? ((v)[(n)++] = (item), 1) : 0)

static inline int fad_reserve_vector(void **v, int32_t *cap, size_t item, int32_t want)
{
    if (want <= *cap) return 1;
    void *p = fad_realloc(*v, (size_t)want * item);
    if (!p) return 0;
    *v = p;
    *cap = want;
    return 1;
}

static inline int fad_grow_vector(void **v, int32_t *cap, size_t item)
{
    if (*cap > INT32_MAX / 2) return 0;
    return fad_reserve_vector(v, cap, item, *cap ? 2 * *cap : 64);
}

/* For those who read code; names.c. */
const char *fad_word_text(int op);
const char *fad_array_ins_name(int kind);
const char *fad_guard_name(int kind);

/* Rows that are one operation of the processor, so that every loop over them gives the same bits;
 * in cache a plain loop is three times as fast as NumPy's. */
static inline int fad_rounded_once(int op)
{
    return op == FAD_OP_add || op == FAD_OP_subtract || op == FAD_OP_multiply
        || op == FAD_OP_divide || op == FAD_OP_negative || op == FAD_OP_square;
}

/* The parts of the machine.  Aliases are set once the inputs are there; words end with VM_END. */
void fad_vm_aliases(const fad_program *p, fad_workspace *w);
fad_status fad_vm_words(const fad_program *p, fad_workspace *w, const word *ip,
                        const fad_vm_calls *calls);
fad_status fad_vm_array(const fad_program *p, fad_workspace *w, const array_ins *ins,
                        const fad_vm_calls *calls);
void fad_vm_step(const tile_step *s, const fad_workspace *w, intptr_t n);
int fad_vm_guard_holds(const guard_ins *g, const fad_workspace *w);

#endif
