"""Cards that say what the chosen pair's reaction types mean."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from dash import html

from raycrp.board.snapshot import Snapshot
from raycrp.report.drawings import draw_molecules

Card = Mapping[str, Any]

_NUM_CHANGES = 4
_FEW_MOLECULES = 4


def card_children(snapshot: Snapshot, *, task: str) -> list[Any]:
    """Cards of the reaction types of a task, largest first; a kind word where there are none.

    Args:
        snapshot: The run; its cards are rows of ``elicit/rt_cards.parquet``.
        task: The task.
    """
    cards = [card for card in snapshot.cards if card["task"] == task]
    if not cards:
        return [html.P(_why_none(snapshot), className="empty")]
    cards.sort(key=lambda card: (-card["size"], card["reaction_type"]))
    return [html.Div([_card(card) for card in cards], className="cards")]


def _why_none(snapshot: Snapshot) -> str:
    if any(choice.is_final for choice in snapshot.sweep.choices.values()):
        return "This run has no cards of its reaction types."
    return "What the chosen types mean is worked out when the sweep has ended."


def _card(card: Card) -> Any:
    number = html.Span(f"RT {card['reaction_type']}", className="tag")
    share = card.get("share") or 0.0
    parts = [
        html.H4([number, " ", card.get("name") or "unnamed"]),
        html.P(
            [
                f"{card['size']:,} rows, {100 * share:.3g} %",
                html.Span(html.Span(style={"width": f"{100 * share:.1f}%"}), className="bar"),
            ],
            className="size",
        ),
        _changes(
            "most frequent", card.get("frequent_changes"), lambda c: f"{100 * c['share']:.0f} %"
        ),
        _changes(
            "most specific",
            card.get("specific_changes"),
            lambda c: f"\N{MULTIPLICATION SIGN}{c['lift']:.1f}",
        ),
        _central(card.get("central") or ()),
    ]
    return html.Article([part for part in parts if part is not None], className="card")


def _share(change: Card) -> str:
    return f"{100 * change['share']:.0f} %"


def _changes(title: str, changes: Sequence[Card] | None, value: Callable[[Card], str]) -> Any:
    if not changes:
        return None
    items = [
        html.Li([change["name"], " ", html.Small(value(change))])
        for change in changes[:_NUM_CHANGES]
    ]
    return html.Div([html.P(title, className="kicker"), html.Ul(items, className="changes")])


def _central(reactions: Sequence[str]) -> Any:
    if not reactions:
        return None
    # The nearest to the centre of few molecules, else the one of fewest.
    by_size = sorted(reactions, key=lambda text: max(_num_molecules(text), _FEW_MOLECULES))
    pictures = next(filter(None, map(_draw_reaction, by_size)), ())
    others = [html.Li(html.Code(text)) for text in reactions]
    title = html.P("most central", className="kicker")
    shown = html.Div(list(pictures), className="reaction") if pictures else None
    more = html.Details([html.Summary(f"{len(reactions)} central reactions"), html.Ul(others)])
    return html.Div([title, *([shown] if shown else []), more])


def _sides(text: str) -> tuple[str, str]:
    """What is before and what is after the reaction of a reaction SMILES."""
    sides = text.split(">")
    return sides[0], sides[-1]


def _num_molecules(text: str) -> int:
    return sum(len(side.split(".")) for side in _sides(text))


@lru_cache(maxsize=256)
def _draw_reaction(text: str) -> tuple[Any, ...]:
    """Pictures of a reaction SMILES; none where one of its sides cannot be drawn."""
    left, right = map(draw_molecules, _sides(text))
    if not left or not right:
        return ()
    arrow = html.Span("\N{RIGHTWARDS ARROW}", className="arrow")
    return (*map(_picture, left), arrow, *map(_picture, right))


def _picture(svg: str) -> Any:
    # Alone in an image, a drawing must say itself what it is.
    if "xmlns=" not in svg:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return html.Img(src="data:image/svg+xml," + quote(svg), alt="")
