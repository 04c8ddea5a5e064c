"""Pictures of every primitive: the calls that other tests differentiate are drawn, first and second
derivatives, and what stands on the way back is what the sweep computes."""

import os
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytest.importorskip("mpmath")
pytest.importorskip("scipy")

import picture_cases  # noqa: E402
from test_draw import keep  # noqa: E402

import fastad as ad  # noqa: E402
from fastad import _core, formulas, labels, pictures, rules, transforms  # noqa: E402

# A second handle of a value, what recordings alone hold, and what only decides between others or
# stands in third derivatives.
HIDDEN = {"positive", "gather", "all_zero", "bird", "is_complex", "singular_axes",
          "special.sign_of_sum"}


def real_only(error):
    """Whether an error says that a function is not for these (complex) numbers."""
    return isinstance(error, TypeError) and re.search(
        "real numbers|not supported|not defined for complex|Cannot cast", str(error))


def second(f):
    """The gradients of a function's results, added up, as a function of its arguments."""
    def function(*args):
        def loss(*args):
            parts = [y for y in transforms._leaves(f(*args), [])
                     if isinstance(y, ad.Tensor) and y.requires_grad]
            return sum([ad.real(y * y).sum() if y.dtype.kind == "c" else (y * y).sum()
                        for y in parts])

        floats = [k for k, x in enumerate(args) if x.dtype.kind in "fc"]
        found = transforms.grad(loss, tuple(floats))(*args)
        return sum([ad.real(g).sum() for g in found if g.requires_grad] or [0.0 * args[floats[0]]])
    return function


def drawn(f, args, whole=True):
    """A picture, checked for all that may be wrong with its texts, and the primitives in it."""
    if not whole:       # a tensor, which is faster than a function whose calls are watched
        leaves = [ad.tensor(x, requires_grad=np.asarray(x).dtype.kind in "fc") for x in args]
        picture = ad.draw(f(*leaves), max_nodes=None)
        return picture, check_texts(picture)
    picture = ad.draw(f, *args, max_nodes=None)
    ElementTree.fromstring(picture.svg())
    assert picture.dot()
    try:
        assert picture.mermaid()
    except ValueError as error:
        assert "Mermaid renders at most" in str(error)      # noqa: PT017
    return picture, check_texts(picture)


ODD = r"<(class|func|prim|built|ufunc|fastad)| object at |[{}]|None\(|\0"


def check_texts(picture):
    for panel in picture.panels:
        for line in [line for v in panel.vertices for line in v.lines] + [
                e.label for e in panel.edges if e.label is not None]:
            # no object shows itself, no place of a template is left
            assert not re.search(ODD, line.text), line.text
            assert line.text.strip() and "\n" not in line.text
            assert len(line.text) < 250, line.text
            if line.tex is not None:
                assert line.tex.count("{") == line.tex.count("}"), line.tex
        for edge in panel.edges:
            assert panel.name == "forward" or edge.label.text.count("=") >= 1
    found = set()
    for vertex in picture.panels[0].vertices:
        if len(vertex.lines) > 1 and vertex.kind in ("operation", "output"):
            found.add(re.split(r", (?:float|complex|int|bool)", vertex.lines[1].text)[0])
    return found


def no_picture(error):
    """Whether an error says that there is no such derivative, or none of these numbers."""
    return real_only(error) or re.search(
        "does not depend on its|has no history|there is no derivative|derivative is not known",
        str(error))


@pytest.mark.filterwarnings("ignore")
def test_every_primitive_has_a_picture():
    calls = [(title, f, args, True) for title, f, args in (
        *picture_cases.first_order(), *picture_cases.second_order())]
    calls += [(f"gradient of {title}", second(f), args, False)
              for k, (title, f, args) in enumerate(picture_cases.second_order())
              if "fft" not in title or k % 10 == 0]
    met, none = set(), []
    with np.errstate(all="ignore"):
        for title, f, args, whole in calls:
            try:
                picture, found = drawn(f, args, whole)
                if found - met and "FASTAD_PICTURES" in os.environ:
                    keep(picture, f"primitives_{len(met)}")
                met |= found
            except (TypeError, ValueError, AssertionError) as error:
                if not no_picture(error):
                    raise AssertionError(title) from error
                none.append(title)
    assert len(none) < 0.1 * len(calls)
    own = {name for name in rules.PRIMITIVES if not name.startswith("special.")
           and rules.PRIMITIVES[name].forward.__module__.partition(".")[0] != "fastad"}
    missing = {name for name in ("matvec", "vecmat") if not hasattr(np, name)}
    if not hasattr(np.polynomial.polynomial, "polyvalnd"):
        missing.add("polyvalnd")
    assert {*rules.PRIMITIVES, *formulas.ROWS} - HIDDEN - own - missing - met == set()


# ---- numbers and formulas are what the sweep computes --------------------------------------------


def conjugated(what, how):
    return {"": what, "~": np.conj(what), "'": np.conj(what).T,
            "^": np.linalg.inv(np.conj(what).T) if how == "^" else None}[how]


def evaluated(template, operands, y, g):
    """The value of a template: factors side by side are multiplied, vectors being columns."""
    def column(x):
        return x.reshape(-1, 1) if np.ndim(x) == 1 else x

    def value(token):
        if token.count("/"):
            above, below = token.split("/")
            return value(above) / value(below)
        place = re.fullmatch(r"\{([0-9yG])([~'^]?)\}", token)
        if place:
            name, how = place.groups()
            x = {"y": y, "G": g}.get(name)
            return conjugated(column(operands[int(name)] if x is None else x), how)
        return {"G": column(g), "Gᵀ": column(g).T, "i": 1j, "I": np.eye(len(operands[0])),
                "Im(G)": np.imag(g)}[token]

    sign = -1.0 if template.startswith("-") else 1.0
    total, cross = None, False
    for token in template.removeprefix("-").split(" "):
        if token == "×":
            cross = True
        elif total is None:
            total = value(token)
        elif cross:
            total = np.cross(total, value(token), axis=0)
        else:
            x = value(token)
            total = total * x if np.size(total) == 1 or np.size(x) == 1 else total @ x
    return sign * total


REAL_ONLY = {"times_i", "astype"}
COMPLEX_ONLY = {"conjugate", "real", "imag"}
FORMULAS = {
    "inv": (np.linalg.inv, [(3, 3)]), "det": (np.linalg.det, [(3, 3)]),
    "solve": (np.linalg.solve, [(3, 3), (3, 2)]), "solve a vector": (np.linalg.solve, [(3, 3), 3]),
    "trace": (np.trace, [(3, 3)]), "prod": (np.prod, [4]), "norm": (np.linalg.norm, [4]),
    "transpose": (np.transpose, [(2, 3)]), "conjugate": (np.conj, [3]), "real": (np.real, [3]),
    "imag": (np.imag, [3]), "times_i": (None, [3]),
    "astype": (lambda x: x.astype(np.complex128), [3]),
    "vecdot": (np.linalg.vecdot, [3, 3]),
    "cross": (np.cross, [3, 3]), "inner": (np.inner, [(2, 3), (4, 3)]),
    "inner of vectors": (np.inner, [3, 3]),
    "matvec": (getattr(np, "matvec", None), [(2, 3), 3]),
    "vecmat": (getattr(np, "vecmat", None), [2, (2, 3)]),
    **{f"matmul {a} {b} {ta} {tb}": (
        lambda a, b, ta=ta, tb=tb: (a.T if ta else a) @ (b.T if tb else b),
        [a[::-1] if ta and len(a) > 1 else a, b[::-1] if tb and len(b) > 1 else b])
       for a, b in (((3, 4), (4, 2)), ((3, 4), (4,)), ((4,), (4, 2)), ((4,), (4,)))
       for ta in (False, True) for tb in (False, True)},
}


@pytest.mark.parametrize("kind", "fc")
@pytest.mark.parametrize("title", FORMULAS)
def test_formulas_of_structured_primitives_are_what_the_sweep_computes(title, kind):
    f, shapes = FORMULAS[title]
    if f is None or (title in REAL_ONLY and kind == "c") or (title in COMPLEX_ONLY and kind == "f"):
        pytest.skip("not for these numbers, or not of this NumPy")
    rng = np.random.default_rng(len(title))
    values = [rng.normal(size=s) + (1j * rng.normal(size=s) if kind == "c" else 0.0)
              for s in shapes]
    leaves = [ad.tensor(x, requires_grad=True) for x in values]
    y = f(*leaves)
    g = rng.normal(size=y.shape) + (1j * rng.normal(size=y.shape) if y.dtype.kind == "c" else 0.0)
    record = pictures._of_tensors([y], [], [])
    node = record.outputs[0]
    primitive = record.primitives[node]
    known_as = {"vecdot": "linalg.vecdot", "transpose": "view"}
    assert primitive == known_as.get(title, title.split()[0])
    params = record.nodes.calls[node][1]
    if primitive == "matmul":       # sweeps read transposed matrices, pictures of them say so
        params = [word == "True" for word in title.split()[-2:]]
    else:
        assert sorted(record.parents[node]) == sorted(record.inputs)
    y.backward(gradient=ad.tensor(g))
    parts = labels.Parts(["a", "b"][: len(values)], "y", [kind == "c"] * len(values),
                         y.dtype.kind == "c")
    for side, leaf in enumerate(leaves):
        template = labels.template(primitive, params, side, [x.shape for x in values])
        found = evaluated(template, values, y.detach().numpy(), g)
        to_real = y.dtype.kind == "c" and kind == "f"
        want = leaf.grad.numpy()
        np.testing.assert_allclose(
            np.reshape(np.real(found) if to_real else found, want.shape), want, rtol=1e-9,
            atol=1e-12)
        shown = labels.pulled_back(primitive, params, side, [x.shape for x in values], parts)[0]
        assert shown.startswith("Re(") == (to_real and primitive != "times_i")


def test_the_check_of_formulas_finds_a_forgotten_conjugate():
    rng = np.random.default_rng(0)
    a, g = [rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3)) for _ in range(2)]
    y = np.linalg.inv(a)
    right, wrong = [evaluated(t, [a], y, g) for t in ("-{y'} G {y'}", "-{y} G {y'}")]
    assert np.abs(right - wrong).max() > 0.1


def cases_of_numbers():
    for title, f, args in picture_cases.of_rows():
        yield title, f, [np.float64(x) if np.isrealobj(x) else np.complex128(x) for x in args]
    for title, f, args in picture_cases.of_special():
        if title not in ("logsumexp", "softmax", "log_softmax", "multigammaln"):
            yield title, f, [x.ravel()[-1] for x in args]


def test_numbers_on_the_arrows_are_what_the_sweep_multiplies_with():
    checked = complex_ones = 0
    for title, f, args in cases_of_numbers():
        leaves = [ad.tensor(x, requires_grad=np.asarray(x).dtype.kind in "fc") for x in args]
        y = f(*leaves)
        y = y[0] if isinstance(y, tuple) else y
        if not y.requires_grad or y.ndim:
            continue
        record = pictures._of_tensors([y], [], [])
        view = pictures._View(record, None, None, 6)
        node = record.outputs[0]
        row = view._row(node)
        parents = record.parents[node]
        if row is None or len(set(parents)) < len(parents):
            continue
        for side, p in enumerate(parents):
            if not record.active[p]:
                continue
            try:
                _, term = view._of_row(view.owner[p], view.owner[node], node, row, [side], True)
            except formulas.NoFormula:
                continue            # too long a formula, without a number
            want = record.gradient(p)
            assert term is not None, title
            np.testing.assert_allclose(term, want, rtol=1e-9, atol=1e-300, err_msg=title)
            checked += 1
            complex_ones += np.iscomplexobj(want)
    assert checked > 300 and complex_ones > 30


# ---- complex numbers -----------------------------------------------------------------------------


def backward(f, *args):
    return [e.label.text for e in ad.draw(f, *args).panels[1].edges]


@pytest.mark.parametrize("f, at, text", [
    (lambda z: z**2, 3 + 4j, "conj(∂y/∂z) = conj(2z) = 6-8i"),
    (lambda z: z * 2.0, 3 + 4j, "∂y/∂z = c = 2"),
    (lambda z: z * 2j, 3 + 4j, "conj(∂y/∂z) = conj(c) = 0-2i"),
    (lambda z: ad.abs(z), 3 + 4j, "∂y/∂z = z/|z| = 0.6+0.8i"),
    (lambda z: ad.abs(z), 0j, "∂y/∂z = z/|z| = 0+0i"),
    (lambda z: ad.conj(z), 3 + 4j, "∂Re y/∂z = conj(G)"),
    (lambda z: ad.imag(z), 3 + 4j, "∂y/∂z = i G"),
    (lambda z: ad.sign(z), 3 + 4j, "∂Re y/∂z = the part of G across z, by |z|"),
    (lambda z: np.sinc(z), 0.5 + 0.5j, "conj(∂y/∂z) = conj(sinc_derivative(1, z))"),
    (lambda z: ad.exp(z), np.complex64(1j), "conj(∂y/∂z) = conj(exp(z)) = 0.5403-0.8415i"),
])
def test_complex_arrows_carry_the_conjugate_that_the_sweep_multiplies_with(f, at, text):
    (found,) = backward(f, at)
    assert found.startswith(text)


def test_complex_contributions_add_up_in_the_boxes():
    picture = ad.draw(lambda z: ad.real(z**2 + z * 1j), 1 + 2j)
    lines = {v.lines[0].text.partition(" ")[0]: v.lines[1].text for v in picture.panels[1].vertices}
    assert lines["z"] == "∂y/∂z = (2-4i) + (0-1i) = 2-5i"
    want = ad.grad(lambda z: ad.real(z**2 + z * 1j))(1 + 2j)
    assert want == 2 - 5j


def test_the_gradient_of_a_complex_result_is_that_of_its_real_part():
    picture = ad.draw(lambda z: z**2, 1 + 2j)
    assert picture.panels[1].title == "backward: the gradient of Re y"
    assert any(line.text == "∂Re y/∂z = 2-4i"
               for v in picture.panels[1].vertices for line in v.lines)
    assert ad.grad(lambda z: ad.real(z**2))(1 + 2j) == 2 - 4j
    of_many = ad.draw(lambda z: z**2, np.array([1 + 2j, 1j]))
    assert of_many.panels[1].title == "backward: the gradient of ΣRe y"


def test_what_a_real_operand_gets_of_complex_numbers_is_called_the_real_part():
    assert "∂Re y/∂x = Re(G)" in backward(lambda x: (x.astype(complex) * 1j), 2.0)
    found = backward(lambda x: ad.special.hankel1(1.0, x), 2.0)
    assert found[0].startswith("conj(∂y/∂x) = conj(") and found[0].endswith(", real part")


# ---- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("f, args, forward, way_back", [
    (lambda x: np.fft.ifft(x), [np.ones(4)], "ifft(x)", "the adjoint transform of G"),
    (lambda x: np.median(x, axis=0, keepdims=True), [np.arange(3.0)],
     "median(x, axis=0, keepdims=True)", "G through median"),
    (lambda x: np.add.reduceat(x, [0, 2]), [np.arange(3.0)], "add.reduceat(x, [0, 2])",
     "G through add.reduceat"),
    (lambda a, b: np.linalg.solve(a, b), [2.0 * np.eye(2), np.ones(2)], "a⁻¹ @ b",
     "-a⁻ᵀ G yᵀ"),
    (lambda x: ad.special.polygamma(1, x), [2.0], "polygamma(1, x) = 0.6449",
     "polygamma(2, x) = -0.4041"),
    (lambda x: ad.special.gamma(x), [3.0], "gamma(x) = 2", "y·digamma(x) = 1.846"),
    (lambda x: ad.special.betainc(2.0, 3.0, x), [0.5], "betainc(2, 3, x) = 0.6875",
     "beta_pdf(0, 0, 2, 3, x) = 1.5"),
])
def test_formulas_and_words_of_newer_primitives(f, args, forward, way_back):
    picture = ad.draw(f, *args)
    assert any(v.lines[0].text.endswith(f"= {forward}") for v in picture.panels[0].vertices)
    assert any(e.label.text.endswith(f"= {way_back}") for e in picture.panels[1].edges)


def test_assignments_say_what_stands_where():
    def f(x):
        y = x * 1.0
        y[1] = x[0] * 2.0
        y[[0, 2]] = x[:2]
        np.add.at(y, [0, 0], x[:2])
        return y.sum()

    picture = ad.draw(f, np.arange(3.0))
    titles = " ".join([v.lines[0].text for v in picture.panels[0].vertices])
    assert " at [1]" in titles and " at [array]" in titles and " added at [array]" in titles
    found = " ".join([e.label.text for e in picture.panels[1].edges])
    assert "G, 0 where it is replaced" in found and "G there" in found


def test_calls_of_programs_have_the_name_of_the_function():
    def model(x):
        return sum([ad.sin(x * k).sum() for k in range(120)])

    program = ad.compile(model)
    x = ad.tensor(np.ones(3), requires_grad=True)
    program(x)
    y = program(x)
    (edge,) = ad.draw(y).panels[1].edges
    assert edge.label.text == "∂y/∂x = G through model"


def test_partials_in_recorded_gradients_have_their_formulas():
    program = ad.compile(lambda x: ad.maximum(x * x, x))
    text = str(ad.draw(program.grad, 0.5, which="forward").panels[0])
    assert " if " in text and "_core" not in text
    assert _core.table()
