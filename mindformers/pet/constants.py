"""Kinds of tuning, as `pet_type` names them."""
import enum


class PetType(str, enum.Enum):
    """Kinds MindFormers names; `SUPPORTED` are carried."""

    LORA = "lora"
    P_TUNING_V2 = "ptuning2"
    PREFIX_TUNING = "prefixtuning"
    SLORA = "slora"
    ADALORA = "adalora"
    ADA = "ada"


SUPPORTED = (PetType.LORA,)

# kind that is not carried -> what to do
REFUSED = {
    PetType.P_TUNING_V2: "GLM models have it themselves: build ChatGLM2WithPtuning2, or set pre_seq_len",
    PetType.PREFIX_TUNING: "use pet_type: lora",
    PetType.SLORA: "load one adapter with pet_type: lora, or merge each into a copy of the weights",
    PetType.ADALORA: "use pet_type: lora",
    PetType.ADA: "use pet_type: lora",
}
