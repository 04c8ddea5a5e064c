/* What the formulas in ops.def call and libm lacks.  Each function is a formula of its own: the
 * values at nan, inf, poles and signed zeros are NumPy's (SciPy's for the special functions).
 */
#ifndef FAD_SPECIAL_H
#define FAD_SPECIAL_H

#include <math.h>

/* The named constants of the table. */
#define FAD_CONST(name, value) static const double name = value;
#define FAD_UNARY(...)
#define FAD_BINARY(...)
#define FAD_TERNARY(...)
#include "ops.def"
#undef FAD_CONST
#undef FAD_UNARY
#undef FAD_BINARY
#undef FAD_TERNARY

#define FAD_PI 3.14159265358979323846

/* ---- arithmetic -------------------------------------------------------------------------- */

static inline double zmul(double a, double b)
{
    const double p = a * b;
    return (a == 0.0) | (b == 0.0) ? 0.0 : p;       /* | and not ||: loops over it vectorize */
}

static inline double sign(double x)
{
    return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : x == 0.0 ? 0.0 : x;
}

static inline double one_minus_square(double x)
{
    return (1.0 - x) * (1.0 + x);
}

static inline double clip(double a, double b, double c)
{
    const double low = a > b || a != a ? a : b;
    return low < c || low != low ? low : c;
}

/* Python's a % b: the sign is that of b, a zero result's too. */
static inline double remainder_(double a, double b)
{
    const double r = fmod(a, b);
    if (b == 0.0) return r;
    if (r == 0.0) return copysign(0.0, b);
    return (r < 0.0) != (b < 0.0) ? r + b : r;
}

/* Python's a // b, from the exact remainder: rounding a / b first could step over an integer. */
static inline double floor_divide(double a, double b)
{
    if (b == 0.0) return a / b;
    const double r = fmod(a, b);
    double q = (a - r) / b;
    if (r != 0.0 && (r < 0.0) != (b < 0.0)) q -= 1.0;
    if (q == 0.0) return copysign(0.0, a / b);
    const double low = floor(q);
    return q - low > 0.5 ? low + 1.0 : low;
}

/* ---- exponentials ------------------------------------------------------------------------ */

/* exp is only ever taken of what is not positive, so nothing overflows. */
static inline double sigmoid(double x)
{
    const double e = exp(-fabs(x));
    return (x < 0.0 ? e : 1.0) / (1.0 + e);
}

static inline double logaddexp(double a, double b)
{
    if (a == b) return a + FAD_LN2;     /* equal infinities too */
    const double d = a - b;
    if (d != d) return d;
    return (d > 0.0 ? a : b) + log1p(exp(-fabs(d)));
}

static inline double logaddexp2(double a, double b)
{
    if (a == b) return a + 1.0;
    const double d = a - b;
    if (d != d) return d;
    return (d > 0.0 ? a : b) + FAD_1_LN2 * log1p(exp2(-fabs(d)));
}

/* ---- sinc and its derivatives ------------------------------------------------------------ */

/* sin(pi x) / (pi x), as numpy.sinc. */
static inline double sinc(double x)
{
    const double z = FAD_PI * x;
    return z == 0.0 ? 1.0 : sin(z) / z;
}

/* The n-th derivative of sinc, n = 0, 1, ... 1000; nan for any other n.
 *
 * Differentiating z f(z) = sin(z) k times gives  z f_k + k f_(k-1) = sin(z + k pi / 2).  Going up
 * divides an error by z / k, going down multiplies it by z / k: so up while k <= |z|, and else
 * down from an order so high that f there no longer matters, as in Miller's algorithm (Abramowitz
 * & Stegun 9.12, example 1).
 */
static inline double sinc_derivative(double n, double x)
{
    const double z = FAD_PI * x;
    if (!(n >= 0.0 && n <= 1000.0) || n != floor(n) || x != x) return FAD_NAN;
    const double s = sin(z), c = cos(z);
    const double wave[4] = {s, c, -s, -c};      /* sin(z + k pi / 2) */
    const int order = (int)n;
    double f;
    if (fabs(z) > n) {
        f = s / z;
        for (int k = 1; k <= order; k++) f = (wave[k % 4] - k * f) / z;
    } else {
        int top = order;
        for (double left = 1.0; left > 1e-19 * fabs(z); left *= fabs(z) / top) top++;
        f = 0.0;
        for (int k = top; k > order; k--) f = (wave[k % 4] - z * f) / k;
    }
    return pow(FAD_PI, n) * f;
}

/* ---- gamma and its relatives ------------------------------------------------------------- */

/* libm's lgamma stores a sign in a global variable; the reentrant form does not.  Strict C11
 * headers hide its declaration. */
#if defined(__unix__) || defined(__APPLE__)
extern double lgamma_r(double, int *);
static inline double lgamma_(double x)
{
    int negative;
    return lgamma_r(x, &negative);
}
#else
static inline double lgamma_(double x)
{
    return lgamma(x);
}
#endif

/* digamma for x > 0: Taylor's series around its root, which keeps the relative accuracy there;
 * else the recurrence psi(x) = psi(x + 1) - 1 / x (Abramowitz & Stegun 6.3.5) up to x >= 10 and
 * the asymptotic series 6.3.18, whose terms are B(2k) / (2k x**2k). */
static inline double fad_digamma_positive(double x)
{
    static const double root = 1.4616321449683623, root_rest = 9.549995429965697e-17;
    /* psi's k-th derivative at the root, over k!; k = 1 ... 24 */
    static const double taylor[24] = {
        0.9676722454476212, -0.4427631689835921, 0.258499760955651, -0.16394270544240652,
        0.10782405069126237, -0.07219956125645471, 0.04880428816414311, -0.03316112647484736,
        0.022597648232218104, -0.01542476590494896, 0.010538791616612175, -0.007204534386356869,
        0.004926781395729853, -0.003369801655439328, 0.002305126326734928, -0.0015769367714301972,
        0.0010788252019162967, -0.0007380709389960052, 0.000504953265834602,
        -0.0003454680251063077, 0.00023635601564027053, -0.00016170622091974803,
        0.0001106337276874741, -7.569179582195066e-05
    };
    static const double bernoulli[8] = {
        1.0 / 12, -1.0 / 120, 1.0 / 252, -1.0 / 240, 1.0 / 132, -691.0 / 32760, 1.0 / 12,
        -3617.0 / 8160
    };
    const double d = (x - root) - root_rest;
    double sum = 0.0;
    if (fabs(d) < 0.3) {
        for (int k = 23; k >= 0; k--) sum = (sum + taylor[k]) * d;
        return sum;
    }
    double before = 0.0;
    for (; x < 10.0; x += 1.0) before += 1.0 / x;
    const double w = 1.0 / (x * x);
    for (int k = 7; k >= 0; k--) sum = (sum + bernoulli[k]) * w;
    return log(x) - 0.5 / x - sum - before;
}

/* The derivative of lgamma.  Below 0 by reflection, psi(1 - x) - psi(x) = pi / tan(pi x)
 * (Abramowitz & Stegun 6.3.7), the tangent's argument reduced exactly. */
static inline double digamma(double x)
{
    if (x > 0.0) return fad_digamma_positive(x);
    if (x == 0.0) return copysign(INFINITY, -x);
    const double r = x - rint(x);
    return r == 0.0 ? FAD_NAN : fad_digamma_positive(1.0 - x) - FAD_PI / tan(FAD_PI * r);
}

/* Hurwitz's zeta(s, x) = sum over k >= 0 of (x + k)**-s, for s = 2, 3, ... and x > 0: the first
 * terms as they stand, the rest by Euler and Maclaurin's formula (DLMF 25.11.5). */
static inline double fad_zeta(double s, double x)
{
    /* B(2j) / (2j)! */
    static const double euler[10] = {
        1.0 / 12, -1.0 / 720, 1.0 / 30240, -1.0 / 1209600, 1.0 / 47900160,
        -691.0 / 1307674368000.0, 1.0 / 74724249600.0, -3617.0 / 10670622842880000.0,
        43867.0 / 5109094217170944000.0, -174611.0 / 802857662698291200000.0
    };
    double sum = 0.0;
    for (; x < 10.0 + s; x += 1.0) sum += pow(x, -s);
    const double last = pow(x, -s);
    double rest = last * (x / (s - 1.0) + 0.5), factor = s * last / x;
    for (int j = 0; j < 10; j++) {
        rest += euler[j] * factor;
        factor *= (s + 2 * j + 1) * (s + 2 * j + 2) / (x * x);
    }
    return sum + rest;
}

/* The n-th derivative of digamma, n = 0, 1, ... 170; nan for any other n.
 *
 *     psi_n(x) = (-1)**(n + 1) n! sum over k >= 0 of (x + k)**-(n + 1)      (A&S 6.4.10)
 *
 * Below 0 the sum runs over a + k, k >= 0, and over -(b + k) from k = 0 until -x is reached, where
 * a and b are x's distances to the integers below and above. */
static inline double polygamma(double n, double x)
{
    if (n == 0.0) return digamma(x);
    if (!(n > 0.0 && n <= 170.0) || n != floor(n) || x != x || x == -INFINITY) return FAD_NAN;
    const double s = n + 1.0, below = x - floor(x), above = ceil(x) - x;
    const int odd = fmod(n, 2.0) != 0.0;
    double sum, factorial = odd ? 1.0 : -1.0;
    if (x == INFINITY) {
        sum = 0.0;
    } else if (x > 0.0) {
        sum = fad_zeta(s, x);
    } else if (below == 0.0) {
        sum = INFINITY;         /* a pole */
    } else {
        const double mirrored = fad_zeta(s, above) - fad_zeta(s, 1.0 - x);
        sum = fad_zeta(s, below) + (odd ? mirrored : -mirrored);
    }
    for (double k = 2.0; k <= n; k += 1.0) factorial *= k;
    return factorial * sum;
}

#endif
