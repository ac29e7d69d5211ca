"""Feast objects: entities, sources, feature views, the on-demand view and one feature service per model.

Belongs here: what Feast's registry holds. Does not belong here: columns and their arithmetic
(`contracts.features`, `feature_repo/transforms`), applying and materializing (`feature_repo/online.py`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    OnDemandFeatureView,
    RequestSource,
    ValueType,
)
from feast.data_format import DeltaFormat
from feast.types import Float64

from contracts.retailer import Retailer
from contracts.settings import Settings
from feature_repo.catalog import PREDICTIONS, VIEWS, ViewSpec
from feature_repo.on_demand import MOMENT_COLUMNS, REQUEST_COLUMNS, moment_features

ENTITIES: dict[str, Entity] = {
    entity.join_key: entity
    for entity in (
        Entity(
            name="customer",
            join_keys=["customer_id"],
            value_type=ValueType.STRING,
            description="A known customer (a household, where the shop knows households).",
        ),
        Entity(
            name="product",
            join_keys=["product_id"],
            value_type=ValueType.STRING,
            description="A product of the catalogue.",
        ),
        Entity(
            name="store",
            join_keys=["store_id"],
            value_type=ValueType.STRING,
            description="A physical store.",
        ),
        Entity(
            name="product_type",
            join_keys=["type"],
            value_type=ValueType.STRING,
            description="Finest level of the catalogue: products that replace one another.",
        ),
        Entity(
            name="product_category",
            join_keys=["category"],
            value_type=ValueType.STRING,
            description="Middle level of the catalogue.",
        ),
    )
}
"""Entities by join key."""

RANKER_SERVICE = "ranker_v1"
ENCODER_SERVICE = "encoder_v1"
MOMENT_SERVICE = "moment_v1"
PREDICTION_SERVICE = "customer_predictions_v1"


@dataclasses.dataclass(frozen=True)
class Definitions:
    """Everything that is applied to a registry.

    Attributes:
        entities: Entities.
        views: Stored feature views.
        on_demand: Views computed at the request.
        services: One feature service per model.
    """

    entities: list[Entity]
    views: list[FeatureView]
    on_demand: list[OnDemandFeatureView]
    services: list[FeatureService]

    @property
    def everything(self) -> list[Any]:
        """All objects, in an order in which they can be applied."""
        return [*self.entities, *self.views, *self.on_demand, *self.services]


def build_definitions(settings: Settings, retailer: Retailer) -> Definitions:
    """Feast objects whose sources lie below this installation's feature folder."""
    owner = retailer.owners[0] if retailer.owners else ""
    tags = {"retailer": retailer.name, "simulated": str(retailer.simulated).lower()}
    views = {name: _view(spec, settings, owner, tags) for name, spec in VIEWS.items()}
    moment = _moment_view(views, owner, tags)
    services = [
        FeatureService(
            name=RANKER_SERVICE,
            features=list(views.values()),
            description="Stored rows that the ranker's features are computed from; the arithmetic of the "
            "moment is contracts.features.",
            owner=owner,
            tags={**tags, "model": "ranker"},
        ),
        FeatureService(
            name=ENCODER_SERVICE,
            features=[views["product"]],
            description="The encoder reads sequences of events; these rows describe the items it proposes.",
            owner=owner,
            tags={**tags, "model": "encoder"},
        ),
        FeatureService(
            name=MOMENT_SERVICE,
            features=[*views.values(), moment],
            description="Stored rows and what they mean at the moment of a request, promotion included.",
            owner=owner,
            tags={**tags, "model": "analysis"},
        ),
    ]
    listed = list(views.values())
    if (settings.features / PREDICTIONS.name).is_dir():
        predictions = _view(PREDICTIONS, settings, owner, tags)
        listed.append(predictions)
        services.append(
            FeatureService(
                name=PREDICTION_SERVICE,
                features=[predictions],
                description="What the relationship models said of a customer, as of the moment they said it.",
                owner=owner,
                tags={**tags, "model": "relationship"},
            )
        )
    return Definitions(list(ENTITIES.values()), listed, [moment], services)


def _view(spec: ViewSpec, settings: Settings, owner: str, tags: dict[str, str]) -> FeatureView:
    source = FileSource(
        name=f"{spec.name}_rows",
        path=str(settings.features / spec.name),
        file_format=DeltaFormat(),
        timestamp_field="event_timestamp",
        description=spec.description,
        owner=owner,
    )
    return FeatureView(
        name=spec.name,
        entities=[ENTITIES[key] for key in spec.keys],
        schema=[Field(name=column, dtype=Float64) for column in spec.columns],
        source=source,
        online=True,
        description=spec.description,
        owner=owner,
        tags={**tags, "driver": spec.driver},
    )


def _moment_view(views: dict[str, FeatureView], owner: str, tags: dict[str, str]) -> OnDemandFeatureView:
    request = RequestSource(
        name="request",
        schema=[Field(name=name, dtype=Float64) for name in REQUEST_COLUMNS],
        description="The request's time in days since 1970-01-01 UTC, and the promotion of the product in "
        "that store and week.",
    )
    return OnDemandFeatureView(
        name="moment",
        sources=[request, *views.values()],
        schema=[Field(name=name, dtype=Float64) for name in MOMENT_COLUMNS],
        mode="pandas",
        udf=moment_features,
        # Feast 0.67 compares this text, not the schema, when it decides whether a view has changed.
        udf_string=f"feature_repo.on_demand.moment_features -> {', '.join(MOMENT_COLUMNS)}",
        description="What depends on the moment: days since, whether the next purchase is due, decayed counts, "
        "hour and weekday; the same arithmetic as in the server (contracts.features).",
        owner=owner,
        tags=tags,
    )
