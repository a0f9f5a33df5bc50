"""Helpers of the ground floor: parsing, atomic files, lazy packages, log, dynamic classes."""
import logging
import logging.handlers
import sys
import types

import pytest

from mindformers.tools import logger as tool_logger
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean
from mindformers.tools.logger import get_logger, set_log_dir
from mindformers.tools.register.register import MindFormerRegister
from mindformers.tools.utils import (atomic_write, is_version_ge, is_version_le, lazy_exports, make_output_folder,
                                     parse_value, resolve_path, set_output_path, str2bool)


@pytest.mark.parametrize("text, value", [
    ("1e3", 1000), ("7", 7), ("-2", -2), ("1.0", 1.0), ("1e-5", 1e-5), ("inf", float("inf")), ("True", True),
    ("false", False), ("[1, 2]", [1, 2]), ('{"a": 1}', {"a": 1}), ("null", None), ("text", "text"), ("", ""),
])
def test_parse_value(text, value):
    result = parse_value(text)
    assert result == value and type(result) is type(value)


def test_str2bool():
    assert str2bool("TRUE") is True and str2bool("false") is False and str2bool(True) is True
    with pytest.raises(ConfigError, match="Did you mean 'False'"):
        str2bool("Flase")


def test_versions_compare_by_number():
    assert is_version_ge("2.10.0", "2.9") and not is_version_le("2.10.0", "2.9")


def test_did_you_mean_names_the_nearest_or_nothing():
    assert did_you_mean("use_paralel", ["use_parallel", "seed"]) == " Did you mean 'use_parallel'?"
    assert did_you_mean("zzz", ["use_parallel"]) == ""


def test_atomic_write_replaces_only_on_success(tmp_path):
    target = tmp_path / "folder" / "file.ckpt"
    with atomic_write(target) as temporary:
        assert temporary.suffix == ".ckpt" and temporary.parent == target.parent
        temporary.write_text("new")
    assert target.read_text() == "new"
    with pytest.raises(OSError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "new" and list(target.parent.iterdir()) == [target]


def test_resolve_path_prefers_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "both").write_text("")
    (tmp_path / "yaml" / "beside").write_text("")
    (tmp_path / "both").write_text("")
    monkeypatch.chdir(tmp_path)
    assert str(resolve_path("both", tmp_path / "yaml")) == "both"
    assert resolve_path("beside", tmp_path / "yaml") == tmp_path / "yaml" / "beside"
    assert str(resolve_path("nowhere", tmp_path / "yaml")) == "nowhere"


def test_output_path_must_be_text(monkeypatch):
    monkeypatch.setenv("LOCAL_DEFAULT_PATH", "unchanged")
    for bad in ("", None, 3):
        with pytest.raises(ValueError, match="output path"):
            set_output_path(bad)


@pytest.fixture(name="package")
def _package(tmp_path, monkeypatch):
    folder = tmp_path / "lazy_house"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from mindformers.tools.utils import lazy_exports\n"
        "__getattr__, __dir__, __all__ = lazy_exports(__name__, {\n"
        "    'Thing': 'lazy_house.room:Thing', 'room': 'lazy_house.room:room'})\n")
    (folder / "room.py").write_text("class Thing: pass\ndef room(): return 'the function'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("lazy_house")]:
        del sys.modules[name]


def test_lazy_exports(package):
    import lazy_house
    assert "lazy_house.room" not in sys.modules and "Thing" in dir(lazy_house)
    assert lazy_house.Thing is sys.modules["lazy_house.room"].Thing
    with pytest.raises(AttributeError, match="Did you mean 'Thing'"):
        _ = lazy_house.Thin
    with pytest.raises(UnsupportedError, match="mindformers.LlamaConfig"):
        _ = lazy_house.BloomConfig


def test_an_exported_name_wins_over_a_submodule_of_the_same_name(package):
    import lazy_house.room
    assert isinstance(sys.modules["lazy_house.room"], types.ModuleType)
    from lazy_house import room
    assert room() == "the function"


def test_log_files_only_when_asked_and_repeats_are_cut(tmp_path, capsys):
    assert tool_logger is logging.getLogger("mindformers")
    log = get_logger("test_log")
    try:
        for _ in range(15):
            log.warning("the same")
        assert capsys.readouterr().err.count("the same") == 10
        folder = set_log_dir(tmp_path / "log", "test_log")
        log.info("to info")
        log.error("to both")
        info, error = (open(f"{folder}/{name}.log", encoding="utf-8").read() for name in ("info", "error"))
        assert "to info" in info and "to both" in info and "to info" not in error and "to both" in error
    finally:
        for handler in list(log.handlers):
            handler.close()
            log.removeHandler(handler)


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"nothing can be written to .*file.below: Not a directory; .*--output_dir"):
        make_output_folder(str(tmp_path / "file" / "below"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="read-only file system"):
        set_log_dir(str(tmp_path / "log"), logger_name="read only")


def test_a_full_disk_ends_the_log_file_and_not_the_job(tmp_path, capsys, monkeypatch):
    log = get_logger("full disk", file_save_dir=str(tmp_path), append_rank_dir=False)

    def full(handler, record):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(logging.handlers.RotatingFileHandler, "shouldRollover", full)
    log.info("first")
    log.info("second")
    printed = capsys.readouterr().err
    assert "Traceback" not in printed and "first" in printed and "second" in printed
    assert printed.count("info.log is given up: No space left on device") == 1


def test_unknown_log_level_is_named(monkeypatch):
    monkeypatch.setenv("MF_LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigError, match="LOUD"):
        get_logger("test_level")


def test_registry_refuses_a_second_class_and_names_the_nearest():
    kind = "tools"
    first = type("OnlyOnce", (), {})
    MindFormerRegister.register_cls(first, kind)
    try:
        assert MindFormerRegister.register_cls(first, kind) is first
        other = type("Other", (), {})
        with pytest.raises(ValueError, match="taken"):
            MindFormerRegister.register_cls(other, kind, alias="OnlyOnce")
        with pytest.raises(ValueError, match="Did you mean 'OnlyOnce'"):
            MindFormerRegister.get_cls(kind, "OnlyOne")
        with pytest.raises(KeyError):
            MindFormerRegister.get_instance_from_cfg({}, kind)
        with pytest.raises(TypeError):
            MindFormerRegister.get_instance_from_cfg([], kind)
        config = {"type": "OnlyOnce"}
        assert isinstance(MindFormerRegister.get_instance_from_cfg(config, kind), first)
        assert config == {"type": "OnlyOnce"}
    finally:
        del MindFormerRegister.registry[kind]["OnlyOnce"]


def test_auto_register_takes_classes_from_the_register_path_only(tmp_path, monkeypatch):
    (tmp_path / "my_own_module.py").write_text("class Mine:\n    pass\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("REGISTER_PATH", "")
    with pytest.raises(EnvironmentError, match="--register_path"):
        MindFormerRegister.auto_register("my_own_module.Mine", "tools")
    monkeypatch.setenv("REGISTER_PATH", str(tmp_path))
    try:
        assert MindFormerRegister.auto_register("my_own_module.Mine", "tools").__name__ == "Mine"
        assert MindFormerRegister.get_cls("tools", "Mine")
        for bad in (3, "nodot", "../my_own_module.Mine", "a.b.c"):
            with pytest.raises(ValueError, match="auto_register"):
                MindFormerRegister.auto_register(bad, "tools")
        with pytest.raises(ValueError, match="Did you mean 'Mine'"):
            MindFormerRegister.auto_register("my_own_module.Min", "tools")
        with pytest.raises(FileNotFoundError, match="my_own_module"):
            MindFormerRegister.auto_register("my_own_modul.Mine", "tools")
    finally:
        MindFormerRegister.registry["tools"].pop("Mine", None)
        sys.modules.pop("my_own_module", None)


def test_lazy_exports_of_a_module_that_is_missing_is_not_hidden(monkeypatch):
    module = types.ModuleType("made_up_room")
    monkeypatch.setitem(sys.modules, "made_up_room", module)
    get, _, names = lazy_exports("made_up_room", {"Gone": "made_up_room_gone:Gone"})
    assert names == ["Gone"]
    with pytest.raises(ModuleNotFoundError):
        get("Gone")
