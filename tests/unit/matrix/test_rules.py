"""The rules: what they exclude, what they require, and what a rule may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pinproof.errors import ConfigurationError
from pinproof.matrix import rules
from pinproof.matrix.cell import Cell

SHIPPED = rules.shipped()

#: For every rule a combination that it excludes and a near one that no rule excludes.
EXAMPLES = {
    "cuda-cpu": ("cpu", "torch=2.13.0 cuda=13.0", "torch=2.13.0"),
    "cuda-sm120": ("sm_120", "torch=nightly cuda=12.6", "torch=nightly cuda=12.8"),
    "torch-cuda-sm120": ("sm_120", "torch=2.7.1", "torch=2.7.1+cu128"),
    "torch-arch": ("sm_100", "torch=2.6.0", "torch=2.8.0"),
    "driver-sm120": ("sm_120", "torch=2.8.0 driver=565.57", "torch=2.8.0 driver=570.86"),
    "driver-torch-cuda13": ("sm_90", "torch=2.11.0 driver=575", "torch=2.11.0 driver=580.65"),
    "driver-vllm-cuda13": (
        "sm_90",
        "torch=nightly vllm=0.33.0 driver=575",
        "torch=nightly vllm=0.33.0 driver=580",
    ),
    "driver-toolkit": (
        "sm_90",
        "torch=2.8.0 cuda=12.9 driver=570",
        "torch=2.8.0 cuda=12.9 driver=575",
    ),
    "cuda-major": ("sm_90", "torch=2.11.0 cuda=12.8", "torch=2.11.0 cuda=13.2"),
    "gcc-too-new": (
        "sm_90",
        "torch=2.8.0 cuda=12.8 gcc=15.1",
        "torch=2.8.0 cuda=12.8 gcc=14.2",
    ),
    "gcc-vllm": (
        "sm_90",
        "torch=2.14.1 cuda=13.0 vllm=git:main gcc=12.3",
        "torch=2.14.1 cuda=13.0 vllm=git:main gcc=13.2",
    ),
    "glibc-cuda": (
        "sm_90",
        "torch=2.11.0 cuda=13.0 glibc=2.41",
        "torch=2.11.0 cuda=13.0 glibc=2.39",
    ),
    "vllm-source-toolkit": (
        "sm_90",
        "torch=2.14.1 vllm=git:main",
        "torch=2.14.1 vllm=git:main cuda=13.0",
    ),
    "flash-attn-cpu": ("cpu", "torch=2.8.0 flash-attn=2.8.3", "torch=2.8.0"),
    "flash-attn-archs": (
        "sm_86",
        "torch=2.8.0 cuda=12.8 flash-attn=2.8.3",
        "torch=2.8.0 cuda=12.8",
    ),
    "flash-attn-sm120": (
        "sm_120",
        "torch=2.8.0 cuda=12.8 flash-attn=2.7.2.post1",
        "torch=2.8.0 cuda=12.8 flash-attn=2.7.3",
    ),
    "flash-attn-torch214": (
        "sm_90",
        "torch=2.14.1 cuda=13.0 flash-attn=2.8.3.post2",
        "torch=2.13.0 cuda=13.0 flash-attn=2.8.3.post2",
    ),
    "flash-attn-wheel-torch": (
        "sm_90",
        "torch=2.8.0 flash-attn=2.8.2",
        "torch=2.8.0 flash-attn=2.8.3",
    ),
    "flash-attn-source-toolkit": (
        "sm_90",
        "torch=2.8.0 flash-attn=git:main",
        "torch=2.8.0 flash-attn=git:main cuda=12.8",
    ),
    "flash-attn-wheel-glibc": (
        "sm_90",
        "torch=2.8.0 flash-attn=2.8.3 glibc=2.31",
        "torch=2.8.0 flash-attn=2.8.3 glibc=2.32",
    ),
    "flash-attn-wheel-2.7.4": (
        "sm_120",
        "torch=2.7.1+cu128 flash-attn=2.7.4.post1",
        "torch=2.7.1+cu128 flash-attn=2.7.4.post1 cuda=12.8",
    ),
    "flash-attn-3": (
        "sm_100",
        "torch=2.8.0 cuda=12.8 flash-attn=3.0.0b1",
        "torch=2.8.0 cuda=12.8 flash-attn=2.8.3",
    ),
    "flash-attn-4-sm120": (
        "sm_120",
        "torch=2.11.0 cuda=13.0 flash-attn=4.0.0b4",
        "torch=2.11.0 cuda=13.0 flash-attn=4.0.0b5",
    ),
    "vllm-torch-pin": ("sm_90", "torch=2.11.0 vllm=0.19.1", "torch=2.11.0 vllm=0.20.2"),
    "vllm-torch-min": ("sm_90", "torch=2.9.1+cu130 vllm=0.28.0", "torch=2.10.0+cu130 vllm=0.28.0"),
    "vllm-cuda": ("sm_90", "torch=2.10.0 vllm=0.28.0", "torch=2.11.0 vllm=0.28.0"),
    "glibc-vllm": (
        "sm_90",
        "torch=2.11.0 vllm=0.20.2 glibc=2.31",
        "torch=2.11.0 vllm=0.22.1 glibc=2.31",
    ),
    "python-torch": ("sm_90", "torch=2.15.0 python=3.10", "torch=2.15.0 python=3.11"),
    "python-vllm": (
        "sm_90",
        "torch=nightly vllm=0.33.0 python=3.10",
        "torch=nightly vllm=0.33.0 python=3.14",
    ),
}


def cell_of(target: str, text: str) -> tuple[Cell, dict[str, str]]:
    words = dict(word.split("=") for word in text.split())
    machine = {name: words.pop(name) for name in ("driver", "gcc", "glibc") if name in words}
    axes = {"python": "3.12", **words}
    return Cell(id="x", matrix="m", target=target, axes=tuple(axes.items())), machine


def test_every_shipped_rule_has_an_example() -> None:
    assert {exclusion.rule for _, exclusion in SHIPPED.excluding} == EXAMPLES.keys()


@pytest.mark.parametrize("rule", EXAMPLES)
def test_a_rule_excludes_its_combination_and_not_the_one_beside_it(rule: str) -> None:
    target, excluded, near = EXAMPLES[rule]
    cell, machine = cell_of(target, excluded)
    alone = rules.Rules(
        facts=SHIPPED.facts,
        excluding=tuple(each for each in SHIPPED.excluding if each[1].rule == rule),
        requiring=(),
    )
    found = alone.check(cell, machine)
    assert found is not None
    assert found.rule == rule
    assert found.reason
    assert found.source
    cell, machine = cell_of(target, near)
    assert SHIPPED.check(cell, machine) is None


def test_a_rule_on_the_machine_stays_silent_until_the_machine_is_known() -> None:
    cell, _ = cell_of("sm_120", "torch=2.11.0")
    assert SHIPPED.check(cell) is None
    assert SHIPPED.check(cell, {"driver": ""}) is None
    assert SHIPPED.check(cell, {"driver": "565.57.01"}) is not None


def test_of_several_rules_the_first_of_the_file_is_named() -> None:
    cell, machine = cell_of("sm_120", "torch=2.6.0 vllm=0.24.0 driver=550")
    found = SHIPPED.check(cell, machine)
    assert found is not None
    assert found.rule == "torch-cuda-sm120"


def test_the_interpreter_of_an_old_triton_gets_an_old_numpy() -> None:
    for axes, wanted in (
        ("torch=2.13.0 triton=3.6.0", ("numpy<2.4",)),
        ("torch=2.11.0", ("numpy<2.4",)),  # brings triton 3.6.0
        ("torch=2.13.0 triton=3.7.1", ()),
    ):
        assert SHIPPED.requirements(cell_of("cpu", axes)[0]) == wanted
    assert SHIPPED.requirements(cell_of("sm_90", "torch=2.11.0")[0]) == ()


def test_a_vllm_without_a_cap_on_transformers_gets_one() -> None:
    cell, _ = cell_of("sm_120", "torch=2.8.0 vllm=0.11.0")
    assert SHIPPED.requirements(cell) == ("transformers>=4.55.2,<5",)


RULE = """
[[rule]]
id = "a"
when = 'torch == "2.8.0"'
reason = "it breaks"
source = "seen"
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RULE + RULE, 'rules.toml: [[rule]] "a": another rule has the same id'),
        (
            RULE.replace("torch ==", "target =="),
            'rules.toml: [[rule]] "a": when: a rule that names no axis',
        ),
        (RULE.replace("torch ==", "torhc =="), "Did you mean 'torch'?"),
        (RULE.replace("torch ==", "matrix =="), "unknown name 'matrix'"),
        (RULE.replace("2.8.0", "2.8.O"), "'2.8.O' is not a version"),
        (RULE.replace("==", "="), "is not an expression"),
        (RULE.replace('"it breaks"', '""'), "reason: '' must be a line of text"),
        (RULE.replace('source = "seen"', ""), "the key 'source' is missing"),
        (RULE.replace("[[rule]]", "[[rules]]"), "Did you mean 'rule'?"),
        (
            RULE.replace("[[rule]]", "[[require]]") + 'requirements = ["numpy <<2"]',
            "requirements[0]: 'numpy <<2' is not a requirement",
        ),
        (
            RULE + RULE.replace("[[rule]]", "[[require]]") + 'requirements = ["numpy"]',
            "another rule has the same id",
        ),
    ],
)
def test_a_broken_rule_is_a_configuration_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        rules.load(path)
    assert caught.value.what.startswith("rules.toml: ")
    assert message in caught.value.what


def test_rules_of_ones_own_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULE, encoding="utf-8")
    cell, _ = cell_of("cpu", "torch=2.8.0")
    assert rules.load(path).check(cell) == rules.Exclusion(
        rule="a", reason="it breaks", source="seen"
    )
