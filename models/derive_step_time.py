"""Derivation of the step-time coefficients and of their derivatives, from the operator list.

    python models/derive_step_time.py

prints the formula. A dense transformer layer under tensor parallelism g has the operators below,
written with SymPy exactly as `bestserve.models.step.operators` computes them with numbers. From
them follow, without fitting,

    launches, w, c, e, a, k   of   t ≈ launches + [w³ + (cT)³]^(1/3) + eT + aA + kK

and ∂ln t/∂ln x for x = peak, bandwidth, link, launch of the exact operator sum. `tests/models/
test_derive_step_time.py` evaluates both and holds them to `closed_form.closed_form` and to
`derivatives.step_elasticities`.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

positive = {"positive": True}

# Hardware: peak [FLOP/s] of GEMMs and of attention, bandwidth and link [B/s], multiprocessors.
P, P_a, W, W_link, S = sp.symbols("P P_a W W_link S", **positive)
HARDWARE = (P, P_a, W, W_link, S)

# Model: layers, hidden, query heads, KV heads, head width, feed-forward width, vocabulary.
L, H, h, h_kv, d, f, V = sp.symbols("L H h h_kv d f V", **positive)
MODEL = (L, H, h, h_kv, d, f, V)

# Deployment: tensor parallelism, bytes per weight, activation, head weight and KV element.
g, b_w, b_x, b_v, b_kv = sp.symbols("g b_w b_x b_v b_kv", **positive)
DEPLOYMENT = (g, b_w, b_x, b_v, b_kv)

# Universal constants; launch scales every fixed time, so that it can be differentiated by.
e_c, e_v, e_m, t_g, A_g = sp.symbols("e_c e_v e_m t_g A_g", **positive)
e_a, t_a, s_0, A_a = sp.symbols("e_a t_a s_0 A_a", **positive)
e_d, t_d = sp.symbols("e_d t_d", **positive)
n_e, t_e, e_e, p_h, p_f = sp.symbols("n_e t_e e_e p_h p_f", **positive)
alpha, delta, e_l = sp.symbols("alpha delta e_l", **positive)
launch = sp.symbols("launch", **positive)
CONSTANTS = (
    *(e_c, e_v, e_m, t_g, A_g),
    *(e_a, t_a, s_0, A_a),
    *(e_d, t_d),
    *(n_e, t_e, e_e, p_h, p_f),
    *(alpha, delta, e_l),
    launch,
)

# Work of a step: tokens, prefill pairs, decode context, prompt tokens, sequences, longest chunk.
T, A, K, Q, N, q_max = sp.symbols("T A K Q N q_max", **positive)
WORK = (T, A, K, Q, N, q_max)
EXPONENT = 3


@dataclass(frozen=True)
class Kernel:
    """One operator: occurrences, fixed time, compute and memory under the norm, link time."""

    name: str
    count: sp.Expr
    fixed: sp.Expr
    compute: sp.Expr = sp.S.Zero
    memory: sp.Expr = sp.S.Zero
    link: sp.Expr = sp.S.Zero

    @property
    def time(self) -> sp.Expr:
        """Device time of one occurrence [s]."""
        return self.fixed + norm(self.compute, self.memory) + self.link


def norm(a: sp.Expr, b: sp.Expr) -> sp.Expr:
    if a == 0 or b == 0:
        return a + b
    return (a**EXPONENT + b**EXPONENT) ** sp.Rational(1, EXPONENT)


def gemm(
    name: str,
    count: sp.Expr,
    m: sp.Expr,
    n: sp.Expr,
    k: sp.Expr,
    efficiency: sp.Expr = e_c,
    peak: sp.Expr = P,
    weight: sp.Expr = b_w,
    activation: sp.Expr = b_x,
) -> Kernel:
    return Kernel(
        name,
        count,
        fixed=launch * t_g,
        compute=2 * k * (m * n + A_g * S) / (efficiency * peak),
        memory=(weight * n * k + m * (activation * k + 2 * n)) / (e_m * W),
    )


def all_reduce(name: str) -> Kernel:
    message = 2 * T * H
    return Kernel(
        name,
        L,
        fixed=launch * alpha * (1 + delta * (g - 2)),
        link=2 * (g - 1) / g * message / (e_l * W_link),
    )


def operators() -> tuple[Kernel, ...]:
    """The kernels of a step of a dense transformer over g > 1 GPUs, KV heads divided by g."""
    return (
        gemm("attention.qkv", L, T, (h + 2 * h_kv) * d / g, H),
        Kernel(
            "attention.prefill",
            L,
            fixed=launch * t_a,
            compute=2 * d * (h / g * (2 * A + s_0 * Q) + A_a * S * q_max) / (e_a * P_a),
        ),
        Kernel(
            "attention.decode",
            L,
            fixed=launch * t_d,
            memory=(b_kv * K * h_kv / g * 2 * d + 4 * N * h / g * d) / (e_d * W),
        ),
        gemm("attention.out", L, T, H, h * d / g),
        all_reduce("attention.all_reduce"),
        Kernel(
            "elementwise",
            L,
            fixed=launch * n_e * t_e,
            memory=2 * T * (p_h * H + p_f * f / g) / (e_e * W),
        ),
        gemm("ffn.gate_up", L, T, 2 * f / g, H),
        gemm("ffn.down", L, T, H, f / g),
        all_reduce("ffn.all_reduce"),
        gemm("lm_head", sp.S.One, N, V / g, H, e_v, P_a, b_v, sp.Integer(2)),
    )


def coefficients(prompt: sp.Symbol) -> dict[str, sp.Expr]:
    """Read the coefficients off the kernels, each affine in the work of the step.

    w : norm of what a GEMM needs at T = 0; c : slope of its compute; e : slope of everything
    that adds per token, prompt tokens' share of attention included for one prompt per step of
    `prompt` tokens; a, k : slopes by pairs and by context. Launches of a decode step add.
    """
    found = dict.fromkeys(("launches", "w", "c", "e", "a", "k"), sp.S.Zero)
    for kernel in operators():
        parts = kernel.compute, kernel.memory, kernel.link
        assert all(sp.diff(p, x, y) == 0 for p in parts for x in WORK for y in WORK), kernel.name
        if kernel.name == "attention.prefill":
            one = kernel.compute.subs({A: prompt**2 / 2, Q: prompt, q_max: prompt})
            linear, quadratic = sp.Poly(sp.expand(one), prompt).all_coeffs()[1::-1]
            found["e"] += kernel.count * linear
            found["a"] += kernel.count * 2 * quadratic
            continue
        found["launches"] += kernel.count * kernel.fixed
        if kernel.name == "attention.decode":
            found["k"] += kernel.count * sp.diff(kernel.memory, K)
        elif kernel.compute != 0:
            idle = {T: 0, N: 0}
            found["w"] += kernel.count * norm(kernel.compute.subs(idle), kernel.memory.subs(idle))
            found["c"] += kernel.count * sp.diff(kernel.compute, T)
        else:
            found["e"] += kernel.count * sp.diff(kernel.memory + kernel.link, T)
    return found


def step_time() -> sp.Expr:
    """The exact operator sum."""
    return sp.Add(*(kernel.count * kernel.time for kernel in operators()))


def elasticity(x: sp.Symbol) -> sp.Expr:
    """∂ln t/∂ln x of the operator sum, by differentiation."""
    t = step_time()
    return x * sp.diff(t, x) / t


def euler_shares() -> None:
    """Check the identity behind `Cost.shares`: the p-norm's elasticities are C^p and M^p shares."""
    C, M = sp.symbols("C M", **positive)
    time = norm(C, M)
    assert sp.simplify(C * sp.diff(time, C) - time * (C / time) ** EXPONENT) == 0
    assert sp.simplify(C * sp.diff(time, C) + M * sp.diff(time, M) - time) == 0


def main() -> None:
    euler_shares()
    prompt = sp.symbols("l", **positive)
    print("t = launches + [w^3 + (c T)^3]^(1/3) + e T + a A + k K, with")
    for name, expression in coefficients(prompt).items():
        print(f"\n{name} = {sp.factor_terms(expression) if name != 'w' else expression}")
    print("\nelasticities are shares: d ln t / d ln P = -(sum of compute shares) / t, and so on")


if __name__ == "__main__":
    main()
