"""The language of conditions, and its three values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.errors import ConfigurationError
from pinproof.matrix import expression, facts
from pinproof.matrix.facts import Facts

FACTS = facts.shipped()
WORDS = facts.words("target", "driver")


def evaluate(text: str, known: Facts = FACTS, **axes: str) -> bool | None:
    target = axes.pop("target", "sm_120")
    look = known.look(
        {name.replace("_", "-"): value for name, value in axes.items()}, {"target": target}
    )
    return expression.parse(text, WORDS).evaluate(look)


@pytest.mark.parametrize(
    ("text", "axes", "result"),
    [
        # versions, not strings
        ('torch < "2.9"', {"torch": "2.10.0"}, False),
        ('torch == "2.13"', {"torch": "2.13.0"}, True),
        ('torch == "2.11.0"', {"torch": "2.11.0+cu130"}, True),
        ('"2.9" <= torch < "2.11"', {"torch": "2.10.0"}, True),
        ('torch in ["2.8.0", "2.10"]', {"torch": "2.10.0"}, True),
        ('torch not in ["2.8.0", "2.10"]', {"torch": "2.10.0"}, False),
        ('torch >= "2.16"', {"torch": "2.16.0.dev20261101"}, False),
        # words
        ('vllm == "none"', {"torch": "2.10.0"}, True),
        ('vllm != "none"', {"vllm": "git:main"}, True),
        ('torch == "nightly"', {"torch": "nightly-3"}, False),
        ('torch.kind == "nightly"', {"torch": "nightly-3"}, True),
        ('torch != "2.13.0"', {"torch": "nightly"}, True),
        ('target == "sm_120"', {}, True),
        ('target in ["cpu", "sm_90"]', {}, False),
        # facts
        ("vllm.torch != torch", {"torch": "2.11.0", "vllm": "0.24.0"}, False),
        ("vllm.cuda_major == 13", {"vllm": "0.24.0"}, True),
        ("cuda.major != torch.cuda.major", {"cuda": "12.8", "torch": "2.11.0"}, True),
        ("cuda.minor == 8", {"cuda": "12.8"}, True),
        ("target in torch.archs", {"torch": "2.8.0"}, True),
        ("target not in torch.archs", {"torch": "2.6.0"}, True),
        # a bundled triton is the one that torch brings
        ('triton < "3.7"', {"torch": "2.11.0", "triton": "bundled"}, True),
        ('triton == "bundled"', {"torch": "2.11.0"}, True),
        # and, or, not
        ('torch == "2.8.0" and not target == "cpu"', {"torch": "2.8.0"}, True),
        ('torch == "2.9.1" or target == "sm_120"', {"torch": "2.8.0"}, True),
        ('(torch == "2.8.0" or target == "cpu")\n  and vllm == "none"', {"torch": "2.8.0"}, True),
    ],
)
def test_a_condition_on_what_is_known_is_true_or_false(
    text: str, axes: dict[str, str], result: bool
) -> None:
    assert evaluate(text, **axes) is result


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ('torch < "2.7"', {"torch": "nightly"}),
        ('vllm < "0.28"', {"vllm": "none"}),
        ('vllm < "0.28"', {"vllm": "git:main"}),
        ('torch == "2.13.0"', {"torch": "installed"}),
        ('torch == "2.13.0"', {"torch": ">=2.13"}),
        ('triton == "3.6.0"', {"torch": "nightly"}),
        ("torch.cuda.major == 13", {"torch": "2.99.0"}),
        ("target not in torch.archs", {"torch": "2.13.0"}),
        ('driver < "570"', {}),
        ('not driver < "570"', {}),
        ('driver < "570" and target == "sm_120"', {}),
        ('driver < "570" or target == "cpu"', {}),
        ('"500" < driver < "570"', {}),
    ],
)
def test_a_condition_on_what_nobody_knows_is_unknown(text: str, axes: dict[str, str]) -> None:
    assert evaluate(text, **axes) is None


@pytest.mark.parametrize(
    ("text", "result"),
    [('driver < "570" and target == "cpu"', False), ('driver < "570" or target == "sm_120"', True)],
)
def test_an_unknown_part_does_not_matter_where_the_other_part_decides(
    text: str, result: bool
) -> None:
    assert evaluate(text) is result


def test_an_expression_says_which_names_it_reads() -> None:
    names = expression.parse('vllm.torch != torch and target == "cpu"', WORDS).names
    assert names == {"vllm", "torch", "target"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an expression"),
        ("torch ==", "is not an expression"),
        ("torch = '2.8'", "is not an expression"),
        ("torch", "is not a condition"),
        ("True", "is not a condition"),
        ("lambda: torch == '2.8'", "is not a condition"),
        ("torch == '2.8' if target == 'cpu' else vllm == 'none'", "is not a condition"),
        ("__import__('os').system('id') == 0", "is not a name, a string or a number"),
        ("torch.__class__ == '2.8'", "torch has no attribute '__class__'"),
        ("torch.archs.major == 1", "is a list and has no major"),
        ("torch[0] == '2'", "is not a name, a string or a number"),
        ("torch + vllm == '2'", "is not a name, a string or a number"),
        ("f'{torch}' == '2'", "is not a name, a string or a number"),
        ("torch is '2.8'", "write == or !="),
        ("torhc == '2.8'", "unknown name 'torhc'. Did you mean 'torch'?"),
        ("vllm.torhc == torch", "Did you mean 'torch'?"),
        ("target.kind == 'version'", "target has no attribute 'kind'"),
        ("torch.kind == 'nigthly'", "Did you mean 'nightly'?"),
        ("torch == '2.13.O'", "'2.13.O' is not a version"),
        ("torch in ['2.13.0', 'nihgtly']", "Did you mean 'nightly'?"),
        ("torch < 'none'", "is not a version, so it has no order"),
        ("torch == 2.10", "put 2.1 between quotes"),
        ("torch == None", "is not a string or a whole number"),
        ("torch in '2.8'", "a list goes to the right of 'in'"),
        ("torch in torch.cuda", "a list goes to the right of 'in'"),
        ("torch.archs == 'sm_120'", "a list goes to the right of 'in'"),
        ("torch == ['2.8']", "a list goes to the right of 'in'"),
        ("not " * 100 + "torch == '2.8'", "nested too deeply"),
        ("(" * 500 + "torch == '2.8'" + ")" * 500, "is not an expression"),
        ("torch == '2.8'" + " " * 3000, "too long"),
        ("torch == '2.8'\0", "is not an expression"),
    ],
)  # fmt: skip
def test_what_is_outside_the_language_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        expression.parse(text, WORDS)
    assert message in str(caught.value)


def test_a_huge_number_is_just_another_version() -> None:
    assert evaluate("torch == " + "9" * 1900, torch="2.8.0") is False


@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                [
                    *("torch", "vllm.torch", "torch.archs", "target", "driver", '"2.8"', "7"),
                    *("==", "<", "in", "is", "not", "and", "or", "(", ")", "[", "]", ",", "."),
                ]
            ),
            max_size=12,
        ).map(" ".join),
    )
)
def test_any_text_is_either_a_condition_or_a_configuration_error(text: str) -> None:
    try:
        parsed = expression.parse(text, WORDS)
    except ConfigurationError:
        return
    look = FACTS.look({"torch": "2.8.0", "vllm": "git:main"}, {"target": "sm_120"})
    assert parsed.evaluate(look) in (True, False, None)
