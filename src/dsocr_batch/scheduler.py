"""Which shard of a corpus a job reads, told by the environment that its scheduler sets.

Sources of the variables, read in November 2026:

- AWS Batch, array jobs: https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html
- Slurm, job arrays and tasks of ``srun``: https://slurm.schedmd.com/job_array.html and "OUTPUT
  ENVIRONMENT VARIABLES" of https://slurm.schedmd.com/srun.html
- Kubernetes, Indexed Jobs:
  https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode
- torchrun: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_text

Environment = Mapping[str, str]


class ShardFrom(StrEnum):
    """Whose variables tell the shard."""

    AUTO = "auto"
    AWS_BATCH = "aws-batch"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"
    TORCHRUN = "torchrun"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIdentity:
    """One job of several that share a corpus.

    Attributes:
        shard_index: 0-based, below ``num_shards``.
        num_shards: at least 1.
    """

    shard_index: int
    num_shards: int


def shard_from(source: ShardFrom, environment: Environment) -> ShardIdentity | None:
    """Return the shard that the scheduler gave to this job.

    Returns:
        None for ``auto`` where no scheduler has set a variable; never None for a named one.

    Raises:
        UsageError: variables are missing or make no sense, the named scheduler has set none, or
            two schedulers disagree under ``auto``. A shard is never guessed: two jobs that both
            take shard 0 would leave the other documents unread.
    """
    if source is ShardFrom.AUTO:
        return _agreed(environment)
    identity = _READERS[source](environment)
    if identity is None:
        raise UsageError(
            f"--shard-from {source}: {_MARKS[source]}. Start the job that way, or give "
            "--shard-index and --num-shards."
        )
    return identity


def _agreed(environment: Environment) -> ShardIdentity | None:
    found = {
        source: identity
        for source, read in _READERS.items()
        if (identity := read(environment)) is not None
    }
    if len(set(found.values())) > 1:
        told = ", ".join(
            f"{source} says shard {identity.shard_index} of {identity.num_shards}"
            for source, identity in found.items()
        )
        raise UsageError(f"--shard-from auto: {told}. Name the one that is meant.")
    return next(iter(found.values()), None)


def _aws_batch(environment: Environment) -> ShardIdentity | None:
    return _pair(environment, "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE")


def _kubernetes(environment: Environment) -> ShardIdentity | None:
    # Kubernetes tells a pod its index and not the number of completions: the manifest has to.
    return _pair(environment, "JOB_COMPLETION_INDEX", "DSOCR_NUM_SHARDS")


def _torchrun(environment: Environment) -> ShardIdentity | None:
    return _pair(environment, "RANK", "WORLD_SIZE")


def _slurm(environment: Environment) -> ShardIdentity | None:
    """Read a job array, the tasks of ``srun``, or the tasks of ``srun`` in a job array.

    The script of ``sbatch`` itself has SLURM_PROCID=0 and SLURM_NTASKS of the job, as if it were
    the first of its tasks; SLURM_STEP_NUM_TASKS is set for tasks that ``srun`` started alone.
    """
    array = _slurm_array(environment)
    tasks = None
    if "SLURM_STEP_NUM_TASKS" in environment:
        tasks = _pair(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    if array is None or tasks is None:
        return array or tasks
    return ShardIdentity(
        shard_index=array.shard_index * tasks.num_shards + tasks.shard_index,
        num_shards=array.num_shards * tasks.num_shards,
    )


def _slurm_array(environment: Environment) -> ShardIdentity | None:
    names = [f"SLURM_ARRAY_TASK_{word}" for word in ("ID", "MIN", "MAX", "STEP", "COUNT")]
    numbers = _numbers(environment, names)
    if numbers is None:
        return None
    task, first, last, step, count = numbers
    # An array with gaps (--array=1,3,5,7) has step 1, and its tasks cannot be told from it.
    if count < 1 or step < 1 or last != first + (count - 1) * step:
        raise UsageError(
            f"Slurm's job array has gaps: {count} tasks from {first} to {last} with step {step}. "
            f"Submit it as --array=0-{max(count - 1, 0)}. To run single tasks of an array again, "
            "requeue them: scontrol requeue JOB_TASK."
        )
    index, rest = divmod(task - first, step)
    if rest or not 0 <= index < count:
        raise UsageError(
            f"SLURM_ARRAY_TASK_ID={task} is no task of the array from {first} to {last} with "
            f"step {step}."
        )
    return ShardIdentity(shard_index=index, num_shards=count)


def _pair(environment: Environment, index_name: str, count_name: str) -> ShardIdentity | None:
    numbers = _numbers(environment, [index_name, count_name])
    if numbers is None:
        return None
    index, count = numbers
    if index >= count:
        raise UsageError(f"{index_name}={index} is not below {count_name}={count}.")
    return ShardIdentity(shard_index=index, num_shards=count)


def _numbers(environment: Environment, names: list[str]) -> list[int] | None:
    """Return the values of all names; None if none of them is set."""
    missing = [name for name in names if name not in environment]
    if len(missing) == len(names):
        return None
    if missing:
        present = next(name for name in names if name in environment)
        raise UsageError(
            f"{present} is set and {' and '.join(missing)} is not, so the shard is not known. "
            "Set it, or give --shard-index and --num-shards."
        )
    return [_number(name, environment[name]) for name in names]


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise UsageError(f"{name}={display_text(value)} is not a whole number from 0 on.")
    return int(value)


_READERS: Mapping[ShardFrom, Callable[[Environment], ShardIdentity | None]] = {
    ShardFrom.AWS_BATCH: _aws_batch,
    ShardFrom.SLURM: _slurm,
    ShardFrom.KUBERNETES: _kubernetes,
    ShardFrom.TORCHRUN: _torchrun,
}

_MARKS: Mapping[ShardFrom, str] = {
    ShardFrom.AWS_BATCH: "AWS_BATCH_JOB_ARRAY_INDEX is not set; AWS Batch sets it in array jobs",
    ShardFrom.SLURM: "neither SLURM_ARRAY_TASK_ID nor SLURM_STEP_NUM_TASKS is set; Slurm sets "
    "them in job arrays and for tasks of srun",
    ShardFrom.KUBERNETES: "JOB_COMPLETION_INDEX is not set; Kubernetes sets it in Indexed Jobs",
    ShardFrom.TORCHRUN: "RANK is not set; torchrun sets it",
}
