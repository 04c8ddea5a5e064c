"""What tests of `ad.special` know of each function: its reference in mpmath, and where to look.

CASES has an entry for every public function of one or several results: references, one for each
result, and points, tuples of arguments.  Points lie where all derivatives that the function has
exist.  TOLERANCE holds the relative errors of first derivatives that are larger than 1e-12, and
why.
"""

import mpmath

mp = mpmath.mp.clone()
mp.dps = 30
PI = mp.pi


def P(a, x):
    return mp.gammainc(a, 0, x, regularized=True)


def Q(a, x):
    return mp.gammainc(a, x, mp.inf, regularized=True)


def IB(a, b, x):
    return mp.betainc(a, b, 0, x, regularized=True)


def IC(a, b, x):
    return mp.betainc(a, b, x, 1, regularized=True)


def inv(f, place):
    """The y where ``f(y, *rest)`` is the argument at `place`; the search starts at SciPy's."""
    def reference(*args, start):
        args = list(args)
        p = args.pop(place)
        return mp.findroot(lambda y: f(y, *args) - p, (start, start * (1 + mp.mpf(10) ** -9)))

    reference.inverse = True
    return reference


def student(v, t):
    tail = mp.betainc(v / 2, mp.mpf(0.5), 0, v / (v + t * t), regularized=True) / 2
    return 1 - tail if t > 0 else tail


def fcdf(m, n, x):
    return IB(m / 2, n / 2, m * x / (n + m * x))


def owens(h, a):
    return mp.quad(lambda t: mp.exp(-h * h * (1 + t * t) / 2) / (1 + t * t), [0, a]) / (2 * PI)


def wofz(z):
    return mp.exp(-z * z) * mp.erfc(-1j * z)


def parts(f):
    """The real and the imaginary part, which count as two results."""
    return [lambda *args: mp.re(f(*args)), lambda *args: mp.im(f(*args))]


def voigt(x, s, g):
    return mp.re(wofz((x + 1j * g) / (s * mp.sqrt(2)))) / (s * mp.sqrt(2 * PI))


def wright(a, b, x):
    return mp.nsum(lambda k: x**k / mp.factorial(k) * mp.rgamma(a * k + b), [0, mp.inf])


def sph(f, n, x):
    return mp.sqrt(PI / (2 * x)) * f(n + mp.mpf(0.5), x)


def degrees(f):
    return lambda x: f(x * PI / 180)


def agm(a, b):
    return mp.agm(a, b)


def ellip(kind):
    def f(u, m):
        return mp.ellipfun(kind, u=u, m=m)
    return f


def amplitude(u, m):
    return mp.atan2(mp.ellipfun("sn", u=u, m=m), mp.ellipfun("cn", u=u, m=m))


def boxcox(x, s):
    return (x**s - 1) / s


def inv_boxcox(x, s):
    return (1 + s * x) ** (1 / s)


def tukey(x, s):
    return mp.findroot(lambda p: (p**s - (1 - p) ** s) / s - x, mp.mpf(0.6))


def sh(f):
    return lambda *args: f(*args[:-1], 2 * args[-1] - 1)


def jac(n, a, b, x):
    return mp.jacobi(n, a, b, x)


REAL = [(0.3,), (1.0,), (4.5,), (-0.7,), (-3.2,)]
PLUS = [(1e-8,), (0.3,), (1.0,), (4.5,), (30.0,)]
UNIT = [(1e-6,), (0.2,), (0.5,), (0.97,)]
GAMMA = [(0.5, 0.3), (0.02, 2.0), (3.0, 1e-4), (3.0, 40.0), (5.0, 5.0), (200.0, 190.0)]
BETA = [(0.5, 0.5, 0.3), (2.0, 3.0, 1e-3), (2.0, 3.0, 0.97), (100.0, 50.0, 0.6), (0.1, 4.0, 0.4)]
BESSEL = [(0.0, 1.0), (0.3, 1e-3), (2.0, 3.5), (5.5, 3.0), (1.5, 60.0), (30.0, 25.0), (-1.3, 2.0),
          (20.0, 90.0)]
SCALED = [(0.0, 1.0), (0.3, 1e-3), (2.0, 3.5), (5.5, 3.0), (1.5, 60.0), (30.0, 25.0), (-1.3, 2.0),
          (1.5, 2000.0)]
DEGREES = [(0, 0.3), (1, -0.7), (2, 0.4), (5, 0.81)]
DEGREES_PLUS = [(0, 0.3), (1, 4.0), (2, 0.4), (5, 1.3)]
SHIFTED = [(0, 0.3), (1, 0.7), (2, 0.4), (5, 0.81)]
INCOMPLETE = [(0.3, 0.5), (-1.2, 0.9), (1.5, -2.0), (4.0, 0.3), (1.0, 1e-6), (0.9, 0.0)]

CASES = {
    # gamma
    "gamma": (mp.gamma, REAL + [(30.0,), (1e-8,)]),
    "gammaln": (lambda x: mp.log(abs(mp.gamma(x))), REAL + [(30.0,), (1e-8,)]),
    "loggamma": (mp.loggamma, PLUS + [(1e6,)]),
    "rgamma": (mp.rgamma, REAL + [(0.0,), (-1.0,), (-2.0,), (30.0,)]),
    "digamma": (mp.digamma, REAL + [(1e-4,), (1e5,)]),
    "psi": (mp.digamma, REAL),
    "polygamma": (lambda n, x: mp.polygamma(int(n), x), [(1, 0.3), (2, 4.0), (3, -1.3)]),
    "multigammaln": (
        lambda a, d: d * (d - 1) * mp.log(PI) / 4
        + sum(mp.loggamma(a - mp.mpf(j) / 2) for j in range(int(d))),
        [(1.7, 2), (6.0, 4), (0.5, 1)]),
    "beta": (mp.beta, [(0.3, 2.0), (4.0, 5.0), (1e-3, 20.0)]),
    "betaln": (lambda a, b: mp.log(mp.beta(a, b)), [(0.3, 2.0), (4.0, 5.0), (50.0, 0.1)]),
    "poch": (mp.rf, [(0.3, 2.0), (4.0, 0.5), (-1.5, 2.5)]),
    "binom": (mp.binomial, [(5.5, 2.0), (3.0, 0.5), (0.3, 0.2)]),
    "gammainc": (P, GAMMA),
    "gammaincc": (Q, GAMMA),
    "gammaincinv": (inv(lambda y, a: P(a, y), 1), [(0.5, 0.3), (3.0, 1e-3), (20.0, 0.9)]),
    "gammainccinv": (inv(lambda y, a: Q(a, y), 1), [(0.5, 0.3), (3.0, 1e-3), (20.0, 0.9)]),
    "betainc": (IB, BETA),
    "betaincc": (IC, BETA),
    "betaincinv": (inv(lambda y, a, b: IB(a, b, y), 2), [(0.5, 0.7, 0.3), (20.0, 3.0, 0.6)]),
    "betainccinv": (inv(lambda y, a, b: IC(a, b, y), 2), [(0.5, 0.7, 0.3), (20.0, 3.0, 0.6)]),
    "btdtria": (inv(lambda y, b, x: IB(y, b, x), 0), [(0.3, 2.0, 0.5), (0.8, 5.0, 0.2)]),
    "btdtrib": (inv(lambda y, a, x: IB(a, y, x), 1), [(2.0, 0.3, 0.5), (5.0, 0.8, 0.7)]),
    # distributions
    "chdtr": (lambda v, x: P(v / 2, x / 2), [(3.0, 1.0), (7.5, 9.0)]),
    "chdtrc": (lambda v, x: Q(v / 2, x / 2), [(3.0, 1.0), (7.5, 9.0)]),
    "chdtri": (inv(lambda y, v: Q(v / 2, y / 2), 1), [(3.0, 0.2), (7.5, 0.7)]),
    "gdtr": (lambda a, b, x: P(b, a * x), [(0.7, 2.0, 3.0), (2.0, 0.4, 0.1)]),
    "gdtrc": (lambda a, b, x: Q(b, a * x), [(0.7, 2.0, 3.0), (2.0, 0.4, 0.1)]),
    "gdtrix": (inv(lambda y, a, b: P(b, a * y), 2), [(0.7, 2.0, 0.4), (2.0, 0.4, 0.8)]),
    "gdtria": (inv(lambda y, b, x: P(b, y * x), 0), [(0.4, 2.0, 0.7), (0.8, 0.4, 2.0)]),
    "gdtrib": (inv(lambda y, a, x: P(y, a * x), 1), [(0.7, 0.4, 2.0), (2.0, 0.8, 0.3)]),
    "pdtr": (lambda k, m: Q(k + 1, m), [(2.0, 3.5), (0.0, 0.2)]),
    "pdtrc": (lambda k, m: P(k + 1, m), [(2.0, 3.5), (0.0, 0.2)]),
    "pdtri": (inv(lambda y, k: Q(k + 1, y), 1), [(2, 0.3), (0, 0.8)]),
    "bdtr": (lambda k, n, p: IC(k + 1, n - k, p), [(2.0, 7, 0.4), (0.0, 3, 0.2)]),
    "bdtrc": (lambda k, n, p: IB(k + 1, n - k, p), [(2.0, 7, 0.4), (0.0, 3, 0.2)]),
    "bdtri": (inv(lambda y, k, n: IC(k + 1, n - k, y), 2), [(2.0, 7, 0.4), (0.0, 3, 0.2)]),
    "nbdtr": (lambda k, n, p: IB(n, k + 1, p), [(2, 7, 0.4), (0, 3, 0.2)]),
    "nbdtrc": (lambda k, n, p: IC(n, k + 1, p), [(2, 7, 0.4), (0, 3, 0.2)]),
    "nbdtri": (inv(lambda y, k, n: IB(n, k + 1, y), 2), [(2, 7, 0.4), (0, 3, 0.2)]),
    "fdtr": (fcdf, [(3.0, 5.0, 0.7), (2.5, 20.0, 2.0)]),
    "fdtrc": (lambda m, n, x: 1 - fcdf(m, n, x), [(3.0, 5.0, 0.7), (2.5, 20.0, 2.0)]),
    "fdtri": (inv(lambda y, m, n: fcdf(m, n, y), 2), [(3.0, 5.0, 0.7), (2.5, 20.0, 0.4)]),
    "stdtr": (student, [(3.0, 0.7), (2.5, -1.5), (20.0, 3.0), (1.0, 40.0), (4.0, 1e-4)]),
    "stdtrit": (inv(lambda y, v: student(v, y), 1), [(3.0, 0.7), (2.5, 0.1), (20.0, 0.99)]),
    "ndtr": (mp.ncdf, REAL),
    "log_ndtr": (lambda x: mp.log(mp.ncdf(x)), REAL + [(-50.0,), (-1e4,)]),
    "ndtri": (lambda p: mp.sqrt(2) * mp.erfinv(2 * p - 1), UNIT),
    "ndtri_exp": (inv(lambda y: mp.log(mp.ncdf(y)), 0), [(-0.1,), (-2.0,), (-60.0,)]),
    "nrdtrimn": (lambda p, s, x: x - s * mp.sqrt(2) * mp.erfinv(2 * p - 1),
                 [(0.3, 2.0, 0.4), (0.9, 0.5, -1.0)]),
    "nrdtrisd": (lambda m, p, x: (x - m) / (mp.sqrt(2) * mp.erfinv(2 * p - 1)),
                 [(0.4, 0.3, 0.2), (-1.0, 0.9, 0.5)]),
    "tklmbda": (tukey, [(0.3, 0.14), (-0.8, 0.5), (0.4, 2.0)]),
    "owens_t": (owens, [(0.5, 0.3), (2.0, 1.5), (-1.0, 0.7)]),
    # error functions
    "erf": (mp.erf, REAL),
    "erfc": (mp.erfc, REAL),
    "erfcx": (lambda x: mp.exp(x * x) * mp.erfc(x), REAL + [(1e3,), (25.0,)]),
    "erfi": (mp.erfi, REAL),
    "dawsn": (lambda x: mp.sqrt(PI) / 2 * mp.exp(-x * x) * mp.erfi(x),
              [(0.3,), (-2.0,), (5.0,), (8.0,)]),
    "erfinv": (mp.erfinv, [(0.3,), (-0.9,), (0.999,)]),
    "erfcinv": (lambda x: mp.erfinv(1 - x), [(0.3,), (1.9,), (1e-3,)]),
    "wofz": (parts(wofz), REAL),
    "voigt_profile": (voigt, [(0.3, 1.0, 0.5), (2.0, 0.7, 0.1), (-1.0, 0.3, 2.0)]),
    "fresnel": ([mp.fresnels, mp.fresnelc], [(0.3,), (2.0,), (-1.2,)]),
    # logarithms, exponentials
    "expit": (lambda x: 1 / (1 + mp.exp(-x)), REAL),
    "logit": (lambda x: mp.log(x / (1 - x)), UNIT),
    "log_expit": (lambda x: -mp.log1p(mp.exp(-x)), REAL + [(-800.0,)]),
    "softplus": (lambda x: mp.log1p(mp.exp(x)), REAL),
    "xlogy": (lambda a, b: a * mp.log(b), [(0.3, 2.0), (-1.0, 0.4)]),
    "xlog1py": (lambda a, b: a * mp.log1p(b), [(0.3, 2.0), (-1.0, 0.4)]),
    "entr": (lambda x: -x * mp.log(x), [(0.3,), (5.0,), (1e-8,)]),
    "rel_entr": (lambda a, b: a * mp.log(a / b), [(0.3, 2.0), (5.0, 0.4)]),
    "kl_div": (lambda a, b: a * mp.log(a / b) - a + b, [(0.3, 2.0), (5.0, 0.4)]),
    "huber": (lambda d, r: r * r / 2 if abs(r) <= d else d * (abs(r) - d / 2),
              [(1.0, 0.3), (1.0, -2.0), (0.5, 3.0)]),
    "pseudo_huber": (lambda d, r: d * d * (mp.sqrt(1 + (r / d) ** 2) - 1),
                     [(1.0, 0.3), (1.0, -2.0), (0.5, 3.0)]),
    "exprel": (lambda x: mp.expm1(x) / x, [(0.3,), (1e-6,), (-1e-9,), (-3.0,), (20.0,), (-60.0,)]),
    "cosm1": (lambda x: mp.cos(x) - 1, REAL),
    "expm1": (mp.expm1, REAL),
    "log1p": (mp.log1p, [(0.3,), (-0.9,), (1e-9,)]),
    "exp2": (lambda x: mp.power(2, x), REAL),
    "exp10": (lambda x: mp.power(10, x), REAL),
    "cbrt": (lambda x: mp.sign(x) * mp.cbrt(abs(x)), [(0.3,), (-5.0,)]),
    "sinc": (lambda x: mp.sinc(PI * x), [(0.3,), (1e-5,), (-2.4,)]),
    "powm1": (lambda a, b: mp.power(a, b) - 1, [(0.3, 2.0), (5.0, -0.4), (2.0, 1e-9)]),
    "boxcox": (boxcox, [(0.3, 2.0), (5.0, -0.4), (2.0, 1e-9)]),
    "boxcox1p": (lambda x, s: boxcox(1 + x, s), [(0.3, 2.0), (5.0, -0.4), (-0.5, 1e-9)]),
    "inv_boxcox": (inv_boxcox, [(0.3, 2.0), (2.0, -0.4), (2.0, 1e-9), (50.0, 3.0)]),
    "inv_boxcox1p": (lambda x, s: inv_boxcox(x, s) - 1, [(0.3, 2.0), (2.0, -0.4), (2.0, 1e-9)]),
    "sindg": (degrees(mp.sin), [(30.0,), (-100.0,)]),
    "cosdg": (degrees(mp.cos), [(30.0,), (-100.0,)]),
    "tandg": (degrees(mp.tan), [(30.0,), (-100.0,)]),
    "cotdg": (degrees(mp.cot), [(30.0,), (-100.0,)]),
    "radian": (lambda d, m, s: (d + m / 60 + s / 3600) * PI / 180, [(30.0, 5.0, 7.0)]),
    # Bessel functions
    "jv": (mp.besselj, BESSEL),
    "jn": (mp.besselj, BESSEL),
    "jve": (mp.besselj, BESSEL),
    "j0": (lambda x: mp.besselj(0, x), REAL),
    "j1": (lambda x: mp.besselj(1, x), REAL),
    "yv": (mp.bessely, BESSEL),
    "yve": (mp.bessely, BESSEL),
    "yn": (mp.bessely, [(0, 1.0), (2, 0.3), (7, 5.0)]),
    "y0": (lambda x: mp.bessely(0, x), [(0.3,), (1.0,), (4.5,)]),
    "y1": (lambda x: mp.bessely(1, x), [(0.3,), (1.0,), (4.5,)]),
    "hankel1": (parts(mp.hankel1), BESSEL),
    "hankel2": (parts(mp.hankel2), BESSEL),
    "hankel1e": (parts(lambda v, x: mp.hankel1(v, x) * mp.exp(-1j * x)), BESSEL),
    "hankel2e": (parts(lambda v, x: mp.hankel2(v, x) * mp.exp(1j * x)), BESSEL),
    "iv": (mp.besseli, BESSEL),
    "ive": (lambda v, x: mp.besseli(v, x) * mp.exp(-x), SCALED),
    "i0": (lambda x: mp.besseli(0, x), REAL),
    "i1": (lambda x: mp.besseli(1, x), REAL),
    "i0e": (lambda x: mp.besseli(0, x) * mp.exp(-abs(x)), REAL + [(5e4,)]),
    "i1e": (lambda x: mp.besseli(1, x) * mp.exp(-abs(x)), REAL + [(5e4,)]),
    "kv": (mp.besselk, BESSEL),
    "kve": (lambda v, x: mp.besselk(v, x) * mp.exp(x), SCALED),
    "kn": (mp.besselk, [(0, 1.0), (2, 0.3), (7, 5.0)]),
    "k0": (lambda x: mp.besselk(0, x), PLUS),
    "k1": (lambda x: mp.besselk(1, x), PLUS),
    "k0e": (lambda x: mp.besselk(0, x) * mp.exp(x), PLUS + [(5e4,)]),
    "k1e": (lambda x: mp.besselk(1, x) * mp.exp(x), PLUS + [(5e4,)]),
    "spherical_jn": (lambda n, x: sph(mp.besselj, n, x), [(0, 0.3), (1, 4.0), (5, 3.0)]),
    "spherical_yn": (lambda n, x: sph(mp.bessely, n, x), [(0, 0.3), (1, 4.0), (5, 3.0)]),
    "spherical_in": (lambda n, x: sph(mp.besseli, n, x), [(0, 0.3), (1, 4.0), (5, 3.0)]),
    "spherical_kn": (lambda n, x: sph(mp.besselk, n, x), [(0, 0.3), (1, 4.0), (5, 3.0)]),
    "struve": (mp.struveh, [(0.0, 1.0), (1.5, 4.0), (0.3, 0.2)]),
    "modstruve": (mp.struvel, [(0.0, 1.0), (1.5, 4.0), (0.3, 0.2)]),
    "itstruve0": (lambda x: mp.quad(lambda t: mp.struveh(0, t), [0, x]), [(0.3,), (4.0,)]),
    "itmodstruve0": (lambda x: mp.quad(lambda t: mp.struvel(0, t), [0, x]), [(0.3,), (4.0,)]),
    "it2struve0": (lambda x: PI / 2 - mp.quad(lambda t: mp.struveh(0, t) / t, [0, x]),
                   [(0.3,), (4.0,)]),
    "itj0y0": ([lambda x: x * mp.hyp1f2(0.5, 1, 1.5, -x * x / 4),
                lambda x: PI * x / 2 * (mp.bessely(0, x) * mp.struveh(-1, x)
                                     + mp.bessely(1, x) * mp.struveh(0, x))], [(0.3,), (4.0,)]),
    "iti0k0": ([lambda x: x * mp.hyp1f2(0.5, 1, 1.5, x * x / 4),
                lambda x: PI * x / 2 * (mp.besselk(0, x) * mp.struvel(-1, x)
                                     + mp.besselk(1, x) * mp.struvel(0, x))], [(0.3,), (4.0,)]),
    "airy": ([mp.airyai, lambda x: mp.airyai(x, derivative=1), mp.airybi,
              lambda x: mp.airybi(x, derivative=1)], REAL),
    "airye": ([lambda x: mp.airyai(x) * mp.exp(2 * x**1.5 / 3),
               lambda x: mp.airyai(x, derivative=1) * mp.exp(2 * x**1.5 / 3),
               lambda x: mp.airybi(x) * mp.exp(-2 * x**1.5 / 3),
               lambda x: mp.airybi(x, derivative=1) * mp.exp(-2 * x**1.5 / 3)],
              [(0.3,), (4.0,)]),
    "itairy": ([lambda x: mp.airyai(x, derivative=-1), lambda x: mp.airybi(x, derivative=-1),
                lambda x: -mp.airyai(-x, derivative=-1), lambda x: -mp.airybi(-x, derivative=-1)],
               [(0.3,), (4.0,)]),
    "ber": (lambda x: mp.ber(0, x), [(0.3,), (4.0,)]),
    "bei": (lambda x: mp.bei(0, x), [(0.3,), (4.0,)]),
    "ker": (lambda x: mp.ker(0, x), [(0.3,), (4.0,)]),
    "kei": (lambda x: mp.kei(0, x), [(0.3,), (4.0,)]),
    "berp": (lambda x: mp.diff(lambda t: mp.ber(0, t), x), [(0.3,), (4.0,)]),
    "beip": (lambda x: mp.diff(lambda t: mp.bei(0, t), x), [(0.3,), (4.0,)]),
    "kerp": (lambda x: mp.diff(lambda t: mp.ker(0, t), x), [(0.3,), (4.0,)]),
    "keip": (lambda x: mp.diff(lambda t: mp.kei(0, t), x), [(0.3,), (4.0,)]),
    "pbdv": ([mp.pcfd, lambda v, x: mp.diff(lambda t: mp.pcfd(v, t), x)],
             [(0.5, 1.0), (2.3, 0.4)]),
    "pbvv": ([lambda v, x: mp.pcfv(-v - 0.5, x),
              lambda v, x: mp.diff(lambda t: mp.pcfv(-v - 0.5, t), x)], [(0.5, 1.0), (2.3, 0.4)]),
    "pbwa": ([mp.pcfw, lambda a, x: mp.diff(lambda t: mp.pcfw(a, t), x)],
             [(0.5, 1.0), (-1.3, 0.4)]),
    # exponential integrals, zeta, W
    "exp1": (mp.e1, PLUS),
    "expi": (mp.ei, REAL),
    "expn": (mp.expint, [(0, 0.5), (1, 0.5), (2, 3.0), (5, 0.1)]),
    "sici": ([mp.si, mp.ci], [(0.3,), (4.0,), (1e-5,)]),
    "shichi": ([mp.shi, mp.chi], [(0.3,), (4.0,), (1e-5,)]),
    "spence": (lambda x: mp.polylog(2, 1 - x), [(0.3,), (1.0,), (1.0 + 1e-9,), (1.6,), (40.0,)]),
    "zeta": (mp.zeta, [(2.0, 1.0), (1.1, 0.5), (5.0, 3.0), (30.0, 2.0), (1.5, 100.0)]),
    "zetac": (lambda s: mp.zeta(s) - 1, [(2.0,), (0.5,), (-0.7,), (-5.2,), (20.0,), (1.01,)]),
    "lambertw": (lambda x: mp.lambertw(x).real, [(1.0,), (0.0,), (1e-9,), (-0.3,), (1e6,)]),
    "wrightomega": (inv(lambda y: y + mp.log(y), 0), [(0.3,), (-3.0,), (50.0,)]),
    # elliptic
    "ellipk": (mp.ellipk, [(0.5,), (0.0,), (1e-9,), (0.99,), (-3.0,)]),
    "ellipkm1": (lambda p: mp.ellipk(1 - p), [(0.5,), (1e-3,), (1.0,)]),
    "ellipe": (mp.ellipe, [(0.5,), (0.0,), (1e-9,), (0.99,), (-3.0,)]),
    "ellipkinc": (mp.ellipf, INCOMPLETE),
    "ellipeinc": (mp.ellipe, INCOMPLETE),
    "elliprc": (mp.elliprc, [(1.0, 2.0), (0.3, 0.3), (2.0, -0.7), (1e-3, 5.0)]),
    "elliprd": (mp.elliprd, [(1.0, 2.0, 3.0), (0.1, 5.0, 0.1)]),
    "elliprf": (mp.elliprf, [(1.0, 2.0, 3.0), (0.1, 5.0, 0.1)]),
    "elliprg": (mp.elliprg, [(1.0, 2.0, 3.0), (0.1, 5.0, 0.1)]),
    "elliprj": (mp.elliprj, [(1.0, 2.0, 3.0, 4.0), (0.1, 5.0, 0.1, 0.7)]),
    "ellipj": ([ellip("sn"), ellip("cn"), ellip("dn"), amplitude],
               [(0.5, 0.3), (1.3, 0.9), (-0.7, 1e-6)]),
    "agm": (agm, [(1.0, 3.0), (0.2, 0.2), (1e-3, 5.0)]),
    # hypergeometric functions, polynomials
    "hyp0f1": (mp.hyp0f1, [(1.5, 0.4), (2.0, -3.0)]),
    "hyp1f1": (mp.hyp1f1, [(1.5, 2.5, 0.4), (0.3, 2.0, -3.0)]),
    "hyp2f1": (mp.hyp2f1, [(1.5, 0.5, 2.5, 0.4), (0.3, 1.2, 2.0, -3.0)]),
    "hyperu": (mp.hyperu, [(1.5, 2.5, 0.4), (0.3, 1.7, 3.0)]),
    "wright_bessel": (wright, [(0.5, 1.5, 0.4), (1.0, 2.0, 3.0)]),
    "log_wright_bessel": (lambda a, b, x: mp.log(wright(a, b, x)),
                          [(0.5, 1.5, 0.4), (1.0, 2.0, 3.0)]),
    "lpmv": (lambda m, v, x: mp.legenp(v, m, x, type=2), [(0, 2.0, 0.3), (1, 3.0, -0.5)]),
    "eval_legendre": (mp.legendre, DEGREES + [(1.7, 0.4)]),
    "eval_jacobi": (jac, [(0, 0.5, 0.3, 0.3), (1, 0.2, 0.7, -0.4), (4, 1.5, 0.5, 0.6)]),
    "eval_gegenbauer": (mp.gegenbauer, [(0, 0.7, 0.3), (1, 0.7, -0.4), (4, 1.5, 0.6)]),
    "eval_chebyt": (mp.chebyt, DEGREES),
    "eval_chebyu": (mp.chebyu, DEGREES),
    "eval_chebyc": (lambda n, x: 2 * mp.chebyt(n, x / 2), DEGREES),
    "eval_chebys": (lambda n, x: mp.chebyu(n, x / 2), DEGREES),
    "eval_hermite": (mp.hermite, DEGREES),
    "eval_hermitenorm": (lambda n, x: mp.hermite(n, x / mp.sqrt(2)) / mp.mpf(2) ** (n / 2),
                         DEGREES),
    "eval_laguerre": (lambda n, x: mp.laguerre(n, 0, x), DEGREES_PLUS),
    "eval_genlaguerre": (mp.laguerre, [(0, 0.5, 0.3), (1, 0.5, 2.0), (4, 1.5, 3.3)]),
    "eval_sh_legendre": (sh(mp.legendre), SHIFTED),
    "eval_sh_chebyt": (sh(mp.chebyt), SHIFTED),
    "eval_sh_chebyu": (sh(mp.chebyu), SHIFTED),
    "eval_sh_jacobi": (
        lambda n, p, q, x: mp.jacobi(n, p - q, q - 1, 2 * x - 1) / mp.binomial(2 * n + p - 1, n),
        [(0, 2.0, 1.5, 0.3), (1, 2.0, 1.5, 0.7), (4, 3.0, 1.2, 0.4)]),
}

# References and points of functions of complex numbers; those that are not named here are those
# above.  The derivative is in the last argument.
COMPLEX = {
    "gamma": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "loggamma": [(0.3 + 1j,), (2.0 - 5j,)],
    "rgamma": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "digamma": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "psi": [(0.3 + 1j,), (30.0 - 0.4j,)],
    "erf": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "erfc": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "erfcx": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "erfi": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "dawsn": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "wofz": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "ndtr": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "log_ndtr": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "xlogy": [(2.0, 0.3 + 1j), (0.5 - 1j, 1.0 + 2j)],
    "xlog1py": [(2.0, 0.3 + 1j), (0.5 - 1j, 1.0 + 2j)],
    "expm1": [(0.3 + 1j,)],
    "log1p": [(0.3 + 1j,)],
    "sinc": [(0.3 + 1j,)],
    "fresnel": [(0.3 + 1j,), (-1.2 - 0.4j,)],
    "exp1": [(0.3 + 1j,), (2.0 - 0.4j,)],
    "expi": [(0.3 + 1j,), (2.0 - 0.4j,)],
    "sici": [(0.3 + 1j,), (2.0 - 0.4j,)],
    "shichi": [(0.3 + 1j,), (2.0 - 0.4j,)],
    "spence": [(0.3 + 1j,), (2.0 - 0.4j,)],
    "lambertw": [(0.3 + 1j,), (2.0 - 0.4j,)],
    "wrightomega": [(0.3 + 1j,), (2.0 - 0.4j,)],
    "jv": [(0.5, 0.3 + 1j), (2.0, 4.0 - 3j)],
    "yv": [(0.5, 0.3 + 1j), (2.0, 4.0 - 3j)],
    "iv": [(0.5, 0.3 + 1j), (2.0, 4.0 - 3j)],
    "kv": [(0.5, 0.3 + 1j), (2.0, 4.0 - 3j)],
    "kve": [(0.5, 0.3 + 1j), (2.0, 4.0 - 3j)],
    "hankel1": [(0.5, 0.3 + 1j), (2.0, 4.0 - 3j)],
    "hankel1e": [(0.5, 0.3 + 1j), (2.0, 4.0 - 3j)],
    "hankel2": [(0.5, 0.3 + 1j), (2.0, 4.0 - 3j)],
    "hankel2e": [(0.5, 0.3 + 1j), (2.0, 4.0 - 3j)],
    "airy": [(0.3 + 1j,), (-2.0 - 0.4j,)],
    "spherical_jn": [(2, 0.3 + 1j)],
    "spherical_yn": [(2, 0.3 + 1j)],
    "spherical_in": [(2, 0.3 + 1j)],
    "spherical_kn": [(2, 0.3 + 1j)],
    "hyp0f1": [(1.5, 0.3 + 1j)],
    "hyp1f1": [(1.5, 2.5, 0.3 + 1j)],
    "hyp2f1": [(1.5, 0.5, 2.5, 0.3 + 0.2j)],
    "eval_legendre": [(2, 0.3 + 1j)],
    "eval_jacobi": [(2, 0.5, 0.7, 0.3 + 1j)],
    "eval_gegenbauer": [(3, 0.5, 0.3 + 1j)],
    "eval_chebyt": [(3, 0.3 + 1j)],
    "eval_chebyu": [(3, 0.3 + 1j)],
    "eval_chebyc": [(3, 0.3 + 1j)],
    "eval_chebys": [(3, 0.3 + 1j)],
    "eval_laguerre": [(3, 0.3 + 1j)],
    "eval_genlaguerre": [(3, 0.5, 0.3 + 1j)],
    "eval_sh_legendre": [(3, 0.3 + 1j)],
    "eval_sh_chebyt": [(3, 0.3 + 1j)],
    "eval_sh_chebyu": [(3, 0.3 + 1j)],
    "eval_sh_jacobi": [(3, 2.0, 1.5, 0.3 + 1j)],
}
COMPLEX_REFERENCES = {
    "lambertw": mp.lambertw,
    "wofz": wofz,
    "hankel1": mp.hankel1,
    "hankel2": mp.hankel2,
    "hankel1e": lambda v, z: mp.hankel1(v, z) * mp.exp(-1j * z),
    "hankel2e": lambda v, z: mp.hankel2(v, z) * mp.exp(1j * z),
    "log_ndtr": lambda z: mp.log(mp.erfc(-z / mp.sqrt(2)) / 2),
    "ndtr": lambda z: mp.erfc(-z / mp.sqrt(2)) / 2,
    "wrightomega": lambda z: mp.lambertw(mp.exp(z)),
}
