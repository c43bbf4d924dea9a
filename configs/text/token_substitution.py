"""Random token substitution (arXiv:2309.08272): no mask tokens, in three ways.

small: SLM, tokens from among random ones, on Python's reference, see
maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/token_substitution.py:small --workdir DIR
small_rts, small_c_rts: RTS, which tokens are the original ones; and C-RTS, the same
with substitutes from clusters that confuse. Neither predicts tokens; both are evaluated
by how well they detect uniformly drawn substitutes.

paper: SLM of BERT-base, a million batches of 256 rows of 512 tokens.
  maskjax train --config configs/text/token_substitution.py:paper --workdir DIR
paper_rts: RTS. C-RTS is this with `task="c_rts"`, batches of 128, and `clusters`, a
file that `numpy.save` wrote with the cluster, of 100, of each token.
"""

from maskjax import recipes


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
  config = recipes.bert_paper(
    length=512,
    batch_size=256,
    num_steps=1_000_000,
    learning_rate=1e-4,
    warmup_steps=10_000,
    b1=0.9,
    b2=0.999,
    weight_decay=0.01,
    clip_norm=1.0,
    schedule="linear",
  )
  config.objective.update(
    name="token_substitution",
    vocabulary="bert-base-uncased",
    task="slm",
    encoder=dict(kind="bert", size="B"),
    mask="tokens",
    mask_ratio=0.15,
  )
  return config


def paper_rts():
  config = paper()
  config.objective.task = "rts"
  return config
