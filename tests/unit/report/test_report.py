"""The table of a run."""

import io
import re

import pytest
from judged import cell, check, point, whole
from test_results import every_kind, row, run

from pinproof.errors import ConfigurationError
from pinproof.report import results
from pinproof.report.report import markdown, terminal, update_readme, wants_colour, width_of

DOCUMENT = results.document(every_kind())


def plain(document=DOCUMENT, width=140):
    return terminal(document, width=width, colour=False)


def test_the_table_has_a_row_per_cell_with_its_verdict_reason_and_numbers():
    lines = plain(width=200).splitlines()
    assert lines[0].split("  ")[0] == "cell"
    assert re.sub(r"\s\s+", "|", lines[2]) == (
        "cpu-000001|2.13.0|3.7.1|-|SAFE|1 of 1 checks pass (torch-cpu-flash); 1 run of "
        "compute-sanitizer clean; 1 limit below|1.5|1.2 [1.19, 1.21]|12s"
    )
    assert re.sub(r"\s\s+", "|", lines[3]).startswith("cpu-000002|2.13.0|3.6.0|-|UNSAFE|")
    assert "EXCLUDED" in plain()
    assert "UNVERIFIED" in plain()


def test_an_axis_that_no_cell_uses_has_no_column():
    document = results.document(run(row(cell(vllm="none", triton="3.7.1"), whole())))
    head = plain(document).splitlines()[0].split()
    assert head[:3] == ["cell", "torch", "triton"]
    assert "vllm" not in head


def test_a_long_reason_is_wrapped_to_the_width_of_the_terminal():
    reason = "max|z| 157 > 25 " * 6
    document = results.document(run(row(cell(), whole(check("a"), check("b", "FAIL", reason)))))
    lines = plain(document, width=110).splitlines()
    assert max(map(len, lines)) <= 110
    assert "".join(lines).count("157") == 6


def test_of_a_reason_of_many_lines_the_table_leaves_out_the_middle_alone():
    reason = " ".join(f"word{number}" for number in range(200))
    document = results.document(run(row(cell(), whole(check("a"), check("b", "FAIL", reason)))))
    text = plain(document, width=110)
    assert text.splitlines()[2 + 7] == ""  # a heading of two lines, and seven of the row
    assert "word0 " in text
    assert "word100" not in text
    assert "word199" in text
    assert reason in document["cells"][0]["reason"]


@pytest.mark.parametrize("width", [1, 20, 80, 400])
def test_no_width_breaks_the_table(width):
    assert "cpu-000002" in plain(width=width)


def test_the_footer_says_what_ran_where_the_counts_the_limits_and_where_the_logs_are():
    text = " ".join(plain().split())
    limit = "do not call with Sk = 0: the process dies (known defect d, somewhere#1)"
    assert f"limit: torch-cpu-flash: {limit} (cpu-000001)" in text
    assert "run on: Some Processor, cpu not run: sm_120" in text
    assert (
        "verdicts: 1 EXCLUDED, 1 UNBUILDABLE, 1 UNSAFE, 1 SAFE, 1 UNVERIFIED policy: require all; "
        "safe for serving; checks correctness, throughput logs: .pinproof/logs"
    ) in text


def test_a_known_failure_comes_with_its_cause_and_next_step():
    text = " ".join(plain().split())
    assert "[B01] nvcc <12.8" in text
    assert "Next step: CUDA>=12.9" in text


def test_what_is_known_and_gone_and_what_a_sanitizer_warns_of_is_told_in_the_footer():
    text = " ".join(plain().split())
    assert (
        "known defect e did not show in torch-cpu-flash 1.0: remove it, or that version from it "
        "(somewhere#1) (cpu-000001)"
    ) in text
    assert "known defect d did not" not in text
    assert (
        "compute-sanitizer warns: kernel under racecheck: Race between Write and Read access"
    ) in text


def test_a_ratio_to_the_interpreter_says_that_it_is_no_gpu_figure():
    interpreted = {"baseline": "triton-interpreter", "points": [point("torch-cpu-flash", 900.0)]}
    document = results.document(run(row(cell(), whole(throughput=interpreted))))
    text = " ".join(plain(document).split())
    assert "says nothing of a GPU (every cell)" in text
    assert "says nothing of a GPU" not in plain()


def test_many_excluded_cells_are_told_by_rule():
    rows = [row(cell(number, excluded="no wheel"), {}) for number in range(40)]
    text = plain(results.document(run(row(cell(99), whole()), *rows)))
    assert "excluded: 40 cells by a-rule: no wheel" in text
    assert "cpu-000003" not in text
    assert "40 EXCLUDED" in text


def test_a_table_in_which_nothing_ran_is_still_a_table():
    text = plain(results.document(run()))
    assert "run on: nothing" in text


def test_colours_are_on_the_verdicts_and_change_nothing_else():
    coloured = terminal(DOCUMENT, width=140, colour=True)
    assert "\x1b[32mSAFE\x1b[0m" in coloured
    assert "\x1b[31mUNSAFE\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain()


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "wanted"),
    [
        (Screen(), {}, True),
        (Screen(), {"NO_COLOR": ""}, True),
        (Screen(), {"NO_COLOR": "1"}, False),
        (Screen(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours_are_for_a_terminal_whose_user_did_not_decline_them(stream, environment, wanted):
    assert wants_colour(stream, environment) is wanted


def test_the_width_is_that_of_the_terminal_and_fixed_elsewhere(monkeypatch):
    monkeypatch.setenv("COLUMNS", "77")
    assert width_of(Screen()) == 77
    assert width_of(io.StringIO()) == 120


def test_markdown_has_one_line_per_cell_and_escapes_what_would_break_the_table():
    reason = "max|z| 157 > 25\nfor <b>*all*</b> `x`"
    document = results.document(run(row(cell(), whole(check("a"), check("b", "FAIL", reason)))))
    lines = markdown(document).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    assert r"max\|z\| 157 > 25 for &lt;b>\*all\*&lt;/b> \`x\`" in rows[2]
    assert any(line.startswith("- run on: Some Processor") for line in lines)


README = """\
# P
<!-- results:begin cpu -->
old
<!-- results:end -->
x
<!-- results:begin gpu -->
<!-- results:end -->
"""


def test_a_readme_gets_its_table_between_its_markers_and_again_the_same():
    once = update_readme(README, "cpu", "| a |\n")
    assert "old" not in once
    assert once.startswith("# P\n<!-- results:begin cpu -->\n\n| a |\n\n<!-- results:end -->\nx\n")
    assert once.endswith("<!-- results:begin gpu -->\n<!-- results:end -->\n")
    assert update_readme(once, "cpu", "| a |\n") == once
    assert "| \\1 |" in update_readme(README, "gpu", "| \\1 |")


@pytest.mark.parametrize("text", ["", README * 2, "<!-- results:begin cpu -->\n"])
def test_a_readme_without_exactly_one_place_is_a_clear_error(text):
    with pytest.raises(ConfigurationError, match="no place for the results"):
        update_readme(text, "cpu", "x")
