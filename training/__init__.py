"""Models: learning, judging and packing them.

Belongs here: one folder per model family, evaluation, the training CLI, MLflow tracking, the
assembly of releases. Does not belong here: features (`feature_repo`), wiring (`orchestration`),
answering requests (`serving`).
"""
