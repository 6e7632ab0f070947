"""The track of one GPU like an H200: ELECTRA-Small, 25 minutes of pre-training on 47.8 M tokens.

    electramed speedrun --track=gpu --corpus "corpus/*.jsonl.gz" --eval=eval --workdir=runs/record

Rules, records and ideas: configs/speedrun/README.md. The number of steps has not been timed on such a machine yet.
"""

from electramed_jax.config import preset


def get_config():
    settings = preset("small")
    settings.data.max_seq_length = 128
    settings.batch_size = 512
    settings.optimizer.kind = "muon"
    settings.optimizer.learning_rate = 2e-3
    settings.optimizer.warmup_steps = 1_000
    settings.total_steps = 50_000
    settings.eval_every = 5_000
    settings.save_every = 5_000
    return settings
