"""What a module means to a bench that keeps its runs: comments and docstrings may change, code may not."""

from __future__ import annotations

import ast
import hashlib
import pathlib


def meaning(path: pathlib.Path) -> str:
    """Hash of a module's syntax tree without docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.stmt) -> bool:
    told = node.value if isinstance(node, ast.Expr) else None
    return isinstance(told, ast.Constant) and isinstance(told.value, str)
