"""A standalone script for one failing case, and what it says when it is run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pinproof_cell.call import ALWAYS, Call
from pinproof_cell.fuzz.groups import DEADLY, Signature
from pinproof_cell.fuzz.reproduce import dropout, inputs, reference
from pinproof_cell.fuzz.reproduce.inline import Inliner
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.inputs import generate

#: How often a kernel is called that does not say the same each time.
CALLS = 50
#: What CUDA says of a device that a kernel lost; a busy one, or a build for another, is not lost.
FATAL = (
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "address space",
    "program counter",
    "launch failure",
    "device-side assert",
)
#: How long the child of a script may take before that is a hang, in seconds.
PATIENCE = 120


@dataclass(frozen=True)
class Failure:
    """What a script is to show: who fails, where, and how.

    ``finding`` is the gravest, as `judge.findings.Finding` documents it.
    """

    candidate: str
    version: str | None
    device: str
    seed: int
    lse_on_empty_rows: float
    case: Case
    signature: Signature
    finding: Mapping[str, Any]


def script(failure: Failure) -> str:
    """Return the text of the script."""
    case, signature = failure.case, failure.signature
    deadly = signature.status in DEADLY
    parts = [
        f'"""{failure.candidate} {failure.version or ""}: {signature.status}, '
        f"{failure.finding['text']}\n\n"
        f"Case {case.id}, seed {failure.seed}; needs torch and the kernel, and nothing else.\n"
        'Exit status 1: the defect shows. 0: it does not. 2: the script itself failed.\n"""',
        "from __future__ import annotations",
        "\n".join(_imports(failure)),
        "\n".join(_child(signature)) if deadly else "",
        Inliner().definition("pinproof_cell.layout", "Layout") if case.layout != "dense" else "",
        "# The inputs.\n" + "\n".join(inputs.lines(case, failure.seed, failure.device)),
        "# The kernel, called as it was judged.\n" + _kernel(failure),
        "\n".join(_asked(failure)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _imports(failure: Failure) -> Iterator[str]:
    yield "import os"
    if failure.signature.status in DEADLY:
        yield "import subprocess"
    yield "import sys"
    if ".py:" not in failure.candidate:
        yield "from types import SimpleNamespace"
    yield ""
    # From here on: a torch that cannot be imported shows nothing either.
    lost = failure.signature.statistic == "device_lost"
    status = f"1 if any(x in str(error[1]) for x in {FATAL}) else 2" if lost else "2"
    yield f"sys.excepthook = lambda *error: (sys.__excepthook__(*error), os._exit({status}))"
    yield ""
    yield "import torch"


def _child(signature: Signature) -> Iterator[str]:
    """Yield lines that run the rest in a child, which the defect ends.

    A child that ends with 2 has failed otherwise, but where the kernel itself ends with a status.
    """
    failed = "" if signature.statistic == "exit" else "2 if status == 2 else "
    yield "if sys.argv[1:] != ['child']:"
    yield "    words = [sys.executable, __file__, 'child']"
    yield "    try:"
    yield f"        status = subprocess.run(words, timeout={PATIENCE}).returncode"
    yield "    except subprocess.TimeoutExpired:"
    yield "        status = 'no end'"
    yield "    print(f'the process ended with status {status}; a negative one is a signal')"
    yield f"    sys.exit({failed}int(status != 0))"


def _kernel(failure: Failure) -> str:
    """Return lines that define `forward`, and `backward` where gradients are asked."""
    case, keywords = failure.case, _keywords(failure.case)
    # Dropout is read with other queries and values.
    changed = "q=q, v=v" if case.dropout else ""
    if ".py:" in failure.candidate:
        file, _, name = failure.candidate.rpartition(":")
        path = Path(file).resolve()
        lines = [
            "import importlib.util",
            "",
            f"spec = importlib.util.spec_from_file_location('provider', {str(path)!r})",
            "module = importlib.util.module_from_spec(spec)",
            "sys.modules['provider'] = module",
            f"sys.path.append({str(path.parent)!r})",
            "spec.loader.exec_module(module)",
            f"kernel = module.{name}",
            f"arguments = dict({', '.join(f'{key}={value}' for key, value in keywords.items())})",
            *_function(f"forward({changed})", "kernel(q, k, v, **arguments)"),
        ]
        if case.backward:
            lines += _function(
                "backward(out, lse)", "kernel.backward(dout, q, k, v, out, lse, **arguments)"
            )
        return "\n".join(lines)
    methods = ("forward", "backward") if case.backward else ("forward",)
    source = _source(failure.candidate, methods)
    whole = changed or re.search(
        r"\breplace\(|\.(keywords|sequences)\(|^from pinproof", source, re.MULTILINE
    )
    kind = Inliner().definition("pinproof_cell.call", "Call") if whole else ""
    lines = [kind, "", source, "", *_call(case, "Call" if whole else "SimpleNamespace")]
    given = f"replace(call, {changed.replace('q=q', 'q=q')})" if changed else "call"
    lines += _function(f"forward({changed})", f"kernel.forward({given})")
    if case.backward:
        lines += _function("backward(out, lse)", "kernel.backward(dout, call, out, lse)")
    return "\n".join(lines)


def _function(head: str, result: str) -> list[str]:
    return ["", "", f"def {head}:", f"    return {result}"]


def _source(name: str, methods: tuple[str, ...]) -> str:
    """Return the candidate's own code, or an import of ours where it cannot be copied."""
    from pinproof_cell import candidates

    candidate = candidates.get(name)
    own = candidate.origin == "triton"
    try:
        text = "" if own else Inliner().candidate(candidate, methods)
    except LookupError:
        text = ""
    if text:
        return f"{text}\n\n\nkernel = Candidate()"
    return f"from pinproof_cell import candidates\n\nkernel = candidates.get({name!r})"


def _keywords(case: Case) -> dict[str, str]:
    """Return what the call takes beside q, k and v, each as an expression."""
    found = {
        "softmax_scale": repr(case.scale),
        "causal": repr(case.causal),
        "window_size": repr(case.window),
        "softcap": repr(case.softcap),
        "alibi_slopes": "slopes" if case.alibi else "None",
        "sinks": "sinks" if case.sinks else "None",
        "dropout": repr(case.dropout),
        "splits": repr(case.splits),
        "layout": "None" if case.layout == "dense" else "layout",
    }
    unused = {"None", "0", "0.0"}
    return {key: text for key, text in found.items() if key in ALWAYS or text not in unused}


def _call(case: Case, kind: str) -> Iterator[str]:
    """Yield lines that define `call`, all that a candidate reads of one."""
    given = _keywords(case)
    names = [field.name for field in fields(Call)[3:]]
    defaults = {"sinks": "None", "dropout": "0.0", "splits": "0", "layout": "None"}
    scale = case.head_dim**-0.5 if case.scale is None else case.scale
    left, right = case.window[0], 0 if case.causal else case.window[1]
    yield f"call = {kind}("
    yield "    q=q, k=k, v=v,"
    yield from (f"    {name}={given.get(name, defaults.get(name))}," for name in names)
    if kind != "Call":
        yield f"    scale={scale!r}, limits=({left}, {right}),"
    yield ")"


def _asked(failure: Failure) -> Iterator[str]:
    """Yield lines that call the kernel and end with the exit status."""
    case, signature = failure.case, failure.signature
    if signature.check == "call":
        yield from _raises(failure)
        return
    if signature.check == "contract":
        yield from _contract(case)
        return
    # Rows that a kernel forgets to write look right in fresh memory.
    yield "poison = q.new_full((2, *q.shape), torch.nan)"
    yield "del poison"
    seeded = f"torch.manual_seed({failure.seed})"
    yield seeded
    yield "out, lse = forward()"
    if case.backward and (signature.check == "gradient" or signature.status in DEADLY):
        yield f"{seeded}  # the mask of dropout is that of the forward"
        yield "dq, dk, dv = backward(out, lse)"
    if signature.status in DEADLY:
        yield "torch.cuda.synchronize()" if failure.device == "cuda" else ""
        yield "print('the call came back')"
        return
    if signature.check == "determinism":
        yield from _again(failure)
        return
    yield ""
    yield "# The same in float64."
    if case.dropout:
        yield from dropout.lines(case, failure.seed)
    yield from reference.attention(case)
    statistic = signature.statistic
    error = oracle.attention(generate(case, failure.seed, "cpu")).logit_error
    match signature.check:
        case "lse":
            empty = failure.lse_on_empty_rows
            yield from reference.log_sum_exp(case, statistic, error, empty)
        case "gradient":
            yield from reference.gradient(case, statistic, error)
        case "dropout":
            yield from dropout.strange(case, failure.seed, statistic)
        case _:
            yield from reference.output(case, statistic, error)
    limit = failure.finding.get("limit") or 0
    yield f"print(f'{statistic} is {{value:.4g}}, the limit is {limit:.4g}')"
    yield f"sys.exit(not value <= {limit!r})"


def _raises(failure: Failure) -> Iterator[str]:
    seeded = f"torch.manual_seed({failure.seed})"
    yield seeded
    yield "try:"
    yield "    out, lse = forward()"
    if failure.case.backward:
        yield f"    {seeded}"
        yield "    dq, dk, dv = backward(out, lse)"
    yield "except Exception as error:"
    yield "    print(f'{type(error).__name__}: {error}')"
    yield "    sys.exit(1)"
    yield "print('the call came back')"


def _contract(case: Case) -> Iterator[str]:
    """Yield lines that hold the answers against the contract, as `suite.guard` does."""
    total = "q.shape[:-3]" if case.layout == "dense" else "q.shape[:0]"
    yield "def held(call, given, *wanted):"
    yield "    before = [x.clone() for x in given]"
    yield "    answer = call()"
    yield "    if not isinstance(answer, (tuple, list)) or len(answer) != len(wanted):"
    yield "        sys.exit(f'the call does not return a tuple of {len(wanted)}')"
    yield "    inside = {x.untyped_storage().data_ptr() for x in given if x.numel()}"
    yield "    for x, (shape, dtype) in zip(answer, wanted):"
    yield "        if not isinstance(x, torch.Tensor):"
    yield "            sys.exit(f'{x!r} is no tensor')"
    yield "        if (tuple(x.shape), x.dtype, x.device) != (shape, dtype, q.device):"
    yield "            wrong.append(f'{tuple(x.shape)} {x.dtype} {x.device}, not {shape} {dtype}')"
    yield "        elif x.numel() and x.untyped_storage().data_ptr() in inside:"
    yield "            wrong.append('the answer lies in the memory of an input')"
    yield "    pairs = zip(given, before)"
    yield "    if not all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs):"
    yield "        wrong.append('the call changed its inputs')"
    yield "    return answer"
    yield ""
    yield ""
    yield "wrong = []"
    yield f"rows = (*{total}, q.shape[-2], q.shape[-3])"
    yield "wanted = ((*q.shape[:-1], v.shape[-1]), q.dtype), (rows, torch.float32)"
    yield "out, lse = held(forward, (q, k, v), *wanted)"
    if case.backward:
        yield "wanted = [(tuple(x.shape), x.dtype) for x in (q, k, v)]"
        yield "held(lambda: backward(out, lse), (q, k, v, out, lse, dout), *wanted)"
    yield "print('; '.join(wrong) or 'the answer is of the right kind')"
    yield "sys.exit(bool(wrong))"


def _again(failure: Failure) -> Iterator[str]:
    yield "other = 0"
    yield f"for _ in range({CALLS}):"
    yield f"    torch.manual_seed({failure.seed})"
    yield "    again = forward()"
    yield "    pairs = zip(again, (out, lse))"
    yield "    other += not all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs)"
    yield f"print(f'{{other}} of {CALLS} calls on the same inputs gave other numbers')"
    yield "sys.exit(other > 0)"


def name_of(candidate: str, signature: Signature, case: Case) -> str:
    """Return a file name for the script."""
    short = Path(candidate.rpartition(":")[0]).stem if ".py:" in candidate else candidate
    return re.sub(r"[^a-z0-9.]+", "-", f"{short}-{signature}-{case.id}".lower())[:120] + ".py"
