"""The games: one file for each system, from a batch to a `Loss`."""

from maskjax.objectives.attmask import attmask
from maskjax.objectives.beit_v2 import beit_v2
from maskjax.objectives.cae import cae
from maskjax.objectives.capi import capi
from maskjax.objectives.ccvit import ccvit
from maskjax.objectives.classification import classification
from maskjax.objectives.colormae import colormae
from maskjax.objectives.croco import croco
from maskjax.objectives.crossmae import crossmae
from maskjax.objectives.dbot import dbot
from maskjax.objectives.dmae import dmae
from maskjax.objectives.dmt_jepa import dmt_jepa
from maskjax.objectives.hpm import hpm
from maskjax.objectives.ijepa import ijepa
from maskjax.objectives.latent_mim import latent_mim
from maskjax.objectives.localmim import localmim
from maskjax.objectives.mae import mae
from maskjax.objectives.maskalign import maskalign
from maskjax.objectives.maskdistill import maskdistill
from maskjax.objectives.maskfeat import maskfeat
from maskjax.objectives.mfm import mfm
from maskjax.objectives.mp3 import mp3
from maskjax.objectives.objective import Batch, Objective, Variables
from maskjax.objectives.selfie import selfie
from maskjax.objectives.simmim import simmim
from maskjax.objectives.spark import spark
from maskjax.objectives.text.bow_pretrain import bow_pretrain
from maskjax.objectives.text.difference_masking import difference_masking
from maskjax.objectives.text.drbert import drbert
from maskjax.objectives.text.dupmae import dupmae
from maskjax.objectives.text.exlm import exlm
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
from maskjax.objectives.text.token_substitution import token_substitution
from maskjax.objectives.vit import vit
from maskjax.objectives.vqkd import vqkd

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
  "spanbert",
  "spark",
  "structformer",
  "three_ml",
  "token_substitution",
  "vit",
  "vqkd",
]
