"""The stage timer: every second belongs to one stage."""

from headway.telemetry.stage_timer import StageTimer


def test_the_stages_add_up_to_the_total() -> None:
    """A stage lasts from the end of the stage before it to its own end."""
    timer = StageTimer(10.0)
    for stage, end in [("imports", 12.0), ("engine", 17.5), ("imports", 18.0)]:
        timer.done(stage, end)
    assert timer.seconds == {"imports": 2.5, "engine": 5.5}
    assert timer.total == sum(timer.seconds.values()) == 8.0


def test_no_stage_is_negative() -> None:
    """A wall clock may be set back between two stages."""
    timer = StageTimer(10.0)
    for stage, end in [("imports", 12.0), ("engine", 11.0), ("first token", 13.0)]:
        timer.done(stage, end)
    assert timer.seconds == {"imports": 2.0, "engine": 0.0, "first token": 1.0}
