"""Sections of a configuration as Python objects: each is a dict of what was given, under the names of the YAML.

They are passed to `Trainer` through a MindFormerConfig, or joined by `ConfigArguments`.
"""
from mindformers.tools.env import get_env_int
from mindformers.tools.register import DictConfig
from mindformers.tools.utils import get_real_group_size


class BaseArgsConfig(DictConfig):
    """A dict of keyword arguments whose keys are attributes; arguments that are None are left out."""

    def __init__(self, **kwargs):
        super().__init__()
        for name, value in kwargs.items():
            if value is not None:
                self[name] = value


class ContextConfig(BaseArgsConfig):
    """Section `context`.

    Args:
        mode (int): 0 GRAPH_MODE, 1 PYNATIVE_MODE. Default: 0.
        device_target (str): default "Ascend".
        device_id (int): default: DEVICE_ID, else 0.
        save_graphs (bool), save_graphs_path (str): write the compiled graphs. Default: False, ".".
    """

    def __init__(self, mode=0, device_target="Ascend", device_id=None, save_graphs=False, save_graphs_path=".",
                 **kwargs):
        device_id = get_env_int("DEVICE_ID") if device_id is None else device_id
        super().__init__(mode=mode, device_target=device_target, device_id=device_id, save_graphs=save_graphs,
                         save_graphs_path=save_graphs_path, **kwargs)


class ParallelContextConfig(BaseArgsConfig):
    """Section `parallel`.

    Args:
        parallel_mode (str | int): default "STAND_ALONE".
        device_num (int): default: number of processes.
        gradients_mean (bool): default False.
    """

    def __init__(self, parallel_mode="STAND_ALONE", device_num=None, gradients_mean=False, **kwargs):
        device_num = get_real_group_size() if device_num is None else device_num
        super().__init__(parallel_mode=parallel_mode, device_num=device_num, gradients_mean=gradients_mean, **kwargs)


class CloudConfig(BaseArgsConfig):
    """Settings of cloud uploads; nothing here uploads, so they have no effect."""

    def __init__(self, obs_path=None, root_path="/cache", rank_id=None, upload_frequence=1, keep_last=False, **kwargs):
        super().__init__(obs_path=obs_path, root_path=root_path, rank_id=rank_id, upload_frequence=upload_frequence,
                         keep_last=keep_last, **kwargs)


class RunnerConfig(BaseArgsConfig):
    """Section `runner_config`: epochs, batch_size, sink_mode, sink_size, ..."""

    def __init__(self, epochs=None, batch_size=None, sink_mode=None, sink_size=None, initial_epoch=None,
                 has_trained_epoches=None, has_trained_steps=None, **kwargs):
        super().__init__(epochs=epochs, batch_size=batch_size, sink_mode=sink_mode, sink_size=sink_size,
                         initial_epoch=initial_epoch, has_trained_epoches=has_trained_epoches,
                         has_trained_steps=has_trained_steps, **kwargs)


class CheckpointConfig(BaseArgsConfig):
    """Arguments of CheckpointMonitor."""

    def __init__(self, prefix="mindformers", directory=None, save_checkpoint_steps=1, keep_checkpoint_max=1,
                 integrated_save=True, async_save=False, saved_network=None, **kwargs):
        super().__init__(type="CheckpointMonitor", prefix=prefix, directory=directory,
                         save_checkpoint_steps=save_checkpoint_steps, keep_checkpoint_max=keep_checkpoint_max,
                         integrated_save=integrated_save, async_save=async_save, saved_network=saved_network, **kwargs)


class LRConfig(BaseArgsConfig):
    """Section `lr_schedule`; `lr_type` is its `type`."""

    def __init__(self, lr_type=None, **kwargs):
        super().__init__(type=lr_type, **kwargs)


class OptimizerConfig(BaseArgsConfig):
    """Section `optimizer`; `optim_type` is its `type`, `learning_rate` a number or an LRConfig."""

    def __init__(self, optim_type=None, learning_rate=None, **kwargs):
        super().__init__(type=optim_type, learning_rate=learning_rate, **kwargs)


class WrapperConfig(BaseArgsConfig):
    """Section `runner_wrapper`; `wrapper_type` is its `type`."""

    def __init__(self, wrapper_type=None, **kwargs):
        super().__init__(type=wrapper_type, **kwargs)


class DataLoaderConfig(BaseArgsConfig):
    """Section `data_loader` of a dataset; `dataloader_type` is its `type`."""

    def __init__(self, dataloader_type=None, dataset_dir=None, **kwargs):
        super().__init__(type=dataloader_type, dataset_dir=dataset_dir, **kwargs)


class DatasetConfig(BaseArgsConfig):
    """Section `train_dataset` or `eval_dataset`."""

    def __init__(self, data_loader=None, input_columns=None, output_columns=None, column_order=None,
                 drop_remainder=True, repeat=1, batch_size=None, image_size=None, **kwargs):
        super().__init__(data_loader=data_loader, input_columns=input_columns, output_columns=output_columns,
                         column_order=column_order, drop_remainder=drop_remainder, repeat=repeat, batch_size=batch_size,
                         image_size=image_size, **kwargs)


class ConfigArguments(BaseArgsConfig):
    """A whole configuration from sections.

    Args:
        output_dir (str): default "./output".
        profile, auto_tune (bool), filepath_prefix (str), autotune_per_step (int): see the YAML keys.
        seed (int): default None.
        train_dataset, eval_dataset (DatasetConfig), runner_config (RunnerConfig), optimizer (OptimizerConfig),
        runner_wrapper (WrapperConfig), lr_schedule (LRConfig), cloud_config (CloudConfig): sections. Default: None.
        save_checkpoint (CheckpointConfig): becomes an entry of `callbacks`. Default: None.
    """

    def __init__(self, output_dir="./output", profile=False, auto_tune=False, filepath_prefix="./autotune",
                 autotune_per_step=10, seed=None, train_dataset=None, eval_dataset=None, runner_config=None,
                 optimizer=None, runner_wrapper=None, lr_schedule=None, save_checkpoint=None, cloud_config=None):
        super().__init__(output_dir=output_dir, profile=profile, auto_tune=auto_tune, filepath_prefix=filepath_prefix,
                         autotune_per_step=autotune_per_step, seed=seed, train_dataset=train_dataset,
                         eval_dataset=eval_dataset, runner_config=runner_config, optimizer=optimizer,
                         runner_wrapper=runner_wrapper, lr_schedule=lr_schedule, cloud_config=cloud_config,
                         callbacks=None if save_checkpoint is None else [save_checkpoint])
