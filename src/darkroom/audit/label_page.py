"""The page on which a sample is labelled: one file, with its pictures in it, that loads nothing.

Its one script is named by its digest in the content security policy, so nothing that the data say can run. What
the data say stands in a JSON block, without a `<`, and comes onto the page as text alone.
"""

import json
from pathlib import Path

from markupsafe import Markup

from darkroom.audit.pages import render
from darkroom.audit.sample import Audit
from darkroom.audit.scored import Scored
from darkroom.report.pages import own_script
from darkroom.report.scores import about, picture
from darkroom.store import replacing

_MAX_SIDE_PX = 512
_MAX_CAPTION = 1000  # characters


def write_label_page(audit: Audit, scored: Scored, out: Path) -> int:
    """Write the page, and return how many pictures cannot be read; their places on it say so."""
    captions, unreadable, pictures = scored.captions(audit.rows), 0, []
    for row in audit.rows.iter_rows(named=True):
        uri = picture(scored, row["part"], row["offset"], row["size"], _MAX_SIDE_PX)
        unreadable += not uri
        caption = captions.get(row["uid"], "")[:_MAX_CAPTION]
        told = {name: row[name] for name in ("uid", "score", "weight")}
        pictures.append({**told, "caption": caption, "picture": uri})
    data = {
        "key": f"darkroom audit: {audit.dataset}: {audit.column}",
        "file": f"{audit.dataset}-{audit.column}-labels.csv",
        "pictures": pictures,
    }
    page = render(
        "label.html",
        dataset=audit.dataset,
        column=audit.column,
        about=about(audit.scorer),
        **own_script("darkroom.audit", "label_script.html"),
        data=Markup(json_in_html(data)),
    )
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")
    return unreadable


def json_in_html(value: object) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins another."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
