"""How well clusters agree with true classes, and what of them can be named from the product."""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats
from sklearn.metrics import adjusted_mutual_info_score, v_measure_score
from sklearn.metrics.cluster import contingency_matrix

from bench.uspto50k import DATA_FILE, TASK, take_reactions
from raycrp.arrays import FloatArray, IntArray
from raycrp.chem.fingerprints import difference_fingerprints
from raycrp.chem.reactions import Reaction
from raycrp.choices import PAPER_ENCODINGS, Device, Encoding, Preset
from raycrp.config import Backbone, Config
from raycrp.elicit.clusters import Clusters, KMeansSettings, cluster_reactions
from raycrp.elicit.features import FEATURES
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.scores import NamingScores, measure_sizes, score_naming
from raycrp.elicit.vectors import ArrayVectors
from raycrp.model.encode import TextEncoder
from raycrp.model.head import fit_head
from raycrp.model.t5 import save_backbone
from raycrp.model.tokenizers import prepare_tokenizer
from raycrp.report.agreement import ami_interval

NUM_TYPES = 10
MAX_SMALL_KMEANS_ROWS = 5_000
MAX_NAMING_ROWS = 20_000
ITEMS_A_PART = 2_048


@dataclass(frozen=True)
class AgreementBench:
    """The tables of agreement, block-wise k-means and naming; vectors are kept in a folder.

    Args:
        data_dir: Folder of real reactions.
        folder: Where vectors are kept.
        max_rows: Reactions at most; all if None.
        num_seeds: Seeds of k-means.
        backbone: Local T5 in place of a new tiny one.
    """

    data_dir: Path
    folder: Path
    max_rows: int | None
    num_seeds: int
    backbone: str | None

    def compare_encodings(self) -> dict[Encoding, float]:
        """Mean AMI by encoding; the other tables of the same rows are printed on the way."""
        table = pq.read_table(
            take_reactions(
                self.data_dir, target=self.folder / "all.parquet", num_rows=self.max_rows
            )
        )
        rows = self._make_rows(table)
        _, classes = np.unique(table["reaction_class"].to_numpy(), return_inverse=True)
        self._say_what_is_measured(rows, classes)
        amis = self._print_agreement(rows, classes)
        print_block_wise(rows)
        shown = {max(amis, key=amis.__getitem__), Encoding.FINGERPRINT, best_of_paper(amis)}
        labels = {each.value: cluster(rows, each, seed=0).labels for each in sorted(shown)}
        print_named(rows, labels | {"true classes": classes})
        return amis

    def _make_rows(self, table: pa.Table) -> TaskRows:
        """The rows as elicitation takes them; a tenth each for D'_valid and D'_test."""
        reactants, products = table["reactants"], table["product"]
        texts = [*reactants.to_pylist(), *products.to_pylist()]
        encoder = self._encoder(texts)
        vectors = self._cached("t5", texts, make=encoder.encode, num_processes=1)
        reactions = [
            Reaction(before, "", after)
            for before, after in zip(texts[: len(reactants)], texts[len(reactants) :], strict=True)
        ]
        outputs, inputs = np.split(vectors, 2)
        parts = np.split(
            np.random.default_rng(0).permutation(len(reactants)),
            [len(reactants) // 10, len(reactants) // 5],
        )
        return TaskRows(
            task=TASK,
            row_ids=np.arange(len(reactants)),
            reaction_keys=table["id"],
            inputs=products,
            outputs=reactants,
            vectors=ArrayVectors(
                inputs,
                outputs,
                features={
                    encoding: self._cached(encoding.value, reactions, make=make, num_processes=2)
                    for encoding, make in FEATURES.items()
                },
            ),
            test=np.sort(parts[0]),
            valid=np.sort(parts[1]),
            train=np.sort(parts[2]),
        )

    def _encoder(self, texts: Sequence[str]) -> TextEncoder:
        preset = None if self.backbone else Preset.TINY
        backbone = Backbone(preset=preset, name_or_path=self.backbone)
        folder = self.folder / "llm_rt"
        if not folder.exists():
            tokenizer = prepare_tokenizer(backbone, smiles=texts, words=[]).tokenizer
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                tokenizer.save_pretrained(scratch)
                target = Path(scratch) / "model"
                target.mkdir()
                save_backbone(backbone, tokenizer_dir=Path(scratch), target=target, seed=0)
                target.rename(folder)
        return TextEncoder(folder, device=Device.AUTO, token_budget=16_384, max_tokens=512)

    def _cached(
        self,
        name: str,
        items: Sequence[Any],
        *,
        make: Callable[[Sequence[Any]], FloatArray],
        num_processes: int,
    ) -> FloatArray:
        """Vectors of the items, made in parts that are kept."""
        started = time.monotonic()
        folder = self.folder / f"{name}-{len(items)}"
        folder.mkdir(parents=True, exist_ok=True)
        parts = {
            folder / f"{first:08d}.npy": items[first : first + ITEMS_A_PART]
            for first in range(0, len(items), ITEMS_A_PART)
        }
        missing = {path: part for path, part in parts.items() if not path.exists()}
        if num_processes == 1:
            made = map(make, missing.values())
            save_parts(list(missing), made)
        else:
            with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
                save_parts(list(missing), pool.map(make, missing.values()))
        print(f"{name} vectors: {time.monotonic() - started:.0f} s", flush=True)
        return np.concatenate([np.load(path) for path in parts])

    def _say_what_is_measured(self, rows: TaskRows, classes: IntArray) -> None:
        backbone = self.backbone or "a tiny T5 from scratch, not trained"
        print(f"\n{rows.num_rows} reactions of {DATA_FILE}, {len(set(classes.tolist()))} classes")
        print(f"T5 vectors come from {backbone}; only its text encoder is used")
        print("the recipe of `change` was chosen with these classes in sight, among about 130,")
        print("so that its AMI here is somewhat optimistic; the encoding itself reads none")

    def _print_agreement(self, rows: TaskRows, classes: IntArray) -> dict[Encoding, float]:
        """The table of agreement; mean AMI by encoding."""
        seeds = range(self.num_seeds)
        print(
            f"\nk-means, N = {NUM_TYPES}, {self.num_seeds} seeds; AMI with its 95 % interval over"
        )
        print("seeds, and of the first seed over reactions; the rest is of the first seed")
        print(
            f"{'encoding':>24} {'AMI':>6} {'+- seeds':>9} {'+- rows':>8} {'V':>6} {'purity':>7}"
            f" {'eff. N':>7} {'least':>7} {'CPU s':>7}"
        )
        means: dict[Encoding, float] = {}
        for encoding in Encoding:
            started = time.process_time()
            found = [cluster(rows, encoding, seed=seed).labels for seed in seeds]
            cpu_s = (time.process_time() - started) / len(found)
            amis = [adjusted_mutual_info_score(classes, each) for each in found]
            means[encoding] = float(np.mean(amis))
            print_agreement_row(encoding, amis, found[0], classes, cpu_s)
        return means


def best_of_paper(amis: Mapping[Encoding, float]) -> Encoding:
    """The paper's encoding with the highest agreement."""
    return max(PAPER_ENCODINGS, key=lambda encoding: amis[encoding])


def print_agreement_row(
    encoding: Encoding,
    amis: Sequence[float],
    labels: IntArray,
    classes: IntArray,
    cpu_s: float,
) -> None:
    """One row of the table of agreement."""
    table = contingency_matrix(labels, classes).astype(np.int64)
    interval = ami_interval(table)
    sizes = measure_sizes(labels, num_types=NUM_TYPES)
    print(
        f"{encoding.value:>24} {np.mean(amis):>6.3f} {half_width(amis):>9.3f} "
        f"{(interval.high - interval.low) / 2:>8.3f} {v_measure_score(classes, labels):>6.3f} "
        f"{table.max(axis=1).sum() / table.sum():>7.3f} {sizes.effective_types:>7.1f} "
        f"{sizes.smallest_share:>7.3f} {cpu_s:>7.1f}",
        flush=True,
    )


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % t interval of a mean; NaN for a single value."""
    if len(values) < 2:
        return float("nan")
    factor = float(stats.t.ppf(0.975, len(values) - 1))
    return factor * float(np.std(values, ddof=1)) / len(values) ** 0.5


def cluster(
    rows: TaskRows, encoding: Encoding, *, seed: int, max_whole_rows: int = 10**9
) -> Clusters:
    """K-means as a trial of the stage carries it out in round 0."""
    num_init = Config().elicit.kmeans_num_init
    return cluster_reactions(
        rows.vectors,
        encoding=encoding,
        num_clusters=NUM_TYPES,
        settings=KMeansSettings(num_init=num_init, max_whole_rows=max_whole_rows),
        seed=seed,
    )


def print_block_wise(rows: TaskRows) -> None:
    """K-means block by block beside k-means on all rows."""
    num_small = min(MAX_SMALL_KMEANS_ROWS, rows.num_rows // 5)
    print(f"\nk-means block by block, centres from {num_small} rows, against all rows at once")
    print(f"{'encoding':>24} {'AMI':>6} {'inertia ratio':>14}   AMI of two seeds, all rows at once")
    for encoding in (Encoding.CONCAT, Encoding.FINGERPRINT, Encoding.CHANGE):
        whole = cluster(rows, encoding, seed=0)
        other = cluster(rows, encoding, seed=1)
        blocks = cluster(rows, encoding, seed=0, max_whole_rows=num_small)
        inertia = [
            float((each.distances.astype(np.float64) ** 2).sum()) for each in (whole, blocks)
        ]
        agreement, of_seeds = (
            adjusted_mutual_info_score(whole.labels, each.labels) for each in (blocks, other)
        )
        print(
            f"{encoding.value:>24} {agreement:>6.3f} {inertia[1] / inertia[0]:>14.4f}   "
            f"{of_seeds:.3f}",
            flush=True,
        )


def print_named(rows: TaskRows, labels: Mapping[str, IntArray]) -> None:
    """What a head can tell of each partition from the product alone."""
    reactions = [Reaction("", "", product) for product in rows.inputs.to_pylist()]
    products = difference_fingerprints(reactions)
    sources: Mapping[str, Callable[[IntArray], FloatArray]] = {
        "T5": rows.vectors.take_inputs,
        "fingerprint": lambda places: products[places],
    }
    print(
        f"\nnamed from the product alone, on {len(rows.test)} rows not trained on "
        f"({min(len(rows.train), MAX_NAMING_ROWS)} trained on)"
    )
    print(
        f"{'reaction types':>24} {'vectors':>12} {'accuracy':>9} {'95 % interval':>16} "
        f"{'majority':>9} {'kappa':>6} {'bits':>6}"
    )
    for name, each in labels.items():
        for source, take in sources.items():
            scores = name_types(rows, each, take)
            interval = f"[{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]"
            print(
                f"{name:>24} {source:>12} {scores.accuracy:>9.3f} {interval:>16} "
                f"{scores.majority_rate:>9.3f} {scores.kappa:>6.3f} "
                f"{scores.information_bits:>6.3f}",
                flush=True,
            )


def name_types(
    rows: TaskRows, labels: IntArray, take: Callable[[IntArray], FloatArray]
) -> NamingScores:
    """Scores of a head on rows that it was not trained on."""
    train = np.random.default_rng(0).permutation(rows.train)[:MAX_NAMING_ROWS]
    head = fit_head(
        take(train),
        labels[train],
        num_types=int(labels.max()) + 1,
        valid_vectors=take(rows.valid),
        valid_labels=labels[rows.valid],
        seed=0,
    )
    majority = int(np.bincount(labels[train]).argmax())
    probabilities = head.predict(take(rows.test))
    return score_naming(labels[rows.test], probabilities=probabilities, majority_type=majority)


def save_parts(paths: Sequence[Path], parts: Iterable[FloatArray]) -> None:
    """Write each part as it comes, whole or not at all."""
    for path, part in zip(paths, parts, strict=True):
        scratch = path.with_suffix(".tmp.npy")
        np.save(scratch, part)
        scratch.replace(path)
