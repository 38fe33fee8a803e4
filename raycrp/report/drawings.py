"""Molecules drawn as small SVG pictures."""

import math
import re
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from raycrp.report.figures import label_svg

_BOND_LENGTH, _FONT_SIZE = 21, 12
_SMALL_SIZE = 7
_MAX_ATOMS, _MAX_WIDTH = 150, 700
_AFTER_HYDROGEN = ("O", "S", "Se", "F", "Cl", "Br", "I")
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_ATOM_COLORS = {
    6: (0.12, 0.16, 0.20),
    7: (0.10, 0.22, 0.75),
    8: (0.76, 0.08, 0.08),
    9: (0.00, 0.42, 0.30),
    15: (0.68, 0.33, 0.00),
    16: (0.52, 0.42, 0.00),
    17: (0.00, 0.42, 0.16),
    35: (0.52, 0.24, 0.06),
    53: (0.42, 0.10, 0.52),
}
"""Red, green and blue of each element, dark enough to read on white."""


def draw_molecules(smiles: str) -> tuple[str, ...]:
    """Pictures of the molecules of a text, each in its natural size.

    Args:
        smiles: Molecules joined by dots.

    Returns:
        SVG texts; none where the text is no molecule, or one of them is too large to be read.
    """
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles) if smiles else None
        if molecule is None or not 0 < molecule.GetNumAtoms() <= _MAX_ATOMS:
            return ()
        drawings = [_draw(part) for part in Chem.GetMolFrags(molecule, asMols=True)]
    return tuple(drawings) if all(_width(each) <= _MAX_WIDTH for each in drawings) else ()


def _draw(molecule: Chem.Mol) -> str:
    if molecule.GetNumAtoms() == 1:
        return _write_text(_formula(molecule.GetAtomWithIdx(0)))
    if not molecule.GetNumHeavyAtoms():
        return _write_text(CalcMolFormula(molecule).translate(_SUBSCRIPTS))
    rdDepictor.SetPreferCoordGen(True)
    drawer = rdMolDraw2D.MolDraw2DSVG(-1, -1, -1, -1, True)
    options: Any = drawer.drawOptions()
    options.setAtomPalette(_ATOM_COLORS)
    options.clearBackground = False
    options.bondLineWidth = 1.4
    options.minFontSize = options.maxFontSize = _FONT_SIZE
    options.fixedBondLength = options.scalingFactor = _BOND_LENGTH
    options.padding = 0.02
    drawer.DrawMolecule(rdMolDraw2D.PrepareMolForDrawing(molecule, kekulize=True))
    drawer.FinishDrawing()
    return label_svg(_shrink(drawer.GetDrawingText()), title=Chem.MolToSmiles(molecule))


def _width(svg: str) -> float:
    found = re.search(r"width=['\"]([\d.]+)", svg)
    return float(found.group(1)) if found else math.inf


def _formula(atom: Chem.Atom) -> str:
    """A molecule of one heavy atom, such as water or an ion, as its formula."""
    count = atom.GetTotalNumHs()
    hydrogens = f"H{str(count).translate(_SUBSCRIPTS) if count > 1 else ''}" if count else ""
    isotope = str(atom.GetIsotope() or "").translate(_SUPERSCRIPTS)
    parts = [isotope + atom.GetSymbol(), hydrogens]
    size = abs(atom.GetFormalCharge())
    sign = "\N{SUPERSCRIPT PLUS SIGN}" if atom.GetFormalCharge() > 0 else "\N{SUPERSCRIPT MINUS}"
    charge = (str(size).translate(_SUPERSCRIPTS) if size > 1 else "") + sign if size else ""
    return "".join(parts[::-1] if atom.GetSymbol() in _AFTER_HYDROGEN else parts) + charge


def _write_text(text: str) -> str:
    width = 8 * len(text) + 6
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" '
        f'viewBox="0 0 {width} 20"><text x="{width / 2:g}" y="14.5" font-size="13" '
        f'font-family="sans-serif" text-anchor="middle" fill="#1f2933">{text}</text></svg>'
    )
    return label_svg(svg, title=text)


def _shrink(svg: str) -> str:
    """The same picture in a fraction of the text."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s+", " ", svg)
    svg = re.sub(r" (?:class|xml:space|xmlns:\w+|baseProfile|version)='[^']*'", "", svg)
    svg = re.sub(
        r"(?:fill-rule|stroke-linecap|stroke-linejoin|font-style|font-weight):\w+;?", "", svg
    )
    svg = re.sub(r"(?:stroke-opacity:1|fill-opacity:1|stroke:none)(?=[;'])", "", svg)
    svg = re.sub(r"(\d+\.\d)\d+", r"\1", svg)
    svg = re.sub(r";+(?=')|(?<=');+|(?<=;);+", "", svg)
    svg = svg.replace(f"font-size:{_SMALL_SIZE}px", "font-size:9px")
    svg = svg.replace(">-</text>", ">\N{MINUS SIGN}</text>")
    return svg.replace("' />", "'/>").replace("> <", "><").strip()
