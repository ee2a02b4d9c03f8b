"""Environments as the schedulers' documentation gives them, and the shard each one means.

Those of Slurm were printed by jobs of a real Slurm 22.05.8.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsocr_batch.errors import UsageError
from dsocr_batch.scheduler import ShardFrom, ShardIdentity, shard_from


def slurm_array(task: int, first: int, last: int, step: int, count: int) -> dict[str, str]:
    return {
        "SLURM_ARRAY_JOB_ID": "2",
        "SLURM_ARRAY_TASK_COUNT": str(count),
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_MAX": str(last),
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_STEP": str(step),
        **SBATCH_SCRIPT,
    }


def srun_task(task: int, tasks: int) -> dict[str, str]:
    return {
        "SLURM_LOCALID": str(task),
        "SLURM_NPROCS": str(tasks),
        "SLURM_NTASKS": str(tasks),
        "SLURM_PROCID": str(task),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(tasks),
    }


SBATCH_SCRIPT = {
    "SLURM_LOCALID": "0",
    "SLURM_NPROCS": "3",
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "0",
}
AWS_BATCH = {
    "AWS_BATCH_JOB_ARRAY_INDEX": "0",
    "AWS_BATCH_JOB_ARRAY_SIZE": "10",
    "AWS_BATCH_JOB_ATTEMPT": "2",
    "AWS_BATCH_CE_NAME": "g6",
}
KUBERNETES = {"JOB_COMPLETION_INDEX": "4", "DSOCR_NUM_SHARDS": "5"}
TORCHRUN = {"LOCAL_RANK": "1", "RANK": "9", "LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "16"}

DOCUMENTED: list[tuple[ShardFrom, Mapping[str, str], tuple[int, int]]] = [
    (ShardFrom.AWS_BATCH, AWS_BATCH, (0, 10)),
    (ShardFrom.AWS_BATCH, {**AWS_BATCH, "AWS_BATCH_JOB_ARRAY_INDEX": "9"}, (9, 10)),
    (ShardFrom.SLURM, slurm_array(0, 0, 3, 1, 4), (0, 4)),  # --array=0-3
    (ShardFrom.SLURM, slurm_array(3, 0, 3, 1, 4), (3, 4)),
    (ShardFrom.SLURM, slurm_array(1, 1, 4, 1, 4), (0, 4)),  # --array=1-4
    (ShardFrom.SLURM, slurm_array(7, 1, 7, 2, 4), (3, 4)),  # --array=1-7:2
    (ShardFrom.SLURM, slurm_array(8, 0, 8, 4, 3), (2, 3)),  # --array=0-10:4
    (ShardFrom.SLURM, slurm_array(5, 5, 5, 1, 1), (0, 1)),  # --array=5
    (ShardFrom.SLURM, srun_task(2, 3), (2, 3)),
    (ShardFrom.SLURM, slurm_array(1, 0, 1, 1, 2) | srun_task(0, 1), (1, 2)),
    (ShardFrom.SLURM, slurm_array(1, 0, 1, 1, 2) | srun_task(1, 2), (3, 4)),
    (ShardFrom.KUBERNETES, KUBERNETES, (4, 5)),
    (ShardFrom.TORCHRUN, TORCHRUN, (9, 16)),
]


@pytest.mark.parametrize("source, environment, shard", DOCUMENTED)
def test_each_documented_environment_means_its_shard(
    source: ShardFrom, environment: Mapping[str, str], shard: tuple[int, int]
) -> None:
    expected = ShardIdentity(shard_index=shard[0], num_shards=shard[1])
    assert shard_from(source, environment) == expected
    assert shard_from(ShardFrom.AUTO, environment) == expected


@given(
    first=st.integers(0, 50),
    step=st.integers(1, 7),
    count=st.integers(1, 30),
    tasks=st.integers(1, 8),
)
def test_the_tasks_of_a_slurm_array_are_each_shard_once(
    first: int, step: int, count: int, tasks: int
) -> None:
    last = first + (count - 1) * step
    found = [
        shard_from(
            ShardFrom.SLURM, slurm_array(task, first, last, step, count) | srun_task(n, tasks)
        )
        for task in range(first, last + 1, step)
        for n in range(tasks)
    ]
    assert found == [
        ShardIdentity(shard_index=index, num_shards=count * tasks) for index in range(count * tasks)
    ]


@pytest.mark.parametrize(
    "source, environment, missing",
    [
        (ShardFrom.AWS_BATCH, {"AWS_BATCH_JOB_ARRAY_INDEX": "3"}, "AWS_BATCH_JOB_ARRAY_SIZE"),
        (ShardFrom.AWS_BATCH, {"AWS_BATCH_JOB_ARRAY_SIZE": "3"}, "AWS_BATCH_JOB_ARRAY_INDEX"),
        (ShardFrom.SLURM, {"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_COUNT"),
        (ShardFrom.SLURM, {"SLURM_ARRAY_TASK_COUNT": "3"}, "SLURM_ARRAY_TASK_ID"),
        (ShardFrom.SLURM, {"SLURM_STEP_NUM_TASKS": "3"}, "SLURM_PROCID"),
        (ShardFrom.KUBERNETES, {"JOB_COMPLETION_INDEX": "3"}, "DSOCR_NUM_SHARDS"),
        (ShardFrom.KUBERNETES, {"DSOCR_NUM_SHARDS": "3"}, "JOB_COMPLETION_INDEX"),
        (ShardFrom.TORCHRUN, {"RANK": "3"}, "WORLD_SIZE"),
        (ShardFrom.TORCHRUN, {"WORLD_SIZE": "3"}, "RANK"),
    ],
)
def test_a_half_set_environment_is_an_error_that_names_what_is_missing(
    source: ShardFrom, environment: Mapping[str, str], missing: str
) -> None:
    for asked in (source, ShardFrom.AUTO):
        with pytest.raises(UsageError, match=rf"\b{missing}\b.* is not, so"):
            shard_from(asked, environment)


@pytest.mark.parametrize(
    "source, variable",
    [
        (ShardFrom.AWS_BATCH, "AWS_BATCH_JOB_ARRAY_INDEX"),
        (ShardFrom.SLURM, "SLURM_ARRAY_TASK_ID"),
        (ShardFrom.KUBERNETES, "JOB_COMPLETION_INDEX"),
        (ShardFrom.TORCHRUN, "RANK"),
    ],
)
def test_a_named_scheduler_that_has_set_nothing_is_an_error(
    source: ShardFrom, variable: str
) -> None:
    with pytest.raises(UsageError, match=variable):
        shard_from(source, {"HOME": "/root"})


def test_auto_is_silent_where_no_scheduler_has_set_anything() -> None:
    assert shard_from(ShardFrom.AUTO, {"HOME": "/root"}) is None


def test_a_script_of_sbatch_is_not_taken_for_the_first_of_its_tasks() -> None:
    assert shard_from(ShardFrom.AUTO, SBATCH_SCRIPT) is None
    with pytest.raises(UsageError, match="srun"):
        shard_from(ShardFrom.SLURM, SBATCH_SCRIPT)


@pytest.mark.parametrize("task", [1, 3, 5, 7])
def test_a_slurm_array_with_gaps_is_an_error(task: int) -> None:
    with pytest.raises(UsageError, match=r"has gaps.*--array=0-3"):
        shard_from(ShardFrom.SLURM, slurm_array(task, 1, 7, 1, 4))  # --array=1,3,5,7


@pytest.mark.parametrize("task", [0, 2, 9])
def test_a_slurm_task_outside_its_array_is_an_error(task: int) -> None:
    with pytest.raises(UsageError, match=f"SLURM_ARRAY_TASK_ID={task}"):
        shard_from(ShardFrom.SLURM, slurm_array(task, 1, 7, 2, 4))


@pytest.mark.parametrize("value", ["", "-1", "1.5", " 1", "٣", "0x1", "1\x1b[2J"])
def test_a_value_that_is_no_number_is_an_error_that_shows_it_harmlessly(value: str) -> None:
    with pytest.raises(UsageError, match=r"RANK=.* is not a whole number") as raised:
        shard_from(ShardFrom.TORCHRUN, {"RANK": value, "WORLD_SIZE": "4"})
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("count", ["0", "4"])
def test_an_index_that_is_not_below_the_count_is_an_error(count: str) -> None:
    with pytest.raises(UsageError, match=f"RANK=4 is not below WORLD_SIZE={count}"):
        shard_from(ShardFrom.TORCHRUN, {"RANK": "4", "WORLD_SIZE": count})


def test_two_schedulers_that_disagree_are_an_error_under_auto_alone() -> None:
    both = {**TORCHRUN, **slurm_array(0, 0, 1, 1, 2)}
    with pytest.raises(UsageError, match=r"slurm says shard 0 of 2, torchrun says shard 9 of 16"):
        shard_from(ShardFrom.AUTO, both)
    assert shard_from(ShardFrom.SLURM, both) == ShardIdentity(shard_index=0, num_shards=2)


def test_two_schedulers_that_agree_are_no_error() -> None:
    both = {"RANK": "1", "WORLD_SIZE": "2", **srun_task(1, 2)}
    assert shard_from(ShardFrom.AUTO, both) == ShardIdentity(shard_index=1, num_shards=2)
