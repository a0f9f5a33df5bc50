"""How a model is spread over devices: plain checked dataclasses, no MindSpore.

Each configuration object is its own: nothing is shared between two of them, not even a default.
"""
from dataclasses import asdict, dataclass, field, fields
from enum import Enum

from mindformers.tools.errors import ConfigError, did_you_mean


class ContextParallelAlgo(Enum):
    """Algorithms of context parallelism; "hybird" is spelt as in MindFormers' configurations."""

    colossalai_cp = "colossalai_cp"
    ulysses_cp = "ulysses_cp"
    hybird_cp = "hybird_cp"


def _check_positive_int(name, value):
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, but got {value!r} ({type(value).__name__})")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, but got {value}")


def _check_bool(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, but got {value!r} ({type(value).__name__})")


def _check_algo(name, value):
    choices = [algo.value for algo in ContextParallelAlgo]
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but got {value!r}."
                         f"{did_you_mean(value, choices)}")


def _check_selection(name, value):
    """bool, list (per stage) or dict (by pattern): what `recompute` settings may be."""
    if not isinstance(value, (bool, list, tuple, dict)):
        raise TypeError(f"{name} must be a bool, a list or a dict, but got {value!r} ({type(value).__name__})")


_CHECKS = {
    **dict.fromkeys(("data_parallel", "model_parallel", "context_parallel", "expert_parallel", "pipeline_stage",
                     "micro_batch_num", "gradient_aggregation_group", "ulysses_degree_in_cp", "seq_split_num",
                     "expert_num", "num_experts_chosen"), _check_positive_int),
    **dict.fromkeys(("use_seq_parallel", "vocab_emb_dp", "mp_comm_recompute", "recompute_slice_activation",
                     "parallel_optimizer_comm_recompute", "enable_cold_hot_expert", "save_token_distribution",
                     "norm_topk_prob", "group_wise_a2a", "comp_comm_parallel"), _check_bool),
    **dict.fromkeys(("select_recompute", "select_comm_recompute"), _check_selection),
    "context_parallel_algo": _check_algo,
}


class _Checked:
    """Dataclass base whose fields are checked when set, at construction and later."""

    def __setattr__(self, name, value):
        check = _CHECKS.get(name)
        if check is not None:
            check(f"{type(self).__name__}.{name}", value)
        super().__setattr__(name, value)

    def to_dict(self):
        """Return the fields as plain values."""
        return asdict(self)

    def to_diff_dict(self):
        """Return the fields that differ from the defaults."""
        defaults = type(self)().to_dict()
        return {name: value for name, value in self.to_dict().items() if value != defaults[name]}

    @classmethod
    def from_dict(cls, values):
        """Build from a dict.

        Raises:
            ConfigError: keys this configuration does not have.
        """
        names = [item.name for item in fields(cls)]
        unknown = [key for key in values if key not in names]
        if unknown:
            raise ConfigError("; ".join(f"{cls.__name__} has no key {key!r}.{did_you_mean(key, names)}"
                                        for key in unknown))
        return cls(**values)


@dataclass
class OpParallelConfig(_Checked):
    """Degrees one operator is cut by. Raises TypeError or ValueError for degrees that are no positive ints."""

    data_parallel: int = 1
    model_parallel: int = 1
    use_seq_parallel: bool = False
    context_parallel: int = 1
    select_recompute: object = False
    context_parallel_algo: str = "colossalai_cp"

    def get_ulysses_cp_num(self):
        """Context-parallel degree handled by Ulysses: all of it or none."""
        return self.context_parallel if self.context_parallel_algo == "ulysses_cp" else 1


@dataclass
class MoEParallelConfig(_Checked):
    """Degrees an expert layer is cut by."""

    data_parallel: int = 1
    model_parallel: int = 1
    expert_parallel: int = 1
    context_parallel: int = 1
    use_seq_parallel: bool = False
    select_recompute: object = False

    @property
    def dpmp(self):
        """The same degrees without the experts, as an OpParallelConfig."""
        return OpParallelConfig(self.data_parallel, self.model_parallel, self.use_seq_parallel, self.context_parallel,
                                self.select_recompute)


@dataclass
class EmbeddingOpParallelConfig(_Checked):
    """Degrees the token embedding is cut by; `vocab_emb_dp` keeps its table whole on each device."""

    data_parallel: int = 1
    model_parallel: int = 1
    context_parallel: int = 1
    use_seq_parallel: bool = False
    select_recompute: object = False
    vocab_emb_dp: bool = True


@dataclass
class TransformerRecomputeConfig(_Checked):
    """What is computed again in the backward pass instead of kept: whole layers, selected parts, communication."""

    recompute: object = False
    select_recompute: object = False
    parallel_optimizer_comm_recompute: bool = False
    select_comm_recompute: object = False
    mp_comm_recompute: bool = True
    recompute_slice_activation: bool = False

    def __setattr__(self, name, value):
        if name == "recompute":
            _check_selection(f"{type(self).__name__}.recompute", value)
        super().__setattr__(name, value)


@dataclass
class TransformerOpParallelConfig(_Checked):
    """Degrees a whole transformer is cut by.

    Args:
        data_parallel, model_parallel, context_parallel, expert_parallel, pipeline_stage, micro_batch_num (int): each
            at least 1. Default: 1.
        recompute (TransformerRecomputeConfig | dict | bool): bool sets its `recompute`. Default: nothing recomputed.
        use_seq_parallel (bool): shard activations between tensor-parallel blocks along the sequence. Default: False.
        optimizer_shard (bool): no effect, kept for old configurations. Default: None.
        gradient_aggregation_group (int): gradients fused per communication. Default: 4.
        vocab_emb_dp (bool): keep the embedding table whole; False when pipeline_stage > 1. Default: True.
        context_parallel_algo (str): colossalai_cp, ulysses_cp or hybird_cp. Default: "colossalai_cp".
        ulysses_degree_in_cp (int): Ulysses share of context_parallel with hybird_cp. Default: 1.
        mem_coeff (float): memory weight of the automatic strategy search. Default: 0.1.
        seq_split_num (int): pieces of a sequence in pipeline schedules. Default: 1.

    Raises:
        TypeError, ValueError: a field of another type or out of its range.
    """

    data_parallel: int = 1
    model_parallel: int = 1
    context_parallel: int = 1
    expert_parallel: int = 1
    pipeline_stage: int = 1
    micro_batch_num: int = 1
    recompute: TransformerRecomputeConfig = field(default_factory=TransformerRecomputeConfig)
    use_seq_parallel: bool = False
    optimizer_shard: object = None
    gradient_aggregation_group: int = 4
    vocab_emb_dp: bool = True
    context_parallel_algo: str = "colossalai_cp"
    ulysses_degree_in_cp: int = 1
    mem_coeff: float = 0.1
    seq_split_num: int = 1

    def __post_init__(self):
        if self.pipeline_stage > 1:
            self.vocab_emb_dp = False
        if self.context_parallel_algo == "hybird_cp" and self.context_parallel % self.ulysses_degree_in_cp:
            raise ValueError(f"ulysses_degree_in_cp {self.ulysses_degree_in_cp} must divide context_parallel "
                             f"{self.context_parallel}")

    def __setattr__(self, name, value):
        if name == "recompute":
            value = _recompute(value)
        super().__setattr__(name, value)

    @property
    def dp_mp_config(self):
        """The part an ordinary operator needs."""
        return OpParallelConfig(self.data_parallel, self.model_parallel, self.use_seq_parallel, self.context_parallel,
                                self.recompute.select_recompute, self.context_parallel_algo)

    @property
    def moe_parallel_config(self):
        """The part an expert layer needs."""
        return MoEParallelConfig(self.data_parallel, self.model_parallel, self.expert_parallel, self.context_parallel,
                                 self.use_seq_parallel, self.recompute.select_recompute)

    @property
    def embedding_dp_mp_config(self):
        """The part the token embedding needs."""
        return EmbeddingOpParallelConfig(self.data_parallel, self.model_parallel, self.context_parallel,
                                         self.use_seq_parallel, self.recompute.select_recompute, self.vocab_emb_dp)

    def get_ulysses_cp_num(self):
        """Context-parallel degree handled by Ulysses."""
        if self.context_parallel_algo == "hybird_cp":
            return self.ulysses_degree_in_cp
        return self.context_parallel if self.context_parallel_algo == "ulysses_cp" else 1

    def check_devices(self, device_num, exact=False):
        """Raise ConfigError unless the product of the degrees fits (`exact`: equals) `device_num`."""
        product = self.data_parallel * self.model_parallel * self.context_parallel * self.pipeline_stage
        if product > device_num or (exact and product != device_num):
            raise ConfigError(f"parallel_config asks for data_parallel * model_parallel * context_parallel * "
                              f"pipeline_stage = {product} devices, but the job has {device_num}")


def _recompute(value):
    if value is None:
        return TransformerRecomputeConfig()
    if isinstance(value, bool):
        return TransformerRecomputeConfig(recompute=value)
    if isinstance(value, dict):
        return TransformerRecomputeConfig.from_dict(value)
    if isinstance(value, TransformerRecomputeConfig):
        return value
    raise TypeError(f"recompute must be a TransformerRecomputeConfig, a dict or a bool, but got {value!r}")


@dataclass
class MoEConfig(_Checked):
    """Mixture of experts: the keys and defaults of MindFormers' `moe_config`.

    Raises:
        TypeError: a field of another type.
        ValueError: aux_loss_factor >= 1, num_experts_chosen or hot_expert_num > expert_num, cold_token_percent outside
            (0, 1], router_dense_type not float16, float32 or bfloat16.
    """

    expert_num: int = 1
    capacity_factor: float = 1.1
    aux_loss_factor: float = 0.05
    num_experts_chosen: int = 1
    expert_group_size: object = None
    group_wise_a2a: bool = False
    comp_comm_parallel: bool = False
    comp_comm_parallel_degree: int = 2
    save_token_distribution: bool = False
    cur_layer: int = 0
    enable_cold_hot_expert: bool = False
    update_step: int = 10000
    hot_expert_num: int = 0
    cold_token_percent: float = 1.0
    moe_module_name: str = ""
    routing_policy: str = "TopkRouterV1"
    norm_topk_prob: bool = True
    enable_sdrop: bool = False
    use_fused_ops_topkrouter: bool = False
    router_dense_type: str = "float32"
    shared_expert_num: int = 0
    use_shared_expert_gating: bool = False
    max_router_load: int = 131072
    topk_method: str = "greedy"
    topk_group: object = None
    n_group: object = None
    first_k_dense_replace: object = True
    moe_intermediate_size: int = 1407
    routed_scaling_factor: float = 1.0
    aux_loss_types: object = None
    aux_loss_factors: object = None
    z_loss_factor: float = 0.0
    balance_via_topk_bias: bool = False
    topk_bias_update_rate: float = 0.0
    use_allgather_dispatcher: bool = False
    moe_shared_expert_overlap: bool = False
    expert_model_parallel: object = None
    use_gating_sigmoid: bool = False
    enable_deredundency: bool = False
    npu_nums_per_device: int = 1
    use_gmm: bool = False
    enable_gmm_safe_tokens: bool = False
    use_fused_ops_permute: bool = False
    callback_moe_droprate: bool = False
    dispatch_global_max_bs: int = 0
    ep_extend_tp: bool = True

    def __post_init__(self):
        if self.aux_loss_factor >= 1:
            raise ValueError(f"aux_loss_factor must be less than 1, but got {self.aux_loss_factor}")
        for name in ("num_experts_chosen", "hot_expert_num"):
            if getattr(self, name) > self.expert_num:
                raise ValueError(f"{name} must be at most expert_num ({self.expert_num}), but got "
                                 f"{getattr(self, name)}")
        if not 0 < self.cold_token_percent <= 1:
            raise ValueError(f"cold_token_percent must be in (0, 1], but got {self.cold_token_percent}")
        if self.router_dense_type not in ("float16", "float32", "bfloat16"):
            raise ValueError("router_dense_type must be float16, float32 or bfloat16, but got "
                             f"{self.router_dense_type!r}")


def build_parallel_config(config):
    """Turn the sections `recompute_config`, `moe_config` and `parallel_config` of `config` into objects, in place.

    Args:
        config (MindFormerConfig): sections given as dicts are replaced; objects stay.

    Raises:
        ConfigError: an unknown key. TypeError, ValueError: a bad value.
    """
    recompute = _recompute(config.get("recompute_config"))
    moe = config.get("moe_config")
    parallel = config.get("parallel_config")
    if isinstance(parallel, dict) or parallel is None:
        values = {key: value for key, value in (parallel or {}).items() if value is not None}
        values.setdefault("recompute", recompute)
        parallel = TransformerOpParallelConfig.from_dict(values)
    if isinstance(moe, dict) or moe is None:
        moe = MoEConfig.from_dict(moe or {})
    config["recompute_config"], config["moe_config"], config["parallel_config"] = recompute, moe, parallel


def reset_parallel_config(config, reset_diff_config=True):
    """Put `parallel_config` of `config` back to one device, in place: what runs without model parallelism need.

    Args:
        config (MindFormerConfig): holds `parallel_config` as dict or object.
        reset_diff_config (bool): also reset the fields that are no degrees (use_seq_parallel, vocab_emb_dp, ...);
            recompute stays. Default: True.
    """
    parallel = config.get("parallel_config")
    defaults = TransformerOpParallelConfig()
    degrees = ("data_parallel", "model_parallel", "context_parallel", "expert_parallel", "pipeline_stage",
               "micro_batch_num")
    others = ("use_seq_parallel", "gradient_aggregation_group", "vocab_emb_dp", "context_parallel_algo",
              "ulysses_degree_in_cp", "seq_split_num")
    for name in degrees + (others if reset_diff_config else ()):
        if isinstance(parallel, dict):
            parallel.pop(name, None)
        elif parallel is not None:
            setattr(parallel, name, getattr(defaults, name))
