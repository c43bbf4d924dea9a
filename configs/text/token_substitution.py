"""Random token substitution (arXiv:2309.08272): no mask tokens, in three ways.

small: SLM, tokens from among random ones, on Python's reference, see
maskjax/recipes.py; on two CPU cores.
  maskjax train --config configs/text/token_substitution.py:small --workdir DIR
small_rts, small_c_rts: RTS, which tokens are the original ones; and C-RTS, the same
with substitutes from clusters that confuse. They tell no tokens, and are judged by how
well they find out those drawn uniformly.

paper: SLM of BERT-base, a million batches of 256 rows of 512 tokens.
  maskjax train --config configs/text/token_substitution.py:paper --workdir DIR
paper_rts: RTS. C-RTS is this with `task="c_rts"`, batches of 128, and `clusters`, a
file that `numpy.save` wrote with the cluster, of 100, of each token.
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  settings = (small, small_rts, small_c_rts, paper, paper_rts)
  return configs.setting(setting, {make.__name__: make for make in settings})


def small():
  return recipes.small_text(name="token_substitution", task="slm")


def small_rts():
  return recipes.small_text(name="token_substitution", task="rts")


def small_c_rts():
  config = recipes.small_text(name="token_substitution", task="c_rts")
  data = config.data.train
  config.objective.clusters = dict(
    documents=dict(data.documents), tokenizer=data.tokenizer.to_dict(), count=50
  )
  return config


def paper():
  config = recipes.packed_text()
  config.batch_size = 256
  config.num_steps = 1_000_000
  config.objective = dict(
    name="token_substitution",
    task="slm",
    vocab_size=30522,
    pad_id=0,
    mask_id=103,
    special_ids=(0, 100, 101, 102, 103),
    length=512,
    encoder=dict(kind="bert", size="B"),
    mask="tokens",
    mask_ratio=0.15,
    dropout=0.1,
    attention_dropout=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1e-4,
    warmup_steps=10_000,
    b1=0.9,
    b2=0.999,
    weight_decay=0.01,
    clip_norm=1.0,
    falls="line",
  )
  return config


def paper_rts():
  config = paper()
  config.objective.update(task="rts", loss_weight=50.0)
  return config
