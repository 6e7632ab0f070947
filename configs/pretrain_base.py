"""ELECTRA-Base: 12 layers of width 768, a generator of width 256, rows of 512 tokens, bfloat16.

    electramed pack --max_seq_length=512 ...
    electramed pretrain --config=pretrain_base --config.data.directory=DIR --workdir=DIR

Source of the numbers: google-research/electra configure_pretraining.py, model_size "base". The
published ELECTRAMed recipe, with its vocabulary size, is electramed_base.py.

Compiled ahead of time for a vocabulary of 31,090 with the default settings (rows per step, rows per device, peak HBM
per device, step time as estimated by the compiler of libtpu 0.0.42.1), each by
`electramed compile --config=pretrain_base --topology=...`; a device is a chip, on tpu7x one of its two cores:

    v5e:4x4                      256 rows  16 per device   3.1 of 15.75 GiB    52 ms
    v5e:8x8                      256 rows   4 per device   1.2 of 15.75 GiB    19 ms
    v5e:16x16 --batch=16       4,096 rows  16 per device   3.1 of 15.75 GiB    54 ms
    v5p:2x2x4                    256 rows  16 per device   3.8 of 95.74 GiB    27 ms, partly calculated
    tpu7x:2x2x4                  256 rows   8 per device   2.3 of 94.75 GiB    10 ms

The Pallas kernels in it have not run on a TPU yet. In the plain form (--config.model.kernels=none
--config.model.remat=full --config.model.scan_layers=True --config.mesh.fsdp=1) v5e:4x4 takes 130 ms and 2.4 GiB.
tests/benchmarks/README.md has more slices; tests/benchmarks/topologies.py compiles them.
"""

from electramed_jax.config import preset

MACHINE = "v5e:4x4"  # of the estimate above
STEP_SECONDS = 0.052


def get_config():
    return preset("base")
