"""Models of a customer's relationship with the shop: value, churn, uplift of a contact, intent, segments, next action.

Belongs here: one module per model with fit and predict, and what they share. Does not belong here: the
sequence model (`training/continuum`), the ranker (`training/ranker`), reading a lake outside `data.py`.
"""
