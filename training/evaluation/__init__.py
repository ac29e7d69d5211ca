"""How good is it: metrics, honest baselines, intervals and the gate.

Belongs here: everything that judges answers, whatever model made them. Does not belong here: models.
"""
