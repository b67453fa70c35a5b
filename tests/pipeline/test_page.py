"""The report page, rendered from a made-up run."""

import ast
import copy
import html
import html.parser
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kd_keras.errors import InputError
from kd_keras.pipeline import numerals, page, plots, verdict
from kd_keras.pipeline.results_table import standard_error

pytestmark = pytest.mark.any_keras

PACKAGE = Path(page.__file__).parent
VOID = {"meta", "br", "hr", "img", "link", "input"}


# --- a made-up run -------------------------------------------------------------------------------


def measured(median, threads):
    spread = {"median": median, "low": 0.9 * median, "high": 1.2 * median}
    return {
        "setting": {"backend": "xnnpack", "threads": threads, "cores": "all"},
        "readings": [{}, {}, {}],
        "latency_us": {
            "median": spread, "p90": {"median": 1.12 * median}, "p5": None,
            "init": {"median": 812.0}, "first": {"median": 95.5},
        },
        "peak_memory_bytes": 4915200,
    }  # fmt: skip


def made_up_report():
    """No run made these numbers; they have the size of the digits quickstart's."""
    return {
        "config": {
            "data": {"name": "digits", "batch": 64},
            "methods": [{"name": "soft_targets", "temperature": 4.0, "weight": 0.9}],
            "epochs": {"teacher": 12, "student": 20},
        },
        "versions": {"tensorflow": "2.21.0", "tf_keras": "2.21.0", "numpy": "2.4.1"},
        "machine": {
            "cpu": "Example CPU @ 2.10GHz", "cores": 2, "memory_gb": 7.75, "os": "Linux 6.1",
            "python": "3.11.9",
        },
        "data": {
            "name": "digits", "train": 1257, "validation": 180, "test": 360,
            "checksum": "sha256:7d1f0c6a9b2e4453",
        },
        "models": {
            "teacher": {"accuracy": 0.9889, "parameters": 93322, "macs": 1234567, "sparsity": 0.0},
            "student_alone": {
                "accuracy": 0.9583, "parameters": 5898, "macs": 187392, "sparsity": 0.0,
            },
            "student": {"accuracy": 0.9778, "parameters": 5898, "macs": 187392, "sparsity": 0.0},
            "student_compressed": {
                "accuracy": 0.9750, "parameters": 5898, "macs": 187392, "sparsity": 0.748,
            },
        },
        "tflite": {
            "float32": {
                "path": "export/student.tflite", "bytes": 26212, "gzip_bytes": 23950,
                "accuracy": 0.9778, "agreement": 1.0,
                "measurements": [measured(21.43, 1), measured(24.92, 2)],
                "input_dtype": "float32", "output_dtype": "float32",
            },
            "int8": {
                "path": "export/student_int8.tflite", "bytes": 12344, "gzip_bytes": 5611,
                "accuracy": 0.9722, "agreement": 0.9972, "largest_error_steps": 2.0,
                "measurements": [measured(12.06, 1), measured(15.77, 2)],
                "input_dtype": "int8", "output_dtype": "int8",
            },
        },
        "seconds": {
            "data": 0.4, "teacher": 41.2, "student_alone": 18.9, "student": 26.3,
            "compressed": 31.7, "export": 6.1, "verify": 0.8, "benchmark": 5.5,
        },
        "command": "kd-train --config=configs/quickstart.py --workdir=runs/quickstart",
        "created": "2026-03-01T12:00:00+00:00",
    }  # fmt: skip


def made_up_history(epochs, start, end, terms=(), seed=0):
    random = np.random.default_rng(seed)
    history = []
    for epoch in range(epochs):
        left = math.exp(-4 * epoch / max(epochs, 2))
        accuracy = end - (end - start) * left
        values = {"epoch": epoch, "loss": 0.05 + 2.2 * left, "learning_rate": 1e-3}
        values |= {"accuracy": accuracy, "val_accuracy": accuracy - 0.01 * random.random()}
        values |= {"val_loss": 0.09 + 2.2 * left * random.uniform(0.9, 1.2)}
        values |= {name: (0.03 + 1.5 * left) / (i + 1) for i, name in enumerate(terms)}
        history.append(values)
    return history


def made_up_confusion(classes, errors, seed, per_class=36):
    random = np.random.default_rng(seed)
    matrix = np.diag([per_class] * classes)
    for _ in range(errors):
        true, predicted = random.integers(classes, size=2)
        if matrix[true, true] > 0:
            matrix[true, true] -= 1
            matrix[true, predicted] += 1
    return matrix.tolist()


def made_up_details(classes=10):
    terms = ("labels", "soft_targets", "adversarial")
    return {
        "class_names": [str(digit) for digit in range(classes)],
        "history": {
            "teacher": made_up_history(12, 0.31, 0.991, seed=1),
            "student_alone": made_up_history(20, 0.18, 0.958, seed=2),
            "student": made_up_history(20, 0.22, 0.978, terms, seed=3),
            "1_pruning": made_up_history(8, 0.93, 0.976, terms, seed=4),
            "2_quantization": made_up_history(6, 0.95, 0.974, terms, seed=5),
        },
        "confusion": {
            "teacher": made_up_confusion(classes, 5, 1),
            "student_alone": made_up_confusion(classes, 17, 2),
            "student": made_up_confusion(classes, 9, 3),
            "student_compressed": made_up_confusion(classes, 10, 4),
            "int8": made_up_confusion(classes, 12, 4),
        },
    }


# --- reading the page back -----------------------------------------------------------------------


class Reader(html.parser.HTMLParser):
    """Collects text, attributes and ids, and insists that every element is closed in order."""

    def __init__(self, page_text):
        super().__init__()
        self.open, self.attributes, self.tags, self.pieces = [], [], [], []
        self.feed(page_text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.pieces.append(data)

    @property
    def text(self):
        return " ".join("".join(self.pieces).split())

    def values(self, attribute):
        return [value for _, name, value in self.attributes if name == attribute]


def read(report, details):
    text = page.render(report, details)
    reader = Reader(text)
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def rendered():
    return page.render(made_up_report(), made_up_details())


def test_page_is_well_formed_with_unique_ids_that_resolve(rendered):
    reader = Reader(rendered)
    assert not reader.open
    ids = reader.values("id")
    assert len(ids) == len(set(ids)) > 0
    targets = re.findall(r'(?:href="|url\()#([^")]+)', rendered)
    assert targets
    assert set(targets) <= set(ids)


def test_page_refers_to_nothing_outside(rendered):
    assert not re.search(r"https?:|//[a-z]|@import|javascript:", rendered)
    reader = Reader(rendered)
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    assert reader.values("src") == []
    links = reader.values("href") + reader.values("xlink:href")
    assert all(link.startswith("#") for link in links)
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", rendered))


def test_same_input_gives_same_bytes_whatever_the_users_matplotlibrc(rendered):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": False}):
        assert page.render(made_up_report(), made_up_details()) == rendered


def test_rendering_leaves_its_arguments_as_they_were():
    report, details = made_up_report(), made_up_details()
    before = copy.deepcopy((report, details))
    page.render(report, details)
    assert (report, details) == before


@pytest.mark.parametrize(
    "number",
    [
        "98.89 %", "95.83 %", "97.78 %", "97.50 %", "97.22 %",  # accuracies
        "± 0.55", "± 1.05", "± 0.78", "± 0.82", "± 0.87",  # sqrt(p (1 - p) / 360), by hand
        "373.3 kB", "23.6 kB", "26.2 kB", "12.3 kB",  # 4 * 93322 and 4 * 5898 bytes; the files
        "23.9 kB", "5.6 kB",
        "21.4 µs", "24.0 µs", "12.1 µs", "13.5 µs",
        "100.00 %", "99.72 %",
        "93,322", "5,898", "1,234,567", "187,392", "74.8 %",
    ],
)  # fmt: skip
def test_every_number_of_the_table_is_in_all_three_forms(rendered, number):
    assert number in Reader(rendered).text
    assert number in page.table(made_up_report())
    assert number in page.markdown_table(made_up_report())


def test_page_tells_machine_data_command_config_and_times(rendered):
    text = Reader(rendered).text
    for fact in (
        "Example CPU @ 2.10GHz", "7.75 GB", "1,257 images", "sha256:7d1f0c6a9b2e4453", "2.21.0",
        "kd-train --config=configs/quickstart.py --workdir=runs/quickstart", "2 min 11 s",
        '"temperature": 4.0', "2026-03-01 12:00 UTC", "3 processes' medians on 1 thread",
        "largest output error 2 quantization steps", "24.9 µs", "15.8 µs", "22.4 µs to 29.9 µs",
        "812.0 µs", "95.5 µs", "peak memory 4.92 MB",
    ):  # fmt: skip
        assert " ".join(fact.split()) in text


# --- the verdict ---------------------------------------------------------------------------------


def with_accuracies(student, alone, test=10000):
    report = made_up_report()
    report["models"]["student"]["accuracy"] = student
    report["models"]["student_alone"]["accuracy"] = alone
    report["data"]["test"] = test
    return report


def test_verdict_sums_up_the_run():
    assert verdict.verdict(made_up_report()) == (
        "The int8 student: 97.2 % accurate, 30× smaller than the teacher, 12.1 µs on this machine; "
        "distillation gave +1.9 points over the student alone, which may be chance."
    )


def test_verdict_says_when_distillation_lost():
    sentence = verdict.verdict(with_accuracies(0.94, 0.96))
    assert sentence.endswith("distillation lost 2.0 points against the student alone.")
    assert "−2.0 points" in verdict.how_sure(with_accuracies(0.94, 0.96))


def test_more_images_make_the_same_gain_clear():
    few, many = with_accuracies(0.97, 0.96, 400), with_accuracies(0.97, 0.96, 40000)
    assert "may be chance" in verdict.verdict(few)
    assert "may be chance" not in verdict.verdict(many)
    gain = verdict.difference(few, "student", "student_alone")
    assert gain is not None
    assert gain.error == pytest.approx(math.sqrt((0.97 * 0.03 + 0.96 * 0.04) / 400))


def test_no_gain_is_called_no_gain():
    assert "changed nothing" in verdict.verdict(with_accuracies(0.96, 0.96))


def test_standard_error_agrees_with_repeated_draws():
    draws = np.random.default_rng(0).binomial(360, 0.95, size=200_000) / 360
    assert standard_error(0.95, 360) == pytest.approx(draws.std(), rel=0.01)
    assert standard_error(1.0, 360) is None
    assert standard_error(0.95, None) is None


# --- parts missing -------------------------------------------------------------------------------


def test_an_empty_run_still_makes_a_page():
    reader = read({}, {})
    assert "has not measured a model yet" in reader.text
    assert "table" not in reader.tags
    assert page.table({}) == "Model\n─────"


@pytest.mark.parametrize(
    "key",
    ["config", "versions", "machine", "data", "models", "tflite", "seconds", "command", "created"],
)
@pytest.mark.parametrize("empty", [{}, None, "absent"])
def test_each_part_of_the_report_may_be_missing(key, empty):
    report = made_up_report()
    if empty == "absent":
        del report[key]
    else:
        report[key] = empty
    read(report, {})
    page.table(report)
    page.markdown_table(report)


@pytest.mark.parametrize("section", ["models", "tflite"])
def test_each_row_and_each_field_may_be_missing(section):
    for name, entry in made_up_report()[section].items():
        report = made_up_report()
        del report[section][name]
        label = {"int8": "int8 TFLite", "student_alone": "Student alone"}.get(name)
        assert label is None or label not in page.table(report)
        read(report, {})
        for field in entry:
            report = made_up_report()
            report[section][name][field] = None
            verdict.verdict(report)
            page.table(report)


def test_columns_without_a_value_are_left_out():
    report = made_up_report()
    del report["tflite"]
    heading = page.table(report).splitlines()[0]
    assert "Latency" not in heading
    assert "Parameters" in heading


def test_nan_accuracy_counts_as_missing():
    report = made_up_report()
    report["models"]["teacher"]["accuracy"] = math.nan
    teacher = next(line for line in page.table(report).splitlines() if line.startswith("Teacher"))
    assert teacher.split()[1] == "–"
    assert "nan" not in page.table(report)


@pytest.mark.parametrize("details", [{"history": {"teacher": []}}, {"confusion": {}}, {}])
def test_details_may_be_empty(details):
    read(made_up_report(), details)


# --- training curves -----------------------------------------------------------------------------


def test_one_epoch_is_drawn_as_a_point():
    details = {"history": {"teacher": made_up_history(1, 0.3, 0.9)}}
    reader = read(made_up_report(), details)
    assert "1 epoch" in reader.text
    assert "use" in reader.tags


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_a_gap_and_is_named(bad):
    details = {"history": {"teacher": made_up_history(6, 0.3, 0.9)}}
    details["history"]["teacher"][3]["loss"] = bad
    reader = read(made_up_report(), details)
    assert "Not finite, shown as a gap: loss (epoch 4)." in reader.text
    assert not any(re.search(r"\b(nan|inf)\b", d) for d in reader.values("d"))


def test_a_history_of_nan_alone_is_drawn():
    history = [{"epoch": 0, "loss": math.nan, "accuracy": math.nan, "val_accuracy": math.nan}]
    read(made_up_report(), {"history": {"student": history}})


def test_a_term_keeps_its_colour_through_the_stages():
    histories = made_up_details()["history"]
    terms = plots.loss_terms(histories)
    assert list(terms) == ["loss", "labels", "soft_targets", "adversarial"]
    assert len(set(terms.values())) == len(terms)
    many = plots.loss_terms({"s": [{f"term{i}": 1.0 for i in range(12)}]})
    assert len(set(many.values())) == len(many)


# --- classes -------------------------------------------------------------------------------------


def test_hostile_texts_are_escaped_everywhere():
    hostile = '<script>alert("1")</script> & $x^$'
    details = made_up_details()
    details["class_names"][0] = hostile
    details["history"]['"><em>stage'] = [{"epoch": 0, "loss": 1.0, '<i>"term': 2.0}]
    report = made_up_report()
    report["command"] = report["data"]["name"] = report["machine"]["cpu"] = hostile
    report["config"]["note"] = report["versions"][hostile] = hostile
    reader = read(report, details)
    assert not {"script", "em"} & set(reader.tags)
    assert hostile in reader.values("title")
    assert reader.tags.count("i") == len(report["seconds"])  # the bars, and no more


@pytest.mark.parametrize("name", ["#0067a3", ' id="x"', "url(#x)", "font: 3px a", "-->"])
def test_a_class_name_that_looks_like_svg_stays_as_it_is(name):
    reader = read({}, {"class_names": [name, "b"], "confusion": {"int8": [[3, 1], [1, 3]]}})
    classes = reader.text.split("Which classes")[1]
    assert classes.count(name.strip()) == 5  # dot plot, row, column, and twice in the caption
    assert "x" not in reader.values("id")


def test_long_and_foreign_class_names_fit_and_make_no_warning(recwarn):
    details = made_up_details()
    details["class_names"][:3] = ["a very long name of a class indeed", "自行车", "two\nlines"]
    text = read(made_up_report(), details).text
    assert "a very long name of a…" in text
    assert "自行车" in text
    assert "two lines" in text
    assert not recwarn.list


def test_matrix_shows_counts_and_names_the_worst_pair():
    matrix = [[30, 6], [1, 35]]
    text = read({}, {"class_names": ["cat", "dog"], "confusion": {"int8": matrix}}).text
    assert "cat taken for dog (6 of 36), dog taken for cat (1 of 36)." in text
    assert "83.3 %" in text


def test_a_hundred_classes_make_a_list_of_pairs_and_no_matrix():
    details = made_up_details(100)
    matrix = np.asarray(details["confusion"]["int8"])
    matrix[42, 77] = 11
    details["confusion"]["int8"] = matrix.tolist()
    reader = read(made_up_report(), details)
    assert "Most confused pairs" in reader.text
    assert "the 20 hardest of 100" in reader.text
    assert "matrix" not in " ".join(reader.values("class"))
    share = 11 / matrix[42].sum()
    assert re.search(rf"42 ?77 ?11 ?{100 * share:.1f} %", reader.text)


def test_a_class_without_images_has_no_accuracy():
    read({}, {"confusion": {"int8": [[0, 0], [2, 5]], "teacher": [[0, 0], [0, 7]]}})


@pytest.mark.parametrize("confusion", [[[1, 2]], [[1, 2], [3]], [], [["a"]], [[-1]], "x"])
def test_a_broken_confusion_matrix_is_refused(confusion):
    with pytest.raises(InputError, match="confusion matrix of 'int8' cannot be read"):
        page.render({}, {"confusion": {"int8": confusion}})


def test_names_that_do_not_fit_the_matrix_are_refused():
    with pytest.raises(InputError, match="has 2 classes, but class_names has 3"):
        page.render({}, {"class_names": list("abc"), "confusion": {"int8": [[1, 0], [0, 1]]}})


# --- text forms, files, imports ------------------------------------------------------------------


def test_text_table_is_aligned_and_in_order():
    lines = page.table(made_up_report()).splitlines()
    body = lines[2:8]
    assert [line[:18].strip() for line in body] == [
        "Teacher", "Student alone", "Distilled student", "Compressed student", "float32 TFLite",
        "int8 TFLite",
    ]  # fmt: skip
    assert len({line.index("%") for line in body}) == 1
    assert len({line.index("kB") for line in body}) == 1
    assert lines[8].startswith("± one standard error on 360 test images")


def test_markdown_table_has_the_same_number_of_cells_in_each_line():
    lines = page.markdown_table(made_up_report()).splitlines()
    table_lines = [line for line in lines if line.startswith("|")]
    assert len(table_lines) == 8
    assert len({line.count("|") for line in table_lines}) == 1
    assert r"23.6 kB \*" in lines[3]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numerals.percent(0.97834), "97.83 %"),
        (numerals.size(12345), "12.3 kB"),
        (numerals.size(99), "99 B"),
        (numerals.size(4_276_100), "4.28 MB"),
        (" | ".join(numerals.sizes([1_093_000, None, 303_000])), "1,093.0 kB | – | 303.0 kB"),
        (numerals.latency(38.06), "38.1 µs"),
        (numerals.latency(105_784), "105.8 ms"),
        (numerals.points(-0.0123), "−1.2 points"),
        (numerals.points(0.0001), "±0.0 points"),
        (numerals.duration(59.96), "1 min 00 s"),
        (numerals.duration(3725), "1 h 02 min"),
        (numerals.count(1234567.0), "1,234,567"),
        (numerals.ratio(17.3), "17×"),
        (numerals.ratio(1.44), "1.4×"),
    ],
)
def test_numbers_are_written_as_a_reader_expects(written, expected):
    assert written == expected


def test_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path, rendered):
    target = tmp_path / "report.html"
    target.write_text("old")
    page.write(made_up_report(), made_up_details(), target)
    assert target.read_text(encoding="utf-8") == rendered
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kd_keras.pipeline.page.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        page.write(made_up_report(), {}, target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


MODULES = ("page", "plots", "svg", "numerals", "results_table", "verdict", "class_errors")


@pytest.mark.parametrize("module", MODULES)
def test_page_modules_import_only_light_packages(module):
    allowed = {"matplotlib", "jinja2", "markupsafe", "numpy", "kd_keras"} | sys.stdlib_module_names
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert str(node.module).split(".")[0] in allowed


def test_page_does_not_pull_in_tensorflow():
    # The packages' own __init__ are left aside: only what the page itself imports is asked about.
    code = f"""
import sys, types
folders = {{"kd_keras": {str(PACKAGE.parent)!r}, "kd_keras.pipeline": {str(PACKAGE)!r}}}
for name, folder in folders.items():
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package
import kd_keras.pipeline.page as page
assert "accurate" in page.render({{"models": {{"teacher": {{"accuracy": 0.5}}}}}}, {{}})
assert not {{"tensorflow", "keras", "tf_keras", "matplotlib.pyplot"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


if __name__ == "__main__":
    page.write(made_up_report(), made_up_details(), sys.argv[1])


def test_generations_and_parts_of_a_training_are_shown():
    report = {**made_up_report(), "generations": {"BAN-1": 0.9501, "Ens*2": 0.9612}}
    details = {"history": {"student/stage1": [{"epoch": 0, "loss": 1.0, "accuracy": 0.5}]}}
    text = page.render(report, details)
    assert "Distilled student: stage1" in text
    for name in ("BAN-1", "95.01", "Ens*2", "96.12"):
        assert name in text
    assert "Generations" not in page.render(made_up_report(), details)
