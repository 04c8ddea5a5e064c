"""The C core as Cython sees it; see core/fad.h."""
from libc.stdint cimport int32_t, int64_t, intptr_t, uint16_t, uint64_t, uint8_t


cdef extern from "fad.h" nogil:
    ctypedef enum fad_status:
        FAD_OK, FAD_NOMEM, FAD_FULL, FAD_CONSUMED, FAD_CALLBACK, FAD_SHAPE, FAD_DTYPE, FAD_GUARD
    ctypedef int32_t fad_index
    enum:
        FAD_F64, FAD_F32, FAD_C128, FAD_C64, FAD_BOOL, FAD_OTHER, FAD_MAXDIM
        FAD_A, FAD_B, FAD_C, FAD_X, FAD_Y
        FAD_OP_FREED, FAD_OP_CONST, FAD_OP_LEAF, FAD_OP_CALL, FAD_OP_LAST_OWNING
        FAD_OP_FIRST_BINARY, FAD_OP_END
        FAD_OP_add, FAD_OP_subtract, FAD_OP_multiply, FAD_OP_divide, FAD_OP_power
        FAD_OP_negative, FAD_OP_positive, FAD_OP_absolute, FAD_OP_floor_divide, FAD_OP_remainder
        FAD_OP_zmul, FAD_OP_where, FAD_OP_clip, FAD_OP_square, FAD_OP_sqrt, FAD_OP_reciprocal
        FAD_OP_maximum, FAD_OP_minimum
        FAD_OPCODE, FAD_PASSIVE, FAD_ARRAY, FAD_MARK, FAD_CA, FAD_CB, FAD_HOOK, FAD_NEEDED, FAD_LIVE
        FAD_NO_NODE, FAD_USED_UP
    uint64_t FAD_UNTOUCHED

    ctypedef struct fad_row:
        const char *name
        const char *primal
        const char *partial[3]
        const char *numpy
        int op, arity, reads
        double lo[3]
        double hi[3]
    const fad_row fad_rows[]
    const int fad_row_count
    ctypedef struct fad_named_constant:
        const char *name
        double value
    const fad_named_constant fad_constants[]
    const int fad_constant_count
    const fad_row *fad_row_of(int op)

    ctypedef struct fad_array:
        int32_t refs
        uint8_t dtype, ndim, large, hollow
        int64_t size
        void *data
        void *owner
        fad_array *next
        int64_t shape[]
    fad_array *fad_array_new(int dtype, int ndim, const int64_t *shape)
    fad_array *fad_array_borrow(int dtype, int ndim, const int64_t *shape, void *data, void *owner)
    void fad_array_release(fad_array *arr)
    int64_t fad_array_bytes(const fad_array *arr)
    fad_array *fad_array_share(fad_array *arr)
    void fad_array_free(fad_array *arr)
    fad_array *fad_array_copy(const fad_array *src)
    fad_array *fad_array_cast(const fad_array *src, int dtype)
    bint fad_has_nan(const fad_array *x)
    bint fad_is_complex(int dtype)
    size_t fad_itemsize(int dtype)
    enum:
        FAD_CONJUGATE, FAD_IMAG, FAD_TIMES_I
    fad_status fad_part(int part, const fad_array *x, fad_array **out)
    void fad_set_complex_loops()
    bint fad_same_shape(const fad_array *p, const fad_array *q)
    fad_array *fad_dead_arrays

    ctypedef struct fad_call:
        fad_call *next
        int64_t at
        void *rule
        void *params
        int32_t n
        int takes
        fad_index parent[]
    fad_call *fad_dead_calls
    fad_call *fad_call_new(int n)
    void fad_free(void *block)
    void fad_fail_allocation(int64_t k)
    int64_t fad_allocations_left()
    void fad_pool_clear()
    int64_t fad_pool_bytes()
    int64_t fad_large_bytes

    ctypedef union fad_slot:
        double f
        uint64_t bits
        fad_array *arr
    ctypedef struct fad_args:
        fad_index a, b
    ctypedef struct fad_handle:
        fad_handle *prev
        fad_handle *next
        fad_index idx
        int32_t slot
    ctypedef struct fad_leaf:
        fad_handle *handle
        int32_t nodes
    ctypedef struct fad_tape:
        uint16_t *op
        fad_args *args
        fad_slot *value
        fad_slot *bar
        fad_index n, cap, max, fresh
        int sweeping
        fad_handle live
        fad_leaf *leaf
        int32_t leaf_n
        int64_t bytes, bytes_limit
        int32_t *place
        int placing
        fad_index placed
    fad_status fad_tape_init(fad_tape *t)
    fad_status fad_reserve(fad_tape *t, fad_index extra)
    fad_index fad_push(fad_tape *t, unsigned op, fad_index a, fad_index b, double value)
    fad_index fad_const(fad_tape *t, double v)
    void fad_link(fad_tape *t, fad_handle *h, fad_index i)
    void fad_unlink(fad_tape *t, fad_handle *h)
    void fad_trim(fad_tape *t)
    void fad_leave(fad_tape *t)
    void fad_compact(fad_tape *t)
    fad_status fad_leaf_add(fad_tape *t, fad_handle *h)
    void fad_leaf_drop(fad_tape *t, fad_handle *h)
    void fad_leaf_push(fad_tape *t, fad_handle *h, fad_slot value, int is_array)
    fad_index fad_push_array_slow(fad_tape *t, unsigned op, fad_index a, fad_index b,
                                  fad_array *value)
    fad_index fad_push_call(fad_tape *t, unsigned op, fad_call *call, fad_slot value, int is_array)
    fad_status fad_hook_set(fad_tape *t, fad_index i, fad_call *keeper)
    fad_call *fad_hook_get(const fad_tape *t, fad_index i)
    void fad_handle_drop(fad_tape *t, fad_handle *h)
    fad_call *fad_call_of(const fad_tape *t, fad_index i)
    bint fad_stops(const fad_tape *t, fad_index p)

    double fad_eval1(int op, double x)
    double fad_eval2(int op, double a, double b)
    double fad_eval3(int op, double a, double b, double c)
    ctypedef void (*fad_loop)(char **args, const intptr_t *dims, const intptr_t *steps,
                              void *data) noexcept
    void fad_set_loop(int op, int dtype, fad_loop fn, void *data)
    bint fad_has_loop(int op, int dtype)
    void fad_set_matmul(int dtype, fad_loop fn, void *data)
    ctypedef struct fad_operand:
        const fad_array *arr
        double number
    fad_status fad_elementwise(int op, int dtype, const fad_operand *src, fad_array **out)
    fad_status fad_sum_all(const fad_array *x, double *out)
    fad_status fad_sum_to(const fad_array *x, int ndim, const int64_t *shape, fad_array **out)
    fad_status fad_broadcast_to(const fad_array *x, int ndim, const int64_t *shape,
                                fad_array **out)
    fad_status fad_fill(int dtype, int ndim, const int64_t *shape, double v, fad_array **out)
    fad_status fad_transpose(const fad_array *x, const int *axes, fad_array **out)
    fad_status fad_matmul2(const fad_array *a, int ta, const fad_array *b, int tb,
                           int exact, fad_array **out)

    ctypedef struct fad_leaf_bar:
        int32_t slot
        int is_array
        fad_slot bar
    enum:
        FAD_GOAL_HERE, FAD_GOAL_ON
    ctypedef struct fad_goals:
        unsigned char *at
        fad_index low, top
    enum:
        FAD_MASK_AND, FAD_MASK_OR, FAD_MASK_XOR, FAD_MASK_NOT, FAD_MASK_NAN, FAD_MASK_INF
        FAD_MASK_FINITE, FAD_MASK_SIGNBIT, FAD_MASK_ANY, FAD_MASK_ALL
    fad_status fad_goals_find(const fad_tape *t, const fad_index *start, int n_from,
                              const fad_index *to, int n_to, fad_goals *goals)
    int fad_goal(const fad_goals *goals, fad_index i)
    ctypedef struct fad_sweep:
        fad_slot *own
        fad_index start "from"
        fad_index low, top
        int consume
        int clean
        const fad_goals *goals
        fad_leaf_bar *leaves
        int32_t leaf_n
        void *ctx
        int (*on_call)(void *ctx, fad_sweep *s, fad_index i, fad_slot g) noexcept
        int (*on_hook)(void *ctx, fad_sweep *s, fad_index i, fad_slot *g) noexcept
        int (*on_tick)(void *ctx) noexcept
    fad_status fad_sweep_begin(fad_tape *t, fad_sweep *s, fad_index start, fad_index end)
    void fad_sweep_end(fad_tape *t, fad_sweep *s)
    fad_status fad_reverse(fad_tape *t, fad_sweep *s)
    void fad_consume(fad_tape *t, fad_sweep *s)
    void fad_release(fad_tape *t, const fad_index *start, int n)
    void fad_release_goals(fad_tape *t, const fad_goals *goals)
    fad_status fad_contribute(fad_tape *t, fad_sweep *s, fad_index p, double c)
    fad_status fad_contribute_array(fad_tape *t, fad_sweep *s, fad_index p, fad_array *c)
    fad_status fad_forward(fad_tape *t, fad_sweep *s, fad_index low, fad_index top)
    enum:
        FAD_REF_A, FAD_REF_B, FAD_REF_Y, FAD_REF_NUMBER, FAD_REF_STEP
    ctypedef struct fad_formula_step:
        int op, a, b
    bint fad_set_formula(int op, int side, int n, const fad_formula_step *step, int numbers,
                         const double *number)
    fad_index fad_push_row(fad_tape *t, int op, fad_index a, fad_index b)
    void fad_note(fad_tape *t, fad_index i, bint passive)
    fad_status fad_places_begin(fad_tape *t)
    void fad_places_end(fad_tape *t)
    void fad_places_free(fad_tape *t)
    fad_status fad_expand(fad_tape *t, fad_index i, fad_index g, fad_index *bar, fad_index *low)
    fad_status fad_expand_forward(fad_tape *t, fad_index i, fad_index *dot)
    fad_status fad_partial_into(int op, int side, const fad_operand *src, fad_array *out)
    double fad_partial_number(int op, int side, double a, double b, double c, double y)


cdef extern from "vm.h" nogil:
    enum:
        FAD_VM_ALIAS, FAD_VM_SUM_ALL, FAD_VM_BROADCAST, FAD_VM_SUM_TO, FAD_VM_TRANSPOSE
        FAD_VM_CAST, FAD_VM_MATMUL, FAD_VM_GET, FAD_VM_PUT, FAD_VM_ASSEMBLE
        FAD_VM_PARTIAL
        FAD_VM_ROW, FAD_VM_PART
        FAD_VM_SUM_AXES, FAD_VM_SLICE, FAD_VM_SCATTER, FAD_VM_JOIN, FAD_VM_MASK, FAD_VM_WRITE
        FAD_VM_TAKE, FAD_VM_GIVE, FAD_VM_CUMSUM, FAD_VM_EXTREMUM, FAD_VM_TIES
        FAD_VM_FOREIGN
        FAD_GUARD_NE, FAD_GUARD_GE, FAD_GUARD_BITS, FAD_GUARD_TRUNC, FAD_GUARD_BYTES
        FAD_GUARD_NO_NAN
    ctypedef struct fad_vm_call:
        int kind, ta, tb, exact, pure, op, side
        int32_t foreign
        int64_t offset
        int axes[64]
    ctypedef struct fad_guard:
        int kind, wanted
        fad_index a, b, at
        double number
        const void *bytes
        size_t size
        void *keeper
    ctypedef struct fad_build:
        const fad_tape *tape
        fad_index start, end
        const fad_index *inputs "in"
        const fad_index *out
        int32_t n_in, n_out, n_guard
        const fad_guard *guard
        bint plain
        int (*classify)(void *ctx, fad_index i, const fad_call *call, fad_vm_call *what) noexcept
        const int64_t *(*offsets)(void *ctx, int64_t which) noexcept
        void *ctx
    ctypedef struct fad_program:
        pass
    ctypedef struct fad_place:
        bint is_array
        int32_t where
    ctypedef struct fad_workspace:
        double *reg
        char *arena
        fad_array **array
        int32_t failed
        fad_workspace *next
    ctypedef struct fad_vm_calls:
        void *ctx
        int (*call)(void *ctx, fad_workspace *w, int32_t k, int32_t n, const fad_place *src,
                    fad_place out) noexcept
        int (*tick)(void *ctx) noexcept
    ctypedef struct fad_program_stats:
        int64_t instructions, registers, constants, arrays, arena_bytes, guards, foreign, work
    fad_status fad_program_build(const fad_build *b, fad_program **out)
    void fad_program_free(fad_program *p)
    fad_status fad_workspace_new(const fad_program *p, fad_workspace **out)
    void fad_workspace_free(const fad_program *p, fad_workspace *w)
    fad_status fad_program_run(const fad_program *p, fad_workspace *w, const fad_vm_calls *calls)
    const fad_place *fad_program_inputs(const fad_program *p)
    const fad_place *fad_program_outputs(const fad_program *p)
    bint fad_output_is_callers(const fad_program *p, int32_t k)
    fad_program_stats fad_program_describe(const fad_program *p)
    ctypedef struct fad_lanes:
        pass
    ctypedef struct fad_lane_workspace:
        fad_workspace *shared
        fad_lane_workspace *next
    fad_status fad_lanes_new(const fad_program *p, const unsigned char *varies, fad_lanes **out)
    void fad_lanes_free(fad_lanes *l)
    int32_t fad_lanes_width(const fad_lanes *l)
    fad_status fad_lane_workspace_new(const fad_lanes *l, fad_lane_workspace **out)
    void fad_lane_workspace_free(const fad_lanes *l, fad_lane_workspace *w)
    fad_status fad_lanes_run(const fad_lanes *l, fad_lane_workspace *w, const void **rows,
                             void **results, unsigned char *failed, int64_t start, int64_t stop,
                             const fad_vm_calls *calls)


cdef extern from "kernels.h" nogil:
    pass


cdef extern from "vm_impl.h" nogil:
    enum:
        VM_FIRST_SPECIAL, VM_LOOP, VM_ARRAY, VM_GET, VM_GUARD, VM_OPS, VM_TILES
        IN_ARRAY, IN_SCRATCH, IN_REGISTER, OUT_SUM
        FROM_ARENA, FROM_CONSTANT, FROM_INPUT, FROM_FOREIGN, FROM_ALIAS, FROM_OUTPUT
    ctypedef struct word:
        uint16_t op
        int32_t d, a, b, c
    ctypedef struct array_ins:
        uint8_t kind, dtype, ta, tb, exact, side
        uint16_t op
        int32_t foreign, n_in, first_in
        fad_place inputs "in"[4]
        fad_place out
        int64_t offset
        int32_t axes
    ctypedef struct tile_place:
        uint8_t kind
        int32_t where
    ctypedef struct tile_step:
        int n, op
        tile_place inputs "in"[3]
        tile_place out
    ctypedef struct array_place:
        fad_array *like
        uint8_t origin "from"
        int32_t root
        size_t offset
    ctypedef struct guard_ins:
        int kind, wanted
        fad_place a, b
        double number
        const void *bytes
        size_t size
    # the fields of fad_program
    ctypedef struct program_fields "fad_program":
        word *code
        array_ins *arrays_code
        array_place *array
        guard_ins *guard
        fad_place *inputs "in"
        fad_place *out
        fad_place *arglist
        double *constants
        int *axes
        int64_t *offset
        tile_step *tile
        int32_t n_code, n_arrays_code, n_array, n_guard, n_in, n_out, n_arglist, n_constant, n_reg
        int32_t n_axes, n_offset, n_foreign, n_tile
        size_t arena
    const char *fad_word_text(int op)
    const char *fad_array_ins_name(int kind)
    const char *fad_guard_name(int kind)


cdef extern from "native.h" nogil:
    ctypedef struct fad_native_way:
        const fad_program *program
        const double *const *outer
    ctypedef struct fad_native:
        pass
    ctypedef struct fad_native_sizes:
        int64_t value, rest
        int64_t given "in"
    fad_status fad_native_new(int32_t n_ways, const fad_native_way *way, int32_t n_given,
                              int32_t n_value, fad_native **out)
    void fad_native_free(fad_native *f)
    fad_native_sizes fad_native_size(const fad_native *f)
    int fad_native_call(const double *given, double *value, double *rest, void *user_data)
    double fad_native_number(double x, void *user_data)
    double fad_native_numbers(int n, double *x, void *user_data)
    int fad_native_filter(double *given, intptr_t n, double *value, void *user_data)
    int fad_native_filter1d(double *given, intptr_t n, double *value, intptr_t n_value,
                            void *user_data)
    int fad_native_mapping(intptr_t *to, double *start, int n_to, int n_from, void *user_data)
    int FAD_NATIVE_SLOTS
    int fad_native_take_slot(fad_native *f)
    void fad_native_give_slot(int slot)
    ctypedef struct fad_native_plain:
        double (*number)(double x) noexcept
        double (*numbers)(int n, double *x) noexcept
        int (*call)(const double *given, double *value, double *rest) noexcept
    fad_native_plain fad_native_slot(int slot)
    int64_t fad_program_live_bytes(const fad_program *p)
