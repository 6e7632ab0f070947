"""The track of two CPU cores: 4 layers of width 128, 75 minutes of pre-training on 47.8 M tokens.

    electramed speedrun --track=cpu --corpus "corpus/*.jsonl.gz" --eval=eval --workdir=runs/record

Rules, records and ideas: configs/speedrun/README.md. The number of steps has not been timed on such a machine yet.
"""

from electramed_jax.config import preset


def get_config():
    settings = preset("tiny")
    settings.data.max_seq_length = 128
    settings.optimizer.kind = "muon"
    settings.optimizer.learning_rate = 2e-3
    settings.optimizer.warmup_steps = 500
    settings.total_steps = 16_000
    settings.eval_every = 2_000
    settings.save_every = 2_000
    return settings
