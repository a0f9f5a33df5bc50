"""Processors: call, folders, YAML, AutoProcessor, build_processor."""
import json
import shutil
from pathlib import Path

import pytest
import yaml

from mindformers.models.auto.image_processing_auto import AutoImageProcessor
from mindformers.models.auto.processing_auto import PROCESSOR_MAPPING, AutoProcessor
from mindformers.models.build_processor import build_processor
from mindformers.models.configuration_utils import PretrainedConfig
from mindformers.models.llama import LlamaProcessor, LlamaTokenizer
from mindformers.models.processing_utils import ProcessorMixin
from mindformers.tools.errors import ConfigError, UnsupportedError

MODEL = Path(__file__).resolve().parents[1] / "reference" / "tokenizers" / "llama2" / "tokenizer.model"


def test_call():
    processor = LlamaProcessor(LlamaTokenizer(MODEL), max_length=16, return_tensors="np")
    ids = processor("Hello world")["text"]
    assert ids.shape == (1, 16) and processor.decode(ids[0], skip_special_tokens=True) == "Hello world"
    assert processor(["a", "b"])["text"].shape == (2, 16)
    assert processor.model_input_names == ["input_ids", "attention_mask"]
    with pytest.raises(ValueError, match="text only"):
        processor("x", image_input=1)
    with pytest.raises(ValueError, match="needs text_input"):
        LlamaProcessor()("x")
    with pytest.raises(TypeError, match="PreTrainedTokenizerBase"):
        LlamaProcessor(tokenizer="llama")


def test_save_and_load(tmp_path):
    processor = LlamaProcessor(LlamaTokenizer(MODEL), max_length=16, padding=True, return_tensors=None)
    written = processor.save_pretrained(tmp_path, file_format="yaml")
    assert all(Path(path).is_file() for path in written)
    for loaded in (LlamaProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is LlamaProcessor and loaded.to_dict() == processor.to_dict()
        assert loaded("Hi") == processor("Hi")
    for name in ("processor_config.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    loaded = AutoProcessor.from_pretrained(tmp_path / "mindspore_model.yaml")  # the YAML alone says it all
    assert loaded.to_dict() == processor.to_dict() and type(loaded.tokenizer) is LlamaTokenizer
    assert LlamaProcessor.from_pretrained(tmp_path, max_length=7).max_length == 7
    with pytest.raises(TypeError, match="max_length"):
        LlamaProcessor.from_pretrained(tmp_path, max_lenght=7)


def test_auto_processor_of_a_model_folder(tmp_path):
    shutil.copy(MODEL, tmp_path)
    with pytest.raises(ValueError, match="processor_class"):
        AutoProcessor.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert type(AutoProcessor.from_pretrained(tmp_path)) is LlamaProcessor
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "LlamaProcesor"}))
    with pytest.raises(ValueError, match="Did you mean 'LlamaProcessor'"):
        AutoProcessor.from_pretrained(tmp_path)
    with pytest.raises(EnvironmentError, match="from_pretrained"):
        AutoProcessor()


def test_register(tmp_path, monkeypatch):
    class MyConfig(PretrainedConfig):
        """A family of a user."""

        model_type = "my_processed"

    class MyProcessor(ProcessorMixin):
        """Its processor."""

    monkeypatch.setattr(PROCESSOR_MAPPING, "_extra", {})
    AutoProcessor.register(MyConfig, MyProcessor)
    shutil.copy(MODEL, tmp_path)
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "MyProcessor"}))
    assert type(AutoProcessor.from_pretrained(tmp_path)) is MyProcessor
    with pytest.raises(ValueError, match="exist_ok"):
        AutoProcessor.register(MyConfig, MyProcessor)


def test_names(tmp_path, monkeypatch):
    section = {"type": "LlamaProcessor", "return_tensors": "np",
               "tokenizer": {"type": "LlamaTokenizer", "vocab_file": str(MODEL)}}
    (tmp_path / "predict_my_llama.yaml").write_text(yaml.safe_dump({"processor": section}))
    monkeypatch.setattr("mindformers.models.config_sources.configs_dir", lambda: str(tmp_path))
    assert AutoProcessor.get_support_list() == {"llama": ["my_llama"]}
    assert LlamaProcessor.get_support_list() == ["my_llama"]
    assert AutoProcessor.from_pretrained("my_llama")("x")["text"].shape == (1, 128)


def test_build_processor():
    section = {"type": "LlamaProcessor", "max_length": 8, "return_tensors": "np",
               "tokenizer": {"type": "LlamaTokenizer", "vocab_file": str(MODEL)}}
    assert build_processor(section)("x")["text"].shape == (1, 8)
    assert isinstance(section["tokenizer"], dict), "the caller's section stays as it was"
    assert build_processor(class_name="LlamaProcessor", max_length=3).max_length == 3 and build_processor() is None
    with pytest.raises(ConfigError, match="needs type"):
        build_processor({"max_length": 8})
    with pytest.raises(ValueError, match="LlamaProcessor"):
        build_processor({"type": "LlamaProcesor"})


def test_image_processors_are_refused_by_name(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    with pytest.raises(UnsupportedError, match="ViTImageProcessor"):
        AutoImageProcessor.from_pretrained(tmp_path)
    assert AutoImageProcessor.get_support_list() == {}
