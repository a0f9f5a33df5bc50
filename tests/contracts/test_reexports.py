"""The table of names with two places in docs/reference/compat.md is what the code does; nothing is left out."""
import importlib
import pkgutil
import re
from pathlib import Path

import mindformers

TABLE = Path(__file__).parents[2] / "docs" / "reference" / "compat.md"


def rows():
    """(old place, name, new place) of every name of the table."""
    section = TABLE.read_text(encoding="utf-8").split("## Names with an old and a new place")[1]
    for line in section.splitlines():
        cells = [re.findall(r"`([\w.]+)`", cell) for cell in line.strip("|").split("|")]
        if len(cells) == 3 and all(cells):
            (old,), names, (new,) = cells
            yield from ((old, name, new) for name in names)


def exported_from_elsewhere():
    """(module, name) of each name in an `__all__` that is defined outside of that module or package."""
    for info in pkgutil.walk_packages(mindformers.__path__, "mindformers."):
        if info.name.startswith("mindformers.kernels"):
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            home = getattr(getattr(module, name), "__module__", None) or ""
            inside = home == info.name or (info.ispkg and home.startswith(f"{info.name}."))
            if home.startswith("mindformers.") and not inside:
                yield info.name, name


def test_both_places_give_the_same_object():
    found = list(rows())
    assert len(found) > 30
    for old, name, new in found:
        value = getattr(importlib.import_module(old), name)
        assert value is getattr(importlib.import_module(new), name), (old, name)
        assert old != new and (value.__module__ == new or value.__module__.startswith(f"{new}.")), (old, name)


def test_the_table_has_every_name_with_two_places():
    assert {(old, name) for old, name, _ in rows()} == set(exported_from_elsewhere())
