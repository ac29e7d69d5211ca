"""Filling the shop page's template.

Belongs here: what the page knows before its script asks. Does not belong here: markup (`templates/`).
"""

from __future__ import annotations

from serving.pages.render import common, template
from serving.server import Server

MOST_LOOKS = 8


def render_shop(server: Server, customer_id: str) -> str:
    """The page on which a shopper looks, searches and is recommended to."""
    current = server.holder.current
    visual = None if current is None else current.visual
    looks = []
    if visual is not None and visual.looks is not None:
        for media_id in visual.looks.media_ids:
            found, image = visual.looks.find(media_id), server.desk.media.address(media_id, look=True)
            if found is not None and image is not None and found.hotspots:
                looks.append({"media_id": media_id, "title": found.title or "A look", "image": image})
            if len(looks) == MOST_LOOKS:
                break
    return template("shop.html").render(
        **common(server),
        customer_id=customer_id,
        ready=current is not None,
        parts=() if visual is None else visual.parts,
        looks=looks,
        sizes=() if visual is None else visual.index.sizes.groups(),
    )
