"""Rows to batches: datasets and data loaders."""
from mindformers.tools.utils import lazy_exports

_TABLE = {
    "BatchLoader": "mindformers.dataset.batch_loader:BatchLoader",
    "BaseDataset": "mindformers.dataset.base_dataset:BaseDataset",
    "CausalLanguageModelDataset": "mindformers.dataset.causal_language_model_dataset:CausalLanguageModelDataset",
    "GeneralDataset": "mindformers.dataset.general_dataset:GeneralDataset",
    "RowSource": "mindformers.dataset.rows:RowSource",
    "build_dataset": "mindformers.dataset.build_dataset:build_dataset",
    "build_dataset_loader": "mindformers.dataset.dataloader.build_dataloader:build_dataset_loader",
    "check_dataset_config": "mindformers.dataset.utils:check_dataset_config",
    "check_dataset_iterable": "mindformers.dataset.utils:check_dataset_iterable",
    "is_generator_function": "mindformers.dataset.utils:is_generator_function",
    "IndexedDataLoader": "mindformers.dataset.dataloader.indexed_dataset:build_indexed_loader",
    "IndexedDataset": "mindformers.dataset.dataloader.indexed_dataset:IndexedDataset",
    "IndexedDataBuilder": "mindformers.dataset.dataloader.indexed_dataset:IndexedDataBuilder",
    "NumpyTokens": "mindformers.dataset.dataloader.token_files:NumpyTokens",
    "PythonSourceDataLoader": "mindformers.dataset.dataloader.python_source:PythonSourceDataLoader",
    "SFTDataLoader": "mindformers.dataset.dataloader.sft_dataloader:SFTDataLoader",
    "TextFilesDataLoader": "mindformers.dataset.dataloader.text_files:TextFilesDataLoader",
    "TrainingDataLoader": "mindformers.dataset.dataloader.text_files:TrainingDataLoader",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _TABLE)
