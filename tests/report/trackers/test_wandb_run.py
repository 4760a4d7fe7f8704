"""In offline mode, the files to be sent later are read back."""

import json
import struct
import time

import pytest

from transfer_jax.report.trackers.wandb_run import open_run

wandb = pytest.importorskip("wandb", reason="wandb is not installed")
# Deprecations of the tracker's own dependencies are not errors here.
pytestmark = [pytest.mark.extended, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)


def records(workdir):
    """All records in the files to be sent: logs of LevelDB, in blocks of 32 KiB, behind a header."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(workdir.glob("wandb/offline-run-*/run-*.wandb")):
        content, at, whole = file.read_bytes(), 7, b""
        while at + 7 <= len(content):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            _, length, kind = struct.unpack("<IHB", content[at : at + 7])
            whole += content[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # The whole record, or its last part.
                yield Record.FromString(whole)
                whole = b""


def finished(workdir, runs):
    """Waits until another process has written all records of a number of runs."""
    until = time.monotonic() + 600
    while [record.WhichOneof("record_type") for record in records(workdir)].count("exit") < runs:
        assert time.monotonic() < until
        time.sleep(0.1)


def history(workdir):
    rows = []
    for record in records(workdir):
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            rows.append({name: json.loads(value) for name, value in items.items()})
    return rows


def test_records_to_send(workdir, config, picture):
    tracker = open_run(workdir, config, None)
    tracker.log(3, {"train/loss": 0.5})
    tracker.log(6, {"train/loss": 0.125})
    tracker.log(6, {"evaluation/accuracy": 0.75})
    tracker.log_image(6, picture)
    tracker.close(finished=True)
    finished(workdir, 1)
    rows = [
        {name: row[name] for name in row if not name.startswith("_") or name == "_step"}
        for row in history(workdir)
    ]
    assert rows[0] == {"_step": 3, "train/loss": 0.5}
    assert {name: rows[1][name] for name in ("_step", "train/loss", "evaluation/accuracy")} == {
        "_step": 6,
        "train/loss": 0.125,
        "evaluation/accuracy": 0.75,
    }
    assert len(rows) == 2
    (run,) = (record.run for record in records(workdir) if record.WhichOneof("record_type") == "run")
    assert (run.project, run.display_name, run.run_id) == ("transfer_jax", "cells", tracker.id)
    assert list(workdir.glob("wandb/offline-run-*/files/media/images/curves_6_*.png"))


def test_a_resumed_run_is_the_same(workdir, config):
    first = open_run(workdir, config, None)
    first.log(1, {"train/loss": 1.0})
    first.close(finished=False)
    second = open_run(workdir, config, first.id)
    second.log(2, {"train/loss": 0.5})
    second.close(finished=True)
    finished(workdir, 2)
    runs = {record.run.run_id for record in records(workdir) if record.WhichOneof("record_type") == "run"}
    assert runs == {first.id}
    assert [(row["_step"], row["train/loss"]) for row in history(workdir)] == [(1, 1.0), (2, 0.5)]
