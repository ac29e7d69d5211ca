"""A release in memory: verified bytes, loaded graphs and tables, an engine that answers.

Belongs here: from a folder to an engine. Does not belong here: deciding which release is served
(`holder.py`), fetching it (`pull.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Mapping, Sequence

from contracts.release import MANIFEST_FILE, Manifest, read_manifest
from serving.engine.engine import Engine
from serving.engine.items import Exposures, ItemTable, StoreProducts, TableError, read_arrays
from serving.engine.large import open_encoder
from serving.engine.sessions import CPU, GraphError, Session
from serving.releases.golden import check_golden
from serving.releases.graphs import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    RANKER_INPUTS,
    RANKER_OUTPUTS,
    check_graph,
    check_signature,
)
from serving.releases.verify import ReleaseError, Verified, read_files, read_verify_key, verify_folder
from serving.releases.visual import build_visual, require_visual_golden
from serving.vision.models import Visual

ENCODER_FILE = "encoder/encoder.onnx"
RANKER_FILE = "ranker/ranker.onnx"
ITEMS_FILE = "items/items.npz"
EXPOSURES_FILE = "items/exposures.npz"
STORE_PRODUCTS_FILE = "items/store_products.npz"
GOLDEN_FILE = "golden/golden.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Release:
    """What answers requests.

    Attributes:
        manifest: The release's manifest.
        engine: Ranks candidates.
        loaded_at: When it was loaded, UTC.
        version: Version in the registry, empty where none is known.
        visual: Its visual parts, or None where it has none.
    """

    manifest: Manifest
    engine: Engine
    loaded_at: dt.datetime
    version: str = ""
    visual: Visual | None = None

    @property
    def name(self) -> str:
        """The release's name."""
        return self.manifest.release


def open_release(
    folder: pathlib.Path, verify_key: pathlib.Path, providers: Sequence[str] = (CPU,), version: str = ""
) -> Release:
    """Verify a release folder, load it, and prove it on its golden requests.

    Args:
        folder: The release.
        verify_key: Ed25519 public key in PEM.
        providers: ONNX Runtime execution providers by preference.
        version: Version in the registry, for reports.

    Raises:
        ReleaseError: Anything is unsigned, changed, unreadable, or answers other than it should.
    """
    verified = verify_folder(folder, read_verify_key(verify_key))
    require_golden(verified)
    return build_release(verified, providers, version)


def require_golden(verified: Verified) -> None:
    """Refuse a release that cannot prove how it answers.

    Raises:
        ReleaseError: It has no golden requests.
    """
    if GOLDEN_FILE not in verified.files:
        raise ReleaseError(f"the manifest names no '{GOLDEN_FILE}'; expected recorded requests and answers")
    require_visual_golden(verified)


def load_release(folder: pathlib.Path, manifest: Manifest | None = None) -> Release:
    """Load a release that is still being assembled: no signature, golden requests only if it has them.

    For the assembly line alone; a server uses `open_release`.

    Args:
        folder: The release.
        manifest: Its manifest; read from the folder by default.

    Raises:
        ReleaseError: A file is missing, differs from the manifest, or cannot be loaded.
    """
    if manifest is None:
        manifest = read_manifest((folder / MANIFEST_FILE).read_bytes())
    return build_release(Verified(manifest, read_files(folder, manifest)))


def build_release(verified: Verified, providers: Sequence[str] = (CPU,), version: str = "") -> Release:
    """Load proven bytes.

    Raises:
        ReleaseError: They cannot be loaded, or answer other than they should.
    """
    files, manifest = verified.files, verified.manifest
    for path in (ENCODER_FILE, RANKER_FILE, ITEMS_FILE, EXPOSURES_FILE, STORE_PRODUCTS_FILE):
        if path not in files:
            raise ReleaseError(f"the manifest names no '{path}'")
    try:
        check_graph(ENCODER_FILE, files[ENCODER_FILE])
        encoder = open_encoder(ENCODER_FILE, files[ENCODER_FILE], providers)
        check_signature(ENCODER_FILE, (encoder.inputs, encoder.outputs), ENCODER_INPUTS, ENCODER_OUTPUTS)
        _session(RANKER_FILE, files, (CPU,), RANKER_INPUTS, RANKER_OUTPUTS)  # Refuses what does not fit.
        items = ItemTable(read_arrays(ITEMS_FILE, files[ITEMS_FILE]))
        size = (items.size, len(items.stores))
        exposures = Exposures(read_arrays(EXPOSURES_FILE, files[EXPOSURES_FILE]), *size)
        sales = StoreProducts(read_arrays(STORE_PRODUCTS_FILE, files[STORE_PRODUCTS_FILE]), *size)
        engine = Engine(manifest, encoder, files[RANKER_FILE], items, exposures, sales, providers)
        if GOLDEN_FILE in files:
            check_golden(engine, files[GOLDEN_FILE])
        visual = build_visual(verified, items, providers)
    except (GraphError, TableError) as error:
        raise ReleaseError(str(error)) from error
    return Release(manifest, engine, dt.datetime.now(dt.UTC), version, visual)


def _session(
    path: str,
    files: Mapping[str, bytes],
    providers: Sequence[str],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> Session:
    check_graph(path, files[path])
    session = Session(path, files[path], providers)
    check_signature(path, (session.inputs, session.outputs), inputs, outputs)
    return session
