"""The detector: every item of a picture with its box and class.

Anchor-free: a heat-map of centres per class on one level of stride 8 and a box per class and cell, as in CenterNet
(Zhou, Wang, Kraehenbuehl 2019, "Objects as Points"), learned at Gaussian regions as in TTFNet (Liu et al. 2020).

Belongs here: from pictures with boxes to a graph with its evidence. Does not belong here: its use (`serving`).
"""
