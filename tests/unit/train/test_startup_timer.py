"""How long a start took: every second between the launch and the first step is booked to one stage."""

from headway.train.startup_timer import StartupTimer


def test_the_stages_add_up_to_the_total() -> None:
    """Those before this process existed, too."""
    start = StartupTimer(100.0, [("launch", 100.5), ("imports", 104.0)])
    start.done("group", 104.25)
    start.done("restore", 106.0)
    stages = start.step()
    assert stages
    total = stages.pop("total")
    assert list(stages) == ["launch", "imports", "group", "restore", "first_step"]
    assert stages["imports"] == 3.5
    assert stages["restore"] == 1.75
    assert abs(sum(stages.values()) - total) < 0.01


def test_a_stage_that_is_reached_again_adds_up() -> None:
    """As the evaluation before the first step, if it is broken off."""
    start = StartupTimer(0.0)
    for stage, moment in [("evaluation", 1.0), ("restore", 3.0), ("evaluation", 3.5)]:
        start.done(stage, moment)
    assert start.stages == {"evaluation": 1.5, "restore": 2.0}


def test_only_the_first_step_tells() -> None:
    """And nothing is booked after it."""
    start = StartupTimer(0.0, [("launch", 1.0)])
    assert start.step()
    assert start.step() is None
    start.done("evaluation")
    assert "evaluation" not in start.stages


def test_a_clock_that_was_set_back_takes_no_time_away() -> None:
    """Stages of several processes, by wall clock: none is negative."""
    start = StartupTimer(10.0, [("launch", 12.0), ("imports", 11.0)])
    start.done("group", 13.0)
    assert start.stages == {"launch": 2.0, "imports": 0.0, "group": 1.0}
