"""Encoders with weights from elsewhere, as teachers; none of them is trained.

Each setting reads weights in the Hugging Face layout, whose shapes replace its own:
  maskjax convert --from_hf DIR --config configs/image/teacher.py:clip_b16 \
    --workdir runs/clip_b16

clip_b16, clip_l14: CLIP's vision tower (arXiv:2103.00020), of a CLIPModel or a
  CLIPVisionModel.
clip_b16_projected: with its features of patches projected to 512 channels by CLIP's
  own projection, of a CLIPModel or a CLIPVisionModelWithProjection; teaches VQ-KD and
  dBOT.
dino_s16, dino_b16: ViTs as DINO trains them (arXiv:2104.14294), ViTModel.
dinov2_b14: DINOv2 (arXiv:2304.07193), Dinov2Model; sees images of 518x518 pixels.
ijepa_h14: I-JEPA's encoder (arXiv:2301.08243), IJepaModel.

`maskjax eval --workdir runs/clip_b16` probes it. The configs of students name it:
  recipes.frozen("configs/image/teacher.py:clip_b16", workdir="runs/clip_b16")
"""

from maskjax import recipes


def encoder(encoder_type, size, *, image_size=224, patch_size=16, **colors):
  config = recipes.imagenet(size=image_size, **colors)
  config.num_steps, config.batch_size = 1, 256  # which nothing uses
  config.objective = dict(
    name="vit",
    encoder_type=encoder_type,
    image_size=image_size,
    channels=3,
    patch_size=patch_size,
    encoder=dict(size=size),
    dtype="bfloat16",
  )
  config.optimizer = dict(name="adamw", learning_rate=0.0)
  return config


def clip(size, **shape):
  config = encoder("clip_vision_model", size, **shape, colors=recipes.CLIP_COLORS)
  config.objective.norm_epsilon = 1e-5
  return config


def clip_b16():
  return clip("B")


def clip_b16_projected():
  config = clip_b16()
  config.objective.projection = 512
  return config


def clip_l14():
  return clip("L", patch_size=14)


def dino_s16():
  return encoder("vit", "S")


def dino_b16():
  return encoder("vit", "B")


def dinov2_b14():
  return encoder("dinov2", "B", image_size=518, patch_size=14)


def ijepa_h14():
  return encoder("ijepa", "H", patch_size=14)
