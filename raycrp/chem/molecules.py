"""Molecules as text: tidied, read by RDKit, written as canonical SMILES.

A text holds one molecule or several joined by dots. Its canonical form is the canonical SMILES of
each, sorted and joined by dots, so that neither spelling nor order nor atom maps matter. RDKit
itself is not strict: it ignores what follows a blank and invisible characters at the ends, and the
SELFIES decoder drops what it cannot place. What they would lose without a word is an error here.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Any

import selfies
from rdkit import Chem, rdBase

from raycrp.choices import Notation
from raycrp.errors import DataError

MAX_MOLECULE_CHARS = 2_000

_DASHES = dict.fromkeys(
    map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"), "-"
)
_ZERO_WIDTH = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
_REPAIRS = _DASHES | _ZERO_WIDTH
_SELFIES = re.compile(r"(?:\[[^\[\].\s]+\])+")
_SMILES = re.compile(r"[A-Za-z0-9()\[\]=#$:/\\@+\-%*]+")
_BLANK = re.compile(r"\s")
_ATOM_MAP = re.compile(r":(\d+)\]")
# SELFIES symbols and mapped atoms take several characters where SMILES takes one.
_MAX_CHARS_PER_SMILES_CHAR = 10


class MoleculeFault(StrEnum):
    """Why a text is not a molecule."""

    EMPTY = "empty_molecule"
    UNPARSABLE = "unparsable_molecule"
    WHITESPACE = "whitespace"
    TRAILING_TEXT = "trailing_text"
    CONTROL_CHARACTER = "control_character"
    INVISIBLE_CHARACTER = "invisible_character"
    TOO_LONG = "molecule_too_long"
    SELFIES_LOSS = "selfies_loss"


class FaultError(DataError):
    """A text cannot be used.

    Args:
        reason: Why, as a name to count by.
        detail: What was found.
    """

    def __init__(self, reason: StrEnum, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["FaultError"], tuple[StrEnum, str]]:
        return type(self), (self.reason, self.detail)


class MoleculeError(FaultError):
    """A text cannot be used as a molecule."""

    reason: MoleculeFault


def canonical_smiles(
    text: str,
    *,
    notation: Notation = Notation.SMILES,
    max_chars: int = MAX_MOLECULE_CHARS,
) -> str:
    """Canonical SMILES of one or several molecules, sorted and joined by dots.

    Args:
        text: Molecules joined by dots.
        notation: How they are written.
        max_chars: Longest SMILES of one molecule.

    Raises:
        MoleculeError: If any of them cannot be used.
    """
    molecules = split_molecules(text, notation=notation)
    return join_molecules(
        [canonical_molecule(each, notation=notation, max_chars=max_chars) for each in molecules]
    )


def join_molecules(molecules: Sequence[str]) -> str:
    """Molecules as one text that does not depend on their order."""
    return ".".join(sorted(molecules))


def split_molecules(text: str, *, notation: Notation) -> list[str]:
    """The texts of the molecules, tidied but not yet read.

    Repairs what is certain: blanks at the ends, zero-width characters, typographic dashes.

    Raises:
        MoleculeError: If the text is empty, lacks a molecule between two dots, or holds
            characters that belong to no molecule.
    """
    tidied = tidy_text(text)
    if not tidied:
        raise MoleculeError(MoleculeFault.EMPTY, "no text")
    if _BLANK.search(tidied):
        raise _explain_whitespace(tidied, notation)
    molecules = tidied.split(".")
    if not all(molecules):
        raise MoleculeError(MoleculeFault.UNPARSABLE, f"nothing beside a dot: {_shorten(tidied)}")
    return molecules


def tidy_text(text: str) -> str:
    """The text without zero-width characters and blanks at the ends, dashes as ASCII.

    Raises:
        MoleculeError: If it holds control characters or non-ASCII blanks inside.
    """
    if text.isascii() and text.isprintable():
        return text.strip(" ")
    tidied = text.translate(_REPAIRS).strip()
    for character in tidied:
        if character in "\t\n\r ":
            continue
        if unicodedata.category(character) == "Cc":
            detail = f"control character U+{ord(character):04X}"
            raise MoleculeError(MoleculeFault.CONTROL_CHARACTER, detail)
        if character.isspace() or not character.isprintable():
            detail = f"invisible character U+{ord(character):04X}"
            raise MoleculeError(MoleculeFault.INVISIBLE_CHARACTER, detail)
    return tidied


def canonical_molecule(
    text: str,
    *,
    notation: Notation = Notation.SMILES,
    max_chars: int = MAX_MOLECULE_CHARS,
) -> str:
    """Canonical SMILES of a single molecule; atom maps are left out.

    Args:
        text: One molecule, without dots and blanks.
        notation: How it is written.
        max_chars: Longest SMILES.

    Raises:
        MoleculeError: If RDKit cannot read it.
    """
    if len(text) > max_chars * _MAX_CHARS_PER_SMILES_CHAR:
        raise MoleculeError(MoleculeFault.TOO_LONG, f"{len(text)} characters")
    smiles = selfies_to_smiles(text) if notation is Notation.SELFIES else text
    canonical = _write(_read(smiles), has_maps=_ATOM_MAP.search(smiles) is not None)
    _check_readable(canonical, source=smiles)
    if len(canonical) > max_chars:
        detail = f"{len(canonical)} characters of SMILES, at most {max_chars}"
        raise MoleculeError(MoleculeFault.TOO_LONG, detail)
    return canonical


def write_smiles(molecule: Chem.Mol, *, root: int = -1) -> str:
    """SMILES of a molecule; dative bonds as single ones, as their arrows would pass for reactions.

    Args:
        molecule: What RDKit has read.
        root: Atom that the text starts with; the canonical one if -1.
    """
    smiles: str = Chem.MolToSmiles(molecule, _writing(root))
    return smiles


def without_stereo(smiles: str) -> str:
    """Canonical SMILES of a single molecule with its stereochemistry taken off.

    Args:
        smiles: One molecule, canonical.

    Raises:
        MoleculeError: If RDKit cannot read it.
    """
    molecule = _read(smiles)
    Chem.RemoveStereochemistry(molecule)
    return canonical_molecule(_write(molecule, has_maps=False))


def selfies_to_smiles(text: str) -> str:
    """SMILES of a single molecule in SELFIES, atoms in the same order.

    The decoder answers any sequence of symbols, leaving out those that it cannot place; writing
    the answer as SELFIES again shows whether anything was lost.

    Raises:
        MoleculeError: If the text is not SELFIES, or stands for something else than it says.
    """
    if not _SELFIES.fullmatch(text):
        raise MoleculeError(MoleculeFault.UNPARSABLE, f"not SELFIES: {_shorten(text)}")
    try:
        smiles: str = selfies.decoder(text)
        written: str = selfies.encoder(smiles) if smiles else ""
    except (selfies.DecoderError, selfies.EncoderError) as error:
        detail = str(error).strip().splitlines()[0]
        raise MoleculeError(MoleculeFault.UNPARSABLE, _shorten(detail)) from error
    if written != text:
        detail = f"{_shorten(text)} decodes to '{_shorten(smiles)}', which drops or changes symbols"
        raise MoleculeError(MoleculeFault.SELFIES_LOSS, detail)
    return smiles


def canonicalise_all(
    texts: Sequence[str], *, notation: Notation, max_chars: int
) -> list[str | tuple[MoleculeFault, str]]:
    """Canonical SMILES of many single molecules, for worker processes.

    Returns:
        For each text its canonical SMILES, or the reason and detail of what is wrong with it.
    """
    results: list[str | tuple[MoleculeFault, str]] = []
    with rdBase.BlockLogs():
        for text in texts:
            try:
                results.append(canonical_molecule(text, notation=notation, max_chars=max_chars))
            except MoleculeError as error:
                results.append((error.reason, error.detail))
    return results


def molecule_counter(smiles: str) -> Counter[str]:
    """How often each molecule occurs in a canonical text; empty for an empty text."""
    return Counter(smiles.split(".")) if smiles else Counter()


def heavy_atom_counter(smiles: str) -> Counter[str]:
    """How many atoms of each element but hydrogen a canonical text holds, all molecules together.

    Raises:
        MoleculeError: If a molecule cannot be read.
    """
    counts: Counter[str] = Counter()
    for molecule in smiles.split("."):
        counts.update(atom.GetSymbol() for atom in _read(molecule).GetAtoms())
    del counts["H"]
    return counts


def atom_maps(text: str) -> frozenset[int]:
    """The atom map numbers in a SMILES text; 0 stands for none."""
    return frozenset(int(number) for number in _ATOM_MAP.findall(text)) - {0}


def looks_like(text: str) -> Notation | None:
    """The notation that a text is written in by its look, for error messages alone."""
    stripped = text.strip()
    if _SELFIES.fullmatch(stripped.replace(">>", "").replace(".", "")):
        return Notation.SELFIES
    return Notation.SMILES if _SMILES.fullmatch(re.sub(r"[.>]", "", stripped)) else None


def _read(smiles: str) -> Chem.Mol:
    # RDKit ignores unknown characters in places; only those of SMILES may reach it.
    if not _SMILES.fullmatch(smiles):
        raise MoleculeError(MoleculeFault.UNPARSABLE, f"not SMILES: {_shorten(smiles)}")
    parameters: Any = Chem.SmilesParserParams()
    parameters.allowCXSMILES = False
    parameters.parseName = False
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles, parameters)
    if molecule is None:
        raise MoleculeError(MoleculeFault.UNPARSABLE, _explain_smiles(smiles))
    if not molecule.GetNumAtoms():
        raise MoleculeError(MoleculeFault.EMPTY, f"no atoms: {_shorten(smiles)}")
    return molecule


def _write(molecule: Chem.Mol, *, has_maps: bool) -> str:
    if not has_maps:
        return write_smiles(molecule)
    for atom in molecule.GetAtoms():
        atom.SetAtomMapNum(0)
    # Brackets that held only a map go when the text is read again.
    return write_smiles(_read(write_smiles(molecule)))


@cache
def _writing(root: int) -> Any:
    parameters: Any = Chem.SmilesWriteParams()
    parameters.includeDativeBonds = False
    parameters.rootedAtAtom = root
    return parameters


def _check_readable(canonical: str, *, source: str) -> None:
    """Make sure that RDKit reads what it wrote: aromatic rings that it found may be beyond it.

    Where as many atoms are aromatic as in the text that it has just read, nothing was found.
    """
    if _num_aromatic(canonical) != _num_aromatic(source):
        try:
            _read(canonical)
        except MoleculeError as error:
            detail = f"RDKit cannot read how it writes {_shorten(source)}: {_shorten(canonical)}"
            raise MoleculeError(MoleculeFault.UNPARSABLE, detail) from error


def _num_aromatic(smiles: str) -> int:
    """Letters that aromatic atoms are written with; those of other elements come along."""
    return sum(map(smiles.count, "bcnops"))


def _explain_smiles(smiles: str) -> str:
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles, sanitize=False)
        problems = Chem.DetectChemistryProblems(molecule) if molecule is not None else ()
    reason = problems[0].Message() if problems else "SMILES syntax error"
    return f"{reason}: {_shorten(smiles)}"


def _explain_whitespace(text: str, notation: Notation) -> MoleculeError:
    if any(character in text for character in "\t\n\r"):
        return MoleculeError(MoleculeFault.WHITESPACE, "a line break or tab inside")
    head, tail = text.split(None, 1)
    try:
        canonical_smiles(head, notation=notation)
    except MoleculeError:
        return MoleculeError(MoleculeFault.UNPARSABLE, f"blank inside: {_shorten(text)}")
    if notation is Notation.SELFIES and "[" in tail:
        return MoleculeError(MoleculeFault.UNPARSABLE, f"blank inside: {_shorten(text)}")
    return MoleculeError(MoleculeFault.TRAILING_TEXT, f"text after a blank: '{_shorten(tail)}'")


def _shorten(text: str, max_chars: int = 80) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."
