"""The main job: from labelled images to a benchmarked int8 TFLite student."""

import os
from typing import Any

from ml_collections import ConfigDict


def run(
    config: ConfigDict, workdir: str | os.PathLike, *, overwrite: bool = False, command: str = ""
) -> dict[str, Any] | None:
    """Run the main job, or what is left of it, in a work directory.

    Args:
        config: What to run; see `kd_keras.pipeline.config.defaults`. Silent keys get the defaults.
        workdir: The folder of all artefacts. A run that was killed goes on in it.
        overwrite: Whether a folder that was made with another config may be written anew; stages
            that the difference does not concern are kept.
        command: The command line, for the report.

    Returns:
        What `report.json` holds; None in a worker that is not the chief.

    Raises:
        InputError: For a config, data or a work directory that cannot be used.
        tflite_export.ExportError: If the student cannot be exported, or the exported file does not
            say what the student says.
    """
    # TensorFlow is imported below, after the caller has chosen the Keras.
    from kd_keras.pipeline import config as configs
    from kd_keras.pipeline import fitting, stages, strategies
    from kd_keras.pipeline.job import Job
    from kd_keras.pipeline.workdir import Workdir

    config = configs.complete(config)
    configs.check(config)
    strategy = strategies.make(config.strategy)
    folder = Workdir(workdir, chief=strategies.is_chief())
    with folder.locked():
        folder.adopt(configs.plain(config), overwrite=overwrite)
        fitting.enable_determinism(config.seed, deterministic=config.deterministic)
        return stages.run_all(Job(config, folder, strategy, command))
