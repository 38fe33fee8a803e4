"""Building blocks of the generated corpus: scaffolds filled with groups and substituents."""

import re
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from itertools import accumulate
from random import Random
from typing import Any, Generic, TypeVar

from omegaconf import OmegaConf
from rdkit import Chem, rdBase

from raycrp.errors import DataError

Item = TypeVar("Item")

EMPTY_FRAGMENT = "H"
AZOLE_SITE = "N"
_SITE = re.compile(r"\{(\w)\}")


class Weighted(Generic[Item]):
    """Items drawn with fixed relative weights, the same on every machine for the same seed."""

    def __init__(self, weights: Iterable[tuple[Item, float]]) -> None:
        pairs = [(item, weight) for item, weight in weights if weight > 0]
        self.items = tuple(item for item, _ in pairs)
        self._cumulative = tuple(accumulate(weight for _, weight in pairs))

    def draw(self, rng: Random) -> Item:
        """Draw one item."""
        return self.items[bisect(self._cumulative, rng.random() * self._cumulative[-1])]


@dataclass(frozen=True, slots=True)
class Block:
    """A reactant: a building block, or a molecule that is always the same.

    Attributes:
        smiles: Canonical SMILES, with the counter-ions of a salt.
        groups: Functional groups it is known to carry.
        mol: The molecule.
    """

    smiles: str
    groups: tuple[str, ...]
    mol: Chem.Mol = field(compare=False, repr=False)
    _sites: dict[Chem.Mol, frozenset[int]] = field(default_factory=dict, compare=False, repr=False)

    def sites(self, pattern: Chem.Mol) -> frozenset[int]:
        """Indices of the atoms that match the first atom of a pattern.

        Args:
            pattern: A SMARTS query, the same object each time, for the answer is kept.
        """
        if pattern not in self._sites:
            matches = self.mol.GetSubstructMatches(pattern, uniquify=False)
            self._sites[pattern] = frozenset(match[0] for match in matches)
        return self._sites[pattern]


@dataclass(frozen=True, slots=True)
class Group:
    """A functional group as a fragment that fits some sites of a scaffold."""

    name: str
    fragments: Weighted[str]
    sites: str
    companion: float
    role: str
    is_alone: bool
    counterion: str


@dataclass(frozen=True, slots=True)
class Scaffold:
    """A molecule with attachment sites: text between the sites, and the type of each site."""

    pieces: tuple[str, ...]
    sites: tuple[str, ...]
    weight: float
    groups: tuple[str, ...]

    def fill(self, fragments: Sequence[str]) -> str:
        """SMILES of the scaffold with one fragment at each site, ``H`` leaving it empty."""
        branches = map(_render, self.sites, fragments)
        return "".join(
            text for pair in zip(self.pieces, (*branches, ""), strict=True) for text in pair
        )


class Decorations:
    """Larger substituents: a ring on a linker, in place of a plain substituent.

    Args:
        specification: The entry ``decorations`` of ``corpus_blocks.yaml``.
    """

    def __init__(self, specification: Mapping[str, Any]) -> None:
        self._probability = float(specification["probability"])
        self._linkers = {
            site: Weighted(weights.items()) for site, weights in specification["linkers"].items()
        }
        self._rings = Weighted(specification["rings"].items())
        self._substituents = Weighted(specification["ring_substituents"].items())

    def draw(self, site: str, *, rng: Random) -> str | None:
        """Draw a fragment for a site of the given type; mostly None."""
        if site not in self._linkers or rng.random() >= self._probability:
            return None
        substituent = self._substituents.draw(rng)
        branch = "" if substituent == EMPTY_FRAGMENT else f"({substituent})"
        ring = str(self._rings.draw(rng)).replace("{r}", branch)
        return f"{self._linkers[site].draw(rng)}{ring}"


class BlockLibrary:
    """Draws building blocks that carry a wanted functional group.

    Args:
        specification: Content of ``corpus_blocks.yaml``.
    """

    def __init__(self, specification: Mapping[str, Any]) -> None:
        self.groups = {
            name: _read_group(name, entry) for name, entry in specification["groups"].items()
        }
        self._clashes = {frozenset(pair) for pair in specification["clashes"]}
        self._companion_probability = float(specification["companion_probability"])
        self._substituents: dict[str, Weighted[str]] = {
            site: Weighted(weights.items())
            for site, weights in specification["substituents"].items()
        }
        self._decorations = Decorations(specification["decorations"])
        self._scaffolds = tuple(map(_read_scaffold, specification["scaffolds"]))
        self._placements = {name: self._find_placements(name) for name in self.groups}
        self._companions = {
            site: self._find_companions(site)
            for scaffold in self._scaffolds
            for site in scaffold.sites
        }

    def draw(self, group: str, *, rng: Random) -> Block:
        """Draw a block with a functional group, at times with a second one beside it.

        Args:
            group: Name of the wanted functional group.
            rng: Source of randomness.

        Returns:
            The block; its first group is the wanted one.
        """
        wanted = self.groups[group]
        scaffold, position = self._placements[group].draw(rng)
        carried = [group, *scaffold.groups]
        fragments = []
        has_companion = wanted.is_alone
        for index, site in enumerate(scaffold.sites):
            if index == position:
                fragments.append(wanted.fragments.draw(rng))
                continue
            companion = None if has_companion else self._draw_companion(site, carried, rng)
            if companion:
                has_companion = True
                carried.append(companion.name)
                fragments.append(companion.fragments.draw(rng))
            else:
                fragments.append(self._draw_substituent(site, rng))
        counterion = f".{wanted.counterion}" if wanted.counterion else ""
        return parse_block(scaffold.fill(fragments) + counterion, groups=tuple(carried))

    def _draw_companion(self, site: str, carried: Sequence[str], rng: Random) -> Group | None:
        if rng.random() >= self._companion_probability or not self._companions[site].items:
            return None
        companion = self.groups[self._companions[site].draw(rng)]
        return None if self._has_clash(companion.name, carried) else companion

    def _draw_substituent(self, site: str, rng: Random) -> str:
        substituents = self._substituents.get(site)
        decoration = self._decorations.draw(site, rng=rng)
        if decoration:
            return decoration
        return substituents.draw(rng) if substituents else EMPTY_FRAGMENT

    def _has_clash(self, group: str, others: Iterable[str]) -> bool:
        role = self.groups[group].role
        return any(frozenset((role, self.groups[other].role)) in self._clashes for other in others)

    def _find_placements(self, group: str) -> Weighted[tuple[Scaffold, int]]:
        placements = [
            ((scaffold, position), scaffold.weight)
            for scaffold in self._scaffolds
            if not self._has_clash(group, scaffold.groups)
            and not (self.groups[group].is_alone and scaffold.groups)
            for position, site in enumerate(scaffold.sites)
            if site in self.groups[group].sites
        ]
        if not placements:
            raise DataError(f"corpus group {group}: no scaffold has a site for it; add one")
        return Weighted(placements)

    def _find_companions(self, site: str) -> Weighted[str]:
        return Weighted(
            (group.name, group.companion) for group in self.groups.values() if site in group.sites
        )


@cache
def load_block_library() -> BlockLibrary:
    """Read the building blocks that come with the package."""
    return BlockLibrary(read_package_yaml("corpus_blocks.yaml"))


def parse_block(smiles: str, *, groups: tuple[str, ...] = ()) -> Block:
    """Make a block of a SMILES.

    Args:
        smiles: Any SMILES of the molecule.
        groups: Functional groups it is known to carry.

    Raises:
        DataError: If the SMILES does not parse.
    """
    canonical, mol = _canonicalize(smiles)
    return Block(smiles=canonical, groups=groups, mol=mol)


@cache
def read_package_yaml(name: str) -> Mapping[str, Any]:
    """Content of a YAML file that lies beside this module, read once and not to be changed."""
    text = resources.files("raycrp.chem").joinpath(name).read_text(encoding="utf-8")
    content = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


@lru_cache(maxsize=4096)
def _canonicalize(smiles: str) -> tuple[str, Chem.Mol]:
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise DataError(
            f"corpus block {smiles!r} is not a valid SMILES; correct its scaffold or group"
        )
    return str(Chem.MolToSmiles(mol)), mol


def _render(site: str, fragment: str) -> str:
    branch = "" if fragment == EMPTY_FRAGMENT else f"({fragment})"
    if site == AZOLE_SITE:
        return f"n{branch}" if branch else "[nH]"
    return branch


def _read_scaffold(entry: Mapping[str, Any]) -> Scaffold:
    pieces = _SITE.split(entry["smiles"])
    return Scaffold(
        pieces=tuple(pieces[::2]),
        sites=tuple(pieces[1::2]),
        weight=float(entry["weight"]),
        groups=tuple(entry.get("groups", ())),
    )


def _read_group(name: str, entry: Mapping[str, Any]) -> Group:
    return Group(
        name=name,
        fragments=Weighted(entry["fragments"].items()),
        sites=entry["sites"],
        companion=float(entry.get("companion", 0)),
        role=entry.get("role", name),
        is_alone=bool(entry.get("alone", False)),
        counterion=entry.get("counterion", ""),
    )
