"""The estimated cost of a schedule on this machine."""

from transfer_jax.planning.measured_costs import measured_costs
from transfer_jax.planning.operation_costs import operation_costs
from transfer_jax.planning.phase_cost import PhaseCost
from transfer_jax.report.progress import Progress
from transfer_jax.training.run import Run

__all__ = ["PhaseCost", "estimate_costs"]


def estimate_costs(run: Run, progress: Progress, *, exact: bool = False) -> tuple[PhaseCost, ...]:
    """Estimates the cost of each phase on this machine, as if no features were cached yet.

    Nothing is written to the run's folder.

    Args:
        run: The run.
        progress: Receives the progress of the measurements.
        exact: Compiles and times every phase. Otherwise one phase stands for the others, whose seconds are
            estimated from their operations, in a fraction of the time; phases with small programs, such as
            a head on cached features, are timed as well.
    """
    if exact or run.config.prefix_precision == "int8":  # Its kernels are calibrated on images before a step.
        return measured_costs(run, progress)
    return operation_costs(run, progress)
