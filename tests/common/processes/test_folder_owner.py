"""The main process owns a folder for all processes of a run."""

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes.folder_owner import own_folder
from electramed_jax.common.storage import folder_lock


def test_a_run_that_lost_its_folder_learns_it_at_the_next_check(tmp_path):
    with own_folder(str(tmp_path)) as owner:
        owner.check()
        folder_lock._held[str(tmp_path)]._lost_to = "process 7 on elsewhere"
        with pytest.raises(UserError, match="taken over by process 7 on elsewhere"):
            owner.check()
