"""SciPy's solvers with exact derivatives: the same arguments, the same results.

Each function takes what SciPy's function of the same name takes, with a function written with
operators, NumPy's or fastad's functions.  It is compiled (see `fastad.compile`), its derivatives
are exact, and SciPy does the rest: every result, warning and error is SciPy's own.  A compiled
function is used as it is, so its recordings serve several calls.

A derivative that the caller hands over is used instead; so is a method of SciPy's own, such as
``jac="2-point"``.  Numbers that a function writes into a NumPy array (``dy[0] = ...``) lose their
derivatives, which a RuntimeWarning says: return a list of them instead, or use `fastad.stack`.

SciPy is imported in the first call; ``pip install "fastad[scipy]"`` installs it.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import _core, modes, numpy_api, program, transforms
from ._core import Replay, Tensor
from .program import Program

__all__ = ["curve_fit", "least_squares", "minimize", "root", "solve_ivp"]

# A dense Jacobian or Hessian by up to so many sweeps is one recording: it takes as long as some ten
# Jacobians without one.  Of more sweeps, or where they are long, one is recorded and runs for many
# unit vectors at once; where large arrays forbid that, each call records the function alone.
_MOST_COLUMNS = 256
_MOST_HESSIAN_COLUMNS = 32
# A recording for each of a few columns is as short as their zeros make it.
_FEW_COLUMNS = 4
_MOST_NODES = 12_000            # in all sweeps
# Where a method takes either, products with the Hessian pay for more variables than these.
_MOST_DENSE = 8


def _scipy(name: str) -> Any:
    """A module of SciPy."""
    try:
        return importlib.import_module(f"scipy.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "scipy":
            raise
        raise ImportError(
            'fastad.scipy: SciPy is not installed; pip install "fastad[scipy]"'
        ) from error


# What comes in and what goes out.


def _start(x0: Any) -> Any:
    """A starting point in float64, the caller's own where SciPy takes other numbers or refuses."""
    if isinstance(x0, Tensor):
        x0 = x0.detach().numpy()
    x = np.asarray(x0)
    return np.array(x, np.float64) if x.dtype.kind in "fiub" else x0


def _numbers(y: Any) -> Any:
    """A result without tensors; they come where the function finds tensors with gradients."""
    if isinstance(y, Tensor):
        y = np.array(y.detach().numpy())
        return y if y.ndim else y.item()
    if isinstance(y, (list, tuple)) and any(isinstance(v, Tensor) for v in y):
        return [_numbers(v) for v in y]
    return y


def _noticed(y: Any) -> Any:
    """The result of a function of tensors, with a warning where it has lost its derivatives."""
    if isinstance(y, (np.ndarray, np.floating)):
        warnings.warn(
            "the function returned NumPy numbers that do not depend on its argument, so their "
            "derivatives are 0; where it assigns to elements of an array, stack them instead",
            RuntimeWarning,
            stacklevel=2,
        )
    return y


def _tensor(y: Any) -> Tensor:
    """The result of a function as one tensor: lists of numbers are stacked."""
    if isinstance(y, (list, tuple)) and any(isinstance(v, Tensor) for v in y):
        return numpy_api.stack(y)
    return _core.as_tensor(_noticed(y))


# Programs of derivatives.  In all of them `args` come last.


def _bound(fun: Callable[..., Any], args: Any) -> tuple[Program, bool]:
    """The function as a program, and whether the program knows the solver's arguments already.

    These stay the same, so a new program holds them as they are: a function may do with them what
    it likes.  A program of the caller's gets them as inputs, so that its recordings serve others.
    """
    p = program.compile(fun)
    if p is fun or not isinstance(args, (tuple, list)) or not args:
        return p, False

    @functools.wraps(fun, updated=())
    def bound(*own: Any, **kwargs: Any) -> Any:
        return fun(*own, *args, **kwargs)

    bound.__module__ = ""       # programs do not watch what functions of libraries refer to
    return program.compile(bound), True


def _dropping(known: bool, k: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without what comes after `k` arguments, if that is known."""
    if not known:
        return function

    def dropped(*args: Any, **kwargs: Any) -> Any:
        return function(*args[:k], **kwargs)

    return dropped


def _replay(
    p: Program, name: str, function: Callable[..., Any], argnums: tuple[int, ...] = (0,)
) -> Replay:
    """The program of a function made of p's, kept with p."""
    key = ("scipy", name)
    found = p._derived.get(key)
    if found is None:
        found = p._derived[key] = program._new_replay(function, p.function, argnums)
    return found


def _plain(p: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, without tensors in its result."""

    @functools.wraps(p, updated=())
    def value(*args: Any, **kwargs: Any) -> Any:
        return _numbers(p(*args, **kwargs))

    return value


def _value_and_grad(p: Program) -> Callable[..., tuple[Any, Any]]:
    def function(*args: Any) -> Any:
        return _noticed(p.function(*args))

    replay = _replay(p, "value_and_grad", transforms.value_and_grad(function))

    def both(x: Any, *args: Any) -> tuple[Any, Any]:
        value, gradient = replay(x, *args)
        return _numbers(value), _numbers(gradient)

    return both


class _Long(Exception):
    """Ends a recording of sweeps that are many or long."""


def _swept(
    function: Callable[..., Any], most: int | None = None
) -> Callable[..., tuple[Tensor, Any]]:
    """Value and Jacobian (the output's axes first) in the first argument, as tensors.

    With `most`, a trace in which there would be more sweeps or many nodes ends with `_Long`, which
    says whether the Jacobian is tall.

    The Jacobian is the only element of a tuple.  In a trace a tall one is made of forward sweeps,
    which `jacobian` leaves to the plain case, and a program gives its columns as rows of an array.
    """

    def both(x: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        with modes.enable_grad():
            inputs = transforms._Inputs("jacobian", (x,), (0,))
            (at,) = inputs.tensors
            y = _tensor(function(*inputs.args, *args, **kwargs))
            sweeps = min(at.size, y.size) if _core.is_tracing() and y.requires_grad else 0
            if most is not None and (sweeps > most or (
                    sweeps >= _FEW_COLUMNS and _core.traced_nodes() * sweeps > _MOST_NODES)):
                raise _Long(at.size <= y.size)
            if 0 < sweeps == at.size:
                dots = transforms._unit_sweeps(y, at, True)
                columns = [transforms._zeros(y) if d is None else d.detach() for d in dots]
                return y.detach(), _core.Rows(columns)
            (j,) = transforms._dense(y, inputs)
        return y.detach(), (j.detach(),)

    return both


def _matrix(j: Any, n: int) -> Any:
    """A Jacobian of two axes, with n columns, from what `_swept` gives or a program of it."""
    if type(j) is np.ndarray:
        return j.T if j.ndim == 2 else j.reshape(n, -1).T
    if len(j) == 1:
        return np.reshape(_numbers(j[0]), (-1, n))
    return np.array([_numbers(column) for column in j]).reshape(n, -1).T


def _value_and_jacobian(
    p: Program,
    name: str = "jacobian",
    function: Callable[..., Any] | None = None,
    most: int = _MOST_COLUMNS,
) -> Callable[..., tuple[Any, Any]]:
    """Value, and Jacobian of two axes in the first argument, of p or a function made of it."""
    target = p.function if function is None else function
    both = _swept(target)
    replay = _replay(p, name, _swept(target, most))

    def value_and_jacobian(x: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        n = x.size if type(x) is np.ndarray else np.size(x)
        if name not in p._long:
            try:
                y, j = replay(x, *args, **kwargs)
                return y if type(y) is np.ndarray else _numbers(y), _matrix(j, n)
            except _Long as long:
                (p._long[name],) = long.args
        if p._long[name] and not kwargs and type(x) is np.ndarray and x.dtype == np.float64:
            found = program.by_lanes(
                p, f"scipy {name}", lambda *own: _tensor(target(*own)), (x, *args)
            )
            if found is not NotImplemented:
                return found[0], found[1].reshape(n, -1).T
        at_length = _replay(p, f"{name} at length", both) if n <= most else both
        y, j = at_length(x, *args, **kwargs)
        return y if type(y) is np.ndarray else _numbers(y), _matrix(j, n)

    return value_and_jacobian


def _jacobian(p: Program, transposed: bool = False) -> Callable[..., Any]:
    both = _value_and_jacobian(p)

    def jacobian(x: Any, *args: Any) -> Any:
        j = both(x, *args)[1]
        return np.ascontiguousarray(j.T) if transposed else j

    return jacobian


def _second(
    p: Program, name: str = "hessian", function: Callable[..., Any] | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Dense Hessian ``h(x, *args)``, and Hessian times vector ``h(x, v, *args)``."""
    gradient = transforms.grad(p.function if function is None else function)
    both = _value_and_jacobian(p, name, gradient, _MOST_HESSIAN_COLUMNS)

    def hessian(x: Any, *args: Any) -> Any:
        return both(x, *args)[1]

    def push(x: Any, v: Any, *args: Any) -> Any:
        return transforms.jvp(lambda at: gradient(at, *args), (x,), (v,))[1]

    replay = _replay(p, f"{name} times vector", push, (0, 1))

    def product(x: Any, v: Any, *args: Any) -> Any:
        return _numbers(replay(x, v, *args))

    return hessian, product


# Minimization.

_FIRST_ORDER = {
    "cg", "bfgs", "newton-cg", "l-bfgs-b", "tnc", "slsqp", "dogleg", "trust-ncg", "trust-krylov",
    "trust-exact", "trust-constr",
}
_SECOND_ORDER = {
    "newton-cg", "dogleg", "trust-ncg", "trust-krylov", "trust-exact", "trust-constr",
}
_WITH_PRODUCTS = {"newton-cg", "trust-ncg", "trust-krylov", "trust-constr"}


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    method: str | Callable[..., Any] | None = None,
    *,
    jac: Any = None,
    hess: Any = None,
    hessp: Callable[..., Any] | None = None,
    bounds: Any = None,
    constraints: Any = (),
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Minimize a function of one or more variables with ``scipy.optimize.minimize``.

    Value and gradient come from one run.  Methods of second order get the Hessian, or products
    with it where they take these and there are more than 8 variables.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` gives one number, `x` of shape (n,).
    x0 : array_like, shape (n,)
    args : tuple
        More arguments of `fun` and its derivatives.
    method : str or callable, optional
        As in SciPy; methods without gradients run on the compiled function.
    jac, hess, hessp : optional
        As in SciPy, instead of the exact derivatives.
    bounds, tol, callback, options : optional
        As in SciPy.
    constraints : dict, Constraint, or a sequence of these
        Functions of constraints get exact Jacobians where `method` uses them, and for
        "trust-constr" exact Hessians, unless they come with a ``jac`` of their own; in a
        ``NonlinearConstraint`` SciPy's defaults "2-point" and ``BFGS()`` count as none.

    Returns
    -------
    scipy.optimize.OptimizeResult

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If `fun` gives more than one number, and as SciPy does.

    Examples
    --------
    >>> import fastad as ad
    >>> def rosenbrock(x):
    ...     return ((1.0 - x[:-1]) ** 2 + 100.0 * (x[1:] - x[:-1] ** 2) ** 2).sum()
    >>> found = ad.scipy.minimize(rosenbrock, [-1.2, 1.0, 0.5], method="trust-exact")
    >>> found.x.round(4)
    array([1., 1., 1.])
    """
    optimize = _scipy("optimize")
    x0 = _start(x0)
    name = _method(method, bounds, constraints)
    given: dict[str, Any] = {"jac": jac, "hess": hess, "hessp": hessp}
    target = fun
    if _real(x0):
        p, known = _bound(fun, args if isinstance(args, tuple) else (args,))
        if jac is None and (callable(method) or name in _FIRST_ORDER):
            target, given["jac"] = _dropping(known, 1, _value_and_grad(p)), True
        elif _computes(jac):
            target = _dropping(known, 1, _plain(p))
        if hess is None and hessp is None and jac is not True and name in _SECOND_ORDER:
            hessian, product = _second(p)
            if name in _WITH_PRODUCTS and np.size(x0) > _MOST_DENSE:
                given["hessp"] = _dropping(known, 2, product)
            else:
                given["hess"] = _dropping(known, 1, hessian)
        constraints = _constraints(optimize, constraints, name)
    return optimize.minimize(
        target, x0, args, method, **given, bounds=bounds, constraints=constraints, tol=tol,
        callback=callback, options=None if options is None else dict(options),
    )


def _real(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == np.float64


def _computes(jac: Any) -> bool:
    """Whether the solver wants values alone of real numbers."""
    return jac is None or jac is False or callable(jac) or jac in ("2-point", "3-point")


def _method(method: Any, bounds: Any, constraints: Any) -> str:
    """The lower-case name of the method that SciPy will use, or "" for the caller's own."""
    if isinstance(method, str):
        return method.lower()
    if method is not None:
        return ""
    if constraints:
        return "slsqp"
    return "bfgs" if bounds is None else "l-bfgs-b"


def _constraints(optimize: Any, constraints: Any, method: str) -> Any:
    """The same constraints with derivatives."""
    if constraints is None or method not in {"slsqp", "trust-constr"}:
        return constraints
    kinds = (dict, optimize.NonlinearConstraint, optimize.LinearConstraint)
    if isinstance(constraints, kinds):
        constraints = [constraints]
    new = []
    for c in constraints:
        if isinstance(c, dict):
            c = _old_constraint(optimize, c, method)
        elif isinstance(c, optimize.NonlinearConstraint):
            c = _new_constraint(optimize, c, method)
        new.append(c)
    return new


def _old_constraint(optimize: Any, c: dict[str, Any], method: str) -> Any:
    kind = c.get("type")
    if c.get("jac") is not None or not callable(c.get("fun")) or not isinstance(kind, str):
        return c
    args = tuple(c.get("args", ()))
    p, known = _bound(c["fun"], args)
    if method == "slsqp":
        jac = _dropping(known, 1, _jacobian(p))
        return {**c, "fun": _dropping(known, 1, _plain(p)), "jac": jac}
    if kind.lower() not in {"eq", "ineq"}:
        return c
    more = () if known else args
    return _nonlinear(optimize, p, more, 0.0, 0.0 if kind.lower() == "eq" else np.inf, {}, method)


def _new_constraint(optimize: Any, c: Any, method: str) -> Any:
    if c.jac != "2-point" or c.finite_diff_jac_sparsity is not None or not callable(c.fun):
        return c
    more = {
        "keep_feasible": c.keep_feasible,
        "finite_diff_rel_step": c.finite_diff_rel_step,
    }
    if type(c.hess) is not optimize.BFGS:
        more["hess"] = c.hess
    return _nonlinear(optimize, program.compile(c.fun), (), c.lb, c.ub, more, method)


def _nonlinear(
    optimize: Any, p: Program, args: tuple[Any, ...], lb: Any, ub: Any, more: dict[str, Any],
    method: str,
) -> Any:
    """A NonlinearConstraint whose Jacobian and, for "trust-constr", Hessian are exact."""
    value, jacobian = _plain(p), _jacobian(p)

    def weighted(x: Any, v: Any, *rest: Any) -> Any:
        return _core.sum(_core.reshape(_tensor(p.function(x, *rest)), (-1,)) * v)

    hessian, product = _second(p, "weighted hessian", weighted)

    def hess(x: Any, v: Any) -> Any:
        v = np.array(v, np.float64)
        if np.size(x) <= _MOST_HESSIAN_COLUMNS:
            return hessian(x, v, *args)
        at = np.array(x)
        operator = _scipy("sparse.linalg").LinearOperator
        return operator(
            (at.size, at.size), lambda d: product(at, np.ravel(d), v, *args), dtype=np.float64
        )

    if method == "trust-constr":
        more = {"hess": hess, **more}
    return optimize.NonlinearConstraint(
        lambda x: value(x, *args), lb, ub, jac=lambda x: jacobian(x, *args), **more
    )


# Equations and fits.


def least_squares(
    fun: Callable[..., Any],
    x0: Any,
    *,
    jac: Any = None,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Solve a nonlinear least-squares problem with ``scipy.optimize.least_squares``.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args, **kwargs)`` gives the residuals, shape (m,) or a list of numbers; `x` has
        shape (n,).
    x0 : array_like, shape (n,)
    jac : optional
        As in SciPy, instead of the exact Jacobian.
    args, kwargs : tuple, dict
        More arguments of `fun`.
    **options
        As in SciPy: ``bounds``, ``method``, ``loss``, ``x_scale`` and so on.  With
        ``jac_sparsity`` SciPy's sparse differences stay.

    Returns
    -------
    scipy.optimize.OptimizeResult

    Raises
    ------
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> t = np.linspace(0.0, 4.0, 50)
    >>> seen = 2.5 * np.exp(-1.3 * t)
    >>> def residuals(b):
    ...     return b[0] * np.exp(-b[1] * t) - seen
    >>> ad.scipy.least_squares(residuals, [1.0, 1.0]).x.round(6)
    array([2.5, 1.3])
    """
    optimize = _scipy("optimize")
    x0 = _start(x0)
    target, source = fun, jac
    if _real(x0):
        p, known = _bound(fun, args)
        if jac is None and options.get("jac_sparsity") is None:
            target, source = _once(_dropping(known, 1, _value_and_jacobian(p)))
        elif _computes(jac):
            target = _dropping(known, 1, _plain(p))
    named = {} if kwargs is None else dict(kwargs)
    source = "2-point" if source is None else source
    return optimize.least_squares(target, x0, jac=source, args=args, kwargs=named, **options)


def _once(both: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions for the two results, of one call for each point.

    A result is handed out once: solvers scale residuals and Jacobians in place.
    """
    point: Any = None
    jacobian: Any = None

    def first(x: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal point, jacobian
        y, jacobian = both(x, *args, **kwargs)
        point = x.tobytes()
        return y

    def second(x: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal jacobian
        found, jacobian = jacobian, None
        if found is None or x.tobytes() != point:
            found = both(x, *args, **kwargs)[1]
        return found

    return first, second


def root(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    method: str = "hybr",
    *,
    jac: Any = None,
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Find a root of a vector function with ``scipy.optimize.root``.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` gives n numbers, as an array or a list; `x` has shape (n,).
    x0 : array_like
    args : tuple
        More arguments of `fun`.
    method : str
        As in SciPy; "hybr" and "lm" use the exact Jacobian.
    jac : optional
        As in SciPy, instead of the exact Jacobian.
    tol, callback, options : optional
        As in SciPy.

    Returns
    -------
    scipy.optimize.OptimizeResult

    Raises
    ------
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import fastad as ad
    >>> def circle_and_line(x):
    ...     return [x[0] ** 2 + x[1] ** 2 - 2.0, x[0] - x[1]]
    >>> ad.scipy.root(circle_and_line, [2.0, 0.5]).x.round(6)
    array([1., 1.])
    """
    optimize = _scipy("optimize")
    x0 = _start(x0)
    options = None if options is None else dict(options)
    target, source = fun, jac
    if _real(x0):
        p, known = _bound(fun, args if isinstance(args, tuple) else (args,))
        if _computes(jac):
            target = _dropping(known, 1, _plain(p))
        if jac is None and isinstance(method, str) and method.lower() in {"hybr", "lm"}:
            source = _dropping(known, 1, _jacobian(p, bool((options or {}).get("col_deriv"))))
    return optimize.root(
        target, x0, args, method, jac=source, tol=tol, callback=callback, options=options
    )


def curve_fit(
    f: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    p0: Any = None,
    *,
    jac: Any = None,
    **options: Any,
) -> Any:
    """Fit a function to data with ``scipy.optimize.curve_fit``.

    Parameters
    ----------
    f : callable
        The model, ``f(xdata, *parameters)``, with one number for each parameter.
    xdata : array_like or object
        The independent variable; it is not differentiated.
    ydata : array_like, shape (m,)
    p0 : array_like, optional
        First guess of the parameters.
    jac : optional
        As in SciPy, instead of the exact Jacobian in the parameters.
    **options
        As in SciPy: ``sigma``, ``absolute_sigma``, ``bounds``, ``method``, ``full_output`` and so
        on.

    Returns
    -------
    popt, pcov : ndarray
        And more with ``full_output``.

    Raises
    ------
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> def decay(t, a, rate):
    ...     return a * np.exp(-rate * t)
    >>> t = np.linspace(0.0, 4.0, 50)
    >>> best, covariance = ad.scipy.curve_fit(decay, t, 2.5 * np.exp(-1.3 * t))
    >>> best.round(6)
    array([2.5, 1.3])
    """
    optimize = _scipy("optimize")
    p = program.compile(f)
    count = np.size(ydata)

    @functools.wraps(f, updated=())
    def model(b: Any, x: Any) -> Any:
        return p.function(x, *b)

    if p is f:
        value = _replay(p, "model", model, ())
        both = _value_and_jacobian(p, "model's jacobian", model)
    else:
        value, both = _of_data(model)

    @functools.wraps(f, updated=())
    def function(x: Any, *parameters: Any) -> Any:
        return _numbers(value(np.array(parameters, np.float64), x))

    def jacobian(x: Any, *parameters: Any) -> Any:
        y, j = both(np.array(parameters, np.float64), x)
        return j if np.ndim(y) else np.broadcast_to(j, (count, len(parameters)))

    if jac is None:
        jac = jacobian
    return optimize.curve_fit(function, xdata, ydata, p0, jac=jac, **options)


def _of_data(model: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Value, and value and Jacobian, of ``model(b, x)``; each x, always the same, has a program."""
    held: Any = None
    value: Any = None
    both: Any = None

    def hold(x: Any) -> None:
        nonlocal held, value, both
        if value is None or held is not x:
            held = x
            p = _bound(model, (x,))[0]
            value, both = p, _value_and_jacobian(p)

    def first(b: Any, x: Any) -> Any:
        hold(x)
        return value(b)

    def second(b: Any, x: Any) -> Any:
        hold(x)
        return both(b)

    return first, second


# Differential equations.

_IMPLICIT = {"Radau", "BDF", "LSODA"}


def solve_ivp(
    fun: Callable[..., Any],
    t_span: Any,
    y0: Any,
    *,
    method: Any = "RK45",
    args: Any = None,
    jac: Any = None,
    **options: Any,
) -> Any:
    """Solve an initial value problem with ``scipy.integrate.solve_ivp``.

    The implicit methods get the exact Jacobian of `fun` in `y`.

    Parameters
    ----------
    fun : callable
        ``fun(t, y, *args)`` gives dy/dt, shape (n,) or a list of numbers.
    t_span : two floats
    y0 : array_like, shape (n,)
    method : str or OdeSolver
        As in SciPy; "Radau", "BDF" and "LSODA" use the Jacobian.
    args : tuple, optional
        More arguments of `fun`.
    jac : optional
        As in SciPy, instead of the exact Jacobian.
    **options
        As in SciPy: ``t_eval``, ``events``, ``rtol`` and so on.  With ``jac_sparsity``, or
        ``lband`` and ``uband``, SciPy's differences stay.

    Returns
    -------
    object
        With ``t``, ``y``, ``sol`` and so on, as SciPy gives it.

    Raises
    ------
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import fastad as ad
    >>> def van_der_pol(t, y, mu):
    ...     return [y[1], mu * (1.0 - y[0] ** 2) * y[1] - y[0]]
    >>> run = ad.scipy.solve_ivp(van_der_pol, (0.0, 20.0), [2.0, 0.0], method="BDF", args=(10.0,))
    >>> run.success, run.njev > 0
    (True, True)
    """
    integrate = _scipy("integrate")
    y0 = _start(y0)
    target = fun
    if _real(y0):
        p, known = _bound(fun, args)

        def target(t: Any, y: Any, *rest: Any) -> Any:
            return _numbers(p(float(t), y) if known else p(float(t), y, *rest))

        if jac is None and _wants_jacobian(integrate, method, options):

            def swapped(y: Any, t: Any, *rest: Any) -> Any:
                return p.function(t, y, *rest)

            both = _value_and_jacobian(p, "jacobian in y", swapped)

            def jac(t: Any, y: Any, *rest: Any) -> Any:
                return (both(y, float(t)) if known else both(y, float(t), *rest))[1]

    if jac is not None:
        options["jac"] = jac
    return integrate.solve_ivp(target, t_span, y0, method=method, args=args, **options)


def _wants_jacobian(integrate: Any, method: Any, options: Mapping[str, Any]) -> bool:
    if any(options.get(name) is not None for name in ("jac_sparsity", "lband", "uband")):
        return False
    if isinstance(method, str):
        return method in _IMPLICIT
    solvers = (integrate.Radau, integrate.BDF, integrate.LSODA)
    return isinstance(method, type) and issubclass(method, solvers)
