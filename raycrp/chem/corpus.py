"""The embedded default data set: reactions made from named templates and building blocks.

Templates and blocks are in ``corpus_templates.yaml`` and ``corpus_blocks.yaml``. A reaction is made
only where the templates' rules of selectivity leave one product, and the same substrates meet
several reagents on purpose, so that the reagents decide the outcome.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from random import Random

from raycrp.chem.corpus_blocks import (
    Block,
    BlockLibrary,
    Weighted,
    load_block_library,
    parse_block,
)
from raycrp.chem.corpus_templates import (
    Outcome,
    ReactionTemplate,
    join_smiles,
    load_class_shares,
    load_templates,
)
from raycrp.errors import DataError

REACTION_CLASSES: tuple[str, ...] = (
    "heteroatom alkylation and arylation",
    "acylation",
    "C-C bond formation",
    "heterocycle formation",
    "protection",
    "deprotection",
    "reduction",
    "oxidation",
    "functional-group interconversion",
    "functional-group addition",
)
"""The ten classes in their customary order (classes 1 to 10 of Schneider et al., 2016)."""

REUSE_PROBABILITY = 0.8
MAX_REUSES = 6
MAX_ATTEMPTS_PER_TEMPLATE = 40
MAX_FRUITLESS_TEMPLATES = 200
MAX_REMEMBERED = 64
MIN_PRODUCT_ATOMS = 5
MAX_PRODUCT_ATOMS = 30

Pool = tuple[Block, ...]
"""The building blocks of one reaction, without its fixed molecules."""


@dataclass(frozen=True, slots=True)
class CorpusReaction:
    """A generated reaction.

    Attributes:
        reactants: Canonical SMILES of all molecules that give atoms to the product.
        reagents: Canonical SMILES of reagents, catalysts and solvents; may be empty.
        product: Canonical SMILES.
        mapped_reaction: ``reactants>reagents>product``, every product atom mapped to its reactant
            atom; without map numbers it is the three fields above.
        template: Name of the template that made it.
        reaction_class: One of ``REACTION_CLASSES``.
    """

    reactants: str
    reagents: str
    product: str
    mapped_reaction: str
    template: str
    reaction_class: str


def generate_corpus(num_reactions: int, *, seed: int) -> Iterator[CorpusReaction]:
    """Generate distinct reactions, the same on every machine for the same seed.

    The first reactions of a larger corpus are those of a smaller one with the same seed.

    Args:
        num_reactions: How many reactions to make, at least 0.
        seed: Seed of all random choices.

    Yields:
        Reactions in a random order of templates.

    Raises:
        DataError: If the building blocks allow no further reaction.
    """
    if num_reactions < 0:
        raise ValueError(f"num_reactions must be at least 0, but is {num_reactions}")
    generator = _CorpusGenerator(seed)
    for _ in range(num_reactions):
        yield generator.next_reaction()


class _CorpusGenerator:
    """Draws templates and reactants and remembers what has been made."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._library = load_block_library()
        self._templates = _templates_by_class(load_templates(), library=self._library)
        self._classes = Weighted(load_class_shares().items())
        self._products: dict[str, dict[str, str]] = {}
        self._tried: set[tuple[str, ...]] = set()
        self._memory: defaultdict[tuple[str, ...], deque[Pool]] = defaultdict(
            lambda: deque(maxlen=MAX_REMEMBERED)
        )

    def next_reaction(self) -> CorpusReaction:
        """Draw a reaction that has not been drawn before.

        Raises:
            DataError: If many templates in a row give nothing new.
        """
        for _ in range(MAX_FRUITLESS_TEMPLATES):
            template = self._templates[self._classes.draw(self._rng)].draw(self._rng)
            num_reuses = MAX_REUSES if self._rng.random() < REUSE_PROBABILITY else 0
            for attempt in range(MAX_ATTEMPTS_PER_TEMPLATE):
                reaction = self._attempt(template, is_reuse=attempt < num_reuses)
                if reaction:
                    return reaction
        raise DataError(
            f"the generated corpus is exhausted after {len(self._products)} sets of reactants; ask "
            "for fewer reactions or add building blocks to corpus_blocks.yaml"
        )

    def _attempt(self, template: ReactionTemplate, *, is_reuse: bool) -> CorpusReaction | None:
        wanted = tuple(slot.groups.draw(self._rng) for slot in template.slots if slot.groups)
        pool = self._recall(template, wanted) if is_reuse else self._draw_pool(template, wanted)
        if pool is None or _trial_key(template, pool) in self._tried:
            return None
        self._tried.add(_trial_key(template, pool))
        reactants = self._fill_slots(template, pool)
        outcome = template.react(reactants)
        if outcome is None:
            return None
        joined = join_smiles([block.smiles for block in reactants])
        reagents = template.conditions.draw(self._rng)
        if not self._is_new(joined, reagents, outcome):
            return None
        self._products.setdefault(joined, {})[reagents] = outcome.product
        self._remember(pool)
        mapped = ".".join(outcome.mapped_reactants)
        return CorpusReaction(
            reactants=joined,
            reagents=reagents,
            product=outcome.product,
            mapped_reaction=f"{mapped}>{reagents}>{outcome.mapped_product}",
            template=template.name,
            reaction_class=template.reaction_class,
        )

    def _recall(self, template: ReactionTemplate, wanted: tuple[str, ...]) -> Pool | None:
        """The newest blocks with the wanted groups that this template has not met."""
        remembered = reversed(self._memory.get(wanted, ()))
        return next(
            (pool for pool in remembered if _trial_key(template, pool) not in self._tried), None
        )

    def _draw_pool(self, template: ReactionTemplate, wanted: tuple[str, ...]) -> Pool:
        slots = [slot for slot in template.slots if slot.groups]
        blocks = [self._library.draw(group, rng=self._rng) for group in wanted]
        return tuple(
            self._with_salt(block, slot.salts) for block, slot in zip(blocks, slots, strict=True)
        )

    def _fill_slots(self, template: ReactionTemplate, pool: Pool) -> list[Block]:
        """Blocks and fixed molecules in the order of the template's slots."""
        blocks = iter(pool)
        return [
            slot.molecules.draw(self._rng) if slot.molecules else next(blocks)
            for slot in template.slots
        ]

    def _with_salt(self, block: Block, salts: Sequence[tuple[str, float]]) -> Block:
        for counterion, share in salts:
            if self._rng.random() < share:
                return parse_block(f"{block.smiles}.{counterion}", groups=block.groups)
        return block

    def _is_new(self, reactants: str, reagents: str, outcome: Outcome) -> bool:
        made = self._products.get(reactants, {})
        return (
            reagents not in made
            and outcome.product not in made.values()
            and outcome.product not in reactants.split(".")
            and MIN_PRODUCT_ATOMS <= outcome.num_atoms <= MAX_PRODUCT_ATOMS
        )

    def _remember(self, pool: Pool) -> None:
        """Keep the blocks for other templates, under each combination of their groups."""
        for order in permutations(pool):
            for groups in product(*(dict.fromkeys(block.groups) for block in order)):
                self._memory[groups].append(order)


def _trial_key(template: ReactionTemplate, pool: Pool) -> tuple[str, ...]:
    return template.name, *(block.smiles for block in pool)


def _templates_by_class(
    templates: Iterable[ReactionTemplate], *, library: BlockLibrary
) -> dict[str, Weighted[ReactionTemplate]]:
    weights: defaultdict[str, list[tuple[ReactionTemplate, float]]] = defaultdict(list)
    for template in templates:
        for slot in template.slots:
            missing = set(slot.groups.items if slot.groups else ()) - library.groups.keys()
            if missing:
                raise DataError(
                    f"corpus template {template.name!r} names the groups {sorted(missing)}, which "
                    "corpus_blocks.yaml does not define; add them or correct the names"
                )
        weights[template.reaction_class].append((template, template.weight))
    return {name: Weighted(pairs) for name, pairs in weights.items()}
