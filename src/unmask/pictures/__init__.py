"""What does it look like to people? Charts, films of unmasking, pages: plain numbers in, SVG and HTML text out.

The lowest room: it imports nothing of ours. A piece is text of HTML; `page` makes a file of pieces, `fragment` a notebook's
output. Pieces read without a script, without colours and without a mouse; `report.js` adds motion, `report.css` the looks.
"""

from unmask.pictures.charts import Series, bars, chart, figure
from unmask.pictures.films import Item, Look, film
from unmask.pictures.heat import order_map, over_positions
from unmask.pictures.moving import gif
from unmask.pictures.pages import Picture, fragment, listed, note, page, section, table
from unmask.pictures.plans import Staircase, profile, staircase_alone

__all__ = [
    "Item",
    "Look",
    "Picture",
    "Series",
    "Staircase",
    "bars",
    "chart",
    "figure",
    "film",
    "fragment",
    "gif",
    "listed",
    "note",
    "order_map",
    "over_positions",
    "page",
    "profile",
    "section",
    "staircase_alone",
    "table",
]
