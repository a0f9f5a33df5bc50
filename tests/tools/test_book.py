"""MindFormerBook: every list, every logged list, the folders."""
import logging

import pytest

from mindformers.mindformer_book import MindFormerBook, print_dict, print_path_or_list
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.utils import configs_dir

NAMES = ("llama_tiny", "llama2_7b", "llama3_1_8b")
SHOWN = ("trainer_support_task_list", "pipeline_support_task_list", "pipeline_support_input_data_list",
         "model_config_to_name", "model_config_url_list", "project_path", "default_checkpoint_download_folder",
         "default_checkpoint_save_folder", "config_support_list", "model_support_list", "processor_support_list",
         "tokenizer_support_list", "tokenizer_url_support_list", "model_ckpt_url_list", "tokenizer_name_to_processor")


def test_models_and_tasks():
    tasks = MindFormerBook.get_trainer_support_task_list()
    assert set(tasks) == {"general", "text_generation"}
    assert set(NAMES) <= set(tasks["text_generation"])
    assert tasks["text_generation"]["llama2_7b"].endswith("predict_llama2_7b.yaml")
    assert set(NAMES) <= set(MindFormerBook.get_pipeline_support_task_list()["text_generation"])
    assert MindFormerBook.get_pipeline_support_input_data_list()["text_generation"]
    assert MindFormerBook.get_model_name_support_list() == sorted(MindFormerBook.get_model_name_support_list())
    assert "llama2_7b" in MindFormerBook.get_model_name_support_list_for_task("text_generation")
    assert MindFormerBook.get_model_name_support_list_for_task("general") == []
    for families in (MindFormerBook.get_config_support_list(), MindFormerBook.get_model_support_list(),
                     MindFormerBook.get_processor_support_list(), MindFormerBook.get_tokenizer_support_list()):
        assert {"llama2_7b", "llama2_13b"} <= set(families["llama2"])
    processors = MindFormerBook.get_tokenizer_name_to_processor()
    assert processors["LlamaTokenizer"] == processors["LlamaTokenizerFast"] == "LlamaProcessor"


def test_an_unknown_task_is_named():
    for ask in (MindFormerBook.get_model_name_support_list_for_task, MindFormerBook.show_trainer_support_model_list,
                MindFormerBook.show_pipeline_support_model_list):
        with pytest.raises(ValueError, match="Did you mean 'text_generation'"):
            ask("text_generatoin")


def test_nothing_is_downloaded():
    assert MindFormerBook.get_downloadable_model_name_list() == []
    for table in ("model_ckpt_url_list", "model_config_url_list", "tokenizer_url_support_list"):
        assert getattr(MindFormerBook, f"get_{table}")() == {}
    with pytest.raises(UnsupportedError, match="get_default_checkpoint_download_folder"):
        MindFormerBook.get_xihe_checkpoint_download_folder()


def test_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_DOWNLOAD_FOLDER", "x")
    monkeypatch.setenv("CHECKPOINT_SAVE_FOLDER", "y")
    MindFormerBook.set_default_checkpoint_download_folder(tmp_path / "down")
    MindFormerBook.set_default_checkpoint_save_folder(tmp_path / "save")
    assert MindFormerBook.get_default_checkpoint_download_folder() == str(tmp_path / "down")
    assert MindFormerBook.get_default_checkpoint_save_folder() == str(tmp_path / "save")
    from mindformers.models.llama.llama_config import LlamaConfig
    assert LlamaConfig().save_pretrained().startswith(str(tmp_path / "save"))
    assert MindFormerBook.get_project_path() == str(configs_dir().parent)


def test_names_of_configs(monkeypatch):
    monkeypatch.setattr(MindFormerBook, "_config_names", {})
    key = id(object())
    MindFormerBook.set_model_config_to_name(key, "LlamaForCausalLM")
    assert MindFormerBook.get_model_config_to_name() == {key: "LlamaForCausalLM"}
    MindFormerBook.get_model_config_to_name().clear()
    assert MindFormerBook.get_model_config_to_name() == {key: "LlamaForCausalLM"}


@pytest.mark.parametrize("name", SHOWN)
def test_each_list_is_logged(name, caplog):
    with caplog.at_level(logging.INFO):
        getattr(MindFormerBook, f"show_{name}")()
    content = getattr(MindFormerBook, f"get_{name}")()
    assert name in caplog.text
    for part in content if isinstance(content, dict) else [content]:
        assert str(part) in caplog.text


def test_models_of_a_task_are_logged(caplog):
    with caplog.at_level(logging.INFO):
        MindFormerBook.show_trainer_support_model_list()
        MindFormerBook.show_pipeline_support_model_list("text_generation")
        print_dict({"one": 1})
        print_path_or_list(["two"])
    assert caplog.text.count("llama2_7b") >= 2 and "one : 1" in caplog.text and "two" in caplog.text


def test_loading_the_rooms_does_not_change_a_list():
    before = MindFormerBook.get_config_support_list()
    before["llama2"].append("mine")
    assert "mine" not in MindFormerBook.get_config_support_list()["llama2"]
