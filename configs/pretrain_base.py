"""ELECTRA-Base: 12 layers of width 768, a generator of width 256, rows of 512 tokens, bfloat16.

    electramed pack --max_seq_length=512 ...
    electramed pretrain --config=pretrain_base --config.data.directory=DIR --workdir=DIR

Source of the numbers: google-research/electra configure_pretraining.py, model_size "base". The
published ELECTRAMed recipe, with its vocabulary size, is electramed_base.py.

Compiled ahead of time for a vocabulary of 31,090 (rows per step, rows per chip, peak HBM per chip, step time as
estimated by the compiler of libtpu 0.0.42.1), each by
`electramed compile --config=pretrain_base --topology=...`:

    v5e:4x4                                       256 rows  16 per chip   3.1 of 15.75 GiB    55 ms

In the plain form (--config.model.kernels=none --config.model.remat=full --config.model.scan_layers=True
--config.mesh.fsdp=1):

    v5e:4x4                                       256 rows  16 per chip   2.4 of 15.75 GiB   132 ms
    v5e:16x16 --config.batch_size=2048          2,048 rows   8 per chip   2.0 of 15.75 GiB    67 ms
    v4:2x2x4                                      256 rows  16 per chip   2.4 of 30.75 GiB   111 ms
    v5p:2x2x4                                     256 rows  16 per chip   2.5 of 95.74 GiB    67 ms
    v6e:4x4                                       256 rows  16 per chip   2.5 of 31.25 GiB    64 ms
    v5e:4x4 --find_batch                        5,504 rows 344 per chip  15.2 of 15.75 GiB  4317 ms

The first is the form that a run chooses: each layer compiled separately, Pallas kernels (which have not run on a TPU
yet), and parameters and optimizer state sharded over the chips. tests/benchmarks/topologies.py compiles all of them.
"""

from electramed_jax.config import preset

MACHINE = "v5e:4x4"  # of the estimate above
STEP_SECONDS = 0.055


def get_config():
    return preset("base")
