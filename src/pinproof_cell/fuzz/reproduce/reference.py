"""The lines of a script that compute attention in float64, and by how much an answer is wrong.

What the script prints is the statistic that the judge rejected, by the formulas of
`pinproof_cell.judge` and `pinproof_cell.oracle`, written out for what the case uses.
"""

from __future__ import annotations

from collections.abc import Iterator

from pinproof_cell.judge.forward import ROUNDOFF, TAIL, TINY, factor_error
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.inputs import DTYPES

#: Statistic of z -> how a script computes it; a row is one query, or one key, of one head.
OF_Z = {
    "max_z": "z.abs().max()",
    "row_rms": "z.square().mean(-1).max().sqrt()",
    "rms": "z[seen].square().mean().sqrt()",
    "bias": "(z[seen] * ref[seen].sign()).mean().abs()",
    "beta": "((found - ref) * ref).sum().abs() / ref.square().sum() / u",
}


def attention(case: Case) -> Iterator[str]:
    """Yield lines that define `parts`: P, V, the log-sum-exp and the logits of each sequence."""
    group = case.heads // case.heads_k
    more = ", slopes" * case.alibi + ", keep" * bool(case.dropout)
    yield f"def attend(q, k, v{more}):"
    yield "    q, k, v = (x.double().transpose(0, 1) for x in (q, k, v))"
    if group > 1:
        yield f"    k, v = (x.repeat_interleave({group}, 0) for x in (k, v))"
    scale = case.head_dim**-0.5 if case.scale is None else case.scale
    yield f"    s = q @ k.transpose(1, 2) * {scale!r}"
    if case.softcap:
        yield f"    s = {case.softcap} * torch.tanh(s / {case.softcap})"
    if case.alibi or case.causal or case.window != (-1, -1):
        yield "    (queries, keys), here = s.shape[1:], s.device"
        yield "    own = torch.arange(queries, device=here)[:, None] + keys - queries"
        yield "    ahead = torch.arange(keys, device=here) - own"
    if case.alibi:
        yield "    s = s - slopes.double()[:, None, None] * ahead.abs()"
    left, right = case.window[0], 0 if case.causal else case.window[1]
    if right >= 0:
        yield f"    s = s.masked_fill(ahead > {right}, -torch.inf)"
    if left >= 0:
        yield f"    s = s.masked_fill(ahead < {-left}, -torch.inf)"
    yield "    lse = torch.logsumexp(torch.nn.functional.pad(s, (0, 1), value=-torch.inf), -1)"
    if case.sinks:
        yield "    lse = torch.logaddexp(lse, sinks.double()[:, None].expand_as(lse))"
    yield "    p = torch.exp(s - lse.masked_fill(lse.isinf(), 0.0)[..., None])"
    if case.dropout:
        yield f"    p = p * keep / {1 - case.dropout!r}"
    yield "    return p, v, lse, s"
    yield ""
    yield ""
    given = ["*one"]
    zipped = ["sequences"]
    if case.alibi:
        given, zipped = [*given, "of_one"], [*zipped, "slopes"]
    if case.dropout:
        given, zipped = [*given, "keep"], [*zipped, "kept"]
    names = ", ".join(("one", *given[1:]))
    over = zipped[0] if len(zipped) == 1 else f"zip({', '.join(zipped)})"
    yield f"parts = [attend({', '.join(given)}) for {names} in {over}]"


def _rows(expression: str) -> str:
    """Return an expression over all rows, (total_q, heads, headdim), of one over each part."""
    return f"torch.cat([({expression}).transpose(0, 1) for p, v, lse, s in parts])"


def output(case: Case, statistic: str, error: float) -> Iterator[str]:
    """Yield lines that set `value` to a statistic of the output.

    `error` is how far off the logits of a right kernel are, as `oracle.rounding` says.
    """
    dtype = DTYPES[case.dtype]
    yield f"ref = {_rows('p @ v')}"
    yield "found = out.double().reshape(ref.shape)"
    if statistic == "non_finite":
        yield "value = int((found.isfinite() != ref.isfinite()).sum())"
        return
    yield f"u, seen = {ROUNDOFF[dtype]!r}, {_rows('s.isfinite().any(-1)')}"
    yield "# What a correct kernel rounds: P, the output, and float32 sums."
    roundings = "2 * " * bool(case.dropout)
    yield f"var = u * u / 3 * ({roundings}{_rows('p**2 @ v**2')} + ref**2)"
    floor = 8 + max(keys for _, keys in case.sequences) / 128 + error
    yield f"var += ({floor:.6g} * 2.0**-24 * {_rows('p @ v.abs()')}) ** 2"
    if case.dropout:
        yield f"var += ({factor_error(case.dropout, dtype)!r} * ref) ** 2  # 1 / (1 - probability)"
    yield "# And where the range of P ends: below 2^-14 in fp16, else at 2^-126."
    yield f"var += {TAIL[dtype]!r} * {_tail(case)}"
    yield f"z = (found - ref).nan_to_num() / (var + {TINY[dtype]!r} ** 2).sqrt()"
    yield f"value = float({OF_Z[statistic]})"


def _tail(case: Case) -> str:
    """Return the expression of `oracle.forward.Truth.tail` over all rows."""
    # The largest logit of a row, or its sink, is what P is taken relative to.
    top = "torch.nn.functional.pad(s, (0, 1), value=-torch.inf).amax(-1)"
    if case.sinks:
        top = f"torch.maximum({top}, sinks.double()[:, None])"
    spread = f"torch.exp(2 * ({top} - lse))[..., None].nan_to_num(0.0)"
    if not case.dropout:
        return _rows(f"{spread} * (s.isfinite().double() @ v**2)")
    pairs = f"((keep & s.isfinite()).double() * {_ends(case)})"
    each = f"({spread} * ({pairs} @ v**2)).transpose(0, 1)"
    return f"torch.cat([{each} for (p, v, lse, s), keep in zip(parts, kept)])"


def _ends(case: Case) -> str:
    """Return `oracle.forward.ends_of_p` of a key that dropout leaves in."""
    return f"(1 / {1 - case.dropout!r} ** 2 + 1)"


def log_sum_exp(case: Case, statistic: str, error: float, empty: float) -> Iterator[str]:
    """Yield lines that set `value` to what is wrong with the log-sum-exp."""
    yield "ref = torch.cat([lse for _, _, lse, _ in parts], 1)"
    yield "seen = torch.cat([s.isfinite().any(-1) for _, _, _, s in parts], 1)"
    rows = "lse.transpose(0, 1).flatten(1)" if case.layout == "dense" else "lse"
    yield f"found = {rows}.double()"
    match statistic:
        case "lse_on_empty_rows":
            yield f"value = int((found[~seen] != {_number(empty)}).sum())"
        case "non_finite":
            yield "value = int((~found[seen].isfinite()).sum())"
        case _:
            yield f"limit = 1e-4 + 1e-5 * ref.abs() + {error:.6g} * 2.0**-22"
            yield "share = (found - ref).abs() / limit"
            yield "value = float(share[seen & found.isfinite()].max())"


def _number(value: float) -> str:
    return f'float("{value}")' if value in (float("inf"), float("-inf")) else repr(value)


def gradient(case: Case, statistic: str, error: float) -> Iterator[str]:
    """Yield lines that set `value` to a statistic of one gradient, such as dk_max_z."""
    name, _, what = statistic.partition("_")
    dtype = DTYPES[case.dtype]
    yield from _differentiate(case, name)
    count = [queries for queries, _ in case.sequences]
    rows = "dout" if case.layout == "dense" else f"dout.split({count})"
    yield "pieces = ["
    if case.dropout:
        yield "    differentiate(q, k, p, v, s, rows, lse, keep)"
        yield "    for (q, k, _), (p, v, lse, s), rows, keep"
        yield f"    in zip(sequences, parts, {rows}, kept)"
    else:
        yield "    differentiate(q, k, p, v, s, rows)"
        yield f"    for (q, k, _), (p, v, _, s), rows in zip(sequences, parts, {rows})"
    yield "]"
    yield "ref, spread, size, tail = (torch.cat(columns) for columns in zip(*pieces))"
    yield f"found = {name}.double().reshape(ref.shape)"
    if what == "non_finite":
        yield "value = int((found.isfinite() != ref.isfinite()).sum())"
        return
    floor = 8 + max(max(pair) for pair in case.sequences) / 128 + error
    yield f"u, seen = {ROUNDOFF[dtype]!r}, tail.sum(-1) > 0"
    yield f"var = u * u / 3 * (spread + ref**2) + ({floor:.6g} * 2.0**-24 * size) ** 2"
    yield f"var += {TAIL[dtype]!r} * tail + {TINY[dtype]!r} ** 2"
    yield "z = (found - ref).nan_to_num() / var.sqrt()"
    yield f"value = float({OF_Z[what]})"


def _differentiate(case: Case, name: str) -> Iterator[str]:
    """Yield a function that returns gradient `name`, its spread, size and tail of one sequence."""
    group = case.heads // case.heads_k
    scale = case.head_dim**-0.5 if case.scale is None else case.scale
    dropped = ", lse, keep" * bool(case.dropout)
    yield f"def differentiate(q, k, p, v, s, dout{dropped}):"
    yield "    q, k, dout = (x.double().transpose(0, 1) for x in (q, k, dout))"
    if group > 1:
        yield f"    k = k.repeat_interleave({group}, 0)"
    yield "    seen, bend, back = s.isfinite().double(), 1.0, (1, 2)"
    yield "    o, whole, tail = (p @ v) * dout, p, seen"
    yield "    dp, delta = dout @ v.transpose(*back), o.sum(-1, keepdim=True)"
    ends = f" * keep * {_ends(case)}" if case.dropout else ""
    yield f"    lost = (dout**2).sum(-1, keepdim=True) + (seen{ends} * dp**2).sum(-1, keepdim=True)"
    yield "    sums = dout.abs() @ v.abs().transpose(*back)"
    if case.dropout:
        left = 1 - case.dropout
        yield "    whole = torch.exp(s - lse.masked_fill(lse.isinf(), 0.0)[..., None])"
        yield f"    dp, sums = dp * keep / {left!r}, sums * keep / {left!r}"
        yield f"    tail = seen{ends}" if name == "dv" else f"    tail = seen / {left!r} ** 2"
    roundings = "2 * " * bool(case.dropout)
    yield "    noise = (o**2).sum(-1, keepdim=True)"
    yield f"    noise += {roundings}((whole * dp) ** 2).sum(-1, keepdim=True)"
    yield "    bulk = whole * (sums + o.abs().sum(-1, keepdim=True))"
    if case.softcap:
        bent = f"torch.tanh(q @ k.transpose(*back) * {scale!r} / {case.softcap})"
        yield f"    bend = 1 - {bent} ** 2"
    yield "    whole, off = whole * bend, dp - delta"
    yield "    ds = whole * off"
    if name != "dv":
        yield f"    tail = tail * (1 + {scale!r} ** 2) + seen * ({scale!r} * bend * off) ** 2"
    for word, column in zip(
        ("value", "spread", "size", "tail"), _columns(scale)[name], strict=True
    ):
        yield f"    {word} = {column}"
    if group > 1:
        yield "    spread = spread + value**2  # each head's share may be rounded" * (name != "dq")
    yield "    terms = [value, spread, size, tail]"
    if group > 1 and name != "dq":
        yield f"    terms = [x.unflatten(0, (-1, {group})).sum(1) for x in terms]"
    yield "    return [x.transpose(0, 1) for x in terms]"
    yield ""
    yield ""


def _columns(scale: float) -> dict[str, tuple[str, str, str, str]]:
    """Return value, spread, size and tail of each gradient, as `oracle.backward` has them."""
    return {
        "dq": (
            f"{scale!r} * (ds @ k)",
            f"{scale!r} ** 2 * (ds**2 @ k**2 + noise * (whole @ k) ** 2)",
            f"{scale!r} * (bulk @ k.abs())",
            f"tail @ k**2 + {scale!r} ** 2 * lost * (whole @ k) ** 2",
        ),
        "dk": (
            f"{scale!r} * (ds.transpose(*back) @ q)",
            f"{scale!r} ** 2 * ((ds**2).transpose(*back) @ q**2"
            " + (whole**2).transpose(*back) @ (noise * q**2))",
            f"{scale!r} * (bulk.transpose(*back) @ q.abs())",
            "tail.transpose(*back) @ q**2"
            f" + {scale!r} ** 2 * ((whole**2).transpose(*back) @ (lost * q**2))",
        ),
        "dv": (
            "p.transpose(*back) @ dout",
            "(p**2).transpose(*back) @ dout**2",
            "p.transpose(*back) @ dout.abs()",
            "tail.transpose(*back) @ dout**2",
        ),
    }
