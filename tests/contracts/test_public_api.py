"""Every documented name of MindFormers 1.3 imports, or says what works instead."""
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mindformers.tools.errors import UnsupportedError
from mindformers.tools.not_carried import MODULES, NAMES, NotCarriedError
from mindformers.tools.not_carried_inside import INSIDE

# documented API: package -> names; [later] lines of MindFormers in the second half
DOCUMENTED = {
    "mindformers": """AutoConfig AutoModel AutoModelForCausalLM AutoProcessor AutoTokenizer ModelRunner pipeline
        run_check Trainer TrainingArguments""",
    "mindformers.core": """AdamW build_context get_context init_context set_context ConstantWarmUpLR CosineAnnealingLR
        CosineAnnealingWarmRestarts CosineWithRestartsAndWarmUpLR CosineWithWarmUpLR LinearWithWarmUpLR
        PolynomialWithWarmUpLR LearningRateWiseLayer CrossEntropyLoss EntityScore EmF1Metric PerplexityMetric
        PromptAccMetric CheckpointMonitor EvalCallBack MFLossMonitor ProfileMonitor SummaryMonitor
        WarmUpStableDecayLR ConstantWithCoolDownLR TrainingStateMonitor""",
    "mindformers.dataset": "CausalLanguageModelDataset KeyWordGenDataset MultiTurnDataset",
    "mindformers.generation": "GenerationConfig GenerationMixin",
    "mindformers.models": """ChatGLM2Config ChatGLM2ForConditionalGeneration ChatGLM3Tokenizer ChatGLM4Tokenizer
        LlamaConfig LlamaForCausalLM LlamaTokenizer LlamaTokenizerFast PretrainedConfig PreTrainedModel
        PreTrainedTokenizer PreTrainedTokenizerFast""",
    "mindformers.models.multi_modal": "ModalContentTransformTemplate",
    "mindformers.modules": "OpParallelConfig",
    "mindformers.pet": "LoraConfig PetConfig",
    "mindformers.pet.models": "LoraModel",
    "mindformers.pipeline": "MultiModalToTextPipeline",
    "mindformers.tools": "MindFormerConfig MindFormerRegister MindFormerModuleType",
    "mindformers.wrapper": "MFTrainOneStepCell MFPipelineWithLossScaleCell",
}
MUST_WORK = """AutoConfig AutoModel AutoModelForCausalLM AutoModelForSequenceClassification AutoProcessor AutoTokenizer
    pipeline run_check Trainer TrainingArguments CausalLanguageModelingTrainer AdamW FP32StateAdamWeightDecay
    build_context CosineWithWarmUpLR CrossEntropyLoss PerplexityMetric CheckpointMonitor EvalCallBack MFLossMonitor
    CausalLanguageModelDataset GenerationConfig GenerationMixin TextStreamer TextIteratorStreamer LogitsProcessorList
    LlamaConfig LlamaModel LlamaForCausalLM LlamaForSequenceClassification LlamaTokenizer LlamaTokenizerFast
    LlamaProcessor PretrainedConfig PreTrainedModel PreTrainedTokenizer PreTrainedTokenizerFast OpParallelConfig
    TransformerOpParallelConfig MindFormerConfig MindFormerRegister MindFormerModuleType MFTrainOneStepCell
    TextGenerationPipeline MindFormerBook ActionDict DictConfig logger""".split()


# module paths that code written for MindFormers imports from
MODULE_PATHS = """auto_class models.auto models.auto.configuration_auto models.auto.modeling_auto
    models.auto.tokenization_auto models.auto.processing_auto models.auto.auto_factory models.configuration_utils
    models.modeling_utils models.tokenization_utils models.tokenization_utils_base models.tokenization_utils_fast
    models.processing_utils models.utils models.build_config models.build_model models.build_processor
    models.build_tokenizer
    models.base_config models.base_model models.llama.llama models.llama.llama_config models.llama.llama_layer
    models.llama.llama_transformer models.llama.llama_interleave models.llama.llama_tokenizer
    models.llama.llama_tokenizer_fast models.llama.llama_processor models.llama.convert_weight
    models.llama.convert_reversed models.glm2.glm2 generation.text_generator generation.generation_config
    generation.logits_process generation.streamers generation.beam_search generation.utils
    generation.parallel_decoding modules.layers modules.flash_attention modules.infer_attention
    modules.paged_attention_mgr modules.block_tables modules.cache_engine modules.kvcache_mgr modules.activation
    modules.transformer.transformer modules.transformer.moe modules.transformer.op_parallel_config core.lr core.optim
    core.loss core.metric core.callback core.clip_grad core.context core.parallel_config core.lr.lr_schedule
    core.optim.adamw core.metric.metric core.metric.utils core.callback.callback core.context.build_context
    tools.utils tools.logger tools.generic tools.check_rules tools.register tools.register.config
    tools.register.register tools.ckpt_transform tools.resume_ckpt tools.transform_ckpt tools.transform_ckpt_lora
    tools.cloud_adapter tools.hub trainer.trainer trainer.base_trainer trainer.training_args trainer.config_args
    trainer.utils trainer.optimizer_grouped_parameters trainer.build_trainer pipeline.base_pipeline pipeline.pipeline
    pipeline.pipeline_registry pipeline.registry_constant pipeline.text_generation_pipeline pet pet.pet_config
    pet.pet_model pet.models.lora utils wrapper.wrapper version_control model_runner mindformer_book run_check"""


def carried(package, name):
    """Import ``from package import name``; False when it is refused with a name that works."""
    try:
        getattr(importlib.import_module(package), name)
    except UnsupportedError as error:
        assert len(str(error)) > len(name) + 10, str(error)
        return False
    return True


@pytest.mark.parametrize("package", DOCUMENTED)
def test_documented_names_import_or_say_what_works(package):
    for name in DOCUMENTED[package].split():
        carried(package, name)


def test_the_core_of_the_api_works():
    import mindformers
    refused = [name for name in MUST_WORK if not carried("mindformers", name)]
    assert not refused
    assert callable(mindformers.pipeline) and callable(mindformers.run_check)


def test_every_name_of_the_package_resolves():
    import mindformers
    for name in mindformers.__all__:
        carried("mindformers", name)
    assert len(mindformers.__all__) > 150


@pytest.mark.parametrize("package", ["core", "core.lr", "core.loss", "core.optim", "core.metric", "core.callback",
                                     "dataset",
                                     "generation", "models", "models.auto", "modules", "pipeline", "tools",
                                     "tools.register", "trainer", "wrapper", "checkpoint", "kernels"])
def test_every_name_of_a_room_resolves(package):
    names = importlib.import_module(f"mindformers.{package}").__all__
    assert names
    for name in names:
        carried(f"mindformers.{package}", name)


def test_names_that_are_not_carried_point_at_names_that_are():
    for nearest in {*NAMES.values(), *MODULES.values()}:
        package, _, name = f"mindformers.{nearest}".rpartition(".")
        assert carried(package, name), nearest
    import mindformers
    assert not [name for name in NAMES if name in vars(mindformers)]


@pytest.mark.parametrize("module", INSIDE)
def test_names_inside_a_module_point_at_names_that_are(module):
    """Each is said to be somewhere else, and that place has it; names that the module has come first."""
    own = importlib.import_module(module)
    for name, nearest in INSIDE[module].items():
        assert name not in vars(own), name
        with pytest.raises(NotCarriedError, match=f"{name} of MindFormers' {module}.*{re.escape(nearest)}"):
            exec(f"from {module} import {name}")
        package, _, target = f"mindformers.{nearest}".rpartition(".")
        assert carried(package, target), nearest
    with pytest.raises(AttributeError, match="has no attribute 'never_there'"):
        own.never_there
    assert not hasattr(own, "neither_this")


def test_names_of_other_tables_are_refused_inside_modules_too():
    for module, name in (("modules.layers", "FreqsMgr"), ("modules.layers", "Dropout"),
                         ("pet.pet_config", "SLoraConfig"), ("models.build_model", "build_head"),
                         ("wrapper.wrapper", "PipelineCellWithTwoOutput")):
        with pytest.raises(UnsupportedError, match=f"{name} of MindFormers is not carried here"):
            exec(f"from mindformers.{module} import {name}")


def test_functions_of_modeling_utils_are_there():
    from mindformers.models import compat_methods, modeling_utils
    for name in ("dtype_byte_size", "shard_checkpoint", "load_sharded_checkpoint", "save_checkpoint"):
        assert getattr(modeling_utils, name) is getattr(compat_methods, name)


def test_modules_that_are_not_carried_are_not_there():
    package = Path(importlib.import_module("mindformers").__file__).parents[1]
    for name in MODULES:
        path = package / name.replace(".", "/")
        assert not path.with_suffix(".py").exists() and not (path / "__init__.py").exists(), name


def test_documented_modules_import_or_say_what_works():
    for name in MODULE_PATHS.split():
        try:
            importlib.import_module(f"mindformers.{name}")
        except UnsupportedError as error:
            assert name.split(".")[-1] in str(error) or "not carried" in str(error)


def test_a_name_that_is_not_carried_explains_itself_in_an_import_statement():
    with pytest.raises(UnsupportedError, match="mindformers.LlamaForCausalLM"):
        from mindformers import GPT2LMHeadModel  # noqa: F401
    with pytest.raises(ImportError, match="mindformers.LoraConfig"):
        from mindformers.pet import PrefixTuningConfig  # noqa: F401
    import mindformers
    assert not hasattr(mindformers, "NoSuchNameAnywhere")
    with pytest.raises(AttributeError, match="Did you mean 'LlamaConfig'"):
        _ = mindformers.LlamaConfg


def test_catalog_names_resolve():
    from mindformers.tools.register.catalog import CATALOG
    from mindformers.tools.register.register import MindFormerRegister
    for shelf, names in CATALOG.items():
        for name in names:
            assert MindFormerRegister.get_cls(shelf, name) is not None


def test_import_is_light():
    code = ("import time, sys; start = time.perf_counter(); import mindformers; spent = time.perf_counter() - start; "
            "heavy = [n for n in ('mindspore', 'numpy', 'tokenizers', 'yaml') if n in sys.modules]; "
            "print(spent, heavy)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    spent, heavy = out.split(maxsplit=1)
    print(f"import mindformers: {float(spent):.3f} s")
    assert heavy.strip() == "[]"
