"""Who may import whom, downwards only; read from the source, so that nothing has to be imported."""

import ast
import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOUNDATION = (
    *("errors", "hooks", "serialization", "schedules", "taps", "updates", "labels"),
    *("maps", "parts", "projections"),
)
DISTILLERS = (
    *("distiller", "game", "adversarial", "conditional", "streaming"),
    *("discriminators", "gan_forms", "noise"),
)

#: Group -> the groups that its modules may import beside their own.
ALLOWED = {
    "foundation": set(),
    "methods": {"foundation"},
    "teachers": {"foundation", "data", "models", "tflite_export"},
    "distillers": {"foundation", "methods", "teachers", "callbacks", "data"},
    "callbacks": {"foundation"},
    "models": {"foundation", "tflite_export"},
    "data": {"foundation"},
    "compression": {"foundation", "models"},
    "pipeline": {
        *("foundation", "methods", "distillers", "callbacks", "models", "data"),
        *("teachers", "compression", "tflite_export"),
    },
    "command_line": {"foundation"},
    "config_flag": {"foundation", "pipeline", "command_line"},
    "config_data": {"foundation", "pipeline", "config_flag", "tflite_export"},
    "train": {"foundation", "pipeline", "command_line", "config_flag"},
    "search": {"foundation", "pipeline", "command_line", "config_flag"},
    "table": {"foundation", "pipeline", "command_line"},
    "package": set(),
    "tflite_export": set(),
    "configs": set(),
}


@dataclasses.dataclass(frozen=True)
class Import:
    """`line` of `importer` imports the module, or the name in a module, `imported`."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def source_files() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("kd_keras", "tflite_export", "configs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name, ast.parse(path.read_text(encoding="utf-8"), str(path))


SOURCES = dict(source_files())


def _imports(importer: str, tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}:{node.lineno} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(importer, full if full in SOURCES else node.module or "", node.lineno)


IMPORTS = [found for name, tree in SOURCES.items() for found in _imports(name, tree)]


def group(module: str) -> str | None:
    """The group of one of our modules, None for others' modules."""
    top, *rest = module.split(".")
    if top in ("tflite_export", "configs"):
        return top
    if top != "kd_keras":
        return None
    if not rest:
        return "package"
    if rest[0] in DISTILLERS:
        return "distillers"
    return "foundation" if rest[0] in FOUNDATION else rest[0]


def test_there_is_something_to_look_at() -> None:
    assert "kd_keras.distiller" in SOURCES
    assert any(str(i).endswith("imports kd_keras.distiller") for i in IMPORTS)


def test_every_module_has_a_group() -> None:
    assert {group(name) for name in SOURCES} <= set(ALLOWED)


def test_imports_go_downwards() -> None:
    wrong = []
    for found in IMPORTS:
        importer, imported = group(found.importer), group(found.imported)
        if imported not in (None, importer) and imported not in ALLOWED[str(importer)]:
            wrong.append(str(found))
    assert not wrong


def test_methods_know_the_contract_and_nothing_of_each_other() -> None:
    allowed = {"kd_keras.methods.base", *(f"kd_keras.{name}" for name in FOUNDATION)}
    wrong = [
        str(i)
        for i in IMPORTS
        if i.importer.startswith("kd_keras.methods.")
        and i.imported.startswith("kd_keras")
        and i.imported not in allowed
    ]
    assert not wrong


def test_the_export_knows_nothing_of_kd_keras() -> None:
    ours = [i for i in IMPORTS if group(i.importer) == "tflite_export"]
    assert not [str(i) for i in ours if i.imported.startswith("kd_keras")]


def importers_of(*packages: str) -> set[str]:
    return {i.importer for i in IMPORTS if i.imported.split(".")[0] in packages}


def test_keras_is_spelled_as_tensorflows() -> None:
    assert importers_of("keras", "tf_keras") == set()


def test_pruning_and_quantization_stay_in_their_package() -> None:
    users = importers_of("tensorflow_model_optimization")
    assert "tflite_export.keras_file" in users  # which knows the classes in its files
    assert {group(name) for name in users - {"tflite_export.keras_file"}} == {"compression"}


def test_flags_only_in_the_mains() -> None:
    commands = {
        *("kd_keras.train", "kd_keras.table", "kd_keras.search"),
        *("kd_keras.command_line", "kd_keras.config_flag"),
        *("tflite_export.export", "tflite_export.kd_benchmark", "tflite_export.verify_command"),
        "tflite_export.command_line",
    }
    assert importers_of("absl") <= commands


def test_configs_are_plain() -> None:
    assert {i.imported for i in IMPORTS if group(i.importer) == "configs"} <= {"ml_collections"}


def test_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in SOURCES}
    for found in IMPORTS:
        if found.imported in SOURCES and found.imported != found.importer:
            graph[found.importer].add(found.imported)
    while leaves := {name for name, imported in graph.items() if not imported}:
        graph = {n: imported - leaves for n, imported in graph.items() if n not in leaves}
    assert not graph, f"in or above a cycle: {sorted(graph)}"


@pytest.mark.parametrize("name", SOURCES)
def test_no_bare_assert_no_swallowed_exception_no_unpickling(name: str) -> None:
    for node in ast.walk(SOURCES[name]):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{where} asserts: raise InputError instead"
        if isinstance(node, ast.ExceptHandler):
            swallows = all(isinstance(line, ast.Pass) for line in node.body)
            assert not (swallows and node.type is None), f"{where} swallows every exception"
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            assert (node.arg, node.value.value) != ("allow_pickle", True), where
            assert (node.arg, node.value.value) != ("safe_mode", False), where


@pytest.mark.parametrize(
    "module", ["kd_keras", "kd_keras.train", "kd_keras.search", "kd_keras.methods"]
)
def test_import_does_not_import_tensorflow(module: str) -> None:
    """A script can still choose its Keras, and `kd-train --help` answers at once."""
    code = (
        f"import {module}, sys; print(*({{'tensorflow', 'keras', 'tf_keras'}} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
