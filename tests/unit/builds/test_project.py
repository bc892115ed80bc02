"""Tests of each project's own knobs."""

import re
from pathlib import Path

import pytest

from pinproof.builds import project
from pinproof.errors import ConfigurationError


def test_flash_attn_is_forced_to_build_and_told_bare_numbers() -> None:
    knobs = project.knobs("flash-attn", "120", "stock")
    assert knobs.env == {"FLASH_ATTENTION_FORCE_BUILD": "TRUE", "FLASH_ATTN_CUDA_ARCHS": "120"}
    assert knobs.without == ()


def test_the_serving_profile_leaves_out_what_it_says_for_both_compilers() -> None:
    knobs = project.knobs("flash-attn", "120", "serving")
    assert knobs.without == ("backward", "dropout", "alibi", "softcap")
    for name in ("NVCC_APPEND_FLAGS", "CXXFLAGS"):
        macros = knobs.env[name].split()
        assert macros == [f"-DFLASHATTENTION_DISABLE_{each.upper()}" for each in knobs.without]
    assert knobs.gib_per_unit < project.knobs("flash-attn", "120", "stock").gib_per_unit


@pytest.mark.parametrize("archs", ["12.0", "120a", "86", "120f", "", "120,90", "sm_120"])
def test_an_architecture_that_flash_attn_would_misread_is_refused(archs: str) -> None:
    with pytest.raises(ConfigurationError, match="no name for the architecture"):
        project.knobs("flash-attn", archs, "stock")


def test_vllm_is_told_the_architecture_with_a_point() -> None:
    assert project.knobs("vllm", "90;120", "stock").env["TORCH_CUDA_ARCH_LIST"] == "9.0;12.0"


def test_vllms_flash_attention_is_edited_to_hold_machine_code(tmp_path: Path) -> None:
    (edit,) = project.knobs("vllm", "120", "stock").attention_edits
    listing = tmp_path / "CMakeLists.txt"
    listing.write_text('x(FA2_ARCHS "8.0+PTX" "${CUDA_ARCHS}")\ny(FA3_ARCHS "9.0a;" "z")\n')
    edit.apply(tmp_path)
    assert listing.read_text() == (
        'x(FA2_ARCHS "8.0;12.0" "${CUDA_ARCHS}")\ny(FA3_ARCHS "9.0a;" "z")\n'
    )
    with pytest.raises(ConfigurationError, match="0 times, and not once"):
        edit.apply(tmp_path)


@pytest.mark.parametrize(
    ("name", "profile", "said"),
    [("flash-attn", "servin", "Did you mean 'serving'"), ("xformers", "stock", "not known how")],
)
def test_an_unknown_profile_or_project_is_refused(name: str, profile: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        project.knobs(name, "120", profile)


def test_more_features_can_be_left_out_and_are_told() -> None:
    knobs = project.knobs("flash-attn", "90", "serving", ["uneven_k"])
    assert knobs.without == (*project.NOT_SERVED, "uneven_k")
    assert knobs.env["CXXFLAGS"].endswith("-DFLASHATTENTION_DISABLE_UNEVEN_K")
    assert project.knobs("flash-attn", "90", "stock", ["local"]).without == ("local",)
    with pytest.raises(ConfigurationError, match="Did you mean 'dropout'"):
        project.knobs("flash-attn", "90", "stock", ["drop_out"])
    with pytest.raises(ConfigurationError, match="not known how vllm is built without"):
        project.knobs("vllm", "90", "stock", ["local"])


def test_the_slowest_units_of_flash_attn_are_named_before_the_others() -> None:
    ranks = [
        next(n for n, pattern in enumerate(project.SLOWEST) if re.search(pattern, unit))
        for unit in (
            "flash_fwd_split_hdim128_bf16_sm80",
            "flash_fwd_split_hdim32_bf16_sm80",
            "flash_fwd_split_hdim64_fp16_causal_sm80",
            "flash_fwd_hdim128_bf16_sm80",
            "flash_fwd_split_hdim256_fp16_causal_sm80",
            "flash_fwd_hdim256_bf16_sm80",
            "flash_fwd_hdim96_bf16_causal_sm80",
            "flash_fwd_hdim32_bf16_sm80",
            "flash_api",
        )
    ]
    assert ranks == sorted(set(ranks))
