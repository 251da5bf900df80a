"""200 kills over the whole life of `analyzer run`; afterwards the run is that of one that nobody disturbed."""

import sys

import killing
import pytest


def test_the_loop_knows_every_stage(tmp_path):
    """A process that is not killed ends in the last stage, and its run is that of another."""
    loop = killing.Loop(tmp_path, seed=0)
    assert loop.stage() == killing.STAGES[-1][0]
    loop.life = 0.0
    loop.once()
    assert loop.died.total() == 1
    loop.to_the_end(loop.out)
    loop.complete()
    assert loop.different == set()
    (loop.out / "summary.json").write_text("{}")
    assert killing.differences(loop.undisturbed, loop.out) == ["summary.json"]


@pytest.mark.slow
def test_200_kills_leave_the_run_of_one_that_nobody_disturbed(tmp_path):
    loop = killing.campaign(tmp_path, 200)
    sys.stdout.write(f"kills by stage: {dict(loop.died)}, {loop.completed} complete runs\n")
    assert loop.died.total() == 200
    assert loop.died.keys() >= {name for name, _, _ in killing.STAGES[:6]}
    assert loop.different == set()
