"""The wire types of the HTTP interface; OpenAPI is generated from them.

Belongs here: requests and answers as clients see them. Does not belong here: what is inside a decision
(`contracts/decisions.py`) or an event (`contracts/events.py`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from contracts.events import Instant, Text
from serving.routes.problems import FieldError

MAX_ITEMS = 100
MAX_EXCLUDED = 1_000
Choices = Annotated[tuple[Text, ...], msgspec.Meta(max_length=50)]


class RequestContext(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and when the answer is needed.

    Attributes:
        at: The moment to answer for; left out, it is now by the shop's clock.
        store_id: The store; left out, it is the touchpoint's store or the customer's usual one.
    """

    at: Instant | None = None
    store_id: Text | None = None


class RequestFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which products the answer may hold; fields combine with "and", values in a field with "or".

    Attributes:
        department: Any of these departments, upper or lower case.
        category: Any of these categories.
        brand: Any of these brands.
        exclude: Product ids to leave out.
        in_promotion: Only what is on display or in the mailer of the store this week.
    """

    department: Choices = ()
    category: Choices = ()
    brand: Choices = ()
    exclude: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_EXCLUDED)] = ()
    in_promotion: bool = False


class RecommendationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for recommendations.

    Attributes:
        customer_id: A known customer. An unknown one gets the session's or the popular answer.
        session_id: An anonymous visit, or the visit in which the customer was not recognised yet.
        touchpoint: Where the answer is shown, for example ``home``, ``cart`` or ``store:367``.
        context: Moment and store.
        n: How many items.
        filters: Which items.
    """

    customer_id: Text | None = None
    session_id: Text | None = None
    touchpoint: Text = "home"
    context: RequestContext = RequestContext()
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)] = 10
    filters: RequestFilters = RequestFilters()


class IntakeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of posted events; everything counted as accepted is on disk.

    Attributes:
        accepted: How many were newly stored.
        duplicates: How many were stored before; sending them again changed nothing.
        refused: How many break the contract; they are kept in the dead-letter table.
        errors: Why, by index in the batch.
        duplicate_indices: Which were stored before.
        offset: Offset of the last newly stored event, 0 for none.
    """

    accepted: int
    duplicates: int = 0
    refused: int = 0
    errors: tuple[FieldError, ...] = ()
    duplicate_indices: tuple[int, ...] = ()
    offset: int = 0


class ReleaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One release in short.

    Attributes:
        release: Name.
        version: Version in the registry.
        created_at: When it was assembled, ISO 8601.
        as_of: Last moment of data that it saw, ISO 8601.
        loaded_at: When this server loaded it, ISO 8601.
        metrics: Results on the frozen evaluation set.
        models: MLflow model URI by component.
        providers: Execution provider that really runs each graph.
        simulated: True where shoppers are simulated.
    """

    release: str
    version: str
    created_at: str
    as_of: str
    loaded_at: str
    metrics: dict[str, float]
    models: dict[str, str]
    providers: dict[str, str]
    simulated: bool


class RefusalFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A release that was not let in.

    Attributes:
        version: Version in the registry.
        reason: What was wrong with it.
        at: When, ISO 8601.
    """

    version: str
    reason: str
    at: str


class ReleaseStatus(ReleaseFacts, frozen=True, kw_only=True):
    """The release that answers, and how it came to do so.

    Attributes:
        retailer: The open shop.
        alias: Registry alias that this server follows.
        previous: The release kept for instant rollback, or None.
        source: Where the current release came from: ``registry`` or ``cache``.
        swaps: Releases that went live since the start.
        swapped_at: When the current one did, ISO 8601.
        registry: ``up``, ``down`` or ``none``.
        registry_error: What the registry's last failure was, empty while it is up.
        checked_at: When the registry was last asked, ISO 8601.
        refused: Latest refusals, newest first.
        profiles: Name of the published histories in use, empty for none.
        visual: Visual parts of the release, empty where it has none and cannot see.
        visual_products: Rows of its index.
    """

    retailer: str
    alias: str
    previous: ReleaseFacts | None
    source: str
    swaps: int
    swapped_at: str
    registry: str
    registry_error: str
    checked_at: str
    refused: tuple[RefusalFacts, ...]
    profiles: str
    visual: tuple[str, ...] = ()
    visual_products: int = 0


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the server can answer from a release.

    Attributes:
        ready: True once a release is loaded.
        release: Its name, empty for none.
        notes: What works in a reduced way: ``registry_down``, ``no_profiles``, ``profiles_unreadable``,
            ``release_refused``, ``decisions_not_stored``.
    """

    ready: bool
    release: str
    notes: tuple[str, ...] = ()


class Liveness(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers.

    Attributes:
        alive: Always true.
    """

    alive: bool = True
