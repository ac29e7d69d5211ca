"""The drawn catalogue: a picture for every product of the atelier, and looks with known boxes.

Pictures are vector drawings rendered offline with Pillow, twice too large and then scaled down, on a
plain ground with a soft shadow. The same product always looks the same. They are drawings and never
pretend to be photographs.

* `picture(product)`: one product as an RGB image.
* `write_catalogue(products, folder)`: all products in the layout of the fashion-products data set
  (``photos.zip`` with ``<id>.jpg``, ``styles.csv.gz``).
* `look(products, seed)`: an outfit of several products with the box of each.

Belongs here: shapes, fabrics, rendering. Does not belong here: which products exist (`../catalogue.py`).
"""

from training.rehearsal.drawing.looks import Look, Placed, look, write_looks
from training.rehearsal.drawing.pictures import picture, write_catalogue

__all__ = ["Look", "Placed", "look", "picture", "write_catalogue", "write_looks"]
