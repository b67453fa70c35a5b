"""The stage that computes the teacher's outputs once, or a part of them."""

from kd_keras.pipeline import teaching, training
from kd_keras.pipeline.job import Job
from kd_keras.teachers import caching


def layers(job: Job) -> tuple[str, ...]:
    """The teacher's layers that the config's methods read."""
    student, teacher = training.build_student(job), teaching.load(job)
    stages = training.fitted_to_any(job)
    distillers = [training.make_distiller(job, stage, student, teacher) for stage in stages]
    return tuple(sorted({name for one in distillers for name in one.teacher_layers}))


def fill(job: Job, *, shard_index: int = 0, num_shards: int = 1) -> None:
    """Fill the cache of the teacher's outputs, or a part of it."""
    found = layers(job)
    caching.fill(
        *(teaching.load(job), job.taught_views, teaching.cache_path(job)),
        shard_index=shard_index,
        num_shards=num_shards,
        **teaching.cache_options(job, found),
    )
    teaching.record_cache(job, found)
