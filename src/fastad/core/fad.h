/* fastad's C core: tape, arrays, elementwise kernels and sweeps.  It knows no Python.
 *
 * Every function returns a fad_status; nothing here prints, exits or raises.  The one lock is the
 * caller's: the core is never entered by two threads at once.
 */
#ifndef FAD_H
#define FAD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    FAD_OK = 0,
    FAD_NOMEM,      /* an allocation failed; the tape is as it was */
    FAD_FULL,       /* the 31-bit node index space is used up */
    FAD_CONSUMED,   /* a sweep met a node that an earlier sweep freed */
    FAD_CALLBACK,   /* a callback failed; it has said why to its own world */
    FAD_SHAPE,      /* shapes do not broadcast */
    FAD_DTYPE,      /* a dtype that this primitive does not take */
    FAD_GUARD       /* a run met a value on which the recording does not hold */
} fad_status;

typedef int32_t fad_index;

/* The core computes with the dtypes below FAD_BOOL and has their bytes; of others it knows the
 * shape.  A complex number is its real part and then its imaginary part, and is always an array. */
enum { FAD_F64 = 0, FAD_F32 = 1, FAD_C128 = 2, FAD_C64 = 3, FAD_BOOL = 4, FAD_OTHER = 5 };
enum { FAD_MAXDIM = 64 };

/* What a row's partials read; see ops.def. */
enum { FAD_NONE = 0, FAD_X = 1, FAD_A = 1, FAD_B = 2, FAD_C = 4, FAD_Y = 8 };

/* ---- primitives ------------------------------------------------------------------------- */

/* Order matters: the opcodes from FAD_OP_LEAF to FAD_OP_LAST_OWNING hold something to release. */
enum fad_op {
    FAD_OP_FREED = 0,   /* consumed by a sweep: using it in another one is an error */
    FAD_OP_CONST,       /* no cotangent flows here */
    FAD_OP_LEAF,        /* args.a is a slot of the leaf table */
    FAD_OP_CALL,        /* a structured primitive: args hold a fad_call * */
#define FAD_CONST(name, value)
#define FAD_UNARY(name, ...)
#define FAD_BINARY(name, ...)
#define FAD_TERNARY(name, ...) FAD_OP_##name,
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
    FAD_OP_LAST_OWNING_PLUS_ONE,
    FAD_OP_BEFORE_UNARY = FAD_OP_LAST_OWNING_PLUS_ONE - 1,
#define FAD_UNARY(name, ...) FAD_OP_##name,
#define FAD_BINARY(name, ...)
#define FAD_TERNARY(name, ...)
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
    FAD_OP_FIRST_BINARY,
    FAD_OP_BEFORE_BINARY = FAD_OP_FIRST_BINARY - 1,
#define FAD_UNARY(name, ...)
#define FAD_BINARY(name, ...) FAD_OP_##name,
#include "ops.def"
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY
#undef FAD_CONST
    FAD_OP_END
};
#define FAD_OP_LAST_OWNING (FAD_OP_LAST_OWNING_PLUS_ONE - 1)
#define FAD_OP_FIRST_ROW (FAD_OP_CALL + 1)
_Static_assert(FAD_OP_END <= 256, "opcodes have eight bits of the op word");

typedef struct {
    const char *name, *primal, *partial[3], *numpy;
    int op, arity, reads;
    double lo[3], hi[3];
} fad_row;

extern const fad_row fad_rows[];
extern const int fad_row_count;
typedef struct { const char *name; double value; } fad_named_constant;
extern const fad_named_constant fad_constants[];
extern const int fad_constant_count;

/* The row of an opcode; NULL for the opcodes that are not rows. */
static inline const fad_row *fad_row_of(int op)
{
    return op >= FAD_OP_FIRST_ROW ? &fad_rows[op - FAD_OP_FIRST_ROW] : NULL;
}

/* ---- arrays ------------------------------------------------------------------------------ */

/* A C-contiguous array, shared by reference count.  Shared contents never change: who wants to
 * write makes sure that it holds the only reference, or copies.
 *
 *     | header | shape[ndim] | data, when small |        `data` points behind or to its own block
 *
 * `owner` is a foreign keeper of the data; the core only hands it back (graveyard). */
typedef struct fad_array {
    int32_t refs;
    uint8_t dtype, ndim, large, hollow;
    int64_t size;
    void *data;
    void *owner;
    struct fad_array *next;
    int64_t shape[];
} fad_array;

static inline size_t fad_itemsize(int dtype)
{
    static const unsigned char size[] = {8, 4, 16, 8, 1, 1};
    return size[dtype];
}
static inline int fad_is_complex(int dtype) { return dtype == FAD_C128 || dtype == FAD_C64; }
fad_array *fad_array_new(int dtype, int ndim, const int64_t *shape);
fad_array *fad_array_borrow(int dtype, int ndim, const int64_t *shape, void *data, void *owner);
void fad_array_release(fad_array *arr);
static inline fad_array *fad_array_share(fad_array *arr) { arr->refs++; return arr; }
static inline int64_t fad_array_bytes(const fad_array *arr)
{
    return arr->hollow ? 0 : arr->size * (int64_t)fad_itemsize(arr->dtype);
}
int fad_same_shape(const fad_array *p, const fad_array *q);
fad_array *fad_array_copy(const fad_array *src);
/* Between any two of float64, float32, complex128, complex64; a real result has the real parts. */
fad_array *fad_array_cast(const fad_array *src, int dtype);
void fad_cast_into(const fad_array *src, fad_array *out);
int fad_has_nan(const fad_array *x);

/* Keepers and calls that the core has let go; the caller takes and releases them. */
typedef struct fad_call {
    union {
        int64_t at;                 /* of a call on a node: the place of the element that it is about */
        struct fad_call *next;      /* of a dead one */
    };
    void *rule, *params;
    int32_t n : 31;
    uint32_t takes : 1;             /* it changes the buffer of its first operand, its last reader */
    fad_index parent[];
} fad_call;
extern fad_array *fad_dead_arrays;
extern fad_call *fad_dead_calls;
void fad_array_free(fad_array *arr);
fad_call *fad_call_new(int n);
void fad_free(void *block);
void *fad_malloc(size_t bytes);
void *fad_realloc(void *block, size_t bytes);
/* Make the k-th allocation from now fail (k >= 0); a negative k switches this off. */
void fad_fail_allocation(int64_t k);
int64_t fad_allocations_left(void);
void fad_pool_clear(void);
int64_t fad_pool_bytes(void);
extern int64_t fad_large_bytes;     /* bytes of large blocks in use */

/* ---- the tape ---------------------------------------------------------------------------- */

typedef union { double f; uint64_t bits; fad_array *arr; } fad_slot;
typedef struct { fad_index a, b; } fad_args;

/* An adjoint that nothing has reached.  It is -0.0: adding to it needs no test, and since every
 * contribution is added as `c + 0.0`, a reached adjoint is never -0.0 again. */
#define FAD_UNTOUCHED UINT64_C(0x8000000000000000)

/* op word:  LIVE NEEDED HOOK CB CA MARK ARRAY PASSIVE | opcode (8 bits) */
enum {
    FAD_OPCODE = 0x00ff,
    FAD_PASSIVE = 0x0100,   /* only a trace needs this node: no cotangent flows here */
    FAD_ARRAY = 0x0200,     /* value and adjoint are arrays, not numbers */
    FAD_MARK = 0x0400,      /* reached; used within one sweep or one compaction */
    FAD_CA = 0x0800,        /* first operand is constant */
    FAD_CB = 0x1000,        /* second operand is constant */
    FAD_HOOK = 0x2000,      /* the caller wants to see this adjoint */
    FAD_NEEDED = 0x4000,    /* some partial reads this value */
    FAD_LIVE = 0x8000       /* a handle refers to this node */
};

/* What a user's object holds.  idx >= 0: its node.  Handles of nodes that are not leaves are
 * linked, so that a compaction can renumber them. */
enum { FAD_NO_NODE = -1, FAD_USED_UP = -2 };
typedef struct fad_handle {
    struct fad_handle *prev, *next;
    fad_index idx;
    int32_t slot;           /* leaf slot, or -1 */
} fad_handle;

/* `at` is where the running sweep keeps this leaf's adjoint, if that entry names this slot: a
 * leaf may have several nodes, made before and after a sweep or an update in place. */
typedef struct { fad_handle *handle; int32_t nodes, at; } fad_leaf;
typedef struct { fad_index node; fad_call *keeper; } fad_hook;

enum { FAD_CONST_CACHE = 256 };

/* One scalar node is op 2 + args 8 + value 8 + adjoint 8 = 26 bytes.
 *
 *     index   0 1 2 ... n-1 | n ... cap-1
 *     op      . . .     .   |
 *     args    . . .     .   |                parents have lower indices than their node
 *     value   . . .     .   |                number, or fad_array * where op has FAD_ARRAY
 *     bar     all FAD_UNTOUCHED between sweeps, up to `ready`; beyond, memory not used yet
 *
 * A node without FAD_LIVE at the top of the tape is garbage (only later nodes could use it), so
 * dropping the last handle of a graph pops the graph.  Holes below are closed by compaction,
 * which runs when a reservation would have to grow the tape.
 */
typedef struct fad_tape {
    uint16_t *op;
    fad_args *args;
    fad_slot *value;
    fad_slot *bar;
    fad_index n, cap, max;
    fad_index room;         /* cap; 0 when a sweep has left much behind that may be garbage */
    fad_index ready;        /* adjoints below this index are initialized */
    fad_index fresh;        /* leaf nodes below this index are renewed on use */
    int sweeping;           /* > 0: nodes may be appended, none moved or dropped */
    fad_handle live;        /* list head */
    fad_leaf *leaf;
    int32_t leaf_n, leaf_cap, leaf_free;
    fad_hook *hook;
    int32_t hook_n, hook_cap;
    fad_index due;          /* compact when the tape is this long */
    int32_t *place;         /* where nodes were recorded, while somebody wants to know */
    int placing;            /* how many do */
    fad_index placed;       /* from here on `place` holds zeros */
    int64_t bytes, bytes_limit;     /* array bytes that nodes keep; when to compact for them */
    fad_index cache[FAD_CONST_CACHE];
} fad_tape;

fad_status fad_tape_init(fad_tape *t);
void fad_tape_clear(fad_tape *t);
fad_status fad_grow(fad_tape *t, fad_index extra);
void fad_ready_bars(fad_tape *t);
void fad_trim(fad_tape *t);
void fad_compact(fad_tape *t);
fad_status fad_leaf_add(fad_tape *t, fad_handle *h);
void fad_leaf_drop(fad_tape *t, fad_handle *h);
void fad_leaf_push(fad_tape *t, fad_handle *h, fad_slot value, int is_array);
fad_index fad_push_array_slow(fad_tape *t, unsigned op, fad_index a, fad_index b, fad_array *value);
fad_index fad_push_call(fad_tape *t, unsigned op, fad_call *call, fad_slot value, int is_array);
fad_status fad_hook_set(fad_tape *t, fad_index i, fad_call *keeper);  /* takes keeper over */
fad_call *fad_hook_get(const fad_tape *t, fad_index i);
void fad_handle_drop(fad_tape *t, fad_handle *h);
void fad_need(fad_tape *t, unsigned op, fad_index a, fad_index b);
fad_index fad_const_slow(fad_tape *t, double v, uint64_t bits, unsigned at);

/* Room for `extra` more nodes.  Call it before reading any index: it may compact. */
static inline fad_status fad_reserve(fad_tape *t, fad_index extra)
{
    if (t->n <= t->room - extra && t->bytes <= t->bytes_limit) return FAD_OK;
    return fad_grow(t, extra);
}

/* The end of a sweep.  What was recorded in it may be garbage that nothing could reclaim. */
static inline void fad_leave(fad_tape *t)
{
    t->sweeping--;
    if (!t->sweeping && t->n > t->cap / 2 && t->n >= t->due) t->room = 0;
}

/* The pushes below are unchecked: reserve first. */
static inline fad_index fad_push(fad_tape *t, unsigned op, fad_index a, fad_index b, double value)
{
    const fad_index i = t->n;
    t->op[i] = (uint16_t)op;
    t->args[i].a = a;
    t->args[i].b = b;
    t->value[i].f = value;
    t->n = i + 1;
    return i;
}

static inline fad_index fad_const(fad_tape *t, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, 8);
    const unsigned at = (unsigned)((bits * UINT64_C(0x9E3779B97F4A7C15)) >> 56);
    const fad_index i = t->cache[at];
    if (i < t->n && t->value[i].bits == bits
        && (t->op[i] & (FAD_OPCODE | FAD_ARRAY | FAD_PASSIVE)) == FAD_OP_CONST)
        return i;
    return fad_const_slow(t, v, bits, at);
}

/* Whether cotangents stop at this node. */
static inline int fad_stops(const fad_tape *t, fad_index p)
{
    return (t->op[p] & FAD_OPCODE) == FAD_OP_CONST || (t->op[p] & FAD_PASSIVE);
}

static inline void fad_link(fad_tape *t, fad_handle *h, fad_index i)
{
    h->idx = i;
    h->slot = -1;
    h->prev = &t->live;
    h->next = t->live.next;
    h->next->prev = h;
    t->live.next = h;
    t->op[i] |= FAD_LIVE;
}

/* Forget the handle of a non-leaf node. */
static inline void fad_unlink(fad_tape *t, fad_handle *h)
{
    h->prev->next = h->next;
    h->next->prev = h->prev;
    t->op[h->idx] &= (uint16_t)~FAD_LIVE;
}

static inline fad_call *fad_call_of(const fad_tape *t, fad_index i)
{
    fad_call *call;
    memcpy(&call, &t->args[i], sizeof call);
    return call;
}

/* ---- elementwise values ------------------------------------------------------------------ */

double fad_eval1(int op, double x);
double fad_eval2(int op, double a, double b);
double fad_eval3(int op, double a, double b, double c);

/* NumPy's inner loops, handed over once at import.  Without one the core uses its own. */
typedef void (*fad_loop)(char **args, const intptr_t *dims, const intptr_t *steps, void *data);
void fad_set_loop(int op, int dtype, fad_loop fn, void *data);
int fad_has_loop(int op, int dtype);
void fad_set_matmul(int dtype, fad_loop fn, void *data);
/* Raises FAD_SHAPE unless the operands broadcast.  Operands have one dtype (where's first may be
 * bool), or are numbers: arr == NULL, then `number` (already rounded to dtype) is meant.  Complex
 * rows need a loop: FAD_DTYPE without one. */
typedef struct { const fad_array *arr; double number; } fad_operand;
fad_status fad_elementwise(int op, int dtype, const fad_operand *in, fad_array **out);
/* The same into an array of the right shape, which may be that of an operand. */
void fad_elementwise_into(int op, int dtype, const fad_operand *in, fad_array *out);
fad_status fad_sum_all(const fad_array *x, double *out);
fad_status fad_sum_to(const fad_array *x, int ndim, const int64_t *shape, fad_array **out);
fad_status fad_broadcast_to(const fad_array *x, int ndim, const int64_t *shape, fad_array **out);
fad_status fad_fill(int dtype, int ndim, const int64_t *shape, double v, fad_array **out);
fad_status fad_transpose(const fad_array *x, const int *axes, fad_array **out);
/* a (m, n) or (n), b (n, p) or (n), of which fad_matmul_into takes many; ta/tb read a matrix
 * transposed.  Same dtype.  `exact` gives
 * NumPy's bits; without it small products come from a plain loop. */
fad_status fad_matmul2(const fad_array *a, int ta, const fad_array *b, int tb, int exact,
                       fad_array **out);
void fad_add_into(fad_array *dst, const fad_array *src);
/* As their namesakes, into arrays of the right shape that overlap no operand. */
void fad_sum_into(const fad_array *x, fad_array *out);
void fad_sum_axes_into(const fad_array *x, const int *summed, fad_array *out);
void fad_take_into(const fad_array *x, const int64_t *place, fad_array *out);
void fad_give_into(const fad_array *x, const int64_t *place, int adds, fad_array *out);
/* x with `value` at places of it; with `adds`, of float64, added there.  `how` begins with its own
 * length.  Then either 0, the first place, how many axes, their lengths, steps in x and steps in
 * the value; or 1, how many elements, their places and those in the value. */
void fad_write_into(const fad_array *x, const fad_operand *value, const int64_t *how, int adds,
                    fad_array *out);
/* A bool for each element of out; operands, which broadcast to it, are float64, bool, or numbers. */
enum {
    FAD_MASK_LT, FAD_MASK_LE, FAD_MASK_EQ, FAD_MASK_NE, FAD_MASK_GT, FAD_MASK_GE,
    FAD_MASK_AND, FAD_MASK_OR, FAD_MASK_XOR, FAD_MASK_NOT,
    FAD_MASK_NAN, FAD_MASK_INF, FAD_MASK_FINITE, FAD_MASK_SIGNBIT,
    FAD_MASK_ANY, FAD_MASK_ALL      /* of all elements */
};
void fad_mask_into(int op, int n_in, const fad_operand *in, fad_array *out);
void fad_cumsum_into(const fad_array *x, int axis, int reverse, fad_array *out);
void fad_extremum_into(int op, const fad_array *x, int first, int end, double *out);
void fad_ties_into(const fad_array *x, const double *y, int first, int end, fad_array *out);
/* Elements of an array at place[0] + the sum of index[k] * place[k + 1]; scatter puts them there, in
 * zeros. */
void fad_slice_into(const fad_array *x, const int64_t *place, fad_array *out);
void fad_scatter_into(const fad_array *x, const int64_t *place, fad_array *out);
void fad_broadcast_into(const fad_array *x, fad_array *out);
void fad_transpose_into(const fad_array *x, const int *axes, fad_array *out);
void fad_matmul_into(const fad_array *a, int ta, const fad_array *b, int tb, int exact,
                     fad_array *out);

/* Of a complex array its conjugate or its imaginary parts; of a real array i times it. */
enum { FAD_CONJUGATE, FAD_IMAG, FAD_TIMES_I };
fad_status fad_part(int part, const fad_array *x, fad_array **out);
void fad_part_into(int part, const fad_array *x, fad_array *out);
/* Set loops for complex rows that NumPy has not. */
void fad_set_complex_loops(void);

/* ---- sweeps ------------------------------------------------------------------------------ */

typedef struct { int32_t slot; int is_array; fad_slot bar; } fad_leaf_bar;

/* For a sweep that wants the cotangents of some nodes only: which of the nodes low .. top it is to
 * stop at and which it is to pass through, since they lead there.  Others are left as they are. */
enum { FAD_GOAL_HERE = 1, FAD_GOAL_ON = 2 };
typedef struct { unsigned char *at; fad_index low, top; } fad_goals;
/* From n_from nodes to n_to others; of a leaf's node, all nodes of the leaf are meant. */
fad_status fad_goals_find(const fad_tape *t, const fad_index *from, int n_from,
                          const fad_index *to, int n_to, fad_goals *goals);
static inline int fad_goal(const fad_goals *goals, fad_index i)
{
    return i < goals->low ? 0 : goals->at[i];
}

/* One reverse sweep (or forward sweep: `bar` then holds tangents).  The caller seeds with
 * fad_contribute_*, runs fad_reverse, takes `leaves`, and ends with fad_sweep_end. */
typedef struct fad_sweep {
    fad_slot *own;          /* adjoints of a nested or forward sweep; NULL: the tape's */
    unsigned char *passed;  /* marks of a nested sweep; the others mark op words */
    fad_index from;         /* `own` holds the nodes from here on */
    fad_index low, top;
    int consume;            /* mark what is passed through, for fad_consume */
    int clean;              /* no adjoint is left behind */
    const fad_goals *goals; /* or NULL: all leaves */
    fad_leaf_bar *leaves;
    int32_t leaf_n, leaf_cap;
    void *ctx;
    /* each returns 0, or -1 after having said why */
    int (*on_call)(void *ctx, struct fad_sweep *s, fad_index i, fad_slot g);   /* borrows g */
    int (*on_hook)(void *ctx, struct fad_sweep *s, fad_index i, fad_slot *g);
    int (*on_tick)(void *ctx);
} fad_sweep;

/* A forward sweep takes adjoints of its own for the nodes from .. end - 1 (end > 0). */
fad_status fad_sweep_begin(fad_tape *t, fad_sweep *s, fad_index from, fad_index end);
void fad_sweep_end(fad_tape *t, fad_sweep *s);
fad_status fad_reverse(fad_tape *t, fad_sweep *s);
void fad_consume(fad_tape *t, fad_sweep *s);
/* Consume what the n nodes reach, or what leads to goals, as a sweep would, without computing. */
void fad_release(fad_tape *t, const fad_index *from, int n);
void fad_release_goals(fad_tape *t, const fad_goals *goals);
fad_status fad_contribute(fad_tape *t, fad_sweep *s, fad_index p, double c);
fad_status fad_contribute_array(fad_tape *t, fad_sweep *s, fad_index p, fad_array *c); /* steals */
static inline fad_slot *fad_bars(const fad_tape *t, const fad_sweep *s)
{
    return s->own ? s->own : t->bar;
}
/* ---- recorded sweeps --------------------------------------------------------------------- */

enum { FAD_REF_A = 0, FAD_REF_B = 1, FAD_REF_Y = 3, FAD_REF_NUMBER = 16, FAD_REF_STEP = 64 };
/* One operation of a formula; op < 0 passes a on. */
typedef struct { int op, a, b; } fad_formula_step;
int fad_set_formula(int op, int side, int n, const fad_formula_step *step, int numbers,
                    const double *number);
/* Push and note a row over numbers.  Reserve first. */
fad_index fad_push_row(fad_tape *t, int op, fad_index a, fad_index b);
void fad_note(fad_tape *t, fad_index i, int passive);
fad_status fad_places_begin(fad_tape *t);
void fad_places_end(fad_tape *t);
void fad_places_free(fad_tape *t);
fad_status fad_expand(fad_tape *t, fad_index i, fad_index g, fad_index *bar, fad_index *low);
fad_status fad_expand_forward(fad_tape *t, fad_index i, fad_index *dot);
/* out = the partial of a row to its operand `side`, elementwise over operands a, b, c and y that
 * broadcast to out's shape. */
fad_status fad_partial_into(int op, int side, const fad_operand *in, fad_array *out);
double fad_partial_number(int op, int side, double a, double b, double c, double y);

/* Tangents of nodes low..top into s->own; on_call computes those of structured nodes. */
fad_status fad_forward(fad_tape *t, fad_sweep *s, fad_index low, fad_index top);

#ifdef __cplusplus
}
#endif
#endif
