"""`kd-table`: a table of runs from the command line.

    kd-table --table=configs/tables/compression.py:fashion_mnist --output=docs/results/compression

Runs what is missing, each run a `kd-train` of its own, then writes the table. A table that was
killed goes on when the same command is given again. Figures that lie in `--output` are kept for as
long as the table's file asks for the same, though the folders of their runs may be gone. Commands
with different `--seeds` may run side by side: small networks gain little from a second core, so two
seeds on a core each are done sooner.
"""

import os
import pathlib

from absl import app, flags

from kd_keras.command_line import complaining, parsed
from kd_keras.errors import InputError

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Run what is missing and print the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; use --table=FILE")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from kd_keras.pipeline import tables, tables_figures, tables_page, tables_record

    table = tables.load(FLAGS.table, FLAGS.workdir)
    rows, seeds = tables.chosen(table, FLAGS.rows, FLAGS.seeds)
    kept = tables_record.read(table, FLAGS.output) if FLAGS.output else {}
    failed = tables.run_missing(table, rows, seeds, kept) if FLAGS.run else []
    if FLAGS.output:
        kept = tables_record.read(table, FLAGS.output)  # another command may have added to them
    results = tables_figures.results(table, rows, seeds, kept)
    if FLAGS.latency:
        tables_figures.measure(table, results)
    print(tables_page.markdown(table, results))
    if FLAGS.output:
        tables_page.write(table, results, pathlib.Path(FLAGS.output))
    if failed:
        raise InputError(f"{len(failed)} runs failed; the first: {failed[0]}")


def _define_flags() -> None:
    """Defined when the command runs: two commands may be imported side by side."""
    flags.DEFINE_string("table", None, "A table's file, or FILE:NAME where it has several.")
    flags.DEFINE_string("workdir", "", "Folder of the runs; by default runs/tables/NAME.")
    flags.DEFINE_list("rows", [], "Rows to run; all by default.")
    flags.DEFINE_list("seeds", [], "Seeds to run; by default the table's own.")
    flags.DEFINE_string(
        "output", "", "Folder for NAME.md, NAME.json and NAME.svg; none by default."
    )
    flags.DEFINE_bool(
        "run", True, "Whether to run what is missing, or only to write what is there."
    )
    flags.DEFINE_bool("latency", False, "Measure the latency of all files, one after the other.")
    flags.mark_flag_as_required("table")


def run() -> None:
    """Entry point of the console script."""
    _define_flags()
    with complaining("kd-table"):
        app.run(main, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    for name in ("table", "workdir", "rows", "seeds", "output", "run", "latency"):
        FLAGS.register_key_flag_for_module(argv[0], FLAGS[name])  # --help shows these
    return parsed(FLAGS, argv)


if __name__ == "__main__":
    run()
