"""Connection of processes."""

import os

import pytest

from transfer_jax.distributed import processes


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The connections that are made, which here are none."""
    made: list[dict] = []
    for name in (*processes._TASK_COUNTS, "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes.jax.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda **options: made.append(options))
    monkeypatch.setattr(processes, "_on_tpu", lambda: False)
    return made


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"SLURM_NTASKS": "16"}, {}),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        ({"MEGASCALE_NUM_SLICES": "2"}, {}),
        (
            {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "0"},
            {"num_processes": 4, "process_id": 0},
        ),
    ],
)
def test_processes_are_configured_or_found(connected, monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(processes.HEARTBEAT, "7")
    processes.join()
    assert connected == ([] if expected is None else [{**expected, "heartbeat_timeout_seconds": 7}])


@pytest.mark.parametrize("missing", ["JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"])
def test_incomplete_variables_are_an_error(connected, monkeypatch, missing):
    settings = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "0"}
    for name in settings.keys() - {missing}:
        monkeypatch.setenv(name, settings[name])
    with pytest.raises(ValueError, match=f"^{missing} must be set too"):
        processes.join()


@pytest.mark.parametrize("variables", [{}, {"SLURM_NTASKS": "2"}])
def test_a_tpu_without_metadata(connected, monkeypatch, variables):
    def unknown(**options) -> None:
        raise ValueError("coordinator_address should be defined.")

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes.jax.distributed, "initialize", unknown)
    monkeypatch.setattr(processes, "_on_tpu", lambda: True)
    if not variables:
        processes.join()
        return
    with pytest.raises(ValueError, match="coordinator_address"):
        processes.join()


def test_cores_are_set_by_a_variable(monkeypatch):
    monkeypatch.setenv("NPROC", "3")
    assert processes.cores() == 3


@pytest.mark.parametrize("settings", ["", "0", "many"])
def test_cores_are_those_it_may_run_on(monkeypatch, settings):
    monkeypatch.setenv("NPROC", settings)
    assert 1 <= processes.cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(allowed)})
            assert processes.cores() == 1
        finally:
            os.sched_setaffinity(0, allowed)


def test_one_process_is_the_first_of_one():
    assert (processes.count(), processes.index(), processes.is_first()) == (1, 0, True)
    processes.wait("nobody")
    assert processes.sum_over_processes(processes.np.array([2, 3])).tolist() == [2, 3]
    rows = processes.np.arange(6).reshape(3, 2)
    assert processes.gather_interleaved(rows, 3) is rows


@pytest.mark.parametrize("total", [1, 5, 6])
def test_rows_of_several_processes_are_put_in_order(monkeypatch, total):
    """As the second of three gets them, where each has padded its own to the longest."""
    rows = processes.np.arange(3 * total, dtype="float16").reshape(total, 3)
    shares = [rows[index::3] for index in range(3)]

    def gathered(own):
        longest = -(-total // 3)
        assert len(own) == longest
        pads = [((0, longest - len(share)), (0, 0)) for share in shares]
        return processes.np.stack(
            [processes.np.pad(share, pad) for share, pad in zip(shares, pads, strict=True)]
        )

    monkeypatch.setattr(processes.jax, "process_count", lambda: 3)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gathered)
    found = processes.gather_interleaved(shares[1], total)
    assert found.tolist() == rows.tolist()
    assert found.dtype == rows.dtype
