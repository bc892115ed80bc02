"""The lines of a script that read which keys dropout left in, as `suite.dropout` reads them."""

from __future__ import annotations

from collections.abc import Iterator

from pinproof_cell.suite.cases import Case


def lines(case: Case, seed: int) -> Iterator[str]:
    """Yield lines that define `kept`: (heads, queries, keys) of each sequence."""
    longest, dim = max(keys for _, keys in case.sequences), case.dim_v
    yield "# With q = 0 all keys weigh the same, and V of ones and zeros shows which are left in."
    yield "def kept_under(seed):"
    yield "    columns = []"
    yield f"    for first in range(0, {longest}, {dim}):"
    yield "        ones = torch.zeros_like(v)"
    each = (
        "ones"
        if case.layout == "dense"
        else "torch.tensor_split(ones, layout.starts_k[1:-1].tolist())"
    )
    yield f"        for one in {each}:"
    yield f"            some = one[first : first + {dim}]"
    yield f"            some.copy_(torch.eye({dim}).to(v)[: len(some), None].expand_as(some))"
    yield "        torch.manual_seed(seed)"
    yield "        shown, _ = forward(q=torch.zeros_like(q), v=ones)"
    yield "        columns.append(shown.transpose(-2, -3) != 0)"
    if case.layout == "dense":
        yield f"    return torch.cat(columns, -1)[..., :{longest}]"
    else:
        lengths = [keys for _, keys in case.sequences]
        yield f"    rows = torch.cat(columns, -1).split({[q for q, _ in case.sequences]}, 1)"
        yield f"    return [x[..., :keys] for x, keys in zip(rows, {lengths})]"
    yield ""
    yield ""
    yield f"kept = kept_under({seed})"


def strange(case: Case, seed: int, statistic: str) -> Iterator[str]:
    """Yield lines that set `value` to what is strange about the mask."""
    match statistic:
        case "dropout_share":
            yield "seen = [s.isfinite() for *_, s in parts]"
            yield "left = sum(int((one & some).sum()) for one, some in zip(kept, seen))"
            yield f"value = abs(left / sum(int(some.sum()) for some in seen) - {1 - case.dropout})"
        case "dropout_seed":
            yield f"again = kept_under({seed + 1})"
            yield "value = int(all(torch.equal(x, y) for x, y in zip(kept, again)))"
        case _:
            yield "heads = torch.stack(list(kept)).flatten(0, 1)"
            yield "value = int((heads == heads[:1]).all())"
