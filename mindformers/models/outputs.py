"""Named outputs: attribute, key and index access, as users of Hugging Face expect; unset fields do not count."""
from dataclasses import dataclass, fields
from typing import Any


class ModelOutput:
    """Base of the outputs below; ``out.logits``, ``out["logits"]`` and ``out[0]`` read the fields that are set."""

    def to_tuple(self):
        """The set fields in order."""
        return tuple(value for _, value in self.items())

    def items(self):
        """(name, value) of the set fields in order."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)
                if getattr(self, field.name) is not None]

    def keys(self):
        """Names of the set fields."""
        return [name for name, _ in self.items()]

    def __getitem__(self, key):
        return dict(self.items())[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self):
        return iter(self.to_tuple())

    def __len__(self):
        return len(self.to_tuple())

    def __contains__(self, name):
        return name in self.keys()


@dataclass
class BaseModelOutput(ModelOutput):
    """last_hidden_state [B, T, D]; hidden_states: [B, T, D] each; attentions: [B, N, T, T] each."""

    last_hidden_state: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class CausalLMOutput(ModelOutput):
    """loss: scalar; logits [B, T, V]; hidden_states, attentions as in `BaseModelOutput`."""

    loss: Any = None
    logits: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class SequenceClassifierOutput(ModelOutput):
    """loss: scalar; logits [B, num_labels]; hidden_states, attentions as in `BaseModelOutput`."""

    loss: Any = None
    logits: Any = None
    hidden_states: Any = None
    attentions: Any = None
