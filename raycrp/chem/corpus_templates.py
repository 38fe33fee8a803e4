"""Named reaction templates: what reacts with what, where, under which reagents."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from rdkit import Chem
from rdkit.Chem import rdChemReactions

from raycrp.chem.corpus_blocks import Block, Weighted, parse_block, read_package_yaml
from raycrp.errors import DataError

MAX_OUTCOMES = 64
TEMPLATES_FILE = "corpus_templates.yaml"

AtomId = tuple[int, int]
"""Index of the reactant, index of the atom in it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one reactant of a template comes from: functional groups or fixed molecules."""

    groups: Weighted[str] | None
    molecules: Weighted[Block] | None
    salts: tuple[tuple[str, float], ...]
    exclude: tuple[Chem.Mol, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one product of a reaction and where its atoms come from.

    Attributes:
        product: Canonical SMILES.
        mapped_reactants: SMILES of each reactant with the map numbers of the atoms that stay.
        mapped_product: SMILES of the product, every atom mapped.
        num_atoms: Heavy atoms of the product.
    """

    product: str
    mapped_reactants: tuple[str, ...]
    mapped_product: str
    num_atoms: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way to react: where each product atom comes from, and those that a map number names."""

    mol: Chem.Mol
    origins: list[AtomId]
    reacting: dict[int, AtomId]


@dataclass(frozen=True)
class ReactionTemplate:
    """A named reaction with its rules of selectivity and its conditions.

    Attributes:
        name: The template's name.
        reaction_class: One of the ten reaction classes.
        weight: How often it is drawn within its class.
        smarts: Reaction SMARTS; product atoms all mapped.
        slots: One for each reactant, in the order of the SMARTS.
        prefer: For a map number, patterns in order of reactivity.
        exclude: Patterns that no atom of a reactant may match that stays and takes no part.
        one_of_many: Whether one of several equivalent positions may react.
        conditions: Reagents as canonical SMILES joined by dots, with weights.
    """

    name: str
    reaction_class: str
    weight: float
    smarts: str
    slots: tuple[Slot, ...]
    prefer: tuple[tuple[int, tuple[Chem.Mol, ...]], ...]
    exclude: tuple[Chem.Mol, ...]
    one_of_many: bool
    conditions: Weighted[str]

    def react(self, reactants: Sequence[Block]) -> Outcome | None:
        """Carry the reaction out.

        Args:
            reactants: One block for each slot, in order.

        Returns:
            The product, or None where the reactants do not react, carry a group that forbids the
            reaction, or would give a mixture or no valid molecule.
        """
        best = self._best_candidates(reactants)
        if not best or any(self._is_excluded(candidate, reactants) for candidate in best):
            return None
        num_sites = len({frozenset(self._place(candidate)) for candidate in best})
        if num_sites > 1 and not self.one_of_many:
            return None
        products = {_finish(candidate.mol) for candidate in best}
        product = products.pop()
        return _map_atoms(best[0], product, reactants) if product and not products else None

    @cached_property
    def _reaction(self) -> rdChemReactions.ChemicalReaction:
        reaction = rdChemReactions.ReactionFromSmarts(self.smarts)
        reaction.Initialize()
        return reaction

    @cached_property
    def _pool_slots(self) -> frozenset[int]:
        return frozenset(index for index, slot in enumerate(self.slots) if slot.groups)

    def _best_candidates(self, reactants: Sequence[Block]) -> list[_Candidate]:
        products = self._reaction.RunReactants([block.mol for block in reactants], MAX_OUTCOMES)
        by_place: dict[tuple[AtomId, ...], _Candidate] = {}
        for (product,) in products:
            candidate = _read_candidate(product)
            by_place.setdefault(self._place(candidate), candidate)
        candidates = list(by_place.values())
        for map_number, patterns in self.prefer:
            ranks = [_rank(candidate, map_number, patterns, reactants) for candidate in candidates]
            best_rank = min(ranks, default=len(patterns))
            if best_rank == len(patterns):
                return []
            candidates = [c for c, rank in zip(candidates, ranks, strict=True) if rank == best_rank]
        return candidates

    def _place(self, candidate: _Candidate) -> tuple[AtomId, ...]:
        """Atoms of the building blocks that react, in the order of their map numbers."""
        atoms = (candidate.reacting[number] for number in sorted(candidate.reacting))
        return tuple(atom for atom in atoms if atom[0] in self._pool_slots)

    def _is_excluded(self, candidate: _Candidate, reactants: Sequence[Block]) -> bool:
        spectators = set(candidate.origins).difference(candidate.reacting.values())
        return any(
            (index, atom) in spectators
            for index in self._pool_slots
            for pattern in (*self.exclude, *self.slots[index].exclude)
            for atom in reactants[index].sites(pattern)
        )


@cache
def load_templates() -> tuple[ReactionTemplate, ...]:
    """Read the templates that come with the package, in the order of the file."""
    return read_templates(read_package_yaml(TEMPLATES_FILE))


def read_templates(specification: Mapping[str, Any]) -> tuple[ReactionTemplate, ...]:
    """Turn the content of ``corpus_templates.yaml`` into templates.

    Args:
        specification: Mapping with the keys of that file.

    Raises:
        DataError: If an entry names a molecule, pattern or class that does not exist.
    """
    reader = _TemplateReader(specification)
    return tuple(reader.read(entry) for entry in specification["templates"])


def load_class_shares() -> dict[str, float]:
    """Share of the corpus that each reaction class is given, by class name."""
    return dict(read_package_yaml(TEMPLATES_FILE)["classes"])


class _TemplateReader:
    """Turns entries of the YAML file into templates, each name looked up."""

    def __init__(self, specification: Mapping[str, Any]) -> None:
        self._classes = specification["classes"]
        self._molecules = {
            name: parse_block(smiles) for name, smiles in specification["molecules"].items()
        }
        self._patterns = {
            name: Chem.MolFromSmarts(smarts) for name, smarts in specification["patterns"].items()
        }
        self._families = specification["families"]

    def read(self, entry: Mapping[str, Any]) -> ReactionTemplate:
        """One template of an entry of the YAML file.

        Raises:
            DataError: If it names a class, family or pattern that is not there.
        """
        name = entry["name"]
        if entry["class"] not in self._classes:
            raise _unknown(name, "class", entry["class"])
        return ReactionTemplate(
            name=name,
            reaction_class=entry["class"],
            weight=float(entry["weight"]),
            smarts=entry["smarts"],
            slots=tuple(self._read_slot(name, slot) for slot in entry["slots"]),
            prefer=tuple(
                (int(number), self._find_patterns(name, names))
                for number, names in entry.get("prefer", {}).items()
            ),
            exclude=self._find_patterns(name, entry.get("exclude", [])),
            one_of_many=bool(entry.get("one_of_many", False)),
            conditions=Weighted(
                (self._join_reagents(name, reagents), float(weight))
                for reagents, weight in entry["conditions"].items()
            ),
        )

    def _read_slot(self, template: str, slot: Mapping[str, Any]) -> Slot:
        groups = slot.get("groups")
        weights = {groups: 1.0} if isinstance(groups, str) else groups
        molecules = slot.get("molecules")
        return Slot(
            groups=Weighted(weights.items()) if weights else None,
            molecules=molecules
            and Weighted((self._molecule(template, n), w) for n, w in molecules.items()),
            salts=tuple(
                (self._molecule(template, n).smiles, float(share))
                for n, share in slot.get("salts", {}).items()
            ),
            exclude=self._find_patterns(template, slot.get("exclude", [])),
        )

    def _join_reagents(self, template: str, names: str) -> str:
        blocks = [self._molecule(template, name) for name in names.split()]
        return join_smiles([block.smiles for block in blocks])

    def _molecule(self, template: str, name: str) -> Block:
        if name not in self._molecules:
            raise _unknown(template, "molecule", name)
        return self._molecules[name]

    def _find_patterns(self, template: str, names: str | Sequence[str]) -> tuple[Chem.Mol, ...]:
        listed = [names] if isinstance(names, str) else names
        found = [pattern for name in listed for pattern in self._expand(template, name)]
        return tuple(dict.fromkeys(found))

    def _expand(self, template: str, name: str) -> Iterator[Chem.Mol]:
        if name in self._patterns:
            yield self._patterns[name]
        elif name in self._families:
            for member in self._families[name]:
                yield from self._expand(template, member)
        else:
            raise _unknown(template, "pattern", name)


def join_smiles(parts: Sequence[str]) -> str:
    """Join canonical SMILES by dots, molecules sorted as RDKit sorts them."""
    return ".".join(sorted(molecule for part in parts for molecule in part.split(".")))


def _unknown(template: str, kind: str, name: str) -> DataError:
    return DataError(
        f"corpus template {template!r} names the {kind} {name!r}, which corpus_templates.yaml does "
        "not define; add it or correct the name"
    )


def _read_candidate(product: Chem.Mol) -> _Candidate:
    origins, reacting = [], {}
    for index in range(product.GetNumAtoms()):
        atom = product.GetAtomWithIdx(index)
        origins.append((atom.GetIntProp("react_idx"), atom.GetIntProp("react_atom_idx")))
        if atom.HasProp("old_mapno"):
            reacting[atom.GetIntProp("old_mapno")] = origins[-1]
    return _Candidate(mol=product, origins=origins, reacting=reacting)


def _rank(
    candidate: _Candidate,
    map_number: int,
    patterns: Sequence[Chem.Mol],
    reactants: Sequence[Block],
) -> int:
    reactant, atom = candidate.reacting[map_number]
    for rank, pattern in enumerate(patterns):
        if atom in reactants[reactant].sites(pattern):
            return rank
    return len(patterns)


def _finish(product: Chem.Mol) -> str | None:
    """Sanitise a product in place and return its canonical SMILES; None if it is no molecule."""
    if Chem.SanitizeMol(product, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return None
    Chem.AssignStereochemistry(product, cleanIt=True, force=True)
    return str(Chem.MolToSmiles(product))


def _map_atoms(candidate: _Candidate, product: str, reactants: Sequence[Block]) -> Outcome:
    """Number the atoms of a finished product and their origins alike."""
    mapped_reactants = [Chem.Mol(block.mol) for block in reactants]
    for index, (reactant, atom) in enumerate(candidate.origins):
        mapped_reactants[reactant].GetAtomWithIdx(atom).SetAtomMapNum(index + 1)
        candidate.mol.GetAtomWithIdx(index).SetAtomMapNum(index + 1)
    return Outcome(
        product=product,
        mapped_reactants=tuple(Chem.MolToSmiles(mol) for mol in mapped_reactants),
        mapped_product=Chem.MolToSmiles(candidate.mol),
        num_atoms=candidate.mol.GetNumAtoms(),
    )
