"""ELECTRAMed-Base (Miolo, Mantoan, Orsenigo 2021): ELECTRA-Base on PubMed abstracts with SciBERT's vocabulary.

    electramed prepare --input "pubmed/*.xml.gz" --output documents
    electramed pack --documents documents --vocab scivocab-uncased.txt --output packed --max_seq_length 512
    electramed pretrain --config=electramed_base --config.data.directory=packed --workdir=DIR

SciVocab (31,090 word pieces), rows of 512 tokens, 256 rows per step, learning rate 2e-4 with 10,000 steps of warm-up,
1,000,000 steps: size and settings of the released checkpoint `electramed_base_scivocab_1M`. The largest number of
masked positions per row, 79, follows from the 512 tokens. The original code computes it before it sets the length, so
it can be 19 there.

Compiled ahead of time for v5e:4x4 (16 rows per chip): peak HBM 3.1 of 15.75 GiB per chip, 52 ms per step as estimated
by the compiler. More topologies: pretrain_base.py.

    electramed compile --config=electramed_base --topology=v5e:4x4
"""

from electramed_jax.config import preset

MACHINE = "v5e:4x4"  # of the estimate above
STEP_SECONDS = 0.052


def get_config():
    config = preset("base")
    config.model.vocab_size = 31_090
    config.data.max_seq_length = 512
    config.batch_size = 256
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_steps = 10_000
    config.total_steps = 1_000_000
    return config
