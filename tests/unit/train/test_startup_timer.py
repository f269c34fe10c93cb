"""The startup timer: every second between the launch and the first step belongs to one stage."""

from headway.train.startup_timer import StartupTimer


def test_the_stages_add_up_to_the_total() -> None:
    """Stages before this process existed count too."""
    timer = StartupTimer(100.0, [("launch", 100.5), ("imports", 104.0)])
    timer.done("group", 104.25)
    timer.done("restore", 106.0)
    started = timer.step()
    assert started
    stages = started.stages
    assert list(stages) == ["launch", "imports", "group", "restore", "first_step"]
    assert stages["imports"] == 3.5
    assert stages["restore"] == 1.75
    assert abs(sum(stages.values()) - started.total) < 0.01


def test_a_stage_that_ends_twice_adds_up() -> None:
    """An evaluation before the first step does so if it is interrupted."""
    timer = StartupTimer(0.0)
    for stage, moment in [("evaluation", 1.0), ("restore", 3.0), ("evaluation", 3.5)]:
        timer.done(stage, moment)
    assert timer.stages == {"evaluation": 1.5, "restore": 2.0}


def test_only_the_first_step_returns_the_stages() -> None:
    """Later stages do not count."""
    timer = StartupTimer(0.0, [("launch", 1.0)])
    assert timer.step()
    assert timer.step() is None
    timer.done("evaluation")
    assert "evaluation" not in timer.stages


def test_a_clock_that_is_set_back_makes_no_stage_negative() -> None:
    """Stages of several processes are measured by wall clock."""
    timer = StartupTimer(10.0, [("launch", 12.0), ("imports", 11.0)])
    timer.done("group", 13.0)
    assert timer.stages == {"launch": 2.0, "imports": 0.0, "group": 1.0}
