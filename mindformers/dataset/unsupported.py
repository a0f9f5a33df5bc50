"""Types in MindFormers' YAML files that this room does not carry; a builder asked for one says what works instead."""
from mindformers.tools.errors import UnsupportedError

CHAT = "SFTDataLoader with map_function: multi_round_chat_map_fn (learns what the assistant says)"
PROMPT = "SFTDataLoader with map_function: default_map_fn (prompt and answer)"
TEXT = "CausalLanguageModelDataset with data_loader type SFTDataLoader or TextFilesDataLoader"
OWN = "GeneralDataset, which takes any iterable with a data_collator"

INSTEAD = {
    "MultiTurnDataset": CHAT, "KeyWordGenDataset": PROMPT, "MaskLanguageModelDataset": OWN, "ImageCLSDataset": OWN,
    "MIMDataset": OWN, "ContrastiveLanguageImagePretrainDataset": OWN, "ZeroShotImageClassificationDataset": OWN,
    "ModalToTextSFTDataset": OWN, "QuestionAnsweringDataset": TEXT, "RewardModelDataset": OWN,
    "TextClassificationDataset": OWN,
    "TokenClassificationDataset": OWN, "TranslationDataset": PROMPT,
    "ADGenDataLoader": "SFTDataLoader with dataset_name: advertisegen", "ToolAlpacaDataLoader": CHAT,
    "CommonDataLoader": "SFTDataLoader (jsonl) or GeneralDataset around a Hugging Face data set",
    "HFDataLoader": "SFTDataLoader (jsonl) or GeneralDataset around a Hugging Face data set",
    "MultiSourceDataLoader": "TextFilesDataLoader with dataset_files (several sources in one stream)",
    "BlendedMegatronDatasetDataLoader": "IndexedDataLoader with seq_length (one .bin/.idx pair)",
    "TFRecordDataset": "MindDataset, after mindspore.mindrecord.TFRecordToMR",
    "SQuADDataLoader": "SFTDataLoader with your own read_function", "CLUENERDataLoader": OWN, "WMT16DataLoader": PROMPT,
    "Cifar100DataLoader": OWN, "Flickr8kDataLoader": OWN, "MultiImgCapDataLoader": OWN, "BaseMultiModalDataLoader": OWN,
    "AlpacaInstructDataHandler": "SFTDataLoader with dataset_name: alpaca",
    "CodeAlpacaInstructDataHandler": "SFTDataLoader with dataset_name: alpaca",
    "AdgenInstructDataHandler": "SFTDataLoader with dataset_name: advertisegen", "LlavaInstructDataHandler": OWN,
}


def refuse(name):
    """Raise UnsupportedError when `name` is one of MindFormers' that is not carried."""
    if name in INSTEAD:
        raise UnsupportedError(f"{name} is not carried here; what works instead: {INSTEAD[name]}")
