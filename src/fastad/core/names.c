/* The instructions of programs by name, for those who read programs rather than run them. */
#include "kernels.h"
#include "vm_impl.h"

/* What a word beyond the tape's rows does, as C over `reg`, `ip` and `value`; "" for the others. */
const char *fad_word_text(int op)
{
    switch (op) {
#define NAMED(name, code) case VM_##name: return #code;
        SPECIAL_OPS(NAMED)
#undef NAMED
    }
    return "";
}

/* NULL behind the last kind. */
static const char *call_name(enum fad_vm_kind kind)
{
    switch (kind) {
    case FAD_VM_ALIAS: return "alias";
    case FAD_VM_SUM_ALL: return "sum_all";
    case FAD_VM_BROADCAST: return "broadcast";
    case FAD_VM_SUM_TO: return "sum_to";
    case FAD_VM_TRANSPOSE: return "transpose";
    case FAD_VM_CAST: return "cast";
    case FAD_VM_MATMUL: return "matmul";
    case FAD_VM_GET: return "get";
    case FAD_VM_PUT: return "put";
    case FAD_VM_ASSEMBLE: return "assemble";
    case FAD_VM_ROW: return "complex_row";
    case FAD_VM_PART: return "part";
    case FAD_VM_PARTIAL: return "partial";
    case FAD_VM_SUM_AXES: return "sum_axes";
    case FAD_VM_SLICE: return "slice";
    case FAD_VM_SCATTER: return "scatter";
    case FAD_VM_JOIN: return "join";
    case FAD_VM_MASK: return "mask";
    case FAD_VM_WRITE: return "write";
    case FAD_VM_TAKE: return "take";
    case FAD_VM_GIVE: return "give";
    case FAD_VM_CUMSUM: return "cumsum";
    case FAD_VM_EXTREMUM: return "extremum";
    case FAD_VM_TIES: return "ties";
    case FAD_VM_FOREIGN: return "foreign";
    }
    return NULL;
}

const char *fad_array_ins_name(int kind)
{
    if (kind == VM_ROW) return "row";
    if (kind == VM_TILES) return "tiles";
    return call_name((enum fad_vm_kind)kind);
}

static const char *guard_name(enum fad_guard_kind kind)
{
    switch (kind) {
    case FAD_GUARD_LT: return "<";
    case FAD_GUARD_LE: return "<=";
    case FAD_GUARD_EQ: return "==";
    case FAD_GUARD_NE: return "!=";
    case FAD_GUARD_GT: return ">";
    case FAD_GUARD_GE: return ">=";
    case FAD_GUARD_BITS: return "bits";
    case FAD_GUARD_TRUNC: return "trunc";
    case FAD_GUARD_BYTES: return "bytes";
    case FAD_GUARD_NO_NAN: return "no_nan";
    }
    return NULL;
}

const char *fad_guard_name(int kind) { return guard_name((enum fad_guard_kind)kind); }
