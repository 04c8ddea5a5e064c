"""NumPy's statistics over tensors: order statistics, averages, covariances, histograms, and what
ignores nan."""

from __future__ import annotations

import operator
from math import prod as _product

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from . import _core, numpy_api, rules
from ._core import Tensor
from .definitions import defines, followed, register, values_of
from .numpy_api import _floating, _tensor, root_or_zero

_NOT_GIVEN = np._NoValue
_where = rules.where
_sqrt = _core.elementwise["sqrt"]
_absolute = _core.elementwise["absolute"]


def _given(keepdims):
    return False if keepdims is _NOT_GIVEN else bool(keepdims)


# Order statistics.

# n q + alpha + q (1 - alpha - beta) - 1 is where the quantile q lies among n sorted numbers:
# Hyndman and Fan, Sample quantiles in statistical packages (1996), types 4 to 9
_CONTINUOUS = {
    "linear": (1.0, 1.0),
    "interpolated_inverted_cdf": (0.0, 1.0),
    "hazen": (0.5, 0.5),
    "weibull": (0.0, 0.0),
    "median_unbiased": (1.0 / 3.0, 1.0 / 3.0),
    "normal_unbiased": (3.0 / 8.0, 3.0 / 8.0),
}


@followed
def sorted_places(x):
    """Places in the flat array of the elements of each row, in ascending order."""
    rows, n = x.shape
    return np.argsort(x, axis=-1, kind="stable") + n * np.arange(rows)[:, None]


@followed
def present(x):
    """How many elements of each row are not nan, but at least one."""
    return np.maximum(np.add.reduce(x == x, axis=-1, dtype=float), 1.0)


@followed
def step_places(q, counts, method):
    """Where a quantile lies among as many sorted numbers as `counts` says, by NumPy's rule."""
    found = np.empty(np.shape(q) + counts.shape)
    for n in np.unique(counts):
        found[..., counts == n] = np.quantile(np.arange(n), q, method=method)[..., None]
    return found


@followed
def neighbours(places, counts, n):
    """Flat places of the two sorted numbers between which others lie."""
    low = np.floor(places)
    high = np.minimum(low + 1, counts - 1)
    first = n * np.arange(len(counts))
    return np.stack([low, high]).astype(np.intp) + first


def _rows(t, axis):
    """Return a tensor as rows over `axis`, and the results' shapes with and without these axes."""
    t = _floating(_tensor(t))
    axes = tuple(range(t.ndim)) if axis is None else normalize_axis_tuple(axis, t.ndim)
    free = tuple([n for k, n in enumerate(t.shape) if k not in axes])
    length = _product([t.shape[k] for k in axes])
    rows = _core.reshape(rules.move_to_end(t, axes)[0], (_product(free), length))
    return rows, rules.kept_shape(t.shape, axes), free


def _quantile(t, q, axis, keepdims, method, ignores_nan):
    """Return quantiles: those numbers of a sorted row between which they lie, interpolated."""
    (rows, kept, free), q = _rows(t, axis), _tensor(q)
    n = rows.shape[1]
    ascending = rules.gather(rows, sorted_places(rows))
    counts = present(rows) if ignores_nan else _core.wrap(np.full(rows.shape[0], float(n)))
    if method in _CONTINUOUS:
        alpha, beta = _CONTINUOUS[method]
        column = _core.reshape(q, (*q.shape, 1))
        at = counts * column + alpha + column * (1.0 - alpha - beta) - 1.0
        at = numpy_api.clip(at, 0.0, counts - 1.0)
    else:
        at = step_places(q, counts, method)
    pair = rules.gather(ascending, neighbours(at, counts, n))
    low, high = numpy_api.unstack(pair)
    y = low + (high - low) * (at - _core.elementwise["floor"](at))
    return _core.reshape(y, (*q.shape, *(kept if keepdims else free)))


@followed
def quantile_by_weight(a, q, weights, axis, method, name):
    return getattr(np, name)(a, q, axis, method=method, weights=weights)


@followed
def hit_places(x, y):
    """Flat place of the first element of each row that equals one of `y`."""
    hits = x == y[..., None]
    return np.argmax(hits, axis=-1) + x.shape[1] * np.arange(x.shape[0])


def _weighted_quantile(t, q, weights, axis, keepdims, method, name):
    """Return quantiles of weighted elements, each of which is one of the elements."""
    q, weights = _tensor(q).detach(), _tensor(weights).detach()
    y = quantile_by_weight(_tensor(t).detach(), q, weights, axis, method, name)
    rows, kept, free = _rows(t, axis)
    places = hit_places(rows.detach(), _core.reshape(y, (*q.shape, _product(free))))
    return _core.reshape(rules.gather(rows, places), (*q.shape, *(kept if keepdims else free)))


def _quantiles(function, whole, keepdims, ignores_nan, doc):
    """Return one of NumPy's functions of quantiles, for which `whole` means all elements."""

    def definition(
        a, q, axis=None, out=None, overwrite_input=False, method="linear", keepdims=keepdims, *,
        weights=None,
    ) -> Tensor:
        keepdims = _given(keepdims)
        if weights is not None:
            return _weighted_quantile(a, q, weights, axis, keepdims, method, function.__name__)
        q = _tensor(q) if whole == 1.0 else _tensor(q) / whole
        return _quantile(a, q, axis, keepdims, method, ignores_nan)

    definition.__name__ = definition.__qualname__ = function.__name__
    definition.__doc__ = doc
    return defines(function)(definition)


@defines(np.median)
def median(a, axis=None, out=None, overwrite_input=False, keepdims=False) -> Tensor:
    """Return the median over `axis`: the middle number, or the mean of the two in the middle.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([4.0, 1.0, 2.0, 9.0], requires_grad=True)
    >>> y = ad.median(x)
    >>> y.backward()
    >>> y.item(), x.grad.tolist()
    (3.0, [0.5, 0.0, 0.5, 0.0])
    """
    return _quantile(a, 0.5, axis, _given(keepdims), "linear", False)


quantile = _quantiles(np.quantile, 1.0, False, False, """\
Return the numbers below which the fractions `q` of the elements over `axis` lie.

    Differentiable in `a`, and in `q` where the method interpolates.  With `weights` a result is one
    of the elements, whatever small change of the weights or of `q`: their gradient is 0.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.quantile(ad.tensor([1.0, 2.0, 4.0]), [0.0, 0.75]).tolist()
    [1.0, 3.0]
    """)
percentile = _quantiles(np.percentile, 100.0, False, False, """\
Return the numbers below which `q` percent of the elements over `axis` lie; see `quantile`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.percentile(ad.tensor([1.0, 2.0, 4.0]), 75).item()
    3.0
    """)


@defines(np.nanmedian)
def nanmedian(a, axis=None, out=None, overwrite_input=False, keepdims=_NOT_GIVEN) -> Tensor:
    """Return the median over `axis` of the elements that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nanmedian(ad.tensor([4.0, ad.nan, 2.0])).item()
    3.0
    """
    return _quantile(a, 0.5, axis, _given(keepdims), "linear", True)


nanquantile = _quantiles(np.nanquantile, 1.0, _NOT_GIVEN, True, """\
Return the numbers below which the fractions `q` of the elements lie that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nanquantile(ad.tensor([4.0, ad.nan, 2.0]), 0.25).item()
    2.5
    """)
nanpercentile = _quantiles(np.nanpercentile, 100.0, _NOT_GIVEN, True, """\
Return the numbers below which `q` percent of the elements lie that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nanpercentile(ad.tensor([4.0, ad.nan, 2.0]), 25).item()
    2.5
    """)


@defines(np.ptp)
def ptp(a, axis=None, out=None, keepdims=_NOT_GIVEN) -> Tensor:
    """Return the maximum over `axis` less the minimum.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.ptp(ad.tensor([4.0, 1.0, 2.0])).item()
    3.0
    """
    t = _tensor(a)
    return (numpy_api.max(t, axis, keepdims=_given(keepdims))
            - numpy_api.min(t, axis, keepdims=_given(keepdims)))


# Averages and covariances.


def _weights_for(t, axis, weights):
    """Return weights that broadcast against `t`."""
    w = _tensor(weights)
    if w.shape == t.shape or axis is None:
        return w
    axes = normalize_axis_tuple(axis, t.ndim)
    order = sorted(range(len(axes)), key=axes.__getitem__)
    w = _core.transpose(w, tuple(order)) if w.ndim > 1 else w
    return _core.reshape(w, tuple([n if k in axes else 1 for k, n in enumerate(t.shape)]))


@defines(np.average)
def average(a, axis=None, weights=None, returned=False, *, keepdims=_NOT_GIVEN):
    """Return the average over `axis`, weighted or not; with `returned` the weights' sum as well.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.average(ad.tensor([1.0, 4.0]), weights=[2.0, 1.0]).item()
    2.0
    """
    t, keepdims = _floating(_tensor(a)), _given(keepdims)
    if weights is None:
        y = numpy_api.mean(t, axis, keepdims=keepdims)
        return (y, None) if returned else y
    w = _core.broadcast_to(_weights_for(t, axis, weights), t.shape)
    total = _core.sum(_floating(w), axis, keepdims)
    y = _core.sum(t * w, axis, keepdims) / total
    return (y, total) if returned else y


# before NumPy 2.2 one row stayed one
_OLD_COV = np.cov([[1.0, 2.0]], rowvar=False, ddof=0).ndim == 0


@defines(np.cov)
def cov(
    m, y=None, rowvar=True, bias=False, ddof=None, fweights=None, aweights=None, *, dtype=None
) -> Tensor:
    """Return the covariances of the rows of `m`, or of its columns without `rowvar`.

    Differentiable in the observations and in `aweights`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.cov(ad.tensor([[1.0, 3.0], [2.0, 0.0]])).tolist()
    [[2.0, -2.0], [-2.0, 2.0]]
    """
    x = _observations(m, rowvar)
    if y is not None:
        other = numpy_api.atleast_2d(_floating(_tensor(y)))
        if not rowvar and other.shape[0] != 1:
            other = _core.transpose(other)
        x = numpy_api.concatenate([x, other])
    if dtype is not None:
        x = numpy_api.astype(x, dtype, copy=False)
    if ddof is None:
        ddof = 0 if bias else 1
    w = None
    if fweights is not None:
        w = _core.as_tensor(np.asarray(numpy_api._values(fweights), float))
    if aweights is not None:
        a = _tensor(aweights)
        w = a if w is None else w * a
    if w is None:
        count = x.shape[1]
        middle, divisor = numpy_api.mean(x, 1, keepdims=True), count - ddof
    else:
        total = _core.sum(_floating(w))
        middle = _core.sum(x * w, 1, True) / total
        if ddof == 0:
            divisor = total
        elif aweights is None:
            divisor = total - ddof
        else:
            divisor = total - ddof * _core.sum(w * a) / total
    x = x - middle
    weighted = x if w is None else x * w
    c = _core.matmul(weighted, np.conjugate(_core.transpose(x)))
    return numpy_api.squeeze(c / divisor)


def _observations(obj, rowvar):
    """Return observations as a matrix whose rows are the variables."""
    t = _floating(_tensor(obj))
    x = numpy_api.atleast_2d(t)
    turned = not rowvar and (x.shape[0] != 1 if _OLD_COV else t.ndim != 1)
    return _core.transpose(x) if turned else x


@defines(np.corrcoef)
def corrcoef(x, y=None, rowvar=True, bias=_NOT_GIVEN, ddof=_NOT_GIVEN, *, dtype=None) -> Tensor:
    """Return the correlation coefficients of the rows of `x`, or of its columns.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.corrcoef(ad.tensor([[1.0, 3.0], [2.0, 0.0]])).round(6).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    c = cov.__wrapped__(x, y, rowvar, dtype=dtype)
    if not c.ndim:
        return c / c
    size = _sqrt(rules.diagonal(c, 0, 0, 1))
    return c / _core.reshape(size, (-1, 1)) / _core.reshape(size, (1, -1))


# What ignores nan.


@followed
def not_nan(x):
    """Where `x` is a number."""
    return x == x


def _kept(t, where):
    """Return where elements are numbers and, with a mask, where that holds as well."""
    kept = not_nan(t)
    return kept if where is True or where is _NOT_GIVEN else kept & where


@defines(np.nansum)
def nansum(
    a, axis=None, dtype=None, out=None, keepdims=_NOT_GIVEN, initial=_NOT_GIVEN, where=_NOT_GIVEN
) -> Tensor:
    """Return the sum over `axis` of the elements that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nansum(ad.tensor([4.0, ad.nan, 2.0])).item()
    6.0
    """
    t = _tensor(a)
    t = _where(_kept(t, where), t, 0.0)
    return numpy_api.sum(t, axis, dtype, None, _given(keepdims), initial)


@defines(np.nanprod)
def nanprod(
    a, axis=None, dtype=None, out=None, keepdims=_NOT_GIVEN, initial=_NOT_GIVEN, where=_NOT_GIVEN
) -> Tensor:
    """Return the product over `axis` of the elements that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nanprod(ad.tensor([4.0, ad.nan, 2.0])).item()
    8.0
    """
    t = _tensor(a)
    t = _where(_kept(t, where), t, 1.0)
    return numpy_api.prod(t, axis, dtype, None, _given(keepdims), initial)


@defines(np.nanmax)
def nanmax(
    a, axis=None, out=None, keepdims=_NOT_GIVEN, initial=_NOT_GIVEN, where=_NOT_GIVEN
) -> Tensor:
    """Return the maximum over `axis` of the elements that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nanmax(ad.tensor([4.0, ad.nan, 2.0])).item()
    4.0
    """
    t = _tensor(a)
    t = _where(_kept(t, where), t, -np.inf)
    return numpy_api.max(t, axis, None, _given(keepdims), initial)


@defines(np.nanmin)
def nanmin(
    a, axis=None, out=None, keepdims=_NOT_GIVEN, initial=_NOT_GIVEN, where=_NOT_GIVEN
) -> Tensor:
    """Return the minimum over `axis` of the elements that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nanmin(ad.tensor([4.0, ad.nan, 2.0])).item()
    2.0
    """
    t = _tensor(a)
    t = _where(_kept(t, where), t, np.inf)
    return numpy_api.min(t, axis, None, _given(keepdims), initial)


def _nanmean(t, kept, axis, keepdims):
    """Return the mean of the elements where `kept` holds, and how many these are."""
    count = _core.sum(_core.astype(kept, t.dtype), axis, keepdims)
    return _core.sum(_where(kept, t, 0.0), axis, keepdims) / count, count


@defines(np.nanmean)
def nanmean(a, axis=None, dtype=None, out=None, keepdims=_NOT_GIVEN, *, where=_NOT_GIVEN) -> Tensor:
    """Return the mean over `axis` of the elements that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nanmean(ad.tensor([4.0, ad.nan, 2.0])).item()
    3.0
    """
    t = _in_dtype(a, dtype)
    return _nanmean(t, _kept(t, where), axis, _given(keepdims))[0]


def _in_dtype(a, dtype):
    t = _floating(_tensor(a))
    return t if dtype is None else numpy_api.astype(t, dtype, copy=False)


@defines(np.nanvar)
def nanvar(
    a, axis=None, dtype=None, out=None, ddof=0, keepdims=_NOT_GIVEN, *, where=_NOT_GIVEN,
    mean=_NOT_GIVEN, correction=_NOT_GIVEN,
) -> Tensor:
    """Return the variance over `axis` of the elements that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nanvar(ad.tensor([4.0, ad.nan, 2.0])).item()
    1.0
    """
    t, keepdims = _in_dtype(a, dtype), _given(keepdims)
    kept = _kept(t, where)
    middle = _nanmean(t, kept, axis, True)[0] if mean is _NOT_GIVEN else mean
    deviation = _where(kept, t - middle, 0.0)
    count = _core.sum(_core.astype(kept, t.dtype), axis, keepdims)
    freedom = ddof if correction is _NOT_GIVEN else correction
    squares = np.real(deviation * np.conjugate(deviation))
    return _core.sum(squares, axis, keepdims) / (np.real(count) - float(freedom))


@defines(np.nanstd)
def nanstd(
    a, axis=None, dtype=None, out=None, ddof=0, keepdims=_NOT_GIVEN, *, where=_NOT_GIVEN,
    mean=_NOT_GIVEN, correction=_NOT_GIVEN,
) -> Tensor:
    """Return the standard deviation over `axis` of the elements that are not nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nanstd(ad.tensor([4.0, ad.nan, 2.0])).item()
    1.0
    """
    return root_or_zero(nanvar.__wrapped__(
        a, axis, dtype, None, ddof, keepdims, where=where, mean=mean, correction=correction
    ), _sqrt)


@followed
def kinds_of_numbers(x):
    """0 for numbers, 1 for nan, 2 for inf, 3 for -inf."""
    return np.isnan(x) + 2 * np.isposinf(x) + 3 * np.isneginf(x)


@defines(np.nan_to_num)
def nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None) -> Tensor:
    """Return `x` with numbers in place of nan and of infinities; the slope there is 0.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nan_to_num(ad.tensor([1.0, ad.nan])).tolist()
    [1.0, 0.0]
    """
    t = _tensor(x)
    if t.dtype.kind == "c":
        parts = [nan_to_num.__wrapped__(part, True, nan, posinf, neginf)
                 for part in (_core.real(t), _core.imag(t))]
        return parts[0] + 1j * parts[1]
    kinds, limits = kinds_of_numbers(t), np.finfo(t.dtype)
    posinf = float(limits.max) if posinf is None else posinf
    neginf = float(limits.min) if neginf is None else neginf
    y = _where(kinds == 0, t, _where(kinds == 1, nan, _where(kinds == 2, posinf, neginf)))
    return y if y.dtype == t.dtype else _core.astype(y, t.dtype)


# Histograms.


def _between(low, high, count):
    """Return `count` numbers from `low` to `high`, of which `high` is exact."""
    steps = np.arange(count) / (count - 1)
    return _where(steps == 1.0, high, low + (high - low) * steps)


@followed
def bin_places(x, edges):
    """The bin of each element; those outside of all get one more bin."""
    bins = len(edges) - 1
    found = np.searchsorted(edges, x, "right") - 1
    found[x == edges[-1]] = bins - 1
    return np.where((x < edges[0]) | (x > edges[-1]) | (x != x), bins, found)


def _counted(places, weights, sizes):
    """Return the sums of weights in each cell of a grid, whose last cells in each axis are cut."""
    grown = tuple([n + 1 for n in sizes])
    y = rules.spread_out(weights, places, grown)
    return rules.take_index(y, tuple([slice(0, n) for n in sizes]), True)


def _as_density(y, edges):
    for k, edge in enumerate(edges):
        widths = numpy_api.diff(edge)
        y = y / _core.reshape(widths, tuple([-1 if j == k else 1 for j in range(y.ndim)]))
    return y


def _edges(a, bins, range, weights=None):
    """Return the edges of a histogram's bins; they follow the extremes of `a`."""
    t = _tensor(a)
    bins, range = numpy_api._values((bins, range))
    if np.ndim(bins) or range is not None or not t.size:
        edges = np.histogram_bin_edges(values_of(t), bins, range, numpy_api._values(weights))
        return _core.wrap(edges)
    t, count = _floating(t), bins
    if isinstance(bins, str):
        count = len(np.histogram_bin_edges(values_of(t), bins)) - 1
    low, high = numpy_api.min(t), numpy_api.max(t)
    if bool(low == high):
        low, high = low - 0.5, high + 0.5
    return _between(low, high, operator.index(count) + 1)


def _guard_bins(bins, *operands):
    """Let a program look at what the number of bins depends on."""
    if _core.is_tracing() and isinstance(bins, str):
        for a in operands:
            values_of(a)


@defines(np.histogram_bin_edges)
def _histogram_bin_edges(a, bins=10, range=None, weights=None):
    return _edges(a, bins, range, weights)


def histogram_bin_edges(a, bins=10, range=None, weights=None) -> Tensor:
    """Return the edges of a histogram's bins, which move with the extremes of `a`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.histogram_bin_edges(ad.tensor([1.0, 2.0, 4.0]), 3).tolist()
    [1.0, 2.0, 3.0, 4.0]
    """
    _guard_bins(bins, a)
    return _histogram_bin_edges(a, bins, range, weights)


@defines(np.histogram)
def _histogram(a, bins=10, range=None, density=None, weights=None):
    edges = _edges(a, bins, range, weights)
    t = _core.reshape(_tensor(a), (-1,))
    weights = numpy_api.ones_like(t, float) if weights is None else _tensor(weights)
    weights = _floating(_core.reshape(weights, (-1,)))
    y = _counted(bin_places(t, edges), weights, (edges.shape[0] - 1,))
    return (_as_density(y, [edges]) / _core.sum(y) if density else y), edges


def histogram(a, bins=10, range=None, density=None, weights=None):
    """Return how many elements, or what sum of weights, lie in each bin, and the bins' edges.

    Differentiable in `weights`, and as a density in the width of the bins.  Numbers of elements
    are constant almost everywhere and come as integers.

    Examples
    --------
    >>> import fastad as ad
    >>> w = ad.tensor([0.5, 0.25, 1.0], requires_grad=True)
    >>> counts, edges = ad.histogram([1.0, 1.5, 4.0], 2, weights=w)
    >>> counts.tolist(), edges.tolist()
    ([0.75, 1.0], [1.0, 2.5, 4.0])
    """
    _guard_bins(bins, a)
    return _histogram(a, bins, range, density, weights)


def _sample_columns(sample):
    """Return the columns of a sample: coordinates of its points, one after the other."""
    t = _tensor(sample)
    return list(numpy_api.unstack(t, axis=1)) if t.ndim > 1 else [t]


def _grid(columns, bins, range):
    """Return the edges along each axis of a grid of bins."""
    count = len(columns)
    bins = list(bins) if np.ndim(bins) or isinstance(bins, (list, tuple)) else [bins] * count
    ranges = [None] * count if range is None else list(range)
    return [_edges(x, b, r) for x, b, r in zip(columns, bins, ranges)]


@defines(np.histogramdd)
def _histogramdd(sample, bins=10, range=None, density=None, weights=None):
    columns = _sample_columns(sample)
    grid = _grid(columns, numpy_api._values(bins), numpy_api._values(range))
    sizes = tuple([edges.shape[0] - 1 for edges in grid])
    places = 0
    for x, edges, n in zip(columns, grid, sizes):
        places = bin_places(x, edges) + places * (n + 1)
    if weights is None:
        weights = numpy_api.ones_like(columns[0], float)
    y = _counted(places, _floating(_tensor(weights)), sizes)
    return (_as_density(y, grid) / _core.sum(y) if density else y), grid


def histogramdd(sample, bins=10, range=None, density=None, weights=None):
    """Return how many points, or what sum of weights, lie in each cell, and the edges of each axis.

    Examples
    --------
    >>> import fastad as ad
    >>> counts, edges = ad.histogramdd(ad.tensor([[1.0, 2.0], [3.0, 5.0]]), 2)
    >>> counts.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if isinstance(sample, (list, tuple)):
        sample = numpy_api.stack([_tensor(x) for x in sample], 1)
    return _histogramdd(sample, bins, range, density, weights)


def histogram2d(x, y, bins=10, range=None, density=None, weights=None):
    """Return how many points of a plane, or what sum of weights, lie in each cell, and the edges.

    Examples
    --------
    >>> import fastad as ad
    >>> counts, x_edges, y_edges = ad.histogram2d(ad.tensor([1.0, 3.0]), [2.0, 5.0], 2)
    >>> counts.tolist(), x_edges.tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [1.0, 2.0, 3.0])
    """
    if np.ndim(bins) == 1 and len(bins) not in (1, 2):
        bins = [bins, bins]
    return _histogram2d(x, y, bins, range, density, weights)


@defines(np.histogram2d)
def _histogram2d(x, y, bins=10, range=None, density=None, weights=None):
    sample = numpy_api.stack([_tensor(x), _tensor(y)], 1)
    counts, grid = _histogramdd.__wrapped__(sample, bins, range, density, weights)
    return counts, *grid


@defines(np.bincount)
def _bincount(x, weights=None, minlength=0):
    places = _tensor(x)
    size = max(int(values_of(places).max(initial=-1)) + 1, minlength)
    return rules.spread_out(_floating(_tensor(weights)), places, (size,))


def bincount(x, /, weights=None, minlength=0) -> Tensor:
    """Return how often each integer stands in `x`, or the sum of the weights where it does.

    Differentiable in `weights`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.bincount([0, 2, 2], ad.tensor([0.5, 1.0, 2.0])).tolist()
    [0.5, 0.0, 3.0]
    """
    if _core.is_tracing():
        values_of(x)            # the length depends on the values
    return _bincount(x, weights, minlength)


# Products up to each element.


def _running(op, t, axis):
    """Return ``op.accumulate`` of an associative operation: spans of 1, 2, 4 ... elements join."""
    before, n, span = (slice(None),) * axis, t.shape[axis], 1
    while span < n:
        first = rules.take_index(t, (*before, slice(0, span)), True)
        left = rules.take_index(t, (*before, slice(0, n - span)), True)
        right = rules.take_index(t, (*before, slice(span, n)), True)
        t = rules.concatenate((first, op(left, right)), axis)
        span *= 2
    return t


def _along(t, axis):
    """Return a tensor and the non-negative axis along which to accumulate (None: flat)."""
    if axis is None or not t.ndim:
        return _core.reshape(t, (-1,)), 0
    return t, axis % t.ndim


def _floats_in(t, dtype):
    return t if dtype is None else numpy_api.astype(t, dtype, copy=False)


@defines(np.cumprod)
def cumprod(a, axis=None, dtype=None, out=None) -> Tensor:
    """Return the products of all elements up to each along `axis` (None: of the flat tensor).

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([2.0, 0.0, 3.0], requires_grad=True)
    >>> ad.cumprod(x).sum().backward()
    >>> x.grad.tolist()
    [1.0, 8.0, 0.0]
    """
    t, axis = _along(_floats_in(_tensor(a), dtype), axis)
    return _running(_core.elementwise["multiply"], t, axis)


@defines(np.nancumprod)
def nancumprod(a, axis=None, dtype=None, out=None) -> Tensor:
    """Return the products up to each element, in which nan counts as 1.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nancumprod(ad.tensor([4.0, ad.nan, 2.0])).tolist()
    [4.0, 4.0, 8.0]
    """
    t = _tensor(a)
    return cumprod.__wrapped__(_where(not_nan(t), t, 1.0), axis, dtype)


@defines(np.nancumsum)
def nancumsum(a, axis=None, dtype=None, out=None) -> Tensor:
    """Return the sums up to each element, in which nan counts as 0.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nancumsum(ad.tensor([4.0, ad.nan, 2.0])).tolist()
    [4.0, 4.0, 6.0]
    """
    t = _tensor(a)
    return numpy_api.cumsum(_where(not_nan(t), t, 0.0), axis, dtype)


__all__ = register("""
average bincount corrcoef cov cumprod histogram histogram2d histogram_bin_edges histogramdd median
nan_to_num nancumprod nancumsum nanmax nanmean nanmedian nanmin nanpercentile nanprod nanquantile
nanstd nansum nanvar percentile ptp quantile
""".split(), globals())
