"""The tables of the schema about devices: context, parallel, parallel_config, recompute_config, moe_config."""
from mindformers.tools.register.schema_engine import Key, Section

_NOT_SHARDED = "models are not sharded here; it changes memory or communication, never the result"
_ASCEND = "it steers the Ascend backend"
_RECOMPUTE = "layers run again as a whole or not at all (recompute); it changes memory only"
_NO_MOE = "mixture of experts is not carried; leave expert_num 1"


CONTEXT = Section({
    "mode": Key("int|str|null", choices=(0, 1, "GRAPH_MODE", "PYNATIVE_MODE")),
    "device_target": Key("str", "CPU", choices=("CPU", "Ascend")),
    "device_id": Key("int|null", low=0, neutral=(0,), ignored="there is one CPU device", only="Ascend"),
    "max_device_memory": Key("str|null", ignored=_ASCEND, only="Ascend"),
    "max_call_depth": Key("int|null", low=1),
    "save_graphs": Key("bool|int|null"),
    "save_graphs_path": Key("str|null", needs="save_graphs"),
    "enable_graph_kernel": Key("bool|null", neutral=(False,), ignored="graph kernel fusion is not used on CPU",
                               only="Ascend"),
    "graph_kernel_flags": Key("str|null", needs="enable_graph_kernel"),
    "memory_optimize_level": Key("str|null", choices=("O0", "O1"), ignored=_ASCEND, only="Ascend"),
    "mempool_block_size": Key("str|null", ignored=_ASCEND, only="Ascend"),
    "jit_level": Key("str|null", choices=("O0", "O1", "O2"), ignored=_ASCEND, only="Ascend"),
    "jit_config": Section({
        "jit_level": Key("str|null", choices=("O0", "O1", "O2"), ignored=_ASCEND, only="Ascend"),
        "infer_boost": Key("str|null", choices=("on", "off"), ignored=_ASCEND, only="Ascend"),
    }),
    "infer_boost": Key("str|bool|null", ignored=_ASCEND, only="Ascend"),
    "ascend_config": Key("dict|null", ignored=_ASCEND, only="Ascend"),
    "runtime_num_threads": Key("int|null", low=1),
    "deterministic": Key("str|null", choices=("ON", "OFF")),
    "enable_dump": Key("bool|null", neutral=(False,), refused="set MINDSPORE_DUMP_CONFIG in the environment instead"),
    "save_dump_path": Key("str|null", needs="enable_dump"),
    "affinity_cpu_list": Key("list|bool|null", ignored=_ASCEND, only="Ascend", neutral=(False,)),
    "affinity_config": Key("dict|null", ignored=_ASCEND, only="Ascend"),
}, fill=True)

PARALLEL = Section({
    "parallel_mode": Key("int|str|null", choices=(0, 1, 2, 3, "data_parallel", "semi_auto_parallel", "auto_parallel",
                                                  "hybrid_parallel", "stand_alone")),
    "gradients_mean": Key("bool|null", neutral=(False, True)),
    "loss_repeated_mean": Key("bool|null", neutral=(False, True)),
    "full_batch": Key("bool|null", neutral=(False, True)),
    "dataset_strategy": Key("str|list|null", ignored=_NOT_SHARDED),
    "enable_alltoall": Key("bool|null", neutral=(False,), ignored=_NOT_SHARDED),
    "search_mode": Key("str|null", neutral=("sharding_propagation", "recursive_programming", "dynamic_programming")),
    "auto_parallel_search_mode": Key("str|null", ignored=_NOT_SHARDED),
    "enable_parallel_optimizer": Key("bool|null", neutral=(False,), ignored=_NOT_SHARDED),
    "parallel_optimizer_config": Key("dict|null", needs="enable_parallel_optimizer", ignored=_NOT_SHARDED),
    "strategy_ckpt_save_file": Key("str|null", neutral=("", "./ckpt_strategy.ckpt"), ignored=_NOT_SHARDED),
    "strategy_ckpt_config": Key("dict|null", ignored=_NOT_SHARDED),
    "strategy_ckpt_load_file": Key("str|null", neutral=("",), ignored=_NOT_SHARDED),
    "pipeline_config": Key("dict|null", ignored=_NOT_SHARDED),
    "auto_pipeline": Key("bool|null", neutral=(False,), ignored=_NOT_SHARDED),
    "device_num": Key("int|null", low=1),
}, fill=True)

PARALLEL_CONFIG = Section({
    **{name: Key("int|null", low=1) for name in ("data_parallel", "model_parallel", "context_parallel",
                                                 "expert_parallel", "pipeline_stage")},
    "micro_batch_num": Key("int|null", low=1, neutral=(1,), ignored="it takes effect with pipeline stages"),
    "use_seq_parallel": Key("bool|null", neutral=(False,), ignored=_NOT_SHARDED),
    "optimizer_shard": Key("bool|null", neutral=(False,), ignored=_NOT_SHARDED),
    "gradient_aggregation_group": Key("int|null", low=1, neutral=(4,), ignored=_NOT_SHARDED),
    "vocab_emb_dp": Key("bool|null", neutral=(False, True)),
    "context_parallel_algo": Key("str|null", neutral=("colossalai_cp",), ignored=_NOT_SHARDED),
    "ulysses_degree_in_cp": Key("int|null", neutral=(1,), ignored=_NOT_SHARDED),
    "mem_coeff": Key("float|null", ignored=_NOT_SHARDED),
    "seq_split_num": Key("int|null", neutral=(1,), ignored=_NOT_SHARDED),
})

RECOMPUTE = Section({
    "recompute": Key("bool|list|null"),
    "select_recompute": Key("bool|list|dict|null", neutral=(False,), ignored=_RECOMPUTE),
    "parallel_optimizer_comm_recompute": Key("bool|null", neutral=(False,), ignored=_RECOMPUTE),
    "select_comm_recompute": Key("bool|list|dict|null", neutral=(False,), ignored=_RECOMPUTE),
    "mp_comm_recompute": Key("bool|null", neutral=(True, False)),
    "recompute_slice_activation": Key("bool|null", neutral=(False,), ignored=_RECOMPUTE),
    "select_recompute_exclude": Key("bool|list|dict|null", neutral=(False,), ignored=_RECOMPUTE),
    "select_comm_recompute_exclude": Key("bool|list|dict|null", neutral=(False,), ignored=_RECOMPUTE),
})

SWAP = Section({
    "swap": Key("bool|null", neutral=(False,), ignored="activations stay in memory; swapping changes memory only"),
    "layer_swap": Key(needs="swap"),
    "op_swap": Key(needs="swap"),
    "default_prefetch": Key(needs="swap"),
})

# with one expert the other keys steer nothing
MOE = Section({
    "expert_num": Key("int|null", low=1, neutral=(1,), refused=_NO_MOE),
    **{name: Key(inert=True) for name in (
        "capacity_factor", "aux_loss_factor", "num_experts_chosen", "expert_group_size", "group_wise_a2a",
        "comp_comm_parallel", "comp_comm_parallel_degree", "save_token_distribution", "cur_layer",
        "enable_cold_hot_expert", "update_step", "hot_expert_num", "cold_token_percent", "moe_module_name",
        "routing_policy", "norm_topk_prob", "enable_sdrop", "use_fused_ops_topkrouter", "router_dense_type",
        "shared_expert_num", "use_shared_expert_gating", "max_router_load", "topk_method", "topk_group", "n_group",
        "first_k_dense_replace", "moe_intermediate_size", "routed_scaling_factor", "aux_loss_types",
        "aux_loss_factors", "z_loss_factor", "balance_via_topk_bias", "topk_bias_update_rate",
        "use_allgather_dispatcher", "moe_shared_expert_overlap", "expert_model_parallel", "use_gating_sigmoid",
        "enable_deredundency", "npu_nums_per_device", "use_gmm", "enable_gmm_safe_tokens", "use_fused_ops_permute",
        "callback_moe_droprate", "dispatch_global_max_bs", "ep_extend_tp")},
})
