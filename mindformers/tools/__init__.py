"""Ground floor: registry, configuration, errors, log, environment; nothing here imports MindSpore."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "MindFormerConfig": "mindformers.tools.register.config:MindFormerConfig",
    "DictConfig": "mindformers.tools.register.config:DictConfig",
    "ActionDict": "mindformers.tools.register.config:ActionDict",
    "MindFormerRegister": "mindformers.tools.register.register:MindFormerRegister",
    "MindFormerModuleType": "mindformers.tools.register.register:MindFormerModuleType",
    "ConfigError": "mindformers.tools.errors:ConfigError",
    "CheckpointMismatchError": "mindformers.tools.errors:CheckpointMismatchError",
    "UnsupportedError": "mindformers.tools.errors:UnsupportedError",
    "logger": "mindformers.tools.logger:logger",
    "get_logger": "mindformers.tools.logger:get_logger",
    "set_log_dir": "mindformers.tools.logger:set_log_dir",
    "MODE": "mindformers.tools.utils:MODE",
    "PARALLEL_MODE": "mindformers.tools.utils:PARALLEL_MODE",
    "get_output_root_path": "mindformers.tools.utils:get_output_root_path",
    "get_output_subpath": "mindformers.tools.utils:get_output_subpath",
    "set_output_path": "mindformers.tools.utils:set_output_path",
    "get_log_path": "mindformers.tools.utils:get_log_path",
    "parse_value": "mindformers.tools.utils:parse_value",
    "str2bool": "mindformers.tools.utils:str2bool",
})
