"""Converts `CLIPVisionModel` of Hugging Face Transformers, CLIP's vision tower.

And `CLIPVisionModelWithProjection`, which has CLIP's projection of images, too.

CLIP applies its last normalization to the class token only. Here it is applied to all
tokens, as in systems that predict CLIP's features of patches
(https://arxiv.org/abs/2208.06366).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskjax.convert import encoders, layout
from maskjax.convert.layout import Entry

MODEL_TYPE = "clip_vision_model"
OBJECTIVE = "vit"
OPTIONAL = ("project",)
PROJECTION = "visual_projection.weight"

# Defaults of `CLIPVisionConfig` for keys that `config.json` lacks.
DEFAULTS: Mapping[str, Any] = {
  "hidden_act": "quick_gelu",
  "hidden_size": 768,
  "image_size": 224,
  "intermediate_size": 3072,
  "layer_norm_eps": 1e-5,
  "num_attention_heads": 12,
  "num_channels": 3,
  "num_hidden_layers": 12,
  "patch_size": 32,
  "projection_dim": 512,
}

NAMES: Mapping[str, str] = {
  "attention/query": "self_attn.q_proj",
  "attention/key": "self_attn.k_proj",
  "attention/value": "self_attn.v_proj",
  "attention/out": "self_attn.out_proj",
  "mlp/up": "mlp.fc1",
  "mlp/down": "mlp.fc2",
  "attention_norm": "layer_norm1",
  "mlp_norm": "layer_norm2",
}


def from_hf(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Turns a `CLIPVisionModel` into hyperparameters and parameters.

  Args:
    config: the content of its `config.json`.
    tensors: its tensors by name, float32, float16 or bfloat16.

  Returns:
    Keyword arguments for `maskjax.objectives.vit`, and a tree of float32 arrays. Where
    there is a projection, it is among them under `project`.

  Raises:
    UserError: a config that the model here does not support, or tensors that do not
      fit it; names the key or the tensors.
  """
  config = layout.check_config(
    config, model_type=MODEL_TYPE, defaults=DEFAULTS, fixed={}
  )
  hidden_size = config["intermediate_size"]
  hyperparameters = encoders.hyperparameters(
    MODEL_TYPE, config, hidden_size=hidden_size
  )
  params = encoders.to_params(
    _entries(config),
    {name: tensor for name, tensor in tensors.items() if name != PROJECTION},
    prefix="vision_model.",
    unused=("embeddings.position_ids",),
  )
  if PROJECTION in tensors:
    projection = {PROJECTION: tensors[PROJECTION]}
    params |= layout.to_params(_projection(config), projection)
  return hyperparameters, params


def to_hf(
  hyperparameters: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The inverse of `from_hf`, of a `CLIPVisionModelWithProjection` if there is one."""
  config = encoders.config_of(hyperparameters)
  ratio = hyperparameters.get("mlp_ratio", 4.0)
  config |= {
    "architectures": ["CLIPVisionModel"],
    "intermediate_size": round(config["hidden_size"] * ratio),
    "model_type": MODEL_TYPE,
  }
  tensors = encoders.to_tensors(_entries(config), params)
  if projection := hyperparameters.get("projection"):
    config |= {
      "architectures": ["CLIPVisionModelWithProjection"],
      "projection_dim": projection,
    }
    tensors = {f"vision_model.{name}": tensor for name, tensor in tensors.items()}
    own = {"project": params["project"]}
    tensors |= layout.to_tensors(_projection(config), own)
  return config, tensors


def _projection(config: Mapping[str, Any]) -> layout.Entries:
  shape = config["projection_dim"], config["hidden_size"]
  return {PROJECTION: Entry("project/kernel", shape, layout.DENSE)}


def _entries(config: Mapping[str, Any]) -> layout.Entries:
  width, count = config["hidden_size"], 1 + encoders.num_patches(config)
  return {
    "embeddings.class_embedding": Entry("encoder/cls", (width,), encoders.TOKEN),
    "embeddings.position_embedding.weight": Entry(
      "encoder/positions", (count, width), encoders.TABLE
    ),
    **layout.patches(
      "embeddings.patch_embedding",
      "encoder/embed",
      encoders.patch_shape(config),
      bias=False,
    ),
    **layout.norm("pre_layrnorm", "encoder/embed_norm", width),
    **layout.vit_blocks(
      "encoder.layers",
      "encoder",
      width=width,
      hidden=config["intermediate_size"],
      depth=config["num_hidden_layers"],
      names=NAMES,
    ),
    **layout.norm("post_layernorm", "encoder/norm", width),
  }
