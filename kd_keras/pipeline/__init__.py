"""The main job: from labelled images to a benchmarked int8 TFLite student."""

import os
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from kd_keras.errors import InputError


def run(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    overwrite: bool = False,
    reuse: Sequence[str | os.PathLike] = (),
    command: str = "",
) -> dict[str, Any] | None:
    """Run the main job, or what is left of it, in a work directory.

    Args:
        config: What to run; see `kd_keras.pipeline.config.defaults`. Silent keys get the defaults.
        workdir: The folder of all artefacts. A run that was killed goes on in it.
        overwrite: Whether a folder that was made with another config may be written anew; stages
            that the difference does not concern are kept.
        reuse: Work directories of other runs: a stage that one of them has finished from the same
            part of the config (the data, the teacher, its cache, a student) is linked, not made
            again. They must stay where they are.
        command: The command line, for the report.

    Returns:
        What `report.json` holds; None in a worker that is not the chief.

    Raises:
        InputError: For a config, data or a work directory that cannot be used.
        tflite_export.ExportError: If the student cannot be exported, or the exported file does not
            say what the student says.
    """
    # TensorFlow is imported here, after the caller has chosen the Keras.
    from kd_keras.pipeline import stages
    from kd_keras.pipeline.job import opened

    with opened(config, workdir, overwrite=overwrite, reuse=reuse, command=command) as job:
        return stages.run_all(job)


def fill_cache(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    shard_index: int,
    num_shards: int,
    overwrite: bool = False,
) -> None:
    """Compute one part of the cache of a run's teacher, for several processes or machines.

    Each has a work directory of its own, and they share the folder `config.teacher.cache.path`;
    `run` then finds the cache filled.

    Args:
        config: See `run`.
        workdir: See `run`.
        shard_index: Which part, from 0.
        num_shards: How many parts there are.
        overwrite: See `run`.

    Raises:
        InputError: See `run`; and if the config asks for no cache, or names no folder for it.
    """
    from kd_keras.pipeline import stages
    from kd_keras.pipeline.job import opened
    from kd_keras.teachers import caching

    caching.require_part(shard_index, num_shards)
    with opened(config, workdir, overwrite=overwrite) as job:
        own = job.config.teacher.cache
        if not own.views or not own.path:
            raise InputError(
                f"config.teacher.cache has views {own.views} and path {own.path!r}; to fill it in "
                "parts, give both: how many views, and a folder that all processes share"
            )
        stages.fill_cache(job, shard_index=shard_index, num_shards=num_shards)
