"""The stage that computes the teacher's outputs once, or a part of them."""

from kd_keras.pipeline import teaching, training
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.workdir import write_json
from kd_keras.teachers import caching


def layers(job: Job) -> tuple[str, ...]:
    """The teacher's layers that the config's methods read."""
    student, teacher = training.build_student(job), teaching.load(job)
    stages = training.fitted_to_any(job)
    distillers = [training.make_distiller(job, stage, student, teacher) for stage in stages]
    return tuple(sorted({name for one in distillers for name in one.teacher_layers}))


def fill(job: Job, *, shard_index: int = 0, num_shards: int = 1) -> None:
    """Fill the cache of the teacher's outputs, or a part of it."""
    own, path = job.config.teacher.cache, teaching.cache_path(job)
    caching.fill(
        *(teaching.load(job), job.taught_views, path),
        layers=layers(job),
        dtype=own.dtype,
        top_k=own.top_k or None,
        batch_size=job.config.data.batch_size,
        shard_index=shard_index,
        num_shards=num_shards,
    )
    # A stage is done if its folder is there, wherever the cache lies.
    write_json(job.workdir.scratch(teaching.CACHE_STAGE, "stage.json"), {"path": str(path)})
