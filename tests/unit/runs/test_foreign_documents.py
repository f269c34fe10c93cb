"""What is advisory may be missing, and whatever somebody wrote in its place is as if it were."""

import json
import math
import time
from typing import Any

import pytest
from tests.memory import MemoryStore

from headway.errors import DamageError
from headway.runs import Heartbeat, Holder, keys, read_heartbeat, submissions
from headway.runs.ledger import LEDGER_BYTES, LedgerRow, read_ledger
from headway.runs.liveness import HEARTBEAT_BYTES, MAX_SKEW_SECONDS, RunSummary, beats_again, write_heartbeat
from headway.runs.run_log import LOG_CHUNK_BYTES, LogWriter, read_records
from headway.runs.submissions import Member, Submission

SUMMARY = RunSummary(budget=10, attempts=1, preemptions=0, failures=0, earlier_step=0.0, earlier_total=0.0)
ROW = LedgerRow(attempt=1, rank=0, started=1.0, until=3.0, phases={"step": 2.0}, tokens=10)
RUBBISH = [
    b"[" * 200_000,
    b"{" * 200_000,
    b"\0" * 1000,
    b"",
    b"null",
    b"[]",
    b"\xff\xfe",
    b"9" * 5000,
    b'{"a": "\\ud800"}',
]
"""What a full disk, a power cut and a stranger leave."""


def heartbeat(**changes: Any) -> dict[str, Any]:
    """The fields of a heartbeat as stored."""
    holder = Holder(host="h", pid=1, started=1, launch="x")
    beat = Heartbeat(attempt=1, holder=holder, phase="step", tokens=5, time=time.time(), every=8.0, summary=SUMMARY)
    return {**beat.model_dump(mode="json"), **changes}


def store_with(key: str, data: bytes) -> MemoryStore:
    """A store of one object."""
    store = MemoryStore()
    store.objects[key] = data
    return store


@pytest.mark.parametrize("data", [*RUBBISH, b" " * HEARTBEAT_BYTES + b"{}"])
def test_what_is_no_heartbeat_is_none(data: bytes) -> None:
    """Whatever its depth and its length are."""
    assert read_heartbeat(store_with(keys.heartbeat("run"), data), "run") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"time": math.nan},
        {"time": 1e300},
        {"time": 1_700_000_000_000},
        {"tokens": None},
        {"tokens": 10**400},
        {"every": 0},
        {"every": -1},
        {"phase": None},
        {"holder": None},
        {"summary": {**SUMMARY.model_dump(), "earlier_total": 1e300}},
        {"summary": {**SUMMARY.model_dump(), "attempts": -1}},
        {"summary": {**SUMMARY.model_dump(), "loss": "low"}},
    ],
)
def test_a_heartbeat_out_of_bounds_is_none(changes: dict[str, Any]) -> None:
    """No time that no calendar has, and no number that nothing can compute with."""
    sound = json.dumps(heartbeat()).encode()
    assert read_heartbeat(store_with(keys.heartbeat("run"), sound), "run")
    forged = json.dumps(heartbeat(**changes)).encode()
    assert read_heartbeat(store_with(keys.heartbeat("run"), forged), "run") is None


def test_a_loss_that_is_not_finite_is_no_loss() -> None:
    """A run whose loss is NaN has a heartbeat, in JSON that any reader takes."""
    store = MemoryStore()
    summary = SUMMARY.model_copy(update={"loss": math.nan})
    write_heartbeat(store, "run", Heartbeat.model_validate(heartbeat(summary=summary.model_dump())))
    assert b"NaN" not in store.get(keys.heartbeat("run"))
    beat = read_heartbeat(store, "run")
    assert beat
    assert beat.summary
    assert beat.summary.loss is None


@pytest.mark.parametrize("ahead", [2 * MAX_SKEW_SECONDS, 1e9])
def test_a_heartbeat_from_a_time_to_come_is_no_sign_of_life(ahead: float) -> None:
    """Nobody waits for the next one, however long its interval is."""
    forged = json.dumps(heartbeat(time=time.time() + ahead, every=1e9)).encode()
    store = store_with(keys.heartbeat("run"), forged)
    beat = read_heartbeat(store, "run")
    assert beat
    assert not beat.fresh
    assert not beats_again(store, "run", 1)


@pytest.mark.parametrize("rubbish", [*RUBBISH, ROW.model_dump_json().encode()[:-9]])
def test_a_line_that_is_no_row_hides_no_other(rubbish: bytes) -> None:
    """A ledger that a power cut left half written still tells what it holds."""
    sound = ROW.model_dump_json().encode()
    store = store_with(keys.ledger("run", 1), sound + b"\n" + rubbish + b"\n" + sound + b"\n")
    assert read_ledger(store, "run", 1) == [ROW, ROW]


@pytest.mark.parametrize(
    "changes",
    [
        {"started": math.nan},
        {"until": 1e300},
        {"rank": -1},
        {"tokens": 10**400},
        {"phases": {"step": 1e300}},
        {"phases": 1},
    ],
)
def test_a_row_out_of_bounds_is_none(changes: dict[str, Any]) -> None:
    """Nothing is computed with it."""
    line = json.dumps({**ROW.model_dump(), **changes}).encode()
    assert read_ledger(store_with(keys.ledger("run", 1), line), "run", 1) == []


def test_phases_of_another_headway_count_for_nothing() -> None:
    """The known phases of the row do."""
    line = json.dumps({**ROW.model_dump(), "phases": {"step": 2.0, "dream": 1.0}}).encode()
    assert read_ledger(store_with(keys.ledger("run", 1), line), "run", 1) == [ROW]


def test_a_ledger_has_a_bound() -> None:
    """One that is longer is not read."""
    data = ROW.model_dump_json().encode() + b" " * LEDGER_BYTES
    assert read_ledger(store_with(keys.ledger("run", 1), data), "run", 1) == []


@pytest.mark.parametrize("rubbish", [line for line in RUBBISH if b"[]" not in line])
def test_a_line_that_is_no_event_hides_no_other(rubbish: bytes) -> None:
    """Events before and after it are read."""
    store = store_with(keys.log_chunk("run", 1, 0), b'{"n": 1}\n' + rubbish + b'\n{"n": NaN}\n')
    assert len([record for _, record in read_records(store, "run")]) == 2


def test_only_chunks_are_read_as_a_log() -> None:
    """Copies and notes among them are not."""
    store = store_with(keys.log_chunk("run", 1, 0), b'{"n": 1}\n')
    for name in ("00000001/00000001 (copy).jsonl", "notes.jsonl", "1/0.jsonl"):
        store.objects[keys.log("run") + name] = b'{"n": 2}\n'
    assert [record for _, record in read_records(store, "run")] == [{"n": 1}]


def test_what_waits_for_a_store_is_written_in_chunks_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the store was away, no line is beyond the bound of a chunk."""
    monkeypatch.setattr("headway.runs.run_log.CHUNK_BYTES", 50)
    monkeypatch.setattr("headway.runs.run_log.LOG_CHUNK_BYTES", 200)
    store = MemoryStore()
    writer = LogWriter(store, "run", 1)
    for number in range(100):
        writer.add(json.dumps({"n": number}))
    writer.flush()
    assert [record["n"] for _, record in read_records(store, "run")] == [*range(100)]
    assert max(map(len, store.objects.values())) <= 200
    assert LOG_CHUNK_BYTES > 200


def submission(name: str) -> Submission:
    """A submission of one run."""
    fixed = {"cluster": None, "user": "u", "host": "h", "folder": "/", "time": 1.0, "recipe": "", "trace": "t"}
    sizes = {"nodes_min": 1, "nodes_max": 1, "ranks": 1}
    texts = {"store": "s", "sbatch": "", "logs": "l"}
    members = [Member(run=name, overrides=[])]
    return Submission.model_validate({"name": name, "members": members, "array": False, **fixed, **sizes, **texts})


@pytest.mark.parametrize("rubbish", [*RUBBISH, submission("other").model_dump_json(by_alias=True).encode()])
def test_a_damaged_submission_hides_no_other(rubbish: bytes) -> None:
    """It is a finding with its key; one that says that it is another is, too."""
    store = MemoryStore()
    submissions.save(store, submission("good"))
    store.objects[keys.submission("bad")] = rubbish
    store.objects["submissions/notes.txt"] = b"mine"
    assert submissions.all_submissions(store) == [submission("good")]
    _, findings = submissions.scan(store)
    assert sorted(finding.partition(":")[0] for finding in findings) == [
        "submissions/bad.json",
        "submissions/notes.txt",
    ]
    with pytest.raises(DamageError, match=r"submissions/bad\.json"):
        submissions.find(store, "bad")


@pytest.mark.parametrize(
    "changes",
    [
        {"members": [{"run": "../x", "overrides": []}]},
        {"sent": [{"job": "--all", "time": 1.0}]},
        {"time": 1e300},
        {"ranks": 10**30},
    ],
)
def test_a_submission_out_of_bounds_is_damage(changes: dict[str, Any]) -> None:
    """No name that is none, and no option in the place of a job id."""
    store = store_with(
        keys.submission("x"), json.dumps({**submission("x").model_dump(mode="json", by_alias=True), **changes}).encode()
    )
    with pytest.raises(DamageError):
        submissions.find(store, "x")
