"""The games: one file for each system, from a batch to a `Loss`."""

from maskjax.objectives.image.attmask import attmask
from maskjax.objectives.image.beit_v2 import beit_v2
from maskjax.objectives.image.cae import cae
from maskjax.objectives.image.capi import capi
from maskjax.objectives.image.ccvit import ccvit
from maskjax.objectives.image.classification import classification
from maskjax.objectives.image.colormae import colormae
from maskjax.objectives.image.croco import croco
from maskjax.objectives.image.crossmae import crossmae
from maskjax.objectives.image.dbot import dbot
from maskjax.objectives.image.dmae import dmae
from maskjax.objectives.image.dmt_jepa import dmt_jepa
from maskjax.objectives.image.hpm import hpm
from maskjax.objectives.image.ijepa import ijepa
from maskjax.objectives.image.latent_mim import latent_mim
from maskjax.objectives.image.localmim import localmim
from maskjax.objectives.image.mae import mae
from maskjax.objectives.image.maskalign import maskalign
from maskjax.objectives.image.maskdistill import maskdistill
from maskjax.objectives.image.maskfeat import maskfeat
from maskjax.objectives.image.mfm import mfm
from maskjax.objectives.image.mp3 import mp3
from maskjax.objectives.image.selfie import selfie
from maskjax.objectives.image.simmim import simmim
from maskjax.objectives.image.spark import spark
from maskjax.objectives.image.vit import vit
from maskjax.objectives.image.vqkd import vqkd
from maskjax.objectives.objective import Batch, Objective, Variables
from maskjax.objectives.text.bow_pretrain import bow_pretrain
from maskjax.objectives.text.difference_masking import difference_masking
from maskjax.objectives.text.drbert import drbert
from maskjax.objectives.text.dupmae import dupmae
from maskjax.objectives.text.ernie_gram import ernie_gram
from maskjax.objectives.text.exlm import exlm
from maskjax.objectives.text.finetuning import (
  span_extraction,
  tagging,
  text_classification,
)
from maskjax.objectives.text.informask import informask
from maskjax.objectives.text.mae_lm import mae_lm
from maskjax.objectives.text.mask40 import mask40
from maskjax.objectives.text.masking_rate_schedule import masking_rate_schedule
from maskjax.objectives.text.meap import meap
from maskjax.objectives.text.mlm import mlm
from maskjax.objectives.text.mslm import mslm
from maskjax.objectives.text.pmlm import pmlm
from maskjax.objectives.text.spanbert import spanbert
from maskjax.objectives.text.structformer import structformer
from maskjax.objectives.text.three_ml import three_ml
from maskjax.objectives.text.time_variant_masking import time_variant_masking
from maskjax.objectives.text.token_substitution import token_substitution

__all__ = [
  "Batch",
  "Objective",
  "Variables",
  "attmask",
  "beit_v2",
  "bow_pretrain",
  "cae",
  "capi",
  "ccvit",
  "classification",
  "colormae",
  "croco",
  "crossmae",
  "dbot",
  "difference_masking",
  "dmae",
  "dmt_jepa",
  "drbert",
  "dupmae",
  "ernie_gram",
  "exlm",
  "hpm",
  "ijepa",
  "informask",
  "latent_mim",
  "localmim",
  "mae",
  "mae_lm",
  "mask40",
  "maskalign",
  "maskdistill",
  "maskfeat",
  "masking_rate_schedule",
  "meap",
  "mfm",
  "mlm",
  "mp3",
  "mslm",
  "pmlm",
  "selfie",
  "simmim",
  "span_extraction",
  "spanbert",
  "spark",
  "structformer",
  "tagging",
  "text_classification",
  "three_ml",
  "time_variant_masking",
  "token_substitution",
  "vit",
  "vqkd",
]
