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
        "CausalLanguageModelDataset": "mindformers.dataset.causal_language_model_dataset:CausalLanguageModelDataset",
    },
    "dataset_loader": {
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
