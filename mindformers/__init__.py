"""A MindSpore-native suite for large language models.

Importing it loads neither MindSpore nor a model: each name is imported when it is first used.
"""
from mindformers.tools.env import let_openmp_threads_sleep
from mindformers.tools.not_carried import explain_missing_modules
from mindformers.tools.not_carried_inside import explain_missing_names
from mindformers.tools.utils import lazy_exports
from mindformers.version_control import __version__

let_openmp_threads_sleep()  # before anything imports MindSpore

# package -> the names it offers here, too
_PUBLIC = {
    "mindformers.core": """build_context build_parallel_config get_context init_context reset_parallel_config
        set_context""",
    "mindformers.core.callback": """CheckpointMonitor EvalCallBack LossCurve MFLossMonitor ProfileMonitor
        ProgressMonitor SummaryMonitor TrainCallBack""",
    "mindformers.core.clip_grad": "ClipGradNorm",
    "mindformers.core.loss": "CompareLoss CrossEntropyLoss L1Loss MSELoss SoftTargetCrossEntropy",
    "mindformers.core.lr": """ConstantWarmUpLR ConstantWithCoolDownLR CosineAnnealingLR CosineAnnealingWarmRestarts
        CosineWithRestartsAndWarmUpLR CosineWithWarmUpLR LearningRateWiseLayer LinearWithWarmUpLR
        PolynomialWithWarmUpLR WarmUpStableDecayLR""",
    "mindformers.core.metric": "ADGENMetric EmF1Metric EntityScore PerplexityMetric PromptAccMetric SQuADMetric",
    "mindformers.core.optim": "AdamW Came FP32StateAdamWeightDecay FusedAdamWeightDecay FusedCastAdamWeightDecay",
    "mindformers.dataset": """BaseDataset CausalLanguageModelDataset GeneralDataset IndexedDataLoader
        PythonSourceDataLoader SFTDataLoader TextFilesDataLoader TrainingDataLoader build_dataset
        build_dataset_loader check_dataset_config check_dataset_iterable""",
    "mindformers.generation": """BaseStreamer FrequencyPenaltyLogitsProcessor GenerationConfig GenerationMixin
        GreedySearchLogitsProcessor LogitNormalization LogitsProcessor LogitsProcessorList MinLengthLogitsProcessor
        MinNewTokensLengthLogitsProcessor MinPLogitsWarper PresencePenaltyLogitsProcessor
        RepetitionPenaltyLogitsProcessor SamplingLogitsProcessor TemperatureLogitsWarper TextIteratorStreamer
        TextStreamer TopKLogitsWarper TopPLogitsWarper""",
    "mindformers.mindformer_book": "MindFormerBook",
    "mindformers.models": """AddedToken AutoConfig AutoImageProcessor AutoModel AutoModelForCausalLM
        AutoModelForImageClassification AutoModelForMaskedImageModeling AutoModelForMaskedLM
        AutoModelForMultipleChoice AutoModelForPreTraining AutoModelForQuestionAnswering AutoModelForSeq2SeqLM
        AutoModelForSequenceClassification AutoModelForTokenClassification AutoModelForVision2Seq
        AutoModelForVisualQuestionAnswering AutoModelForZeroShotImageClassification AutoModelWithLMHead AutoProcessor
        AutoTokenizer BatchEncoding CONFIG_MAPPING CONFIG_MAPPING_NAMES ChatGLM2Config
        ChatGLM2ForConditionalGeneration ChatGLM2Model ChatGLM2WithPtuning2 GlmConfig GlmForCausalLM GlmModel
        ChatGLM2Tokenizer ChatGLM3Tokenizer ChatGLM4Tokenizer GLMProcessor IMAGE_PROCESSOR_MAPPING LlamaConfig
        LlamaForCausalLM LlamaForSequenceClassification LlamaModel LlamaProcessor LlamaTokenizer LlamaTokenizerFast
        PreTrainedModel PreTrainedTokenizer PreTrainedTokenizerBase PreTrainedTokenizerFast PretrainedConfig
        ProcessorMixin SpecialTokensMixin TOKENIZER_MAPPING build_model build_model_config build_network
        build_processor build_tokenizer""",
    "mindformers.core.parallel_config": """EmbeddingOpParallelConfig MoEConfig OpParallelConfig
        TransformerOpParallelConfig TransformerRecomputeConfig""",
    "mindformers.modules": "FeedForward Linear RMSNorm RotaryEmbedding VocabEmbedding",
    "mindformers.pet": "LoraConfig LoraModel PetConfig get_pet_model is_supported_pet_type",
    "mindformers.pipeline": "Pipeline TextGenerationPipeline pipeline",
    "mindformers.run_check": "run_check",
    "mindformers.tools": """ActionDict CheckpointMismatchError ConfigError DictConfig MindFormerConfig
        MindFormerModuleType MindFormerRegister UnsupportedError logger set_output_path""",
    "mindformers.trainer": """BaseArgsConfig BaseTrainer CausalLanguageModelingTrainer CheckpointConfig CloudConfig
        ConfigArguments ContextConfig DataLoaderConfig DatasetConfig GeneralTaskTrainer LRConfig OptimizerConfig
        ParallelContextConfig RunnerConfig Trainer TrainingArguments WrapperConfig build_trainer
        get_optimizer_grouped_parameters""",
    "mindformers.wrapper": "AdaptiveLossScaleUpdateCell MFPipelineWithLossScaleCell MFTrainOneStepCell",
}
_PACKAGES = ("checkpoint", "core", "dataset", "generation", "kernels", "models", "modules", "pet", "tools", "trainer",
             "wrapper")

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    **{name: f"{package}:{name}" for package, names in _PUBLIC.items() for name in names.split()},
    **{name: f"mindformers.{name}" for name in _PACKAGES},
})
explain_missing_modules()
explain_missing_names()
