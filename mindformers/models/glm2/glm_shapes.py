"""Names and shapes of the parameters of transformers' Glm in memory: those of ChatGLM2."""
from mindformers.models.glm2.glm2_shapes import parameter_shapes  # noqa: F401
