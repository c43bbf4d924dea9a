"""Packaging. The configs travel inside the package, as `maskjax/configs`."""

from pathlib import Path

from setuptools import find_packages, setup

CONFIGS = sorted(
  {f"maskjax.{f.parent}".replace("/", ".") for f in Path("configs").rglob("*.py")}
)

GCS = ["gcsfs", "google-cloud-storage"]  # Orbax asks the latter about buckets
S3 = ["s3fs"]
# libtpu, in the version that goes with JAX's own. It compiles for TPUs on machines
# without one, and is built for these machines alone.
LIBTPU = "jax[tpu]; sys_platform == 'linux' and platform_machine == 'x86_64'"

setup(
  name="maskjax",
  version="0.1.0",
  description="Masked-modeling systems in JAX",
  long_description=Path("README.md").read_text(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=[
    *find_packages(include=["maskjax", "maskjax.*"]),
    "maskjax.configs",
    *CONFIGS,
  ],
  package_dir={"maskjax.configs": "configs"},
  package_data={"maskjax": ["py.typed"], "": ["*.curves.json"]},
  install_requires=[
    "absl-py",
    "array_record",
    "chex",
    "etils[epath]",
    "flax>=0.12.8",
    "grain>=0.2.18",
    "importlib_resources",  # which TFDS imports and does not ask for
    "jax>=0.10.2",
    "ml-collections>=1.1",
    "numpy",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "pillow",
    "safetensors",
    "scikit-learn",
    "scipy",
    "tensorboardX",
    "tensorflow-datasets>=4.9.10",
    "tokenizers",
    "tqdm",
  ],
  extras_require={
    "cuda": ["jax[cuda12]"],
    "gcs": GCS,
    "plan": [LIBTPU],
    "s3": S3,
    "test": [
      *GCS,
      *S3,
      LIBTPU,
      "datasets",
      "gcp-storage-emulator",
      "hypothesis",
      "moto[server]",
      "mypy",
      "pytest",
      "pytest-xdist",
      "ruff",
      "tensorboard",
      "torch==2.13.0",
      "transformers>=5.23",
    ],
    "tpu": ["jax[tpu]"],
    "wandb": ["wandb"],
  },
  entry_points={"console_scripts": ["maskjax = maskjax.main:main"]},
)
