/* The tape: storage, handles, reclamation. */
#include <stdlib.h>

#include "kernels.h"

/* ---- memory ------------------------------------------------------------------------------- */

static int64_t allocations_left = -1;

void fad_fail_allocation(int64_t k) { allocations_left = k; }
int64_t fad_allocations_left(void) { return allocations_left; }

static int allocation_fails(void)
{
    if (allocations_left < 0) return 0;
    if (allocations_left > 0) {
        allocations_left--;
        return 0;
    }
    return 1;
}

void *fad_malloc(size_t bytes) { return allocation_fails() ? NULL : malloc(bytes ? bytes : 1); }

void *fad_realloc(void *block, size_t bytes)
{
    return allocation_fails() ? NULL : realloc(block, bytes);
}

void fad_free(void *block) { free(block); }

/* ---- storage ------------------------------------------------------------------------------ */

enum { FIRST_CAPACITY = 4096, DOUBLE_BELOW = 1 << 20 };
static const int64_t FIRST_BYTES_LIMIT = INT64_C(256) << 20;

fad_array *fad_dead_arrays = NULL;
fad_call *fad_dead_calls = NULL;

fad_status fad_tape_init(fad_tape *t)
{
    fad_rows_init();
    memset(t, 0, sizeof *t);
    t->max = INT32_MAX;
    t->live.prev = t->live.next = &t->live;
    t->leaf_free = -1;
    t->bytes_limit = FIRST_BYTES_LIMIT;
    return FAD_OK;
}

static void untouch(fad_slot *bar, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) bar[i].bits = FAD_UNTOUCHED;
}

/* Before a sweep.  Done here and not where the tape grows: what a sweep never needs stays
 * untouched memory, which costs nothing. */
void fad_ready_bars(fad_tape *t)
{
    if (t->ready >= t->n) return;
    untouch(t->bar, (size_t)t->ready, (size_t)t->n);
    t->ready = t->n;
}

/* Each array is grown on its own; `cap` moves only when all four have room, so a failure in the
 * middle leaves a tape that is as good as before. */
static fad_status set_capacity(fad_tape *t, fad_index cap)
{
    const size_t c = (size_t)cap;
    void *p;
    if (t->place) {
        if (!(p = fad_realloc(t->place, c * sizeof *t->place))) return FAD_NOMEM;
        t->place = p;
        memset(t->place + t->cap, 0, (c - (size_t)t->cap) * sizeof *t->place);
    }
    if (!(p = fad_realloc(t->op, c * sizeof *t->op))) return FAD_NOMEM;
    t->op = p;
    if (!(p = fad_realloc(t->args, c * sizeof *t->args))) return FAD_NOMEM;
    t->args = p;
    if (!(p = fad_realloc(t->value, c * sizeof *t->value))) return FAD_NOMEM;
    t->value = p;
    if (!(p = fad_realloc(t->bar, c * sizeof *t->bar))) return FAD_NOMEM;
    t->bar = p;
    t->cap = cap;
    t->room = cap;
    return FAD_OK;
}

/* From now on, and until as many calls of fad_places_end, `place` has room for every node, and holds
 * a zero where nobody has written.  It is kept until fad_places_free. */
fad_status fad_places_begin(fad_tape *t)
{
    if (!t->place) {
        const size_t c = t->cap ? (size_t)t->cap : 1;
        if (allocation_fails() || !(t->place = calloc(c, sizeof *t->place))) return FAD_NOMEM;
        t->placed = 0;
    }
    if (!t->placing) {
        memset(t->place, 0, (size_t)t->placed * sizeof *t->place);
        t->placed = 0;
    }
    t->placing++;
    return FAD_OK;
}

void fad_places_end(fad_tape *t) { t->placing--; }

void fad_places_free(fad_tape *t)
{
    if (t->placing) return;
    fad_free(t->place);
    t->place = NULL;
}

/* A compaction that found little makes the next one wait until the tape is four times as long:
 * what is recorded and kept is then looked at a fixed number of times, whatever its length. */
static void compact_if_due(fad_tape *t)
{
    const fad_index before = t->n;
    if (t->sweeping || (before < t->due && t->bytes <= t->bytes_limit)) return;
    fad_compact(t);
    t->due = t->n > before / 2 ? (t->n < INT32_MAX / 4 ? 4 * t->n : INT32_MAX) : 0;
}

fad_status fad_grow(fad_tape *t, fad_index extra)
{
    if (t->sweeping && t->n <= t->cap - extra) return FAD_OK;
    compact_if_due(t);
    if (!t->sweeping) t->room = t->cap;
    if (t->bytes > t->bytes_limit / 2) {
        t->bytes_limit = 2 * t->bytes;
    } else if (t->bytes < t->bytes_limit / 4 && t->bytes_limit > FIRST_BYTES_LIMIT) {
        t->bytes_limit /= 2;
    }
    if (t->n <= t->cap - extra && t->n <= t->cap / 2) return FAD_OK;
    if (t->n <= t->cap - extra && t->n < t->cap - t->cap / 4) return FAD_OK;
    int64_t want = (int64_t)t->cap + (t->cap < DOUBLE_BELOW ? t->cap : t->cap / 2);
    if (want < FIRST_CAPACITY) want = FIRST_CAPACITY;
    if (want < (int64_t)t->n + extra) want = (int64_t)t->n + extra;
    if (want > t->max) want = t->max;
    if (want < (int64_t)t->n + extra) {
        if (!t->sweeping) fad_compact(t);       /* the last resort, due or not */
        return t->n <= t->cap - extra && t->n + (int64_t)extra <= t->max ? FAD_OK : FAD_FULL;
    }
    if (want <= t->cap) return t->n <= t->cap - extra ? FAD_OK : FAD_FULL;
    return set_capacity(t, (fad_index)want);
}

/* ---- releasing nodes ------------------------------------------------------------------------ */

static void hook_forget(fad_tape *t, fad_index i);

static void leaf_slot_unref(fad_tape *t, int32_t slot)
{
    fad_leaf *leaf = &t->leaf[slot];
    if (leaf->nodes == 0 && !leaf->handle) {
        leaf->nodes = t->leaf_free;         /* free slots are chained through `nodes` */
        t->leaf_free = slot;
    }
}

static void release_contents(fad_tape *t, fad_index i)
{
    const unsigned w = t->op[i], op = w & FAD_OPCODE;
    if (w & FAD_HOOK) hook_forget(t, i);
    if (w & FAD_ARRAY) {
        fad_array *arr = t->value[i].arr;
        t->bytes -= fad_array_bytes(arr);
        fad_array_release(arr);
    }
    if (op == FAD_OP_LEAF) {
        const int32_t slot = t->args[i].a;
        fad_leaf *leaf = &t->leaf[slot];
        leaf->nodes--;
        if (leaf->handle && leaf->handle->idx == i) leaf->handle->idx = FAD_NO_NODE;
        leaf_slot_unref(t, slot);
    } else if (op >= FAD_OP_CALL && op <= FAD_OP_LAST_OWNING) {
        fad_call *call = fad_call_of(t, i);
        call->next = fad_dead_calls;
        fad_dead_calls = call;
    }
}

static inline int has_contents(unsigned w)
{
    const unsigned op = w & FAD_OPCODE;
    return (w & (FAD_ARRAY | FAD_HOOK)) || (op >= FAD_OP_LEAF && op <= FAD_OP_LAST_OWNING);
}

/* Pop what no handle and no later node uses. */
void fad_trim(fad_tape *t)
{
    if (t->sweeping) return;
    while (t->n > 0) {
        const unsigned w = t->op[t->n - 1];
        if (w & FAD_LIVE) break;
        t->n--;
        if (has_contents(w)) release_contents(t, t->n);
    }
    if (t->fresh > t->n) t->fresh = t->n;
}

void fad_handle_drop(fad_tape *t, fad_handle *h)
{
    const fad_index i = h->idx;
    fad_unlink(t, h);
    if (t->sweeping) return;
    if (i == t->n - 1) {
        fad_trim(t);
        return;
    }
    /* A big value that no partial reads would only wait here for the sweep. */
    const unsigned w = t->op[i];
    if ((w & (FAD_ARRAY | FAD_NEEDED)) == FAD_ARRAY && t->value[i].arr->large
        && t->value[i].arr->refs == 1) {
        fad_array *arr = t->value[i].arr, *shell;
        shell = fad_array_borrow(arr->dtype, arr->ndim, arr->shape, NULL, NULL);
        if (!shell) return;
        shell->hollow = 1;
        t->bytes += fad_array_bytes(shell) - fad_array_bytes(arr);
        t->value[i].arr = shell;
        fad_array_release(arr);
    }
}

/* Mark the parents of every node, from `top` down, that has one of the `from` bits; returns how
 * many such nodes there are.  With `low`, which holds the lowest start and is given the lowest
 * node that is marked, it goes no further down than it must. */
static fad_index mark_reachable(fad_tape *t, fad_index top, unsigned from, fad_index *low)
{
    uint16_t *op = t->op;
    fad_index count = 0, bottom = low ? *low : 0;
#define REACH(p) do { op[p] |= FAD_MARK; if ((p) < bottom) bottom = (p); } while (0)
    for (fad_index i = top; i >= bottom; i--) {
        const unsigned w = op[i], code = w & FAD_OPCODE;
        if (!(w & from)) continue;
        count++;
        if (code < FAD_OP_CALL) continue;
        if (code <= FAD_OP_LAST_OWNING) {
            const fad_call *call = fad_call_of(t, i);
            for (int32_t k = 0; k < call->n; k++) REACH(call->parent[k]);
        } else {
            REACH(t->args[i].a);
            if (code >= FAD_OP_FIRST_BINARY) REACH(t->args[i].b);
        }
    }
#undef REACH
    if (low) *low = bottom;
    return count;
}

void fad_release(fad_tape *t, const fad_index *from, int n)
{
    fad_sweep s;
    memset(&s, 0, sizeof s);
    s.low = INT32_MAX;
    s.top = -1;
    for (int k = 0; k < n; k++) {
        t->op[from[k]] |= FAD_MARK;
        if (from[k] > s.top) s.top = from[k];
        if (from[k] < s.low) s.low = from[k];
    }
    if (s.top < 0) return;
    mark_reachable(t, s.top, FAD_MARK, &s.low);
    fad_consume(t, &s);
}

void fad_release_goals(fad_tape *t, const fad_goals *goals)
{
    fad_sweep s;
    memset(&s, 0, sizeof s);
    s.low = goals->low;
    s.top = goals->top;
    for (fad_index i = s.low; i <= s.top; i++)
        if (goals->at[i] & FAD_GOAL_ON) t->op[i] |= FAD_MARK;
    fad_consume(t, &s);
}

/* The parents of a node; returns how many. */
static int32_t parents_of(const fad_tape *t, fad_index i, const fad_index **parent)
{
    const unsigned code = t->op[i] & FAD_OPCODE;
    if (code < FAD_OP_CALL) return 0;
    if (code <= FAD_OP_LAST_OWNING) {
        const fad_call *call = fad_call_of(t, i);
        *parent = call->parent;
        return call->n;
    }
    *parent = &t->args[i].a;        /* b stands behind it */
    return code >= FAD_OP_FIRST_BINARY ? 2 : 1;
}

fad_status fad_goals_find(const fad_tape *t, const fad_index *from, int n_from,
                          const fad_index *to, int n_to, fad_goals *goals)
{
    enum { REACHED = 4 };
    const fad_index *parent;
    fad_index cut = INT32_MAX, top = 0;
    for (int k = 0; k < n_from; k++)
        if (from[k] > top) top = from[k];
    for (int k = 0; k < n_to; k++) {
        /* a leaf had other nodes before, to which what is freed by now may have led */
        const fad_index lowest = (t->op[to[k]] & FAD_OPCODE) == FAD_OP_LEAF ? 0 : to[k];
        if (lowest < cut) cut = lowest;
    }
    unsigned char *at = fad_malloc((size_t)top + 1);
    unsigned char *leaf = fad_malloc((size_t)t->leaf_n + 1);
    if (!at || !leaf) {
        fad_free(at);
        fad_free(leaf);
        return FAD_NOMEM;
    }
    /* down to the lowest node that is reached: memory below is never looked at */
    fad_index low = top + 1;
#define REACH(p) \
    do { \
        if ((p) < low) { \
            memset(at + (p), 0, (size_t)(low - (p))); \
            low = (p); \
        } \
        at[p] |= REACHED; \
    } while (0)
    for (int k = 0; k < n_from; k++)
        if (from[k] >= cut) REACH(from[k]);
    for (fad_index i = top; i >= low; i--) {
        if (!at[i]) continue;
        const int32_t n = parents_of(t, i, &parent);
        for (int32_t k = 0; k < n; k++)
            if (parent[k] >= cut) REACH(parent[k]);
    }
#undef REACH
    memset(leaf, 0, (size_t)t->leaf_n + 1);
    for (int k = 0; k < n_to; k++) {
        if ((t->op[to[k]] & FAD_OPCODE) == FAD_OP_LEAF) leaf[t->args[to[k]].a] = 1;
        else if (to[k] >= low && to[k] <= top && at[to[k]]) at[to[k]] = REACHED | FAD_GOAL_HERE;
    }
    for (fad_index i = low; i <= top; i++) {
        if (!at[i]) continue;
        const unsigned code = t->op[i] & FAD_OPCODE;
        unsigned goal = at[i] & FAD_GOAL_HERE;
        if (code == FAD_OP_LEAF && leaf[t->args[i].a]) goal = FAD_GOAL_HERE;
        if (code == FAD_OP_FREED) goal = FAD_GOAL_ON;       /* who knows where it led */
        const int32_t n = parents_of(t, i, &parent);
        for (int32_t k = 0; k < n && !(goal & FAD_GOAL_ON); k++)
            if (parent[k] >= low && at[parent[k]]) goal |= FAD_GOAL_ON;
        at[i] = (unsigned char)goal;
    }
    fad_free(leaf);
    *goals = (fad_goals){at, low, top};
    return FAD_OK;
}

/* Keep what live handles reach, close the holes.  The idle adjoints serve as scratch, so this
 * cannot fail. */
void fad_compact(fad_tape *t)
{
    const fad_index n = t->n;
    uint16_t *op = t->op;
    if (t->sweeping || n == 0) return;
    const fad_index reached = mark_reachable(t, n - 1, FAD_LIVE | FAD_MARK, NULL);
    if (reached == n) {                 /* no hole to close */
        for (fad_index i = 0; i < n; i++) op[i] &= (uint16_t)~FAD_MARK;
        return;
    }
    fad_slot *moved = t->bar;
    fad_index kept = 0, fresh = 0;
    int32_t hooks = 0;
    for (fad_index i = 0; i < n; i++) {
        const unsigned w = op[i], code = w & FAD_OPCODE;
        if (i == t->fresh) fresh = kept;
        if (!(w & (FAD_LIVE | FAD_MARK))) {
            if (has_contents(w)) release_contents(t, i);
            continue;
        }
        fad_args args = t->args[i];
        if (code == FAD_OP_LEAF) {
            fad_leaf *leaf = &t->leaf[args.a];
            if (leaf->handle && leaf->handle->idx == i) leaf->handle->idx = kept;
        } else if (code >= FAD_OP_CALL && code <= FAD_OP_LAST_OWNING) {
            fad_call *call = fad_call_of(t, i);
            for (int32_t k = 0; k < call->n; k++)
                call->parent[k] = (fad_index)moved[call->parent[k]].bits;
        } else if (code > FAD_OP_LAST_OWNING) {
            args.a = (fad_index)moved[args.a].bits;
            if (code >= FAD_OP_FIRST_BINARY) args.b = (fad_index)moved[args.b].bits;
        }
        if (w & FAD_HOOK) t->hook[hooks++].node = kept;  /* the others forgot themselves */
        op[kept] = (uint16_t)(w & ~FAD_MARK);
        t->args[kept] = args;
        t->value[kept] = t->value[i];
        if (t->place) t->place[kept] = t->place[i];
        moved[i].bits = (uint64_t)kept;
        kept++;
    }
    if (t->fresh >= n) fresh = kept;
    t->fresh = fresh;
    t->n = kept;
    for (fad_handle *h = t->live.next; h != &t->live; h = h->next)
        h->idx = (fad_index)moved[h->idx].bits;
    untouch(t->bar, 0, (size_t)n);
    if (t->ready < n) t->ready = n;
}

void fad_tape_clear(fad_tape *t)
{
    for (fad_handle *h = t->live.next; h != &t->live; h = h->next) h->idx = FAD_USED_UP;
    t->live.prev = t->live.next = &t->live;
    while (t->n > 0) {
        const unsigned w = t->op[--t->n];
        if (has_contents(w)) release_contents(t, t->n);
    }
    fad_free(t->op);
    fad_free(t->args);
    fad_free(t->value);
    fad_free(t->bar);
    fad_free(t->leaf);
    fad_free(t->hook);
    fad_free(t->place);
    fad_tape_init(t);
}

/* ---- leaves ---------------------------------------------------------------------------------- */

fad_status fad_leaf_add(fad_tape *t, fad_handle *h)
{
    int32_t slot = t->leaf_free;
    if (slot >= 0) {
        t->leaf_free = t->leaf[slot].nodes;
    } else {
        if (t->leaf_n == t->leaf_cap) {
            if (t->leaf_cap > INT32_MAX / 2) return FAD_FULL;
            const int32_t cap = t->leaf_cap ? 2 * t->leaf_cap : 64;
            void *p = fad_realloc(t->leaf, (size_t)cap * sizeof *t->leaf);
            if (!p) return FAD_NOMEM;
            t->leaf = p;
            t->leaf_cap = cap;
        }
        slot = t->leaf_n++;
    }
    t->leaf[slot].handle = h;
    t->leaf[slot].nodes = 0;
    t->leaf[slot].at = -1;
    h->slot = slot;
    h->idx = FAD_NO_NODE;
    return FAD_OK;
}

void fad_leaf_drop(fad_tape *t, fad_handle *h)
{
    const int32_t slot = h->slot;
    const fad_index i = h->idx;
    h->slot = -1;
    h->idx = FAD_NO_NODE;
    t->leaf[slot].handle = NULL;
    leaf_slot_unref(t, slot);
    if (i >= 0 && i == t->n - 1) fad_trim(t);
}

/* Reserve first.  The value of an array leaf is shared here. */
void fad_leaf_push(fad_tape *t, fad_handle *h, fad_slot value, int is_array)
{
    const fad_index i = fad_push(t, FAD_OP_LEAF, h->slot, 0, 0.0);
    t->value[i] = value;
    if (is_array) {
        fad_array_share(value.arr);
        t->op[i] |= FAD_ARRAY;
        t->bytes += fad_array_bytes(value.arr);
    }
    t->leaf[h->slot].nodes++;
    h->idx = i;
}

/* ---- pushes that are not inline ---------------------------------------------------------------- */

fad_index fad_const_slow(fad_tape *t, double v, uint64_t bits, unsigned at)
{
    (void)bits;
    const fad_index i = fad_push(t, FAD_OP_CONST, 0, 0, v);
    t->cache[at] = i;
    return i;
}

/* Mark as NEEDED the values that the partials of a new node will read. */
void fad_need(fad_tape *t, unsigned w, fad_index a, fad_index b)
{
    const fad_row *row = fad_row_of((int)(w & FAD_OPCODE));
    if (!row) return;
    if (row->reads & FAD_A) t->op[a] |= FAD_NEEDED;
    if ((row->reads & FAD_B) && row->arity > 1) t->op[b] |= FAD_NEEDED;
    if (row->reads & FAD_Y) t->op[t->n - 1] |= FAD_NEEDED;
}

/* Takes over the caller's reference to `value`. */
fad_index fad_push_array_slow(fad_tape *t, unsigned op, fad_index a, fad_index b, fad_array *value)
{
    const fad_index i = fad_push(t, op | FAD_ARRAY, a, b, 0.0);
    t->value[i].arr = value;
    t->bytes += fad_array_bytes(value);
    fad_need(t, op, a, b);
    return i;
}

fad_index fad_push_call(fad_tape *t, unsigned op, fad_call *call, fad_slot value, int is_array)
{
    const fad_index i = fad_push(t, op | (is_array ? FAD_ARRAY : 0), 0, 0, 0.0);
    memcpy(&t->args[i], &call, sizeof call);
    t->value[i] = value;
    if (is_array) t->bytes += fad_array_bytes(value.arr);
    return i;
}

fad_call *fad_call_new(int n)
{
    fad_call *call = fad_malloc(sizeof *call + (size_t)n * sizeof call->parent[0]);
    if (!call) return NULL;
    call->at = 0;
    call->rule = call->params = NULL;
    call->n = n;
    call->takes = 0;
    return call;
}

/* ---- hooks: a vector sorted by node ------------------------------------------------------------- */

static int32_t hook_at(const fad_tape *t, fad_index i)
{
    int32_t lo = 0, hi = t->hook_n;
    while (lo < hi) {
        const int32_t mid = lo + (hi - lo) / 2;
        if (t->hook[mid].node < i) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

fad_status fad_hook_set(fad_tape *t, fad_index i, fad_call *keeper)
{
    if (t->hook_n == t->hook_cap) {
        const int32_t cap = t->hook_cap ? 2 * t->hook_cap : 16;
        void *p = fad_realloc(t->hook, (size_t)cap * sizeof *t->hook);
        if (!p) return FAD_NOMEM;
        t->hook = p;
        t->hook_cap = cap;
    }
    const int32_t at = hook_at(t, i);
    memmove(t->hook + at + 1, t->hook + at, (size_t)(t->hook_n - at) * sizeof *t->hook);
    t->hook[at] = (fad_hook){i, keeper};
    t->hook_n++;
    t->op[i] |= FAD_HOOK;
    return FAD_OK;
}

fad_call *fad_hook_get(const fad_tape *t, fad_index i)
{
    const int32_t at = hook_at(t, i);
    return at < t->hook_n && t->hook[at].node == i ? t->hook[at].keeper : NULL;
}

static void hook_forget(fad_tape *t, fad_index i)
{
    const int32_t at = hook_at(t, i);
    if (at >= t->hook_n || t->hook[at].node != i) return;
    fad_call *keeper = t->hook[at].keeper;
    keeper->next = fad_dead_calls;
    fad_dead_calls = keeper;
    t->hook_n--;
    memmove(t->hook + at, t->hook + at + 1, (size_t)(t->hook_n - at) * sizeof *t->hook);
}
