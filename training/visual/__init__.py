"""The visual models: pictures in, boxes, vectors, words and outfits out; each exported as ONNX.

Belongs here: picture sets, detector, embedder, text tower, outfit model, their evaluation and export.
Does not belong here: the index of a release and its packaging (`training/packaging.py`), serving.
"""
