"""A process of a multi-process run that only all-gathers a number: `python rounds.py ROUNDS SILENCE [FAILING]`.

Process FAILING raises a UserError in its third round. Each process prints the number of each round.
"""

from __future__ import annotations

import sys
import time

import jax

from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed, watchdog


def main(rounds: str, silence: str, failing: str = "-1") -> int:
    watchdog.PEER_SECONDS = float(silence)
    try:
        with distributed.distributed_context():
            process = jax.process_index()
            for number in range(1, int(rounds) + 1):
                assert distributed.allgather(100 * process + number) == [
                    100 * k + number for k in range(jax.process_count())
                ]
                assert distributed.broadcast_from_main(100 * process + number) == number
                say(f"round {number}")
                if (process, number) == (int(failing), 3):
                    raise UserError("a mistake of its own")
                time.sleep(0.05)
    except UserError as error:
        say(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
