"""Tests of the plan: equal work once, and a reason for every step."""

from pathlib import Path
from typing import Any

from pinproof.evidence.evidence import Evidence, Outcome, digest_of
from pinproof.evidence.store import Store
from pinproof.plan import plan
from pinproof.plan.plan import State, Work
from pinproof.plan.stage import Stage

Stages = tuple[tuple[Stage, str, dict[str, Any], float], ...]


def stages(cell: str, torch: str = "2.13.0", until: Stage = Stage.THROUGHPUT) -> Stages:
    install = {"packages": {"torch": torch}, "build": "k1"}
    every: Stages = (
        (Stage.BUILD, "build-k1", {"source": "flash-attn"}, 9.0),
        (Stage.INSTALL, cell, install, 9.0),
        (Stage.INSPECT, cell, {"install": digest_of(install)}, 9.0),
        (Stage.CORRECTNESS, cell, {"install": digest_of(install), "code": "a" * 64}, 9.0),
        (Stage.THROUGHPUT, cell, {"install": digest_of(install), "code": "a" * 64}, 9.0),
    )
    return tuple(stage for stage in every if stage[0].position <= until.position)


def work(cell: str, target: str = "cpu", ready: str = "", **more: Any) -> Work:
    return Work(cell=cell, target=target, stages=stages(cell, **more), environment_ready=ready)


def remember(
    store: Store,
    cell: str,
    what: Stages,
    outcome: Outcome = Outcome.OK,
    reason: str = "",
    data: dict[str, Any] | None = None,
) -> None:
    for stage, owner, inputs, _ in what:
        store.save(
            Evidence(
                cell=owner,
                stage=stage,
                digest=digest_of(inputs),
                outcome=outcome,
                reason=reason,
                data=data or {},
                inputs=inputs,
                machine={},
                started="2026-11-23T10:00:00+00:00",
                seconds=1.0,
            )
        )


def test_a_build_that_two_cells_share_stands_once_in_the_plan(tmp_path: Path) -> None:
    made = plan.make([work("cpu-a"), work("cpu-b")], Store(tmp_path), machine="cpu")
    builds = [step for step in made.steps if step.stage is Stage.BUILD]
    assert [step.cells for step in builds] == [("cpu-a", "cpu-b")]
    assert len(made.steps) == 9


def test_every_step_comes_after_what_it_needs(tmp_path: Path) -> None:
    made = plan.make([work("cpu-a"), work("cpu-b")], Store(tmp_path), machine="cpu")
    seen: set[str] = set()
    for step in made.steps:
        assert seen.issuperset(step.needs)
        seen.add(step.id)


def test_with_no_evidence_everything_is_new(tmp_path: Path) -> None:
    made = plan.make([work("cpu-a")], Store(tmp_path), machine="cpu")
    assert {step.state for step in made.steps} == {State.NEW}
    assert made.todo == made.steps


def test_with_equal_inputs_nothing_runs_not_even_a_lost_environment(tmp_path: Path) -> None:
    store = Store(tmp_path)
    remember(store, "cpu-a", stages("cpu-a"))
    made = plan.make([work("cpu-a")], store, machine="cpu")
    assert made.todo == ()
    assert "2026-11-23" in made.steps[0].reason


def test_what_the_machine_kept_from_being_seen_is_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    remember(store, "cpu-a", stages("cpu-a", until=Stage.CORRECTNESS))
    last = stages("cpu-a")[-1:]
    remember(store, "cpu-a", last, data={"incomplete": ["a point: out of memory"]})
    (again,) = (
        step for step in plan.make([work("cpu-a")], store, machine="cpu").todo
        if step.stage.measures
    )  # fmt: skip
    assert again.stage is Stage.THROUGHPUT
    assert again.reason == "last time: not all could be seen (a point: out of memory)"


def test_a_lost_environment_is_made_again_where_a_later_stage_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    remember(store, "cpu-a", stages("cpu-a", until=Stage.INSPECT))
    made = plan.make([work("cpu-a")], store, machine="cpu")
    assert [step.stage for step in made.todo] == [
        Stage.INSTALL,
        Stage.CORRECTNESS,
        Stage.THROUGHPUT,
    ]
    install, correctness, _ = made.todo
    assert install.id in correctness.needs  # though inspect, which stands between, need not run
    ready = digest_of(stages("cpu-a")[1][2])
    made = plan.make([work("cpu-a", ready=ready)], store, machine="cpu")
    assert [step.stage for step in made.todo] == [Stage.CORRECTNESS, Stage.THROUGHPUT]


def test_a_moved_version_is_the_reason_of_the_step(tmp_path: Path) -> None:
    store = Store(tmp_path)
    remember(store, "cpu-a", stages("cpu-a", torch="2.12.0"))
    made = plan.make([work("cpu-a")], store, machine="cpu")
    reasons = {step.stage: (step.state, step.reason) for step in made.steps}
    assert reasons[Stage.INSTALL] == (State.CHANGED, "torch 2.12.0 -> 2.13.0")
    assert reasons[Stage.BUILD][0] is State.CACHED


def test_evidence_of_a_failed_machine_is_tried_again_and_a_failed_cell_is_not(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    remember(store, "cpu-a", stages("cpu-a", until=Stage.INSTALL), Outcome.INFRA, "disk full")
    made = plan.make([work("cpu-a")], store, machine="cpu")
    install = next(step for step in made.steps if step.stage is Stage.INSTALL)
    assert install.state is State.NEW
    assert "disk full" in install.reason
    remember(store, "cpu-a", stages("cpu-a", until=Stage.INSTALL), Outcome.FAILED)
    made = plan.make([work("cpu-a")], store, machine="cpu")
    assert made.todo == ()


def test_a_damaged_record_is_made_again_and_the_plan_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    remember(store, "cpu-a", stages("cpu-a"))
    (path,) = tmp_path.glob("evidence/cpu-a/correctness-*.json")
    path.write_text(path.read_text().replace('"seconds": 1.0', '"seconds": 2.0'))
    ready = digest_of(stages("cpu-a")[1][2])
    (again,) = plan.make([work("cpu-a", ready=ready)], store, machine="cpu").todo
    assert again.stage is Stage.CORRECTNESS
    assert again.reason == "its record is damaged, or an older version wrote it"


def test_fresh_runs_everything_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    remember(store, "cpu-a", stages("cpu-a"))
    made = plan.make([work("cpu-a")], store, machine="cpu", fresh=True)
    assert len(made.todo) == 5


def test_a_gpu_that_is_not_here_makes_its_measurements_unavailable(tmp_path: Path) -> None:
    made = plan.make([work("sm120-a", target="sm_120")], Store(tmp_path), machine="sm_90")
    states = {step.stage: step.state for step in made.steps}
    assert states[Stage.INSPECT] is State.NEW
    assert states[Stage.CORRECTNESS] is State.UNAVAILABLE
    assert "sm_90" in made.steps[-1].reason


def test_digests_are_named_and_versions_are_shown_in_a_difference() -> None:
    old = {"code": "a" * 64, "packages": {"torch": "1", "numpy": "2"}, "lock": "b" * 64}
    new = {"code": "a" * 64, "packages": {"torch": "2", "scipy": "3"}, "lock": "c" * 64}
    assert plan.difference(old, new) == "torch 1 -> 2, numpy removed, scipy 3 added"
    assert plan.difference({"code": "a" * 64}, {"code": "b" * 64}) == "code"


def test_a_sanitizer_has_nothing_to_look_at_on_a_processor(tmp_path: Path) -> None:
    asked = Work(cell="cpu-a", target="cpu", stages=((Stage.SANITIZE, "cpu-a", {"a": 1}, 9.0),))
    (step,) = plan.make([asked], Store(tmp_path), machine="cpu").steps
    assert step.state is State.UNAVAILABLE
    assert step.reason.startswith("compute-sanitizer looks at kernels of a GPU")
    on_gpu = Work(cell="a", target="sm_90", stages=((Stage.SANITIZE, "a", {"a": 1}, 9.0),))
    (step,) = plan.make([on_gpu], Store(tmp_path), machine="sm_90").steps
    assert (step.state, step.gpu) == (State.NEW, True)


def test_another_key_says_how_it_differs_from_the_nearest_build_of_its_project(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)

    def build(key: str, **inputs: str) -> plan.Work:
        return plan.Work(
            cell="sm120-a", target="sm_120", stages=((Stage.BUILD, f"build-{key}", inputs, 1.0),)
        )

    flash = {"project": "flash-attn", "torch": "2.14.0", "cuda": "13.0", "source": "2.8.3"}
    far = {**flash, "torch": "2.8.0", "cuda": "12.8", "source": "2.8.1"}
    for key, inputs in (("1", flash), ("2", far), ("3", {**flash, "project": "vllm"})):
        remember(store, "sm120-a", build(key, **inputs).stages)
    (step,) = plan.make([build("4", **{**flash, "torch": "2.15.0"})], store, machine="cpu").steps
    assert step.reason == "torch 2.14.0 -> 2.15.0"
