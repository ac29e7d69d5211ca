"""The visual side: pictures, detector, embedder, text tower, outfits and the index.

Belongs here: reading picture sets, learning, judging and exporting the visual models, building the index.
Does not belong here: which pictures a shop has (`orchestration`), answering requests (`serving`), the drawn
catalogue (`training/rehearsal/drawing`).
"""
