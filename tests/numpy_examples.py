"""One example call or more of each of NumPy's differentiable functions, for tests and for benches.

A call is written once, as ``np.<name>`` of arrays or tensors.  Shapes have free lengths: ``"n"``
and ``"r"`` stand for a length that tests take short and benches long, ``"r"`` of two axes.
"""

from __future__ import annotations

import numpy as np

from fastad import _core, assignment, numpy_coverage

N, R = "n", "r"


class Example:
    """A call of one function.

    Attributes
    ----------
    name : str
        The function, as in ``np.<name>``.
    call : callable
        Of as many arrays as there are shapes.
    shapes : tuple
        Of the operands.
    positive : bool
        All numbers are positive; otherwise signs vary.
    ulps : int
        By how many units in the last place values may differ from NumPy's, with the `reason`.
    forms : bool
        Whether the call makes sense for empty operands, and for numbers instead of arrays.
    number_ulps : int
        As `ulps`, for operands that are numbers.
    real : bool
        Whether operands have to be real.
    zero : bool
        Whether the derivative is 0 almost everywhere.
    """

    def __init__(self, name, call, *shapes, positive=False, ulps=0, reason="", forms=True,
                 zero=False, bounds=None, number_ulps=0, real=False, bench=True):
        self.name, self.call, self.shapes = name, call, shapes
        self.positive, self.ulps, self.reason = positive, ulps, reason
        self.forms, self.zero, self.bounds, self.bench = forms, zero, bounds, bench
        self.number_ulps, self.real = number_ulps, real
        if (ulps or number_ulps) and not reason:
            raise ValueError(f"{name}: a tolerance needs a reason")

    def __repr__(self):
        return self.name

    def lengths(self, n=3, r=3):
        return [tuple({N: n, R: r}.get(k, k) for k in shape) for shape in self.shapes]

    def arrays(self, n=3, r=3, dtype=float, seed=0):
        """Distinct numbers away from 0, or inside the bounds of a row of the op table."""
        rng = np.random.default_rng([len(self.name), seed])
        arrays = []
        for k, shape in enumerate(self.lengths(n, r)):
            size = int(np.prod(shape))
            low, high = self.bounds[k] if self.bounds else (0.4, 2.0)
            values = rng.permutation(low + (high - low) * (np.arange(size) + rng.random()) / size
                                     if size else np.zeros(0))
            if not self.positive and not self.bounds:
                values = values * rng.choice([-1.0, 1.0], size)
            arrays.append(values.reshape(shape).astype(dtype))
        if np.dtype(dtype).kind == "c":
            arrays = [a + 1j * rng.permutation(a.real.ravel()).reshape(a.shape).astype(dtype) * 0.7
                      for a in arrays]
        return [np.asarray(a, dtype) for a in arrays]


def _rows():
    """Examples of all ufuncs that are rows of the op table."""
    for row in _core.table():
        ufunc = getattr(np, row["name"], None)
        if not isinstance(ufunc, np.ufunc):
            continue
        lead = [(N, 4), (4,), ()]
        yield Example(row["name"], ufunc, *lead[: row["arity"]], bounds=row["intervals"],
                      zero=all(p == "0.0" for p in row["partials"]) or row["name"] == "heaviside",
                      number_ulps=4, reason="libm computes single numbers, NumPy's loops arrays")


def E(*args, **kwargs):
    return Example(*args, **kwargs)


def windows(x, shape):
    return np.lib.stride_tricks.sliding_window_view(x, shape)


def _series(name):
    return getattr(np.polynomial.polynomial, name)


def _by_products(vector, width, axis, options):
    """A mode of ``pad``: products of neighbours, times a factor."""
    factor = options.get("factor", 1.0)
    first, last = width[0], vector.shape[0] - width[1]
    if first < last:
        vector[:first] = factor * vector[first] * vector[last - 1]
        for k in range(last, vector.shape[0]):
            vector[k] = vector[k - 1] * vector[first]


def _with_nan(x):
    """A row with nan in it, where rows have 4 elements."""
    return x * np.array([1.0, np.nan, 1.0, 1.0], _real(x))


def _real(x):
    return np.float32 if x.dtype in (np.float32, np.complex64) else np.float64


_NUMBERS = "BLAS multiplies complex numbers by other instructions than NumPy's loops"
_SCALARS = "NumPy multiplies complex scalars by other instructions than its loops"
GRID = np.array([-1.5, -0.3, 0.4, 1.7])
CHOICE = np.array([0, 2, 1, 1])

EXAMPLES = [
    *_rows(),
    # ufuncs beyond the table
    E("conjugate", lambda x: np.conjugate(x), (N, 4)),
    E("degrees", lambda x: np.degrees(x), (N, 4)),
    E("radians", lambda x: np.radians(x), (N, 4)),
    E("divmod", lambda a, b: np.divmod(a, b), (N, 4), (4,), bounds=[(-7.9, -6.1), (2.7, 3.0)]),
    E("frexp", lambda x: np.frexp(x)[0], (N, 4)),
    E("ldexp", lambda x: np.ldexp(x, [1, -2, 3, 0]), (N, 4)),
    E("modf", lambda x: np.modf(x), (N, 4), bounds=[(0.1, 0.9)]),
    E("nextafter", lambda a, b: np.nextafter(a, b), (N, 4), (4,)),
    E("spacing", lambda x: np.spacing(x), (N, 4), zero=True),
    E("clip", lambda x: np.clip(x, -0.9, 0.9), (N, 4)),
    E("matmul", lambda a, b: np.matmul(a, b), (N, 4), (4, 3)),
    E("matmul", lambda a, b: np.matmul(a, b, axes=[(1, 0), (0, 1), (1, 0)]), (4, 3), (4, 2)),
    E("matvec", lambda a, b: np.matvec(a, b), (N, 4), (4,)),
    E("vecmat", lambda a, b: np.vecmat(a, b), (4,), (4, N)),
    E("vecdot", lambda a, b: np.vecdot(a, b), (N, 4), (4,)),
    E("vecdot", lambda a, b: np.vecdot(a, b, axis=0), (3, 2), (3, 2)),
    # reductions
    E("sum", lambda x: np.sum(x), (N, 4)),
    E("sum", lambda x: np.sum(x, axis=-1, keepdims=True, initial=2.0, where=[True, False] * 2),
      (N, 4)),
    E("sum", lambda x: np.sum(x, axis=0, dtype=np.float64), (3, 4), real=True, bench=False),
    E("prod", lambda x: np.prod(x, axis=-1), (N, 4)),
    E("prod", lambda x: np.prod(x, axis=-1, initial=2.0, where=[True, False] * 2), (N, 4)),
    E("max", lambda x: np.max(x), (N, 4)),
    E("max", lambda x: np.max(x, axis=-1, initial=0.5, where=[True, False] * 2), (N, 4)),
    E("amax", lambda x: np.amax(x, axis=0), (N, 4)),
    E("min", lambda x: np.min(x), (N, 4)),
    E("min", lambda x: np.min(x, axis=0, initial=0.5), (N, 4)),
    E("amin", lambda x: np.amin(x, axis=-1), (N, 4)),
    E("mean", lambda x: np.mean(x), (N, 4)),
    E("mean", lambda x: np.mean(x, axis=-1, where=[True, False, True, True], keepdims=True),
      (N, 4)),
    E("var", lambda x: np.var(x), (N, 4)),
    E("var", lambda x: np.var(x, axis=-1, ddof=1, where=[True, False, True, True]), (N, 4)),
    E("var", lambda x: np.var(x, axis=-1, correction=1, keepdims=True), (N, 4)),
    E("std", lambda x: np.std(x, axis=-1), (N, 4)),
    E("ptp", lambda x: np.ptp(x, axis=0), (N, 4)),
    E("cumsum", lambda x: np.cumsum(x, axis=0), (N, 4)),
    E("cumprod", lambda x: np.cumprod(x, axis=-1), (N, 4)),
    E("cumulative_sum", lambda x: np.cumulative_sum(x, axis=0, include_initial=True), (N, 4)),
    E("cumulative_prod", lambda x: np.cumulative_prod(x, axis=1), (N, 4)),
    E("nansum", lambda x: np.nansum(_with_nan(x), axis=-1), (N, 4)),
    E("nanprod", lambda x: np.nanprod(_with_nan(x), axis=-1), (N, 4)),
    E("nanmax", lambda x: np.nanmax(_with_nan(x), axis=-1), (N, 4)),
    E("nanmin", lambda x: np.nanmin(_with_nan(x), axis=-1), (N, 4)),
    E("nanmean", lambda x: np.nanmean(_with_nan(x), axis=-1), (N, 4)),
    E("nanvar", lambda x: np.nanvar(_with_nan(x), axis=-1, ddof=1), (N, 4)),
    E("nanstd", lambda x: np.nanstd(_with_nan(x), axis=-1, keepdims=True), (N, 4)),
    E("nancumsum", lambda x: np.nancumsum(_with_nan(x), axis=-1), (N, 4)),
    E("nancumprod", lambda x: np.nancumprod(_with_nan(x), axis=-1), (N, 4)),
    E("nan_to_num", lambda x: np.nan_to_num(_with_nan(x), nan=3.0), (N, 4)),
    # order statistics
    E("median", lambda x: np.median(x), (N, 4)),
    E("median", lambda x: np.median(x, axis=(0, 2), keepdims=True), (2, 3, 3)),
    *[E("quantile", lambda x, m=m: np.quantile(x, [0.13, 0.8], axis=0, method=m), (5, 2))
      for m in "inverted_cdf averaged_inverted_cdf closest_observation interpolated_inverted_cdf "
               "hazen weibull linear median_unbiased normal_unbiased lower higher midpoint "
               "nearest".split()],
    E("quantile", lambda x, q: np.quantile(x, q), (N, 4), (2,), bounds=[(0.4, 2.0), (0.1, 0.6)]),
    E("quantile", lambda x: np.quantile(x, 0.3, axis=1, method="inverted_cdf",
                                        weights=np.arange(1.0, 5.0)), (3, 4)),
    E("quantile", lambda x, w: np.quantile(x, [0.3, 0.8], method="inverted_cdf", weights=w**2),
      (4, 3), (4, 3), real=True, forms=False),
    E("percentile", lambda x: np.percentile(x, 30.0), (N, 4)),
    E("percentile", lambda x: np.percentile(x, 30.0, 1, method="inverted_cdf",
                                            weights=np.arange(1.0, 5.0)), (3, 4)),
    E("nanpercentile", lambda x: np.nanpercentile(
        _with_nan(x), 30.0, -1, method="inverted_cdf", weights=np.arange(1.0, 13.0).reshape(3, 4)),
      (3, 4)),
    E("nanmedian", lambda x: np.nanmedian(_with_nan(x), axis=-1), (N, 4)),
    E("nanquantile", lambda x: np.nanquantile(_with_nan(x), 0.3), (N, 4)),
    E("nanpercentile", lambda x: np.nanpercentile(_with_nan(x), [30.0, 60.0], axis=-1), (3, 4)),
    E("sort", lambda x: np.sort(x, axis=0), (N, 4)),
    E("sort", lambda x: np.sort(x, axis=None), (3, 4)),
    E("sort_complex", lambda x: np.sort_complex(x), (N, 4)),
    E("partition", lambda x: np.partition(x, 2, axis=-1), (N, 4)),
    E("unique", lambda x: np.unique(x), (N,)),
    E("unique", lambda x: np.unique(x, return_inverse=True)[0], (5,)),
    E("unique_values", lambda x: np.sort(np.unique_values(x)), (N,)),
    E("unique_counts", lambda x: np.unique_counts(x).values, (N,)),
    E("unique_inverse", lambda x: np.unique_inverse(x).values, (N,)),
    E("unique_all", lambda x: np.unique_all(x).values, (N,)),
    E("union1d", lambda a, b: np.union1d(a, b), (N,), (4,)),
    E("setdiff1d", lambda a: np.setdiff1d(a, a[1:2]), (N,)),
    E("setxor1d", lambda a: np.setxor1d(a, a[1:2]), (N,)),
    E("intersect1d", lambda a: np.intersect1d(a, a[1:]), (N,)),
    # statistics
    E("average", lambda x, w: np.average(x, axis=-1, weights=w), (N, 4), (4,), positive=True),
    E("average", lambda x, w: np.average(x, weights=w, returned=True), (3, 4), (3, 4),
      positive=True),
    E("cov", lambda x: np.cov(x, rowvar=False), (N, 4)),
    E("cov", lambda x, y, w: np.cov(x, y, aweights=w, fweights=[1, 2, 1, 1]), (2, 4), (4,), (4,),
      positive=True, real=True),
    E("corrcoef", lambda x: np.corrcoef(x, rowvar=False), (N, 4), forms=False),
    E("histogram", lambda w: np.histogram(np.linspace(0, 1, w.size), 5, weights=w)[0], (N,),
      positive=True),
    E("histogram", lambda x: np.histogram(x, [-3, -1, 1, 3], weights=x**2, density=True), (N, 4),
      real=True),
    E("histogram", lambda x: np.histogram(np.exp(x), 4, density=True), (7,),
      real=True),
    E("histogram_bin_edges", lambda x: np.histogram_bin_edges(x, 4), (N, 4)),
    E("histogram_bin_edges", lambda x: np.histogram_bin_edges(x, "sqrt"), (3, 4)),
    E("histogram2d", lambda x, y: np.histogram2d(x, y, 3, weights=x**2), (N,), (N,)),
    E("histogramdd", lambda x: np.histogramdd(x, (2, 3), weights=x[:, 0] ** 2, density=True),
      (N, 2)),
    E("histogramdd", lambda x, y: np.histogramdd([x, y], 2, weights=x * y), (4,), (4,)),
    E("bincount", lambda w: np.bincount(np.arange(w.size) % 3, w), (N,)),
    # products
    E("dot", lambda a, b: np.dot(a, b), (N, 4), (4,), number_ulps=4, reason=_NUMBERS),
    E("dot", lambda a, b: np.dot(a, b), (2, 1, 3), (2, 3, 2), number_ulps=4, reason=_NUMBERS),
    E("vdot", lambda a, b: np.vdot(a, b), (N,), (N,)),
    E("inner", lambda a, b: np.inner(a, b), (N, 4), (2, 4), number_ulps=4, reason=_NUMBERS),
    E("outer", lambda a, b: np.outer(a, b), (N,), (3,)),
    E("tensordot", lambda a, b: np.tensordot(a, b, ([1, 2], [0, 1])), (N, 2, 2), (2, 2, 3)),
    E("einsum", lambda a, b: np.einsum("ij,jk->ki", a, b), (N, 4), (4, 3)),
    E("einsum", lambda a: np.einsum("...ii->...i", a), (2, 3, 3)),
    E("einsum", lambda a, b: np.einsum(a, [0, 1], b, [1, 2], [2, 0]), (2, 3), (3, 2)),
    E("einsum", lambda a, b: np.einsum("...j,j...", a, b), (2, 3), (3, 2)),
    E("einsum", lambda a: np.einsum(a, [0, 0, 1]), (3, 3, 2)),
    E("kron", lambda a, b: np.kron(a, b), (N,), (3,)),
    E("kron", lambda a, b: np.kron(a, b), (2, 3), (2,)),
    E("cross", lambda a, b: np.cross(a, b), (N, 3), (N, 3), forms=False),
    E("trace", lambda a: np.trace(a), (R, R)),
    E("linalg.norm", lambda a: np.linalg.norm(a), (N,)),
    E("vander", lambda x: np.vander(x, 4), (N,)),
    # polynomials
    E("poly", lambda x: np.poly(x), (4,)),
    E("poly", lambda a: np.poly(a), (3, 3)),
    E("roots", lambda p: np.roots(p), (4,)),
    E("roots", lambda p: np.roots(np.append(p, 0.0)), (3,)),
    E("roots", lambda r: np.roots(np.poly(r)), (3,), real=True),
    E("polyfit", lambda x, y: np.polyfit(x, y, 2), (5,), (5,)),
    E("polyfit", lambda x, y: np.polyfit(x, y, 1), (N,), (N, 2), forms=False),
    E("polyfit", lambda x, y, w: np.polyfit(x, y, 2, None, True, w), (5,), (5,), (5,)),
    E("polyfit", lambda x, y, w: np.polyfit(x, y, 1, w=w, cov=True), (5,), (5, 2), (5,)),
    E("polyfit", lambda x, y, w: np.polyfit(x, y, 1, w=w, cov="unscaled"), (5,), (5,), (5,)),
    E("polyfit", lambda x, y: np.polyfit(x, y, 3, rcond=0.2), (5,), (5,)),
    E("polynomial.polynomial.polyval2d", lambda x, y, c: _series("polyval2d")(x, y, c),
      (N, 2), (N, 2), (3, 4)),
    E("polynomial.polynomial.polygrid2d", lambda x, y, c: _series("polygrid2d")(x, y, c),
      (N,), (2,), (3, 4, 2)),
    E("polynomial.polynomial.polyvalnd", lambda x, y, z, c: _series("polyvalnd")((x, y, z), c),
      (N,), (N,), (N,), (2, 3, 2)),
    E("polyadd", lambda a, b: np.polyadd(a, b), (N,), (2,)),
    E("polysub", lambda a, b: np.polysub(a, b), (2,), (N,)),
    E("polymul", lambda a, b: np.polymul(a, b), (N,), (3,)),
    E("polydiv", lambda a, b: np.polydiv(a, b), (4,), (2,)),
    E("polyder", lambda p: np.polyder(p), (N,)),
    E("polyder", lambda p: np.polyder(p, 2), (4,)),
    E("polyint", lambda p: np.polyint(p), (N,)),
    E("polyint", lambda p, k: np.polyint(p, 2, k), (4,), (2,)),
    E("polyval", lambda p, x: np.polyval(p, x), (4,), (N,)),
    # curves
    E("interp", lambda x: np.interp(x, GRID, GRID**2), (N,)),
    E("interp", lambda x, d, f: np.interp(x, GRID + 0.1 * d, f, left=f[1]), (5,), (4,), (4,),
      forms=False),
    E("interp", lambda x, f: np.interp(5 * x, [1.0, 4.0, 3.1], f, period=4.5), (5,), (3,),
      forms=False, real=True),
    E("unwrap", lambda x: np.unwrap(4.0 * x), (N,)),
    E("gradient", lambda x: np.gradient(x), (3, 4)),
    E("gradient", lambda x: np.gradient(x, 0.5, axis=0), (N, 4), bench=False),
    E("gradient", lambda x: np.gradient(x), ("n",), bench=True),
    E("gradient", lambda x, d: np.gradient(x, np.arange(4.0) + 0.1 * d, axis=1, edge_order=2),
      (2, 4), (4,), forms=False),
    E("trapezoid", lambda y: np.trapezoid(y, dx=0.5), (N,)),
    E("trapezoid", lambda y, d: np.trapezoid(y, d, axis=-1), (3, 4), (4,)),
    E("diff", lambda x: np.diff(x), (N,)),
    E("ediff1d", lambda x: np.ediff1d(x, to_end=x[0]), (N,)),
    *[E("convolve", lambda a, b, m=m: np.convolve(a, b, m), (N,), (3,))
      for m in ("full", "same", "valid")],
    *[E("correlate", lambda a, b, m=m: np.correlate(a, b, m), (N,), (2,))
      for m in ("full", "same", "valid")],
    E("linspace", lambda a, b: np.linspace(a, b, 6, endpoint=False), (4,), (4,)),
    E("linspace", lambda a, b: np.linspace(a, b, 5, retstep=True, axis=-1), (4,), ()),
    E("logspace", lambda a, b: np.logspace(a, b, 5), (4,), (4,)),
    E("logspace", lambda a, b: np.logspace(a, 1.3, 5, base=b), (4,), (4,), positive=True),
    E("geomspace", lambda a, b: np.geomspace(a, b, 5), (4,), (4,), positive=True),
    E("i0", lambda x: np.i0(x), (N,)),
    # rounding and parts
    E("round", lambda x: np.round(x, 1), (N, 4), zero=True, bounds=[(0.56, 0.64)]),
    E("around", lambda x: np.around(x), (N, 4), zero=True, bounds=[(0.6, 1.4)]),
    E("fix", lambda x: np.fix(x), (N, 4), zero=True, bounds=[(1.1, 1.9)]),
    E("real", lambda x: np.real(x), (N, 4)),
    E("imag", lambda x: np.imag(x), (N, 4), zero=True),
    E("angle", lambda x: np.angle(x), (N, 4), zero=True),
    E("real_if_close", lambda x: np.real_if_close(x), (N, 4)),
    E("sinc", lambda x: np.sinc(x), (N, 4), bounds=[(-0.6, 0.6)]),
    # shapes
    E("reshape", lambda x: np.reshape(x, (-1, 2)), (N, 4)),
    E("reshape", lambda x: np.reshape(x, (4, -1), order="F"), (3, 4)),
    E("ravel", lambda x: np.ravel(x), (N, 4)),
    E("transpose", lambda x: np.transpose(x), (N, 4)),
    E("matrix_transpose", lambda x: np.matrix_transpose(x), (N, 4)),
    E("linalg.matrix_transpose", lambda x: np.linalg.matrix_transpose(x), (N, 4)),
    E("moveaxis", lambda x: np.moveaxis(x, 0, -1), (N, 2, 2)),
    E("rollaxis", lambda x: np.rollaxis(x, 2), (N, 2, 2)),
    E("swapaxes", lambda x: np.swapaxes(x, 0, 1), (N, 4)),
    E("squeeze", lambda x: np.squeeze(x), (N, 1, 4)),
    E("expand_dims", lambda x: np.expand_dims(x, 1), (N, 4)),
    E("broadcast_to", lambda x: np.broadcast_to(x, (3, *x.shape)), (N,)),
    E("broadcast_arrays", lambda a, b: np.broadcast_arrays(a, b), (N, 1), (3,)),
    E("atleast_1d", lambda x: np.atleast_1d(x), (N,)),
    E("atleast_2d", lambda x: np.atleast_2d(x), (N,)),
    E("atleast_3d", lambda x: np.atleast_3d(x), (N,)),
    E("rot90", lambda x: np.rot90(x), (N, 4)),
    E("rot90", lambda x: np.rot90(x, 3), (3, 4)),
    E("flip", lambda x: np.flip(x), (N, 4)),
    E("fliplr", lambda x: np.fliplr(x), (N, 4)),
    E("flipud", lambda x: np.flipud(x), (N, 4)),
    E("roll", lambda x: np.roll(x, 1, axis=1), (N, 4)),
    # joining and splitting
    E("concatenate", lambda a, b: np.concatenate([a, b], axis=-1), (N, 4), (N, 2)),
    E("stack", lambda a, b: np.stack([a, b], axis=-1), (N, 4), (N, 4)),
    E("vstack", lambda a, b: np.vstack([a, b]), (N, 4), (4,)),
    E("hstack", lambda a, b: np.hstack([a, b]), (N, 4), (N, 2)),
    E("dstack", lambda a, b: np.dstack([a, b]), (N, 4), (N, 4)),
    E("column_stack", lambda a, b: np.column_stack([a, b]), (N,), (N, 2)),
    E("block", lambda a, b: np.block([[a, b], [b, a]]), (N, 4), (N, 4)),
    E("append", lambda a, b: np.append(a, b), (N, 4), (2,)),
    E("split", lambda x: np.split(x, 2, axis=-1), (N, 4)),
    E("array_split", lambda x: np.array_split(x, 3, axis=-1), (N, 4)),
    E("vsplit", lambda x: np.vsplit(x, [1]), (N, 4)),
    E("hsplit", lambda x: np.hsplit(x, 2), (N, 4)),
    E("dsplit", lambda x: np.dsplit(x, 2), (N, 2, 2)),
    E("unstack", lambda x: np.unstack(x, axis=-1), (N, 4)),
    E("meshgrid", lambda a, b: np.meshgrid(a, b), (N,), (3,)),
    E("meshgrid", lambda a, b: np.meshgrid(a, b, indexing="ij", sparse=True), (2,), (3,)),
    E("tile", lambda x: np.tile(x, (2, 1)), (N, 4)),
    E("repeat", lambda x: np.repeat(x, 2, axis=0), (N, 4)),
    E("repeat", lambda x: np.repeat(x, [2, 0, 1, 1], axis=-1), (N, 4)),
    E("resize", lambda x: np.resize(x, (x.size + 1,)), (N, 4)),
    # picking
    E("take", lambda x: np.take(x, [2, 0, 2], axis=-1), (N, 4)),
    E("take_along_axis", lambda x: np.take_along_axis(x, np.argsort(x, -1), -1), (N, 4)),
    E("choose", lambda a, b, c: np.choose(CHOICE, [a, b, c]), (N, 4), (4,), ()),
    E("select", lambda x: np.select([x < -0.5, x > 0.5], [x**2, x**3], 2.0), (N, 4)),
    E("piecewise", lambda x: np.piecewise(
        x, [x < -0.5, x > 0.5], [lambda v: v**2, lambda v: v**3, 2.0]), (N, 4)),
    E("where", lambda x: np.where(x > 0.0, x**2, 1.0), (N, 4)),
    E("compress", lambda x: np.compress([True, False, True], x, axis=-1), (N, 4)),
    E("extract", lambda x: np.extract(x > 0.0, x), (N, 4)),
    E("delete", lambda x: np.delete(x, [0, 2], axis=-1), (N, 4)),
    E("insert", lambda x, v: np.insert(x, [1, 3], v, axis=-1), (N, 4), (2,)),
    E("insert", lambda x, v: np.insert(x, 1, v, axis=0), (3, 4), (4,)),
    E("trim_zeros", lambda x: np.trim_zeros(np.pad(x, 2)), (N,), forms=False),
    E("tril", lambda x: np.tril(x), (N, 4)),
    E("triu", lambda x: np.triu(x, 1), (N, 4)),
    E("diag", lambda x: np.diag(x), (R, R)),
    E("diag", lambda x: np.diag(x, -1), (4,)),
    E("diagflat", lambda x: np.diagflat(x), (R,)),
    E("diagonal", lambda x: np.diagonal(x), (R, R)),
    E("lib.stride_tricks.sliding_window_view", lambda x: windows(x, 3), (N,), forms=False),
    E("lib.stride_tricks.sliding_window_view", lambda x: windows(x, (2, 3)), (3, 4), forms=False),
    *[E("pad", lambda x, m=m: np.pad(x, ((1, 2), (3, 7)), m), (3, 4))
      for m in "constant edge linear_ramp maximum mean median minimum reflect symmetric "
               "wrap".split()],
    *[E("pad", lambda x, m=m: np.pad(x, ((1, 5), (3, 7)), m, reflect_type="odd"), (3, 4))
      for m in ("reflect", "symmetric")],
    E("pad", lambda x: np.pad(x, 3, "mean", stat_length=2), (N,)),
    E("pad", lambda x, e: np.pad(x, 3, "linear_ramp", end_values=e), (N,), ()),
    E("pad", lambda x, c: np.pad(x, ((1, 2), (0, 1)), constant_values=c), (3, 4), ()),
    E("pad", lambda x: np.pad(x, ((1, 2), (0, 3)), _by_products, factor=0.5), (3, 4), ulps=2,
      reason=_SCALARS),
    E("pad", lambda x: np.pad(x, 2, _by_products), (N,), ulps=1, reason=_SCALARS),
    # functions of functions
    E("apply_along_axis", lambda x: np.apply_along_axis(lambda v: np.outer(v, v), 1, x), (3, 4)),
    E("apply_over_axes", lambda x: np.apply_over_axes(np.sum, x, [0, 1]), (N, 4)),
    # making and converting
    E("array", lambda x: np.array([x, 2.0 * x], like=x), (N, 4)),
    E("asarray", lambda x: np.asarray(x, like=x), (N, 4)),
    E("asanyarray", lambda x: np.asanyarray(x, like=x), (N, 4)),
    E("ascontiguousarray", lambda x: np.ascontiguousarray(x, like=x), (N, 4)),
    E("asfortranarray", lambda x: np.asfortranarray(x, like=x), (N, 4)),
    E("require", lambda x: np.require(x, like=x), (N, 4)),
    E("copy", lambda x: np.copy(x), (N, 4)),
    E("astype", lambda x: np.astype(x, np.complex128), (N, 4)),
    E("full", lambda x: np.full((2, 3), x, like=x), ()),
    E("full_like", lambda x, v: np.full_like(x, v), (N,), ()),
    E("fromfunction", lambda x: np.fromfunction(lambda i, j: x * i + j, (2, 4), like=x), (4,)),
    # outside the domain complex, inside real
    *[E(f"lib.scimath.{name}", lambda x, f=getattr(np.lib.scimath, name): f(x), (N,),
        bounds=[bound])
      for name, bound in {"sqrt": (-2.0, 2.1), "log": (-2.0, 2.1), "log2": (0.5, 2.0),
                          "log10": (-2.0, 2.1), "arccos": (-1.9, 2.0), "arcsin": (-0.9, 0.9),
                          "arctanh": (-1.9, 2.0)}.items()],
    E("lib.scimath.logn", lambda n, x: np.lib.scimath.logn(n, x), (), (N,),
      bounds=[(2.0, 3.0), (0.5, 2.0)]),
    E("lib.scimath.power", lambda x: np.lib.scimath.power(x, 1.5), (N,), bounds=[(-2.0, 2.1)]),
]
# the methods of ufuncs, each through every ufunc for which it makes sense
_FOLDED = """
add subtract multiply divide maximum minimum fmax fmin logaddexp logaddexp2 hypot
""".split()
METHODS = [
    example
    for name in [*_FOLDED, "copysign", "fmod", "remainder"]
    for ufunc in [getattr(np, name)]
    for example in [
        E(f"{name}.reduce", lambda x, u=ufunc: u.reduce(x, axis=-1), (N, 4), positive=True),
        E(f"{name}.accumulate", lambda x, u=ufunc: u.accumulate(x, axis=-1), (N, 4), positive=True),
        E(f"{name}.reduceat", lambda x, u=ufunc: u.reduceat(x, [0, 2, 1], axis=-1), (N, 4),
          positive=True, forms=False),
        E(f"{name}.outer", lambda a, b, u=ufunc: u.outer(a, b), (N,), (3,), positive=True),
    ]
] + [
    E(f"{name}.reduce", lambda x, u=getattr(np, name): u.reduce(
        x, axis=-1, initial=1.5, where=[True, False, True, True], keepdims=True), (N, 4),
      positive=True)
    for name in _FOLDED
] + [
    E("power.accumulate", lambda x: np.power.accumulate(x, axis=-1), (N, 4), positive=True),
    E("power.outer", lambda a, b: np.power.outer(a, b), (N,), (3,), positive=True),
    E("arctan2.accumulate", lambda x: np.arctan2.accumulate(x), (4,), positive=True),
]


def present(examples):
    """The examples whose functions this NumPy has, and lets others override."""
    return [e for e in examples if function_of(e.name) is not None
            and (not e.name.startswith("polynomial.")
                 or hasattr(function_of(e.name), "__wrapped__"))]


def function_of(name):
    """NumPy's function of a dotted name, or None."""
    found = np
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def unnamed():
    """Names of differentiable functions, as examples name them.

    Those of ``numpy.linalg`` and ``numpy.fft`` and those that assign have tables of their own, in
    test_linalg, test_fft and test_assignment, which check that no function is missing.
    """
    return {
        ".".join([*module.split(".")[1:], name]): function
        for (_, module, name), function in numpy_coverage.overridable().items()
        if numpy_coverage.classify(function) == numpy_coverage.DIFFERENTIABLE
        and module not in ("numpy.linalg", "numpy.fft") and name not in assignment.TARGETS
    }
