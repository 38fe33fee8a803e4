"""Reactions: their roles, their key, and the rows of the three tasks made from them and back."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from raycrp.chem.molecules import (
    FaultError,
    atom_maps,
    join_molecules,
    molecule_counter,
    split_molecules,
)
from raycrp.choices import Notation, Task

ARROW = ">>"


class ReactionFault(StrEnum):
    """Why a text or a row is not a reaction."""

    BAD_REACTION = "bad_reaction"
    NO_REACTION = "no_reaction"
    EMPTY_OUTPUT = "empty_output"


class ReactionError(FaultError):
    """A text cannot be used as a reaction."""

    reason: ReactionFault


@dataclass(frozen=True, slots=True)
class Reaction:
    """A reaction of canonical molecules.

    Args:
        reactants: Molecules that give atoms to the product, as ``canonical_smiles`` writes them.
        reagents: Other molecules present; may be empty.
        product: What comes out.
    """

    reactants: str
    reagents: str
    product: str

    @property
    def precursors(self) -> str:
        """Reactants and reagents together, sorted, so that the order tells no roles."""
        return join_precursors(self.reactants, reagents=self.reagents)

    @property
    def key(self) -> str:
        """Identity of the reaction; see ``reaction_key``."""
        return reaction_key(self.reactants, product=self.product)


@dataclass(frozen=True, slots=True)
class TaskText:
    """Input and output of one task row."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class RoleTexts:
    """The molecule texts of a reaction by role, not yet canonical."""

    reactants: tuple[str, ...]
    reagents: tuple[str, ...]
    product: tuple[str, ...]

    @property
    def has_maps(self) -> bool:
        """Whether the product carries atom maps."""
        return any(atom_maps(text) for text in self.product)

    @property
    def smiles(self) -> str:
        """``reactants>reagents>product`` of the texts as they are."""
        return ">".join(".".join(side) for side in (self.reactants, self.reagents, self.product))


def make_reaction(roles: RoleTexts, *, canonical: Callable[[Sequence[str]], str]) -> Reaction:
    """Reaction of molecule texts.

    Args:
        roles: The texts by role.
        canonical: Turns molecule texts into one canonical text.

    Raises:
        ReactionError: If the product is already among the precursors.
    """
    reaction = Reaction(
        canonical(roles.reactants), canonical(roles.reagents), canonical(roles.product)
    )
    check_reacts(reaction.precursors, product=reaction.product)
    return reaction


def split_reaction(text: str, *, notation: Notation = Notation.SMILES) -> RoleTexts:
    """Molecule texts of a reaction SMILES by role.

    Raises:
        ReactionError: If there are not three parts, no precursors, or no product.
        MoleculeError: If a part holds what no molecule can.
    """
    parts = text.split(">")
    if len(parts) != 3:
        found = f"{len(parts) - 1} '>' where a reaction has 2"
        raise ReactionError(ReactionFault.BAD_REACTION, found)
    sides = [tuple(split_molecules(p, notation=notation)) if p.strip() else () for p in parts]
    reactants, reagents, product = sides
    if not product or not (reactants or reagents):
        missing = "product" if not product else "reactants"
        raise ReactionError(ReactionFault.BAD_REACTION, f"no {missing}")
    roles = RoleTexts(reactants, reagents, product)
    if roles.has_maps:
        roles = _roles_by_maps(roles)
    if not roles.reactants:
        raise ReactionError(ReactionFault.BAD_REACTION, "no reactants, only reagents")
    return roles


def split_reagent_input(text: str, *, notation: Notation = Notation.SMILES) -> RoleTexts:
    """Molecule texts of ``reactants>>product``, the input of reagent prediction.

    Raises:
        ReactionError: If the text has not exactly this form.
        MoleculeError: If a side holds what no molecule can.
    """
    sides = text.split(ARROW)
    if len(sides) != 2 or ">" in "".join(sides):
        detail = f"expected one '{ARROW}' between reactants and product"
        raise ReactionError(ReactionFault.BAD_REACTION, detail)
    if not all(side.strip() for side in sides):
        raise ReactionError(ReactionFault.BAD_REACTION, f"nothing on one side of '{ARROW}'")
    reactants, product = (tuple(split_molecules(side, notation=notation)) for side in sides)
    return RoleTexts(reactants, (), product)


def check_no_arrow(text: str, *, what: str) -> None:
    """Make sure that a list of molecules is not a reaction.

    Raises:
        ReactionError: If it holds a ``>``.
    """
    if ">" in text:
        raise ReactionError(ReactionFault.BAD_REACTION, f"'>' in the {what}")


def check_reacts(precursors: str, *, product: str) -> None:
    """Make sure that something new comes out.

    Raises:
        ReactionError: If every molecule of the product is among the precursors.
    """
    if molecule_counter(product) <= molecule_counter(precursors):
        detail = "the product is among the precursors"
        raise ReactionError(ReactionFault.NO_REACTION, detail)


def reaction_key(reactants: str, *, product: str) -> str:
    """Identity of a reaction, the same in every task, whatever the reagents.

    Args:
        reactants: Canonical reactants.
        product: Canonical product.

    Returns:
        32 hex digits of SHA-256.
    """
    return hashlib.sha256(f"{reactants}{ARROW}{product}".encode()).hexdigest()[:32]


def join_precursors(reactants: str, *, reagents: str) -> str:
    """Reactants and reagents as one canonical text."""
    return join_molecules(
        [part for side in (reactants, reagents) if side for part in side.split(".")]
    )


def task_rows(reaction: Reaction) -> Mapping[Task, TaskText]:
    """Input and output of each task; the output of reagent prediction may be empty."""
    return {
        Task.FORWARD: TaskText(reaction.precursors, reaction.product),
        Task.RETROSYNTHESIS: TaskText(reaction.product, reaction.reactants),
        Task.REAGENT: TaskText(f"{reaction.reactants}{ARROW}{reaction.product}", reaction.reagents),
    }


def task_reaction(task: Task, *, input_text: str, output_text: str) -> Reaction:
    """What a clean task row tells about its reaction.

    A forward row does not tell reactants from reagents: all its precursors come as reactants. A
    retrosynthesis row tells no reagents.
    """
    if task is Task.FORWARD:
        return Reaction(input_text, "", output_text)
    if task is Task.RETROSYNTHESIS:
        return Reaction(output_text, "", input_text)
    reactants, product = input_text.split(ARROW)
    return Reaction(reactants, output_text, product)


def _roles_by_maps(roles: RoleTexts) -> RoleTexts:
    in_product = frozenset().union(*map(atom_maps, roles.product))
    precursors = (*roles.reactants, *roles.reagents)
    is_reactant = [bool(atom_maps(text) & in_product) for text in precursors]
    reactants = tuple(t for t, is_in in zip(precursors, is_reactant, strict=True) if is_in)
    reagents = tuple(t for t, is_in in zip(precursors, is_reactant, strict=True) if not is_in)
    if not reactants:
        detail = "no precursor shares an atom map with the product"
        raise ReactionError(ReactionFault.BAD_REACTION, detail)
    return RoleTexts(reactants, reagents, roles.product)
