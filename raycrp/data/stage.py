"""The data stage: read, clean, split, write, report."""

import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from raycrp.choices import Task
from raycrp.config import Backbone, Config, DataConfig
from raycrp.data.clean import CleanRow, clean_rows
from raycrp.data.read import read_rows
from raycrp.data.rejects import RejectReason
from raycrp.data.report import (
    count_splits,
    count_tokens,
    iter_texts,
    leak_rows,
    report_text,
)
from raycrp.data.split import TASKS, Fate, RowIndex, SplitResult, SplitSettings, split_rows
from raycrp.data.tables import REJECTS_PATH, CleanTable, RejectTable, write_rows
from raycrp.errors import DataError, RejectLimitError, RunError
from raycrp.model.tokenizers import prepare_tokenizer
from raycrp.prometheus import note_progress
from raycrp.run import RunFolder
from raycrp.schemas import Split

logger = logging.getLogger(__name__)

REPORT_PATH = "data/report.json"
TOKENIZER_DIR = "data/tokenizer"

_PROGRESS_S = 10
_MAX_TOKENIZER_TEXTS = 200_000


def run_data(config: Config, run: RunFolder, *, words: Sequence[str]) -> dict[str, Any]:
    """Make clean, split task rows, a tokenizer for them, and the data report.

    Args:
        config: The resolved configuration.
        run: The run folder.
        words: English texts that prompts may hold, for the tokenizer.

    Returns:
        The data report, as in ``data/report.json``.

    Raises:
        DataError: If the source cannot be read or holds too little.
        RejectLimitError: If too many rows are unusable.
    """
    started = time.monotonic()
    data = config.data
    with tempfile.TemporaryDirectory(prefix="raycrp-data-") as scratch:
        with closing(RejectTable(Path(scratch) / "rejects.parquet", run=run)) as rejects:
            clean = _clean_source(config, rejects, Path(scratch) / "clean.arrow")
            num_in = len(clean) + len(rejects)
            _check_usable(rejects, data, num_in=num_in, where=run.uri(REJECTS_PATH))
            index = clean.index()
            _check_tasks(index, rejects, data)
            result = split_rows(index, settings=_split_settings(config))
            num_out = write_rows(
                run,
                clean=clean,
                identities=index.identities,
                result=result,
                rejects=rejects,
                rows_per_file=data.rows_per_file,
            )
        _check_usable(rejects, data, num_in=num_in, where=run.uri(REJECTS_PATH))
    num_not_sampled = int((result.fates == Fate.NOT_SAMPLED).sum())
    num_accounted = num_out + len(rejects) + num_not_sampled
    if num_accounted != num_in:
        raise RunError(f"data: {num_in} rows in, but {num_accounted} kept, rejected or not sampled")
    report = {
        "source": data.source.value,
        "rows_in": num_in,
        "rows_out": num_out,
        "rejected": len(rejects),
        "not_sampled": num_not_sampled,
        "repaired": clean.num_repaired,
        "repeated_ids": clean.num_repeated_ids,
        **_reject_report(rejects),
        **_split_report(run, result),
        **_make_tokenizer(run, config.model.llm_crp, words=words),
        "seconds": round(time.monotonic() - started, 1),
    }
    run.write_json(REPORT_PATH, report)
    logger.info("%s", report_text(report))
    return report


def _clean_source(config: Config, rejects: RejectTable, path: Path) -> CleanTable:
    rows = clean_rows(
        read_rows(config.data, seed=config.run.seed),
        tasks=config.data.tasks,
        max_molecule_chars=config.data.max_molecule_chars,
        num_processes=config.data.num_processes or config.run.num_cpus,
    )
    next_line = time.monotonic() + _PROGRESS_S
    with closing(CleanTable(path)) as clean:
        for row in rows:
            if isinstance(row, CleanRow):
                clean.add(row)
            else:
                rejects.add(row)
            if time.monotonic() > next_line:
                logger.info("data: %d rows clean, %d rejected so far", len(clean), len(rejects))
                note_progress(
                    run=config.run.name, stage="data", rows=len(clean), rejected=len(rejects)
                )
                next_line = time.monotonic() + _PROGRESS_S
    return clean


def _split_settings(config: Config) -> SplitSettings:
    data = config.data
    return SplitSettings(
        seed=config.run.seed,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        rt_valid_fraction=data.rt_valid_fraction,
        rt_test_fraction=data.rt_test_fraction,
        max_reactions=data.max_reactions,
        leak_policy=data.leak_policy,
    )


def _check_usable(rejects: RejectTable, data: DataConfig, *, num_in: int, where: str) -> None:
    if not num_in:
        raise DataError(f"the source '{data.source}' holds no rows")
    num_rows = num_in - rejects.by_reason[RejectReason.OTHER_TASK]
    share = rejects.num_unusable / num_rows if num_rows else 0.0
    if num_rows and share <= data.max_reject_fraction and len(rejects) < num_in:
        return
    top = ", ".join(
        f"{reason} {count} (first: {rejects.examples[reason]})"
        for reason, count in rejects.by_reason.most_common(3)
    )
    if share > data.max_reject_fraction:
        raise RejectLimitError(
            f"{rejects.num_unusable} of {num_rows} rows ({share:.1%}) cannot be used, more than "
            f"data.max_reject_fraction={data.max_reject_fraction}: {top}; all of them: {where}"
        )
    raise DataError(f"none of {num_in} rows is left: {top}; all of them: {where}")


def _check_tasks(index: RowIndex, rejects: RejectTable, data: DataConfig) -> None:
    missing = [task for task in data.tasks if not (index.tasks == TASKS.index(task)).any()]
    if not missing:
        return
    present = ",".join(task for task in data.tasks if task not in missing)
    why = f"no usable row of the task {' and '.join(missing)} in the source"
    if missing == [Task.REAGENT] and rejects.by_reason[RejectReason.EMPTY_OUTPUT]:
        why = "no reaction has reagents (data.columns.reagents names their column)"
    raise DataError(f"data.tasks asks for {', '.join(missing)}, but {why}; data.tasks=[{present}]")


def _reject_report(rejects: RejectTable) -> dict[str, Any]:
    counts = dict(rejects.by_reason.most_common())
    return {
        "unusable": rejects.num_unusable,
        "duplicates": rejects.by_reason[RejectReason.DUPLICATE],
        "leaks": rejects.by_reason[RejectReason.LEAK],
        "rejected_by_reason": counts,
        "rejected_by_task": dict(rejects.by_task.most_common()),
        "reject_examples": dict(rejects.examples),
    }


def _split_report(run: RunFolder, result: SplitResult) -> dict[str, Any]:
    counts = count_splits(run)
    for split in (Split.VALIDATION, Split.TEST):
        empty = [task for task, num_rows in counts.rows[split].items() if not num_rows]
        asked = [task for task in empty if counts.rows[Split.TRAIN][task]]
        if asked:
            logger.warning("the %s split holds no row of the task %s", split, " and ".join(asked))
    return {
        "splits": {
            split: {"reactions": counts.reactions[split], "rows": dict(counts.rows[split])}
            for split in Split
        },
        "derived_splits": list(result.derived),
        "rt_splits": dict(counts.rt_reactions),
        "leak_table": leak_rows(result.leak_table),
    }


def _make_tokenizer(run: RunFolder, backbone: Backbone, *, words: Sequence[str]) -> dict[str, Any]:
    # Only training rows shape the vocabulary; its single characters cover every other row.
    smiles = islice(iter_texts(run, Split.TRAIN), _MAX_TOKENIZER_TEXTS)
    prepared = prepare_tokenizer(backbone, smiles=smiles, words=words)
    with run.new_local_dir(TOKENIZER_DIR) as folder:
        prepared.tokenizer.save_pretrained(str(folder))
    counts = count_tokens(run, tokenizer=prepared.tokenizer)
    return {
        "tokenizer": prepared.report.to_json(),
        "tokens": counts.lengths,
        "unk_rate": counts.unk_rate,
    }
