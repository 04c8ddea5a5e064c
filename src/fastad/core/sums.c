/* Sums as NumPy adds: in pairs of halves above blocks of 128, eight at a time inside a block.
 * In one go or fed piece by piece, the result has the same bits. */
#include "kernels.h"

enum { BLOCK = 128, LANES = 8 };

#define SUMS(type, name) \
    /* The first `n` of a block, a multiple of 8, in eight sums that go on from `part`. */ \
    FAD_CLONES static void lanes_##name(const type *x, int64_t n, type *part) \
    { \
        type r[LANES]; \
        memcpy(r, part, sizeof r); \
        for (int64_t i = 0; i < n; i += LANES) \
            for (int k = 0; k < LANES; k++) r[k] += x[i + k]; \
        memcpy(part, r, sizeof r); \
    } \
    static inline type joined_##name(const type *r) \
    { \
        return ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7])); \
    } \
    static type block_##name(const type *x, int64_t n) \
    { \
        type sum, part[LANES]; \
        int64_t i = n - n % LANES; \
        if (n < LANES) { \
            sum = (type)-0.0; \
            i = 0; \
        } else { \
            memcpy(part, x, sizeof part); \
            lanes_##name(x + LANES, i - LANES, part); \
            sum = joined_##name(part); \
        } \
        for (; i < n; i++) sum += x[i]; \
        return sum; \
    } \
    /* The depth of the recursion is that of a halving: 57 at most. */ \
    type fad_pairwise_##name(const type *x, int64_t n) \
    { \
        if (n <= BLOCK) return block_##name(x, n); \
        const int64_t half = n / 2 - n / 2 % LANES; \
        return fad_pairwise_##name(x, half) + fad_pairwise_##name(x + half, n - half); \
    }

/* Complex numbers: of the numbers in a block, four sums of real parts alternate with four of
 * imaginary ones. */
#define COMPLEX_SUMS(type, real, name) \
    static void halves_##name(const type *x, int64_t n, type *sum) \
    { \
        type part[LANES]; \
        int64_t i = n - n % LANES; \
        if (n > BLOCK) { \
            const int64_t half = n / 2 - n / 2 % LANES; \
            halves_##name(x, half, sum); \
            halves_##name(x + half, n - half, part); \
            for (int k = 0; k < 2; k++) sum[k] += part[k]; \
            return; \
        } \
        if (n < LANES) { \
            sum[0] = sum[1] = (type)-0.0; \
            i = 0; \
        } else { \
            memcpy(part, x, sizeof part); \
            lanes_##real(x + LANES, i - LANES, part); \
            for (int k = 0; k < 2; k++) \
                sum[k] = (part[k] + part[k + 2]) + (part[k + 4] + part[k + 6]); \
        } \
        for (; i < n; i++) sum[i % 2] += x[i]; \
    } \
    void fad_pairwise_##name(const type *x, int64_t n, type *sum) { halves_##name(x, 2 * n, sum); }

SUMS(double, f64)
SUMS(float, f32)
COMPLEX_SUMS(double, f64, c128)
COMPLEX_SUMS(float, f32, c64)

/* Go down to the first block of a stretch of n elements. */
static void descend(fad_sum_stream *s, int64_t n)
{
    while (n > BLOCK) {
        const int64_t half = n / 2 - n / 2 % LANES;
        s->pending[s->depth].right = n - half;
        s->pending[s->depth++].left = 0.0;
        n = half;
    }
    s->block = n;
    s->done = 0;
}

/* A block is summed: add what lies left of it, and go on to the next. */
static void ascend(fad_sum_stream *s, double sum)
{
    while (s->depth && !s->pending[s->depth - 1].right) sum = s->pending[--s->depth].left + sum;
    if (!s->depth) {
        s->sum = sum;
        s->block = s->done = 0;
        return;
    }
    const int64_t right = s->pending[s->depth - 1].right;
    s->pending[s->depth - 1].left = sum;
    s->pending[s->depth - 1].right = 0;
    descend(s, right);
}

void fad_sum_begin(fad_sum_stream *s, int64_t n)
{
    s->depth = 0;
    s->sum = -0.0;
    descend(s, n);
}

void fad_sum_feed(fad_sum_stream *s, const double *x, int64_t n)
{
    while (n > 0) {
        const int64_t left = s->block - s->done, take = n < left ? n : left;
        if (take == s->block) {
            ascend(s, block_f64(x, take));
        } else {
            /* blocks begin at multiples of 8, so a piece ends between lanes unless it is the last */
            const int64_t end = s->done + take, whole = take - take % LANES;
            const int64_t skip = s->done ? 0 : LANES;
            if (skip) memcpy(s->part, x, sizeof s->part);
            if (whole > skip) lanes_f64(x + skip, whole - skip, s->part);
            s->done = end;
            if (end == s->block) {
                double sum = joined_f64(s->part);
                for (int64_t i = whole; i < take; i++) sum += x[i];
                ascend(s, sum);
            }
        }
        x += take;
        n -= take;
    }
}
