/* Programs: a stretch of the tape turned into code that runs on new inputs without the tape. */
#ifndef FAD_VM_H
#define FAD_VM_H

#include "fad.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a structured node of the tape means to a program. */
enum fad_vm_kind {
    FAD_VM_ALIAS,       /* the same elements in another shape */
    FAD_VM_SUM_ALL,     /* a float64 array to a number */
    FAD_VM_BROADCAST,
    FAD_VM_SUM_TO,
    FAD_VM_TRANSPOSE,   /* axes */
    FAD_VM_CAST,
    FAD_VM_MATMUL,      /* ta, tb, exact */
    FAD_VM_GET,         /* a number out of a float64 array, at offset */
    FAD_VM_PUT,         /* its first operand with the number in the second at offset; side 1: added */
    FAD_VM_ASSEMBLE,    /* numbers in a float64 array of zeros; `offset` names their places */
    FAD_VM_ROW,         /* a row `op` over complex arrays of one dtype */
    FAD_VM_PART,        /* `side` says which; see fad_part */
    FAD_VM_PARTIAL,     /* of a row `op` to its operand `side`; parents a, b, c, y */
    FAD_VM_SUM_AXES,    /* over the axes whose `axes` is not 0 */
    FAD_VM_SLICE,       /* elements at regular steps; `offset` names the first and the steps */
    FAD_VM_SCATTER,     /* its adjoint: zeros, with the operand at such places */
    FAD_VM_JOIN,        /* arrays one behind the other along axis `offset`, new or not */
    FAD_VM_MASK,        /* bools, by fad_mask_into with `op`; side 1, 2: the right, the left operand
                         * is the number with the bits `offset` */
    FAD_VM_WRITE,       /* its first operand with the second at places; `offset` names what
                         * fad_write_into reads; side 1: added */
    FAD_VM_TAKE,        /* elements one by one; `offset` names their places */
    FAD_VM_GIVE,         /* its adjoint; exact: places differ, or numbers add up */
    FAD_VM_CUMSUM,      /* of float64 along axis `ta`; side 1: from the end */
    FAD_VM_EXTREMUM,    /* row `op` over axes ta .. tb - 1 of float64 */
    FAD_VM_TIES,        /* weights of the elements of a that are the extremum b over such axes */
    FAD_VM_FOREIGN      /* the caller computes it */
};

typedef struct {
    int kind, ta, tb, exact, pure, op, side;
    int32_t foreign;    /* the caller's number for it */
    int64_t offset;
    int axes[FAD_MAXDIM];
} fad_vm_call;

/* What Python saw of a value while it was recorded.  A run in which it would see something else
 * ends with FAD_GUARD.  The comparisons are in the order of Python's. */
enum fad_guard_kind {
    FAD_GUARD_LT, FAD_GUARD_LE, FAD_GUARD_EQ, FAD_GUARD_NE, FAD_GUARD_GT, FAD_GUARD_GE,
    FAD_GUARD_BITS,     /* a number with these very bits */
    FAD_GUARD_TRUNC,    /* a number that truncates to this integer */
    FAD_GUARD_BYTES,    /* an array with these very bytes */
    FAD_GUARD_NO_NAN    /* a floating array or number without nan */
};

typedef struct {
    int kind, wanted;
    fad_index a, b;     /* nodes; b for the comparisons only */
    fad_index at;       /* the length of the tape when Python looked */
    double number;
    const void *bytes;
    size_t size;
    void *keeper;       /* the caller's; holds `bytes` */
} fad_guard;

typedef struct {
    const fad_tape *tape;
    fad_index start, end;
    const fad_index *in, *out;
    int32_t n_in, n_out, n_guard;
    const fad_guard *guard;     /* ascending `at` */
    int plain;                  /* neither groups nor fused rows over arrays, for other languages */
    /* 0, or -1 after having said why */
    int (*classify)(void *ctx, fad_index i, const fad_call *call, fad_vm_call *what);
    const int64_t *(*offsets)(void *ctx, int64_t which);
    void *ctx;
} fad_build;

typedef struct fad_program fad_program;
typedef struct fad_workspace fad_workspace;

/* A place for a value: a register, or an array of the workspace. */
typedef struct { int is_array; int32_t where; } fad_place;

struct fad_workspace {
    double *reg, *scratch;
    char *arena, *blocks;       /* scratch lies in blocks */
    fad_array **array;          /* headers; foreign results hang on `owner` */
    int32_t failed;             /* the guard that ended the run */
    struct fad_workspace *next;
};

typedef struct {
    void *ctx;
    /* Computes foreign call `k` into array or register; 0, 1 for "another shape", -1 for errors. */
    int (*call)(void *ctx, fad_workspace *w, int32_t k, int32_t n, const fad_place *in,
                fad_place out);
    int (*tick)(void *ctx);
} fad_vm_calls;

fad_status fad_program_build(const fad_build *b, fad_program **out);
void fad_program_free(fad_program *p);
fad_status fad_workspace_new(const fad_program *p, fad_workspace **out);
void fad_workspace_free(const fad_program *p, fad_workspace *w);
fad_status fad_program_run(const fad_program *p, fad_workspace *w, const fad_vm_calls *calls);

const fad_place *fad_program_inputs(const fad_program *p);
const fad_place *fad_program_outputs(const fad_program *p);
/* Whether the caller lends the memory of output k for each run, by its header's `data`. */
int fad_output_is_callers(const fad_program *p, int32_t k);
typedef struct {
    int64_t instructions, registers, constants, arrays, arena_bytes, guards, foreign;
    int64_t work;               /* about how many elements a run computes */
} fad_program_stats;
fad_program_stats fad_program_describe(const fad_program *p);
/* The most bytes of registers and arena whose contents are read again later, over all points between
 * instructions: no assignment of places needs less.  -1 without memory. */
int64_t fad_program_live_bytes(const fad_program *p);

/* ---- lanes: one program over many rows of inputs at once ----------------------------------- */

/* A program made ready for rows that differ in some of the inputs; immutable, like the program,
 * which it needs alive.  What does not depend on these inputs is computed once for all lanes. */
typedef struct fad_lanes fad_lanes;

/* Belongs to one thread at a time.  `shared` is the machine's workspace: the caller puts inputs
 * that do not vary there before each run. */
typedef struct fad_lane_workspace {
    fad_workspace *shared;
    double *reg;                /* [register][lane], in `numbers` */
    double *given;              /* by input: numbers that do not vary */
    char *arena, *numbers;      /* arrays, each [lane][element]; what reg points into */
    unsigned char *failed;      /* by lane: whether a guard did not hold */
    struct fad_lane_workspace *next;
} fad_lane_workspace;

/* `varies`: by input.  *out is NULL where rows one by one are as fast or the only way: large
 * arrays that vary, integers that do, or that are results. */
fad_status fad_lanes_new(const fad_program *p, const unsigned char *varies, fad_lanes **out);
void fad_lanes_free(fad_lanes *l);
/* How many rows run at once. */
int32_t fad_lanes_width(const fad_lanes *l);
fad_status fad_lane_workspace_new(const fad_lanes *l, fad_lane_workspace **out);
void fad_lane_workspace_free(const fad_lanes *l, fad_lane_workspace *w);
/* Rows from .. to - 1, where `from` is a multiple of the width.  rows[k]: of input k, if it
 * varies; results[k]: of output k, a double for each number.  failed[row] becomes 1 where a guard
 * did not hold, and 0 elsewhere; results of such rows mean nothing. */
fad_status fad_lanes_run(const fad_lanes *l, fad_lane_workspace *w, const void *const *rows,
                         void *const *results, unsigned char *failed, int64_t from, int64_t to,
                         const fad_vm_calls *calls);

#ifdef __cplusplus
}
#endif
#endif
