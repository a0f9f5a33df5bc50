"""AdapterMixin: what a model with adapters can do beside what it could without."""
import contextlib

from mindformers.tools.errors import ConfigError


class AdapterMixin:
    """Merging, saving and loading of adapters, for models that have `forget_graphs` and `_hide`."""

    pet_config = None  # LoraConfig of the adapters in the model
    _trained_before = None

    @property
    def has_adapter(self):
        """Whether the model has adapters, merged or not."""
        return self.pet_config is not None

    def attach_adapter(self, config, trained_before):
        """Note that adapters of `config` (LoraConfig) are in the model, and which parameters trained before."""
        self._hide("pet_config", config)
        self._hide("_trained_before", trained_before)
        self.forget_graphs()

    def _lora_cells(self):
        from mindformers.pet.tuners.lora_adapter import lora_cells
        if not self.has_adapter:
            raise ConfigError("the model has no adapters; add some with get_pet_model(model, LoraConfig(...))")
        return lora_cells(self)

    def refuse_adapter(self, what):
        """Raise ConfigError when the model has adapters; `what` says what is not done with them."""
        if self.has_adapter:
            raise ConfigError(f"{what} of a model with adapters would leave these as they are: merge_and_unload() or "
                              f"delete_adapter() first")

    def merge_adapter(self):
        """Add the updates to the weights, which makes generation as fast as without adapters; returns the model.

        The weights as they were are kept for `unmerge_adapter`. Merged adapters do not train: unmerge before training
        goes on.

        Raises:
            ConfigError: no adapters, or int8 weights.
        """
        for _, cell in self._lora_cells():
            cell.merge()
            cell.mindpet_delta_lora_a.requires_grad = cell.mindpet_delta_lora_b.requires_grad = False
        self.forget_graphs()
        return self

    def unmerge_adapter(self):
        """Take the updates out of the weights, which are bit for bit what they were; returns the model."""
        from mindformers.pet.tuners.pet_adapter import PetAdapter
        for _, cell in self._lora_cells():
            cell.unmerge()
        config = self.pet_config
        PetAdapter.freeze_pretrained_model(self, config.pet_type, config.freeze_include, config.freeze_exclude)
        self.forget_graphs()
        return self

    def merge_and_unload(self):
        """Merge for good: the model is an ordinary one again, trainable as before; returns the model."""
        self.merge_adapter()
        return self.delete_adapter()

    def delete_adapter(self):
        """Take the adapters away, leaving the weights as they are now (merged or not); returns the model."""
        from mindformers.pet.tuners.lora_adapter import remove
        list(self._lora_cells())
        remove(self)
        for parameter in self.get_parameters():
            parameter.requires_grad = self._trained_before.get(parameter.name, parameter.requires_grad)
        self._hide("pet_config", None)
        self.config.pet_config = None
        self.forget_graphs()
        return self

    @contextlib.contextmanager
    def disable_adapter(self):
        """Context in which the model answers as the base model does (adapters that are not merged)."""
        cells = [(cell, cell.active) for _, cell in self._lora_cells()]
        if any(cell.merged for cell, _ in cells):
            raise ConfigError("merged adapters cannot be disabled; unmerge_adapter() first")
        try:
            for cell, _ in cells:
                cell.active = False
            self.forget_graphs()
            yield self
        finally:
            for cell, active in cells:
                cell.active = active
            self.forget_graphs()

    def adapter_parameters(self):
        """``{name: Parameter}`` of A and B of every adapter."""
        cells = [cell for _, cell in self._lora_cells()]
        pairs = [(cell.mindpet_delta_lora_a, cell.mindpet_delta_lora_b) for cell in cells]
        return {parameter.name: parameter for pair in pairs for parameter in pair}

    def save_adapter(self, save_directory, names="hf"):
        """Write the adapters alone; see `adapter_files.save_adapter`."""
        from mindformers.pet.adapter_files import save_adapter
        return save_adapter(self, save_directory, names)

    def load_adapter(self, path):
        """Load adapters into a model with or without some, and return it; see `adapter_files.load_adapter`."""
        from mindformers.pet.adapter_files import load_adapter
        return load_adapter(self, path)
