import pytest

from raycrp.audit.stage import run_audit
from raycrp.config import Config
from raycrp.errors import RunError
from raycrp.run import RunFolder


@pytest.mark.parametrize("stage", ["prompt", "train", "evaluate"])
def test_a_run_that_was_cut_off_while_it_ran_anew_is_refused_in_one_line(tmp_path, stage):
    run = RunFolder(str(tmp_path), "r")
    run.write_json("model/raycrp.json", {"format": 1})
    run.write_json("audit/audit.json", {})
    run.write_json("data/_STARTED.json", {"digest": "d"})
    run.write_json("data/_SUCCESS.json", {"digest": "d"})
    run.write_json(f"{stage}/_STARTED.json", {"digest": "new"})
    with pytest.raises(RunError, match=f"was cut off in its stage {stage}") as raised:
        run_audit(Config(), run)
    assert "\n" not in str(raised.value)
    assert run.exists("audit/audit.json")
