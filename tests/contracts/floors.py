"""Which file imports which: read from the syntax trees, imports inside functions included."""
import ast
import functools
from pathlib import Path

# room -> floor; a room imports rooms of lower floors, and itself
FLOORS = {
    "tools": 0, "version_control": 0.5,  # one file on the ground floor, which reads tools
    "kernels": 0.75,  # read by everything that computes
    "core": 1, "hub": 1,
    "modules": 2, "checkpoint": 2, "dataset": 2, "wrapper": 2,
    "generation": 3, "pet": 3,
    "models": 4,
    "pipeline": 5,
    "trainer": 6, "serving": 6,
    "cli": 7, "model_runner": 7, "run_check": 7, "mindformer_book": 7, "auto_class": 7, "__init__": 7,
}


@functools.lru_cache(maxsize=None)
def nodes_of(path):
    """All syntax nodes of a file, parsed once."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports_of(path, package_root):
    """Return ``[(line, dotted module)]`` of everything of our package that a file imports."""
    package = package_root.name
    found = []
    module = [package, *path.relative_to(package_root).with_suffix("").parts]
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module[:len(module) - node.level]
                base = ".".join([*above, *([base] if base else [])])
            # `from mindformers import core` names a room in its names
            found += [(node.lineno, f"{base}.{alias.name}" if base == package else base) for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                found.append((node.lineno, node.args[0].value))
    return [(line, name) for line, name in found if name.split(".")[0] == package]


def room_of(dotted):
    """Return the room of "mindformers.core.lr": "core"."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def violations(package_root, floors=None):
    """Return one sentence per import that goes up, across a floor, or between families of models/."""
    floors = FLOORS if floors is None else floors
    package_root, found = Path(package_root), []
    for path in sorted(package_root.rglob("*.py")):
        parts = path.relative_to(package_root).with_suffix("").parts
        room = parts[0]
        if room not in floors:
            found.append(f"{path.name}: room {room!r} is on no floor")
            continue
        for line, target in imports_of(path, package_root):
            other = room_of(target)
            where = f"{'/'.join(parts)}.py:{line} imports {target}"
            if other == room:
                if room == "models" and _family(parts) and _family(target.split(".")[1:]) not in (None, _family(parts)):
                    found.append(f"{where}: families of models/ do not import each other")
            elif other not in floors:
                found.append(f"{where}: room {other!r} is on no floor")
            elif floors[other] >= floors[room]:
                found.append(f"{where}: floor {floors[room]} ({room}) must not import floor {floors[other]} ({other})")
    return found


def _family(parts):
    """The family folder of ("models", "llama", "llama"): "llama"; None for shared files and auto/."""
    return parts[1] if len(parts) > 2 and parts[1] not in ("auto",) else None
