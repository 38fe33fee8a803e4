from raycrp.run import RunFolder
from raycrp.train.search import _take_over


def test_the_best_trial_s_files_take_the_place_of_others(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    trial = RunFolder(run.uri("train/search"), "trial")
    line = b'{"step": 1}\n'
    files = {
        "train/best/config.json": b"{}",
        "tensorboard/train/events": b"e",
        "train/metrics.jsonl": line,
        "train/result.json": b"{}",
    }
    for path, data in files.items():
        trial.write_bytes(path, data)
    for _ in range(2):
        run.write_bytes("train/best/old", b"")
        _take_over(run, trial)
        assert run.list_names("train/best") == ["config.json"]
        assert {path: run.read_bytes(path) for path in files} == files
