"""Who may import whom (docs/architecture.md), read from the source without running it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROLES = {"coordinator", "teacher", "student"}
SHARED = {
    *("wire", "labels", "losses", "vocabulary", "observe", "ranks", "lifecycle", "sampling", "checkpoint"),
    "meeting",
    "live",
    "weights",
    "stability",
    "store",
    "optim",
    "tracing",
}
BASE = {
    "errors",
    "clock",
    "address",
    "address_file",
    "agreement",
    "bounds",
    "wording",
    "problems",
    "yamltext",
    "config",
    "environment",
    "files",
    "cpus",
    "signals",
    "grace",
    "reference",
    "secret_names",
    "keys",
    "factories",
}
ALLOWED = {
    "errors": {"wording"},
    "wording": set(),
    "clock": set(),
    "address": {"errors"},
    "address_file": {"errors", "address"},
    "bounds": set(),
    "agreement": {"errors", "bounds"},
    "files": set(),
    "cpus": set(),
    "signals": set(),
    "grace": set(),
    "reference": set(),
    "secret_names": set(),
    "keys": {"errors", "files", "address"},
    "factories": {"errors"},
    "yamltext": {"errors"},
    "config": {"errors", "agreement", "bounds", "grace", "labels", "reference", "yamltext"},
    "environment": {"errors", "agreement", "bounds"},
    "labels": {"errors"},
    "tracing": set(),
    "wire": {
        *("errors", "keys", "clock", "address", "address_file", "bounds", "labels", "signals", "tracing"),
        "secret_names",
    },
    "losses": {"errors", "labels", "ranks", "lifecycle"},
    "vocabulary": {"errors", "labels"},
    "ranks": {"errors", "environment"},
    "observe": {
        "wire",
        "keys",
        "wording",
        "errors",
        "address",
        "address_file",
        "environment",
        "clock",
        "ranks",
    },
    "lifecycle": {"errors", "observe", "ranks", "signals", "wire"},
    "sampling": {"errors", "lifecycle", "ranks"},
    "checkpoint": {"errors", "environment", "files", "observe", "ranks", "lifecycle"},
    "meeting": {"errors", "clock", "keys", "wire"},
    "live": {"errors", "checkpoint", "lifecycle", "meeting", "ranks", "wire"},
    "weights": {"errors", "environment", "checkpoint", "observe", "ranks"},
    "stability": {"errors", "checkpoint", "observe", "ranks"},
    "store": {"errors", "files", "labels", "checkpoint", "wire"},
    "optim": {"errors"},
    **{role: {role} | SHARED | BASE for role in ROLES},
    "integrations": {"student"} | SHARED | BASE,
    "labeller": {"student"} | SHARED | BASE,
}
# Within a folder of rooms: which of its parts a part may import.
LAUNCH = {
    "process": set(),
    "machine": set(),
    "monitoring": set(),
    "record": set(),
    "plan": set(),
    "contract": {"plan"},
    "doctor": {"process", "machine", "view", "kubernetes"},
    "local": {"process", "machine", "record", "plan", "contract"},
    "kubernetes": {"process", "plan", "contract", "record"},
    "slurm": {"process", "plan", "contract", "record", "local", "view"},
    "node": {"process", "machine"},
    "track": set(),
    "view": {"record", "contract", "track"},
    "job": {
        "process",
        "machine",
        "record",
        "plan",
        "contract",
        "local",
        "kubernetes",
        "slurm",
        "node",
        "track",
        "view",
    },
    "tune": {
        *("process", "machine", "record", "plan", "contract", "local", "view", "job"),
    },
    "planner": {"record", "view"},
    "cli": {
        *(
            "process",
            "machine",
            "record",
            "plan",
            "contract",
            "doctor",
            "local",
            "kubernetes",
            "slurm",
            "node",
        ),
        *("track", "view", "job", "tune", "planner"),
    },
    "__main__": {"cli"},
}
COORDINATOR = {
    "members": set(),
    "links": {"members"},
    "scaling": {"members"},
    "overload": {"members", "scaling"},
    "course": {"members"},
    "metrics": set(),
    "pages": {"metrics"},
    **{noun: set() for noun in ("announcing", "closing", "key_changes", "occupant", "rights")},
    "options": {"scaling"},
    "rendezvous": {"members"},
    "traces": {"members"},
    "status": {"members", "scaling", "overload", "course"},
    "telling": {"course", "status"},
    "server": {
        *(
            "members",
            "links",
            "scaling",
            "overload",
            "course",
            "pages",
            "announcing",
            "closing",
            "key_changes",
        ),
        *("occupant", "rights", "options", "rendezvous", "traces", "status", "telling"),
    },
    "running": {"options", "server"},
}
TEACHER = {
    "model": set(),
    "passage": set(),
    "tasks": {"passage"},
    "capacity": set(),
    "exchange": {"tasks"},
    "dataset": {"model"},
    "reader": {"tasks", "exchange", "dataset"},
    "passes": {"tasks", "passage", "capacity", "exchange", "model"},
    "engines": {"model", "passes"},
    "service": {"tasks", "passage", "capacity"},
    "stop_signals": set(),
    "worker": {
        *("tasks", "exchange", "model", "dataset", "reader", "passes", "engines", "service", "stop_signals"),
    },
}
STUDENT = {
    "memory": set(),
    "inputs": set(),
    "queue": set(),
    "batch": {"memory", "inputs", "queue"},
    "teachers": {"inputs", "batch"},
    "service": {"memory", "inputs", "queue", "batch", "teachers"},
    "decoding": {"memory", "batch", "teachers"},
    "loop": {"memory", "inputs", "queue", "batch", "teachers", "service", "decoding"},
    "loader": {"memory", "inputs", "queue", "teachers", "loop"},
    "requests": {"memory", "inputs", "queue", "batch", "teachers", "decoding", "loop"},
}
MODULES = sorted(path for top in ("edldist", "launch") for path in (ROOT / top).rglob("*.py"))
TRAVELS = ("edldist/wire", "edldist/teacher", "edldist/labels", "edldist/coordinator")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _imports(path: Path) -> list[str]:
    """Absolute names of the modules and members that a file imports, wherever it does so."""
    return list(_imported(path, _parse(path)))


def _imported(path: Path, tree: ast.Module) -> Iterator[str]:
    package = _name(path).split(".") if path.name == "__init__.py" else _name(path).split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _dotted(node.func) in ("importlib.import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def _dotted(node: ast.expr) -> str:
    """``a.b`` of a name, and of what else has an attribute its end alone, as ``.b``."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "", *reversed(names)])


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _rooms(path: Path, package: str = "edldist") -> set[str]:
    """The parts of a package that a file imports, as ``wire`` or ``errors``."""
    names = [name for name in _imports(path) if name.startswith(f"{package}.")]
    return {name.removeprefix(f"{package}.").split(".")[0] for name in names}


def _room(path: Path, top: str = "edldist") -> str:
    """The part of a folder that a file is, or lies in."""
    return path.relative_to(ROOT / top).with_suffix("").parts[0]


def _within(top: str) -> list[Path]:
    """The files of a folder, but for its own ``__init__``."""
    return [path for path in MODULES if ROOT / top in path.parents and path != ROOT / top / "__init__.py"]


EDLDIST = [path for path in MODULES if _name(path).startswith("edldist.")]
FOLDERS = [
    ("launch", "edldist_launch", LAUNCH),
    ("edldist/coordinator", "edldist.coordinator", COORDINATOR),
    ("edldist/teacher", "edldist.teacher", TEACHER),
    ("edldist/student", "edldist.student", STUDENT),
]


def _identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _found(problems: dict[str, set[str]]) -> str:
    """By file, as far as there are any."""
    return "; ".join(f"{file} imports {', '.join(sorted(what))}" for file, what in problems.items() if what)


def test_the_source_was_found() -> None:
    assert {_room(path) for path in EDLDIST} == set(ALLOWED)
    assert {_room(path, "launch") for path in _within("launch")} == set(LAUNCH)
    assert {_room(path, "edldist/coordinator") for path in _within("edldist/coordinator")} == set(COORDINATOR)
    assert {_room(path, "edldist/teacher") for path in _within("edldist/teacher")} == set(TEACHER)
    assert {_room(path, "edldist/student") for path in _within("edldist/student")} == set(STUDENT)


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_imports_go_down_only(room: str) -> None:
    allowed = {*ALLOWED[room], room, "__version__"}
    above = {_identify(path): _rooms(path) - allowed for path in EDLDIST if _room(path) == room}
    assert not any(above.values()), (
        f"{_found(above)}: {room} may import {ALLOWED[room] or 'nothing'} of edldist"
    )


@pytest.mark.parametrize(("top", "package", "allowed"), FOLDERS, ids=[top for top, *_ in FOLDERS])
def test_imports_between_the_rooms_of_a_folder_go_one_way(
    top: str, package: str, allowed: dict[str, set[str]]
) -> None:
    above = {
        _identify(path): _rooms(path, package) - allowed[_room(path, top)] - {_room(path, top)}
        for path in _within(top)
    }
    assert not any(above.values()), f"{_found(above)}: no room may import one above it ({package})"


def test_no_room_is_above_a_room_that_is_above_it() -> None:
    for allowed in (LAUNCH, COORDINATOR, TEACHER, STUDENT):
        order: list[str] = []
        while left := set(allowed) - set(order):
            free = [room for room in left if allowed[room] <= set(order)]
            assert free, f"{left} import each other in a circle"
            order += free


@pytest.mark.parametrize("top", ["edldist", "launch"])
def test_the_framework_never_imports_the_launcher(top: str) -> None:
    beside = {"examples", "tests", "benchmarks"}
    beside |= {"launch", "edldist_launch", "edldist_benchmarks"} if top == "edldist" else set()
    above = {
        _identify(path): {name.split(".")[0] for name in _imports(path)} & beside
        for path in MODULES
        if ROOT / top in path.parents
    }
    assert not any(above.values()), _found(above)


def test_the_table_of_the_rooms_names_the_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("\n## The rooms\n")[2].partition("\n## ")[0]
    rows = [row.split(" | ") for row in table.splitlines() if row.startswith("| `")]
    ground, *packages = rows
    flat = {path.stem for path in (ROOT / "edldist").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"`(?:edldist\.)?([a-z_]+)`", ground[0])) == flat
    nouns = {
        row[0].strip("|` ").replace(".", "/"): set(re.findall(r"`([a-z_]+/?)`", row[1])) for row in packages
    }
    found: dict[str, set[str]] = {package: set() for package in nouns}
    for path in MODULES:
        room = max((room for room in nouns if ROOT / room in path.parents), key=len, default=None)
        if room and path.stem not in ("__init__", "__main__"):
            found[room].add(path.stem)
            inside = path.parent.relative_to(ROOT / room).parts
            found[room] |= {f"{folder}/" for folder in inside}
    nouns["launch/cli"] -= {"benchmarks"}
    assert nouns == found


def test_the_package_itself_imports_nothing_when_it_is_imported() -> None:
    for node in _parse(ROOT / "edldist" / "__init__.py").body:
        if isinstance(node, ast.ImportFrom):
            assert node.module in ("__future__", "typing")
        elif isinstance(node, ast.Import):
            assert [alias.name for alias in node.names] == ["importlib"]


@pytest.mark.parametrize(
    "path", [path for path in MODULES if _identify(path).startswith(TRAVELS)], ids=_identify
)
def test_what_reads_from_others_cannot_execute_it(path: Path) -> None:
    executing = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}
    assert not {name.split(".")[0] for name in _imports(path)} & executing
    for node in ast.walk(_parse(path)):
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func)
        assert called not in ("eval", "exec", "yaml.load", "yaml.unsafe_load"), f"line {node.lineno}"
        assert not called.endswith((".recv_pyobj", ".send_pyobj")), f"line {node.lineno}"
        safe = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")
        assert safe != "False", f"line {node.lineno}"
        assert called != "torch.load" or safe == "True", (
            f"line {node.lineno}: torch.load without weights_only"
        )


def test_what_must_start_fast_loads_no_torch() -> None:
    modules = [
        "edldist",
        "edldist.ranks.placement",
        "edldist.coordinator.server",
        "edldist.wire.query",
        "edldist_launch.cli",
    ]
    script = (
        "import importlib, json, sys\n"
        "loaded = {}\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    loaded[name] = 'torch' in sys.modules\n"
        "print(json.dumps(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=150
    )
    assert json.loads(done.stdout) == dict.fromkeys(modules, False)


def test_importing_installs_nothing_in_the_process() -> None:
    names = sorted(_name(path) for path in EDLDIST)
    script = (
        "import atexit, importlib, json, os, signal, sys, threading, warnings\n"
        "found = []\n"
        "def watch(module, name):\n"
        "    real = getattr(module, name)\n"
        "    def call(*args, **options):\n"
        "        who = sys._getframe(1).f_globals.get('__name__', '')\n"
        "        if who.startswith('edldist'):\n"
        "            found.append(f'{who} calls {name}')\n"
        "        return real(*args, **options)\n"
        "    setattr(module, name, call)\n"
        "for module, name in ((atexit, 'register'), (os, 'register_at_fork'), (signal, 'signal'),\n"
        "                     (warnings, 'filterwarnings'), (threading.Thread, 'start')):\n"
        "    watch(module, name)\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=150
    )
    assert json.loads(done.stdout) == []
