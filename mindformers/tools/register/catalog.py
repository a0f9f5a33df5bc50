"""Where the built-in classes live: ``{module type: {name: "package.module:Class"}}``; strings only, nothing is imported."""

CATALOG = {
    "config": {
        "LlamaConfig": "mindformers.models.llama.llama_config:LlamaConfig",
    },
    "models": {
        "LlamaModel": "mindformers.models.llama.llama:LlamaModel",
        "LlamaForCausalLM": "mindformers.models.llama.llama:LlamaForCausalLM",
        "LlamaForSequenceClassification": "mindformers.models.llama.llama:LlamaForSequenceClassification",
    },
    "tokenizer": {},
    "processor": {},
    "dataset": {
        "GeneralDataset": "mindformers.dataset.general_dataset:GeneralDataset",
        "CausalLanguageModelDataset": "mindformers.dataset.causal_language_model_dataset:CausalLanguageModelDataset",
    },
    "dataset_loader": {
        "TextFilesDataLoader": "mindformers.dataset.dataloader.text_files:TextFilesDataLoader",
        "TrainingDataLoader": "mindformers.dataset.dataloader.text_files:TrainingDataLoader",
        "NumpyTokens": "mindformers.dataset.dataloader.token_files:NumpyTokens",
        "MindDataset": "mindformers.dataset.dataloader.token_files:build_mind_dataset",
        "IndexedDataLoader": "mindformers.dataset.dataloader.indexed_dataset:build_indexed_loader",
        "SFTDataLoader": "mindformers.dataset.dataloader.sft_dataloader:SFTDataLoader",
        "PythonSourceDataLoader": "mindformers.dataset.dataloader.python_source:PythonSourceDataLoader",
    },
    "data_handler": {},
    "loss": {},
    "lr": {},
    "optimizer": {},
    "metric": {},
    "callback": {},
    "wrapper": {},
    "trainer": {},
    "pipeline": {},
}
