"""Connection of processes."""

import os
import threading

import pytest

from transfer_jax.distributed import processes

STEP = {
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NODELIST": "node[1-4]",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_ID": "7",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
JAX = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "0"}


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The connections that are made, which here are none."""
    made: list[dict] = []
    for name in os.environ:
        if name.startswith(
            ("SLURM_", "OMPI_", "PMI_", "TPU_", "MEGASCALE_", "JAX_COORD", "TRANSFER_JAX_LAUNCH")
        ):
            monkeypatch.delenv(name)
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
        (STEP, {}),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "4", "PMI_SIZE": "4", "PMI_RANK": "0"}, {}),
        (OPEN_MPI, {}),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        ({"MEGASCALE_NUM_SLICES": "2"}, {}),
        (JAX, {"num_processes": 4, "process_id": 0}),
        ({**JAX, "SLURM_NTASKS": "4"}, {"num_processes": 4, "process_id": 0}),
    ],
)
def test_processes_are_configured_or_found(connected, monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(processes.HEARTBEAT, "7")
    processes.join()
    assert connected == ([] if expected is None else [{**expected, "heartbeat_timeout_seconds": 7}])


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (
            {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"},
            "SLURM names 4 processes (SLURM_NTASKS), but srun has not",
        ),
        ({**STEP, "SLURM_STEP_NODELIST": ""}, "srun has not started this process"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, "the step has one task"),
        ({**STEP, "SLURM_PTY_PORT": "4711"}, "this is an interactive shell"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK is not set"),
    ],
)
def test_a_process_that_no_scheduler_started_trains_alone(connected, monkeypatch, variables, reason):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lines: list[str] = []
    processes.join(lines.append)
    assert connected == []
    (line,) = lines
    assert reason in line
    assert "trains alone. Start all of them with: " in line


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_NTASKS": "four"}, "variable SLURM_NTASKS must be a whole number, got 'four'"),
        ({**JAX, "JAX_PROCESS_ID": "-1"}, "variable JAX_PROCESS_ID must be a whole number, got '-1'"),
        ({**JAX, "TRANSFER_JAX_HEARTBEAT": "1s"}, "variable TRANSFER_JAX_HEARTBEAT must be"),
        ({"PMI_SIZE": "4", "PMI_RANK": "0"}, r"MPI has started 4 processes .*set JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_invalid_variables_are_an_error(connected, monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        processes.join()
    assert connected == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({**STEP, "SLURM_PROCID": "0"}, "Process 0 waits for 3 other processes of SLURM (node[1-4])"),
        (JAX, "Process 0 waits for 3 other processes of JAX_COORDINATOR_ADDRESS (host:1)"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "Process 0 waits for others of TPU (a,b)"),
    ],
)
def test_a_line_says_for_whom_a_process_waits(connected, monkeypatch, variables, expected):
    printed = threading.Event()
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        printed.set()

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_PATIENCE_OF_FIRST", 0.0)
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda **options: printed.wait(60))
    processes.join(log)
    (line,) = lines
    assert line.startswith(expected)
    assert "To train alone, unset " in line


def test_processes_that_do_not_connect_are_named(connected, monkeypatch):
    def late(**options) -> None:
        raise RuntimeError("DEADLINE_EXCEEDED")

    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes.jax.distributed, "initialize", late)
    with pytest.raises(
        RuntimeError, match=r"SLURM \(node\[1-4\]\) connected .*unset SLURM_NTASKS to train alone"
    ):
        processes.join()


@pytest.mark.parametrize("missing", ["JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"])
def test_incomplete_variables_are_an_error(connected, monkeypatch, missing):
    for name in JAX.keys() - {missing}:
        monkeypatch.setenv(name, JAX[name])
    with pytest.raises(ValueError, match=f"^{missing} must be set too"):
        processes.join()


@pytest.mark.parametrize("variables", [{}, STEP])
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
    with pytest.raises(ValueError, match=r"JAX finds no SLURM on this machine; .* unset SLURM_NTASKS"):
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


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu.max": "broken"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_cores_are_limited_by_a_container(monkeypatch, tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setattr(processes, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    assert processes.cores() == expected


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
