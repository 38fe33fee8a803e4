"""Dash components as HTML text."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_VOID_TAGS = ("img",)
_ATTRIBUTES = {"className": "class", "htmlFor": "for", "tabIndex": "tabindex"}


def to_html(component: Any) -> str:
    """Components as HTML text; all text is escaped.

    Args:
        component: A component, a text, or a list of both.
    """
    return "".join(_pieces(component))


def _pieces(component: Any) -> Iterator[str]:
    if component is None:
        return
    if isinstance(component, list | tuple):
        for child in component:
            yield from _pieces(child)
        return
    if not hasattr(component, "to_plotly_json"):
        yield escape(str(component))
        return
    described = component.to_plotly_json()
    properties = dict(described["props"])
    if described["type"] == "Graph":
        yield f'<div id="{escape(properties["id"])}" class="{properties["className"]}"></div>'
    elif described["type"] == "RadioItems":
        yield from _radios(properties)
    else:
        children = properties.pop("children", None)
        tag = described["type"].lower()
        yield f"<{tag}{''.join(map(_attribute, properties.items()))}>"
        if tag not in _VOID_TAGS:
            yield from _pieces(children)
            yield f"</{tag}>"


def _radios(properties: Mapping[str, Any]) -> Iterator[str]:
    name = escape(properties["id"])
    yield f'<div class="{properties["className"]}" id="{name}" role="radiogroup">'
    for option in properties["options"]:
        checked = " checked" if option["value"] == properties["value"] else ""
        value, label = escape(option["value"]), escape(option["label"])
        yield f'<label><input type="radio" name="{name}" value="{value}"{checked}>{label}</label>'
    yield "</div>"


def _attribute(item: tuple[str, Any]) -> str:
    name, value = item
    if isinstance(value, Mapping):
        value = "; ".join(f"{key}: {text}" for key, text in value.items())
    return f' {_ATTRIBUTES.get(name, name)}="{escape(str(value))}"'
