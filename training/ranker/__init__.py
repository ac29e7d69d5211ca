"""The ranker: candidates of every source meet features and are put in order.

Read it in the order of the flow: `items.py` (what is known of products at a moment), `requests.py` (whom and
when to learn from), `candidates.py` (what is ranked), `data.py` (the feature matrix), `model.py`
(LambdaRank), `export.py` (ONNX), `evaluate.py` and `report.py` (how good is it), `train.py` (all of it).
"""
