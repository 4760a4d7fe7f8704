"""The other processes of a run, as the environment variables of a scheduler name them."""

import dataclasses
import os

TPU_HOSTS, TPU_SLICES = "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES"


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes that a scheduler has started, or says it has.

    Attributes:
        scheduler: Name of the scheduler.
        count: Number of processes; 0 if it is not known before they are connected.
        index: Index of this process, from 0.
        alone: The reason why this process is the only one although variables name several; otherwise empty.
        place: The hosts, for messages; empty if they are unknown.
        unset: The variable without which this process trains alone.
        start: How to start all processes.
    """

    scheduler: str
    count: int
    index: int = 0
    alone: str = ""
    place: str = ""
    unset: str = ""
    start: str = ""


def started_group() -> Group | None:
    """Returns the processes that a scheduler has started with this one; None without a scheduler, or for one.

    Raises:
        ValueError: If a variable is no number, or if the scheduler is an MPI that JAX does not know.
    """
    return _slurm() or _open_mpi() or _other_mpi() or _tpu_hosts()


def number(name: str, default: int = 0) -> int:
    """Returns the whole number in an environment variable.

    Raises:
        ValueError: If the variable is set to something else.
    """
    text = os.environ.get(name, "").strip()
    if text and not text.isdecimal():
        raise ValueError(f"the environment variable {name} must be a whole number, got {text!r}")
    return int(text) if text else default


def _slurm() -> Group | None:
    """Returns the tasks of a SLURM step.

    A shell in an allocation (`salloc`, `sbatch`) has the number of tasks, too, but runs one process only.
    """
    count = number("SLURM_NTASKS")
    if count < 2:
        return None
    lacking = [
        name for name in ("SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID") if not os.environ.get(name)
    ]
    alone = ""
    if lacking:
        alone = "srun has not started this process"
    elif number("SLURM_STEP_NUM_TASKS", count) == 1:
        alone = "the step has one task"
    elif os.environ.get("SLURM_PTY_PORT"):
        alone = "this is an interactive shell"
    return Group(
        "SLURM",
        count,
        0 if lacking else number("SLURM_PROCID"),
        alone,
        os.environ.get("SLURM_STEP_NODELIST", ""),
        "SLURM_NTASKS",
        "srun transfer-jax ...",
    )


def _open_mpi() -> Group | None:
    count = number("OMPI_COMM_WORLD_SIZE")
    if count < 2:
        return None
    ranks = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")
    lacking = [name for name in ranks if not os.environ.get(name)]
    alone = f"{lacking[0]} is not set" if lacking else ""
    index = 0 if lacking else number(ranks[0])
    return Group("Open MPI", count, index, alone, "", "OMPI_COMM_WORLD_SIZE", "mpirun transfer-jax ...")


def _other_mpi() -> Group | None:
    """Raises an error for MPICH and its relatives: each process would train alone, in the same workdir."""
    count = number("PMI_SIZE")
    if count > 1 and os.environ.get("PMI_RANK") and not os.environ.get("SLURM_JOB_ID"):
        raise ValueError(
            f"MPI has started {count} processes (PMI_SIZE), but JAX finds them under Open MPI and SLURM; "
            "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID for each, or unset PMI_SIZE"
        )
    return None


def _tpu_hosts() -> Group | None:
    hosts = os.environ.get(TPU_HOSTS, "")
    if "," not in hosts and TPU_SLICES not in os.environ:
        return None
    variable = TPU_HOSTS if "," in hosts else TPU_SLICES
    return Group("TPU", 0, number("TPU_WORKER_ID"), "", hosts, variable, "the same command on all hosts")
