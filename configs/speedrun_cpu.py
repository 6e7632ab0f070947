"""The track of two CPU cores: 4 layers of width 128, 75 minutes of pre-training on 47.8 M tokens.

    electramed speedrun --track=cpu --corpus "corpus/*.jsonl.gz" --eval=eval --workdir=runs/record

Rules, records and ideas: configs/speedrun/README.md. 8,000 steps would take about 75 minutes on two hardware threads of
an AMD EPYC without bfloat16 instructions: a step took 1.1 seconds of one thread, beside another program. The whole run
has not been timed yet.
"""

from electramed_jax.config import preset


def get_config():
    settings = preset("tiny")
    settings.data.max_seq_length = 128
    settings.optimizer.kind = "muon"
    settings.optimizer.learning_rate = 2e-3
    settings.optimizer.warmup_steps = 500
    settings.total_steps = 8_000
    settings.eval_every = 1_000
    settings.save_every = 1_000
    return settings
