"""Before a teacher's server is asked, the run's own workers score its fixed sequence."""

import pytest

from sdar_verl.compat.teacher_start import _least_rows


@pytest.mark.parametrize(("rollout", "ref", "rows"), [(None, None, 4), (8, None, 32), (8, 12, 96)])
def test_no_rank_and_no_micro_batch_goes_short(rollout, ref, rows):
    """verl refuses a number of rows that fixed micro-batches do not divide."""
    parts = {
        name: {"log_prob_use_dynamic_bsz": size is None, "log_prob_micro_batch_size_per_gpu": size}
        for name, size in (("rollout", rollout), ("ref", ref))
    }
    assert _least_rows({"actor_rollout_ref": parts, "trainer": {"n_gpus_per_node": 2, "nnodes": 2}}) == rows
