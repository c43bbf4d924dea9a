"""Flags of XLA, read before JAX is imported: tests compile much and compute little."""

# Less than half the time for what is then slower to run.
QUICK_XLA = (
  "--xla_backend_optimization_level=0 "
  "--xla_llvm_disable_expensive_passes=true "
  "--xla_cpu_use_fusion_emitters=false "
  # As many tests run at once as there are cores.
  "--xla_cpu_parallel_codegen_split_count=1 "
  "--xla_cpu_multi_thread_eigen=false"
)
