"""Names of MindFormers that are not carried, each with the nearest name that works.

A lazy package (`lazy_exports`) that is asked for one raises NotCarriedError; so does the import of a module of
`MODULES`. A name that a package exports is never looked up here.
"""
import importlib.abc
import sys

from mindformers.tools.errors import UnsupportedError

# nearest thing (importable from mindformers) -> the names it stands for
_NEAREST = {
    "LlamaForCausalLM": """
        BloomLMHeadModel BloomRewardModel CodeGeex2ForConditionalGeneration GLMChatModel GLMForPreTraining
        GPT2LMHeadModel MT5ForConditionalGeneration
        PanguAlphaHeadModel T5ForConditionalGeneration VHead BertForPreTraining BertForMultipleChoice
        BertForQuestionAnswering BertForTokenClassification CogVLM2ForCausalLM CogVLM2ImageForCausalLM CogVLM2VideoLM
        LlamaForCausalLMForCogVLM2Image WhisperForConditionalGeneration ModelRunner MindIEModelRunner KVCacheMgr
        PagedAttentionMgr BlockTables""",
    "LlamaForSequenceClassification": "GPT2ForSequenceClassification PanguAlphaPromptTextClassificationModel",
    "LlamaModel": """
        BertModel BloomModel CogVLM2VideoLMModel EVAModel GPT2Model PanguAlphaModel Transformer
        TransformerEncoder TransformerDecoder TransformerEncoderLayer TransformerDecoderLayer MultiHeadAttention
        FixedSparseAttention LocalBlockSparseAttention FlashAttention InferAttention AlibiTensor AlibiTensorV2
        AttentionMask AttentionMaskHF LowerTriangularMaskWithDynamic FreqsMgr CLIPModel SwinModel ViTModel ViTMAEModel
        ViTMAEForPreTraining ViTForImageClassification SwinForImageClassification SamModel SamImageEncoder
        SamMaskDecoder SamPromptEncoder Blip2Classifier Blip2ItmEvaluator Blip2Llm Blip2Qformer Blip2Vit
        BaseXModalToTextModel""",
    "LlamaConfig": """
        BertConfig BloomConfig CodeGeex2Config CLIPConfig CLIPTextConfig CLIPVisionConfig CogVLM2Config
        EVA02Config GLMConfig GPT2Config ImageEncoderConfig PanguAlphaConfig SamConfig SwinConfig T5Config ViTConfig
        ViTMAEConfig WhisperConfig Blip2Config QFormerConfig""",
    "LlamaTokenizer": """
        BasicTokenizer BertTokenizer BloomTokenizer CLIPTokenizer CodeGeex2Tokenizer CogVLM2Tokenizer
        GPT2Tokenizer PanguAlphaTokenizer T5PegasusTokenizer T5Tokenizer WhisperTokenizer""",
    "ChatGLM2Tokenizer": "ChatGLMTokenizer",
    "LlamaTokenizerFast": "BertTokenizerFast BloomTokenizerFast GPT2TokenizerFast T5TokenizerFast",
    "LlamaProcessor": """
        BaseAudioProcessor BaseImageProcessor BaseImageToTextImageProcessor BaseTextContentBuilder
        BaseXModalToTextProcessor BaseXModalToTextTransform BertProcessor BloomProcessor CLIPImageProcessor
        CLIPProcessor CogVLM2ContentTransformTemplate CogVLM2ImageContentTransformTemplate GPT2Processor
        ImageProcessingMixin ModalContentTransformTemplate PanguAlphaProcessor SamImageProcessor SamProcessor
        SwinImageProcessor SwinProcessor T5Processor ViTImageProcessor ViTProcessor ViTMAEImageProcessor
        ViTMAEProcessor WhisperProcessor""",
    "PretrainedConfig": "BaseConfig",
    "PreTrainedModel": "BaseModel",
    "AutoProcessor": "BaseProcessor AutoFeatureExtractor",
    "AutoTokenizer": "get_model InputBuilder",
    "AutoModel": "AutoModelForTextEncoding AutoModelForMaskGeneration register_auto_class",
    "TextGenerationPipeline": """
        FillMaskPipeline ImageClassificationPipeline ImageToTextPipeline MaskedImageModelingPipeline
        MultiModalToTextPipeline QuestionAnsweringPipeline SegmentAnythingPipeline TextClassificationPipeline
        TokenClassificationPipeline TranslationPipeline ZeroShotImageClassificationPipeline MaskData area_from_rle
        batch_iterator batched_mask_to_box box_area box_xyxy_to_xywh build_all_layer_point_grids
        calculate_stability_score coco_encode_rle generate_crop_boxes is_box_near_crop_edge mask_to_rle nms
        remove_small_regions rle_to_mask uncrop_boxes_xyxy uncrop_masks uncrop_points""",
    "CausalLanguageModelingTrainer": """
        ContrastiveLanguageImagePretrainTrainer ImageClassificationTrainer ImageToTextGenerationTrainer
        ImageToTextRetrievalTrainer MaskedImageModelingTrainer MaskedLanguageModelingTrainer
        MultiModalToTextGenerationTrainer QuestionAnsweringTrainer TextClassificationTrainer
        TokenClassificationTrainer TranslationTrainer ZeroShotImageClassificationTrainer""",
    "LoraConfig": "PrefixTuningConfig Ptuning2Config SLoraConfig",
    "get_pet_model": "PrefixTuningModel Ptuning2Model SLoraModel",
    "pet.LoraAdapter": "AdaAdapter AdaLoraAdapter PrefixTuningAdapter Ptuning2Adapter SLoraAdapter SLoraLinear",
    "CausalLanguageModelDataset": """
        ContrastiveLanguageImagePretrainDataset ImageCLSDataset KeyWordGenDataset MIMDataset MaskLanguageModelDataset
        ModalToTextSFTDataset MultiTurnDataset QuestionAnsweringDataset RewardModelDataset TextClassificationDataset
        TokenClassificationDataset TranslationDataset ZeroShotImageClassificationDataset ADGenDataLoader
        AdgenInstructDataHandler AlpacaInstructDataHandler BaseMultiModalDataLoader CLUENERDataLoader
        Cifar100DataLoader CodeAlpacaInstructDataHandler CommonDataLoader Flickr8kDataLoader LlavaInstructDataHandler
        MultiImgCapDataLoader MultiSourceDataLoader SQuADDataLoader ToolAlpacaDataLoader WMT16DataLoader BCHW2BHWC
        BatchCenterCrop BatchNormalize BatchPILize BatchResize BatchToTensor CaptionTransform LabelPadding MaeMask
        Mixup RandomChoiceTokenizerForward RandomCropDecodeResize RandomErasing RandomHorizontalFlip RandomResizedCrop
        Resize SimMask TokenizeWithLabel TokenizerForward augment_and_mix_transform auto_augment_transform
        rand_augment_transform build_data_handler build_transforms build_sampler build_mask""",
    "CheckpointMonitor": "Local2ObsMonitor Obs2Local ObsMonitor check_in_modelarts cloud_monitor mox_adapter",
    "checkpoint.open_weights": "TransformCkpt",
    "MoEConfig": "MoEParallelConfig",
    "ParallelContextConfig": "ParallelConfig",
    "build_model": "build_encoder build_head",
    "MFLossMonitor": "TrainingStateMonitor",
    "MFTrainOneStepCell": "GradAccumulationCellWithTwoOutput PipelineCellWithTwoOutput",
    "RMSNorm": "LayerNorm Dropout",
}
NAMES = {name: nearest for nearest, names in _NEAREST.items() for name in names.split()}

# module -> nearest thing below mindformers
MODULES = {
    "mindformers.experimental": "Trainer",
    "mindformers.model_runner": "LlamaForCausalLM",
    "mindformers.pet.models.prefix_tuning": "pet.get_pet_model",
    "mindformers.pet.models.ptuning2": "pet.get_pet_model",
    "mindformers.pet.models.slora": "pet.get_pet_model",
    "mindformers.pet.tuners.ada_adapter": "pet.LoraAdapter",
    "mindformers.pet.tuners.adalora_adapter": "pet.LoraAdapter",
    "mindformers.pet.tuners.prefix_tuning_adapter": "pet.LoraAdapter",
    "mindformers.pet.tuners.ptuning2_adapter": "pet.LoraAdapter",
    "mindformers.pet.tuners.slora_adapter": "pet.LoraAdapter",
    "mindformers.utils": "tools",
    "mindformers.core.callback.callback": "core.callback",
    "mindformers.core.metric.utils": "core.metric",
    "mindformers.dataset.handler": "dataset.SFTDataLoader",
    "mindformers.dataset.transforms": "CausalLanguageModelDataset",
    "mindformers.models.base_config": "PretrainedConfig",
    "mindformers.models.base_model": "PreTrainedModel",
    "mindformers.models.base_processor": "ProcessorMixin",
    "mindformers.models.llama.convert_reversed": "LlamaForCausalLM",
    "mindformers.models.llama.convert_weight": "LlamaForCausalLM",
    "mindformers.models.llama.llama_interleave": "LlamaModel",
    "mindformers.models.llama.llama_layer": "LlamaModel",
    "mindformers.models.llama.llama_transformer": "LlamaModel",
    "mindformers.models.multi_modal": "LlamaProcessor",
    "mindformers.models.utils": "core.dtype.to_ms_dtype",
    "mindformers.modules.activation": "modules.FeedForward",
    "mindformers.modules.block_tables": "modules.PagedCache",
    "mindformers.modules.cache_engine": "modules.PagedCache",
    "mindformers.modules.flash_attention": "modules.SelfAttention",
    "mindformers.modules.infer_attention": "modules.SelfAttention",
    "mindformers.modules.kvcache_mgr": "modules.PagedCache",
    "mindformers.modules.local_block_sparse_attention": "modules.SelfAttention",
    "mindformers.modules.paged_attention_mgr": "modules.PagedCache",
    "mindformers.modules.transformer.moe": "LlamaModel",
    "mindformers.modules.transformer.transformer": "LlamaModel",
    "mindformers.tools.check_rules": "tools.register.schema.check_config",
    "mindformers.tools.ckpt_transform": "checkpoint.open_weights",
    "mindformers.tools.cloud_adapter": "CheckpointMonitor",
    "mindformers.tools.generic": "tools",
    "mindformers.tools.hub": "hub.resolve",
    "mindformers.tools.resume_ckpt": "checkpoint.find_resume",
    "mindformers.tools.transform_ckpt": "checkpoint.open_weights",
    "mindformers.tools.transform_ckpt_lora": "get_pet_model",
}


class NotCarriedError(ImportError, UnsupportedError):
    """A name or module of MindFormers that is not carried.

    It is an ImportError, so that ``from mindformers import X`` shows this message and ``except ImportError`` works.
    """


def refuse_name(name):
    """Raise NotCarriedError when `name` is one of MindFormers' names that are not carried."""
    if name in NAMES:
        raise NotCarriedError(f"{name} of MindFormers is not carried here; the nearest thing that works is "
                              f"mindformers.{NAMES[name]}")


class _NotCarriedFinder(importlib.abc.MetaPathFinder):
    """Last finder of the import system: explains the modules that are not carried."""

    def find_spec(self, fullname, path=None, target=None):
        """Raise NotCarriedError for a module of MODULES; anything else is left to the ordinary error."""
        if fullname in MODULES:
            raise NotCarriedError(f"module {fullname} of MindFormers is not carried here; the nearest thing that works "
                                  f"is mindformers.{MODULES[fullname]}", name=fullname)


def explain_missing_modules():
    """Install the finder, once."""
    if not any(isinstance(finder, _NotCarriedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_NotCarriedFinder())
