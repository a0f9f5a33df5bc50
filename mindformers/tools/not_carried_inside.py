"""Names that MindFormers defines in modules which are here too, but without them, each with the nearest that works.

Such a module gets a ``__getattr__`` when it is imported, so that ``from mindformers.modules.layers import FreqsMgr``
says what to use instead. Names that packages export are in `not_carried`.
"""
import importlib.abc
import importlib.machinery
import sys

from mindformers.tools.not_carried import NotCarriedError, refuse_name

# module -> nearest thing (importable from mindformers) -> names
_INSIDE = {
    "core.callback.build_callback": {"MindFormerRegister": "register_ms_cb"},
    "core.loss.build_loss": {"MindFormerRegister": "register_ms_loss"},
    "core.lr.build_lr": {"MindFormerRegister": "register_ms_lr register_mf_lr"},
    "core.metric.build_metric": {"MindFormerRegister": "register_ms_mt"},
    "core.optim.build_optim": {"MindFormerRegister": "register_ms_optim register_mf_optim"},
    "core.optim.came": {"Came": "trans_to_tensor"},
    "core.optim.optim": {"AdamW": "clone_state"},
    "dataset.causal_language_model_dataset": {"CausalLanguageModelDataset": "get_input_data_batch_slice_map"},
    "dataset.dataloader.build_dataloader": {"MindFormerRegister": "register_ms_dataset_loader"},
    "dataset.dataloader.indexed_dataset": {"IndexedDataLoader": "IndexedDataLoader"},
    "dataset.dataloader.sft_dataloader": {"SFTDataLoader": "SFTDataSet"},
    "dataset.dataloader.sft_map_functions": {"SFTDataLoader": """
        cola_map_fn imdb_map_fn sst2_map_fn agnwes_map_fn tnews_map_fn multi_round_chat_dyn_map_fn_alpaca"""},
    "generation.parallel_decoding": {"GenerationMixin": """
        register_logits_process register_pre_process parallel_decoding_logits_process parallel_decoding_process"""},
    "generation.utils": {"LogitsProcessor": "softmax_single softmax_with_threads"},
    "models.auto.modeling_auto": {},
    "models.build_model": {},
    "models.build_tokenizer": {"build_tokenizer": "check_and_add_vocab_file_path"},
    "models.configuration_utils": {"PretrainedConfig": "get_configuration_file recursive_diff_dict"},
    "models.glm2.glm2_modules": {"RMSNorm": "ChatGLM2RMSNorm", "FeedForward": "ChatGLM2SiLU ChatGLM2SwiGLU"},
    "models.glm2.glm2_transformer": {"modules.SelfAttention": "CoreAttention"},
    "models.modeling_utils": {"PreTrainedModel": "ModuleUtilsMixin"},
    "modules.layers": {"LlamaConfig": "SeqExtendMethod", "LlamaModel": "build_alibi_tensor_v2",
                       "RotaryEmbedding": "RotaryEmbedding"},
    "pet.constants": {"pet.LoraAdapter": "BaseModelInitType"},
    "pet.pet_config": {},
    "pet.pet_model": {"get_pet_model": "PetModel"},
    "pet.tuners.lora_adapter": {"pet.LoraAdapter": "get_dtype recursive_replace_dense_cell"},
    "pipeline.pipeline": {"Pipeline": "get_ms_pipeline get_ms_experimental_pipeline clean_custom_task"},
    "tools.utils": {
        "tools": """Validator check_obs_url check_list check_file format_path sync_trans set_strategy_save_path
            set_remote_save_url get_remote_save_url get_net_outputs get_num_nodes_devices Const generate_rank_list
            convert_nodes_devices_input try_sync_file replace_tk_to_mindpet check_shared_disk check_in_dynamic_cluster
            get_device_num_per_node get_disable_custom_fa get_predict_run_mode get_use_rope_self_define
            is_publicly_accessible_path create_file delete_file remake_folder remove_folder clear_auto_trans_output
            create_and_write_info_to_txt is_pynative barrier_world get_pipeline_rank_ids""",
        "checkpoint.find_resume": """get_epoch_and_step_from_ckpt_name get_rank_id_from_ckpt_name
            replace_rank_id_in_ckpt_name check_ckpt_file_name""",
        "PreTrainedModel": "count_params"},
    "trainer.optimizer_grouped_parameters": {"get_optimizer_grouped_parameters": "get_vit_layer get_swin_layer"},
    "wrapper.build_wrapper": {"MindFormerRegister": "register_ms_wrap register_mf_wrapper"},
    "wrapper.wrapper": {"MFTrainOneStepCell": """
        tensor_grad_scale tensor_grad_scale_row_tensor LocalNorm tensor_grad_scale_pipeline
        tensor_shard_grad_scale_pipeline"""},
}
INSIDE = {f"mindformers.{module}": {name: nearest for nearest, names in table.items() for name in names.split()}
          for module, table in _INSIDE.items()}


def refuse_name_of(module, name):
    """Raise NotCarriedError for a name that MindFormers' `module` has and ours lacks, AttributeError for any other."""
    nearest = INSIDE[module].get(name)
    if nearest is not None:
        raise NotCarriedError(f"{name} of MindFormers' {module} is not carried there; the nearest thing that works is "
                              f"mindformers.{nearest}")
    refuse_name(name)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def _complete(module):
    """Let `module` explain the names that it lacks."""
    vars(module).setdefault("__getattr__", lambda name: refuse_name_of(module.__name__, name))


class _InsideFinder(importlib.abc.MetaPathFinder):
    """First finder of the import system: finds the modules of INSIDE as usual, and completes them."""

    def find_spec(self, fullname, path=None, target=None):
        """Return the spec of a module of INSIDE; None leaves any other to the ordinary finders."""
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target) if fullname in INSIDE else None
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            _complete(module)

        spec.loader.exec_module = exec_module
        return spec


def explain_missing_names():
    """Install the finder, once."""
    if not any(isinstance(finder, _InsideFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _InsideFinder())
        for name in INSIDE.keys() & sys.modules.keys():  # needed to come here
            _complete(sys.modules[name])
