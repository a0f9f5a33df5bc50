"""MindFormerConfig, DictConfig, ActionDict, YAML reading."""
import argparse
import copy
import pickle

import pytest
import yaml

from mindformers.tools import ActionDict, ConfigError, DictConfig, MindFormerConfig
from mindformers.tools.register.config import ordered_yaml_dump, parse_args, parse_option
from mindformers.tools.register.yaml_file import read_yaml


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_dict_config_attributes():
    config = DictConfig(a=1, b={"c": 2})
    assert config.a == 1 and config.missing is None
    config.d = 4
    del config.a
    assert config.a is None and config["d"] == 4
    with pytest.raises(AttributeError):
        del config.nothing
    clone = copy.deepcopy(config)
    clone["b"]["c"] = 3
    assert config["b"]["c"] == 2 and type(clone) is DictConfig
    assert type(config.to_dict()) is dict


def test_nested_sections_are_configs_also_in_lists():
    config = MindFormerConfig(model={"arch": {"type": "X"}}, callbacks=[{"type": "A"}])
    assert config.model.arch.type == "X" and config.callbacks[0].type == "A"
    plain = config.to_dict()
    assert type(plain["model"]["arch"]) is dict and type(plain["callbacks"][0]) is dict
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)


def test_later_files_replace_sections_and_kwargs_come_last(tmp_path):
    first = write(tmp_path, "a.yaml", "m: {x: 1, y: 2}\nseed: 1\n")
    second = write(tmp_path, "b.yml", "m: {x: 5}\n")
    config = MindFormerConfig(str(first), second, seed=7)
    assert config.to_dict() == {"m": {"x": 5}, "seed": 7}


def test_base_config_merges_deeply_relative_to_the_file(tmp_path):
    write(tmp_path, "base/one.yaml", "m: {x: 1, y: 2}\nl: [1, 2]\n")
    write(tmp_path, "base/two.yaml", "m: {y: 3, z: 4}\n")
    child = write(tmp_path, "sub/child.yaml", "base_config: [../base/one.yaml, ../base/two.yaml]\nm: {x: 9}\nl: [3]\n")
    config = MindFormerConfig(child)
    assert config.to_dict() == {"m": {"x": 9, "y": 3, "z": 4}, "l": [3]}
    assert config.line_of(("m", "x")) == (str(child), 2)
    assert config.line_of(("m", "z"))[0].endswith("two.yaml")


def test_aliases_of_a_base_are_not_shared_between_sections(tmp_path):
    write(tmp_path, "base.yaml", "train: &t {p: 1}\ntask: {config: *t}\n")
    child = write(tmp_path, "child.yaml", "base_config: base.yaml\ntrain: {p: 2}\n")
    config = MindFormerConfig(child)
    assert config.train.p == 2 and config.task.config.p == 1


def test_base_config_faults(tmp_path):
    loop = write(tmp_path, "loop.yaml", "base_config: loop.yaml\n")
    with pytest.raises(ConfigError, match="leads back to itself"):
        MindFormerConfig(loop)
    gone = write(tmp_path, "gone.yaml", "seed: 1\nbase_config: nothere.yaml\n")
    with pytest.raises(FileNotFoundError, match="gone.yaml:2.*nothere.yaml"):
        MindFormerConfig(gone)
    for value in ("5", "{a: b}", "[1.yaml, 2]", "True"):
        wrong = write(tmp_path, "wrong.yaml", f"seed: 1\nbase_config: {value}\n")
        with pytest.raises(ConfigError, match="wrong.yaml:2: base_config must be a file name or a list of them"):
            MindFormerConfig(wrong)


@pytest.mark.parametrize("text, message", [
    ("a: [1\n", "not valid YAML"),
    ("- 1\n", "must be a mapping"),
    ("a: 1\nb: 2\na: 3\n", r":3: key 'a' is given twice \(first on line 1\)"),
    ("a: &x {b: *x}\n", "alias contains itself"),
    ("a: " + "{a: " * 11 + "1" + "}" * 11 + "\n", "nested deeper than 10"),
    ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    ("? [1, 2]\n: 3\n", "plain word"),
])
def test_yaml_faults_name_file_and_line(tmp_path, text, message):
    path = write(tmp_path, "bad.yaml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        MindFormerConfig(path)
    assert "bad.yaml" in str(caught.value)


def test_alias_bomb_is_refused(tmp_path):
    lines = ["a0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(9)) + "}"]
    lines += [f"a{n}: &a{n} {{" + ", ".join(f"k{i}: *a{n - 1}" for i in range(9)) + "}" for n in range(1, 9)]
    path = write(tmp_path, "bomb.yaml", "\n".join(lines))
    with pytest.raises(ConfigError, match="more than"):
        MindFormerConfig(path)


def test_empty_and_not_utf8_files(tmp_path):
    assert MindFormerConfig(write(tmp_path, "empty.yaml", "# nothing\n")).to_dict() == {}
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        MindFormerConfig(binary)
    for bad in ("config.txt", None, 3):
        with pytest.raises(ConfigError, match="yaml"):
            MindFormerConfig(bad)
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        MindFormerConfig(tmp_path / "nowhere.yaml")


def test_floats_without_a_point_are_floats(tmp_path):
    path = write(tmp_path, "f.yaml", "a: 1e-5\nb: 1.e-5\nc: 3e4\nd: '1e-5'\ne: 1e\n")
    assert read_yaml(path)[0] == {"a": 1e-5, "b": 1e-5, "c": 3e4, "d": "1e-5", "e": "1e"}


def test_merge_from_dict(tmp_path):
    config = MindFormerConfig(write(tmp_path, "c.yaml", "seed: 1\ncallbacks:\n  - type: A\n"))
    config.merge_from_dict({"a.b.c": 3, "seed": 2, "callbacks.0.n": 5})
    assert config.a.b.c == 3 and config.seed == 2 and config.callbacks[0].n == 5
    assert config.line_of(("seed",)) == ("--options", None)
    assert config.get_value("a.b.c") == 3 and config.get_value("a.x.c", 8) == 8
    for key, message in (("seed.x", "not a section"), ("callbacks.7.n", "0 to 0"), ("callbacks.x", "not an index")):
        with pytest.raises(ConfigError, match=message):
            config.merge_from_dict({key: 1})
    for options, message in (([1], "dict of dotted keys"), ({1: 2}, "1 is no key"), ({"a..b": 2}, "'a..b' is no key"),
                             ({"": 2}, "'' is no key")):
        with pytest.raises(ConfigError, match=message):
            config.merge_from_dict(options)
    assert "a" in config and "" not in config.a


@pytest.mark.parametrize("text, value", [
    ("True", True), ("false", False), ("3", 3), ("1e-3", 1e-3), ("[1,2]", [1, 2]), ("(1,2)", (1, 2)),
    ("a,b", ["a", "b"]),
    ("[(1,2),[x]]", [(1, 2), ["x"]]), ("[]", []), ("text", "text"), ("", ""), ('{"a": [1, 2]}', {"a": [1, 2]}),
])
def test_options_values(text, value):
    result = parse_option(text)
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize("text", ["[1", "1]", "(]", "[(1])", ")("])
def test_options_brackets_must_pair(text):
    with pytest.raises(ValueError, match="must appear in pairs or not exist"):
        parse_option(text)


def test_action_dict_true_is_true():
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="+", action=ActionDict)
    assert parser.parse_args(["--options", "a.b=True", "c=1"]).options == {"a.b": True, "c": 1}
    with pytest.raises(ValueError, match="key=value"):
        parser.parse_args(["--options", "novalue"])


def test_ordered_dump_round_trip(tmp_path):
    config = MindFormerConfig(z=1, a={"b": [1, {"c": None}]}, text="näme")
    dumped = ordered_yaml_dump(config, sort_keys=False)
    assert dumped.index("z:") < dumped.index("a:") and "näme" in dumped
    assert yaml.safe_load(dumped) == config.to_dict()


def test_parse_args_reads_the_configuration_only(monkeypatch):
    for argv, expected in ((["prog", "-c", "a.yaml"], "a.yaml"), (["prog", "--config", "b=c.yaml"], "b=c.yaml"),
                           (["prog"], None)):
        monkeypatch.setattr("sys.argv", argv)
        assert parse_args().config == expected
    monkeypatch.setattr("sys.argv", ["prog", "--confog", "x"])
    with pytest.raises(SystemExit):
        parse_args()
