"""The wire types of seeing; OpenAPI is generated from them.

Belongs here: requests and answers as clients see them. Does not belong here: how they are made
(`serving/vision`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from contracts.decisions import Path, Reason
from contracts.events import Channel, Text

MOST_RESULTS = 50
MOST_PRODUCTS = 12
MOST_CARDS = 200
Price = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Number = Annotated[int, msgspec.Meta(ge=1, le=MOST_RESULTS)]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Choices = Annotated[tuple[Text, ...], msgspec.Meta(max_length=50)]


class Shopper(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who asks, and for what kind of results.

    Attributes:
        customer_id: A known customer, whose taste then orders what looks alike.
        session_id: An anonymous visit, or the visit in which the customer was not recognised yet.
        touchpoint: Where the answer is shown.
        channel: Channel of the search, as it is recorded.
        n: Results per item.
        price_min: Least price.
        price_max: Largest price.
        department: Any of these departments.
        category: Any of these categories.
        brand: Any of these brands.
        exclude: Product ids to leave out.
        in_stock: Only what is in stock.
        sizes: What the shopper wears: of products that come in sizes of such a kind, only those with one of these in
            stock. Sizes that no product has are told in ``notes``.
    """

    customer_id: Text | None = None
    session_id: Text | None = None
    touchpoint: Text = "shop"
    channel: Channel = "web"
    n: Number = 8
    price_min: Price | None = None
    price_max: Price | None = None
    department: Choices = ()
    category: Choices = ()
    brand: Choices = ()
    exclude: Choices = ()
    in_stock: bool = True
    sizes: Choices = ()


class ImageQuery(Shopper, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a photo is looked up; with neither box nor point, everything that is found.

    Attributes:
        box: One item by its box: left, top, right, bottom as shares of the upright photo, for example
            ``0.1,0.2,0.5,0.9``.
        point: One item by a point on it: shares of width and height, for example ``0.4,0.6``.
        remember: Consent to keep, with the decision, the numbers that describe each item, so that clicks on results
            can teach the models; the photo itself is never stored.
    """

    box: str | None = None
    point: str | None = None
    remember: bool = False


class TextQuery(Shopper, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Search by words.

    Attributes:
        query: The words; prices ("under 50"), colours and "without ..." in it become filters.
    """

    query: Words


class LookRequest(Shopper, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for what completes a look; without ``sizes`` in those that the customer usually buys, where there is something.

    Attributes:
        product_ids: What is there already.
        parts: Most missing parts to fill.
    """

    product_ids: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=MOST_PRODUCTS)]
    parts: Annotated[int, msgspec.Meta(ge=1, le=12)] = 4


class CardsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which products to describe.

    Attributes:
        id: Product ids; unknown ones are left out of the answer.
    """

    id: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=MOST_CARDS)]


class ProductCard(msgspec.Struct, frozen=True, kw_only=True):
    """A product as a page shows it.

    Attributes:
        product_id: Which.
        name: For people.
        department: Coarsest level.
        category: Middle level.
        brand: Brand.
        price: Where it is known.
        in_stock: Where it is known.
        sizes: Sizes in stock, where it comes in sizes.
        image: Address of its picture, where there is one.
        image_shows: The ``product`` itself, or its ``kind`` where the shop has pictures of kinds only.
        searchable: Whether similar products can be asked for.
    """

    product_id: str
    name: str
    department: str
    category: str
    brand: str
    price: float | None
    in_stock: bool | None
    sizes: tuple[str, ...]
    image: str | None
    image_shows: Literal["product", "kind"] | None
    searchable: bool


class Cards(msgspec.Struct, frozen=True, kw_only=True):
    """Products as a page shows them.

    Attributes:
        products: Those that are known, in the order asked for.
    """

    products: tuple[ProductCard, ...]


class VisualItem(ProductCard, frozen=True, kw_only=True):
    """One result.

    Attributes:
        position: Place in the whole answer, as the decision counts; send it with a click.
        score: By which results are ordered; comparable inside one list only.
        similarity: Cosine with what was searched for, plus for words the part that the name bears; of a look, the
            compatibility.
        propensity: Probability that the policy shows this product at this place.
        reason: Why.
    """

    position: int
    score: float
    similarity: float
    propensity: float
    reason: Reason


class AttributeValue(msgspec.Struct, frozen=True, kw_only=True):
    """What an attribute of an item seems to be.

    Attributes:
        value: The likeliest value.
        confidence: Its probability.
    """

    value: str
    confidence: float


class SeenItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item in a photo, and what looks like it.

    Attributes:
        box: Left, top, right, bottom as shares of the upright photo.
        label: Its class; empty where it was chosen by box or point and nothing told it.
        confidence: From 0 to 1.
        attributes: Type, colour and so on, where the release tells them.
        searched: Part of the index that was searched, empty for all of it.
        items: Results, best first.
    """

    box: tuple[float, float, float, float]
    label: str = msgspec.field(name="class")
    confidence: float
    attributes: dict[str, AttributeValue]
    searched: str
    items: tuple[VisualItem, ...]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer of seeing says of itself.

    Attributes:
        decision_id: Opens the record, and joins clicks to this answer.
        as_of: The moment the answer was made for, ISO 8601, by the shop's clock.
        path: ``personal`` or ``session`` where taste ordered what looks alike, ``visual`` where likeness alone did.
        release: Release that answered.
        simulated: True where shoppers and products are simulated.
        notes: Stated fallbacks and relaxations.
        next_step: What to do when nothing was found; empty otherwise.
    """

    decision_id: str
    as_of: str
    path: Path
    release: str
    simulated: bool
    notes: tuple[str, ...]
    next_step: str


class ImageAnswer(Answered, frozen=True, kw_only=True):
    """What was found in a photo.

    Attributes:
        width: Of the upright photo, pixels.
        height: Likewise.
        objects: Its items, the surest first.
    """

    width: int
    height: int
    objects: tuple[SeenItem, ...]


class UnderstoodQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How words were read.

    Attributes:
        words: What was looked for.
        price_min: Least price, or null.
        price_max: Largest price, or null.
        colours: Colours asked for.
        not_colours: Colours left out.
        without: Words that no result bears.
    """

    words: str
    price_min: float | None
    price_max: float | None
    colours: tuple[str, ...]
    not_colours: tuple[str, ...]
    without: tuple[str, ...]


class TextAnswer(Answered, frozen=True, kw_only=True):
    """What fits the words.

    Attributes:
        understood: How they were read.
        items: Results, best first.
    """

    understood: UnderstoodQuery
    items: tuple[VisualItem, ...]


class SimilarAnswer(Answered, frozen=True, kw_only=True):
    """What looks like a product.

    Attributes:
        product_id: The product.
        items: Results, best first, without itself.
    """

    product_id: str
    items: tuple[VisualItem, ...]


class LookPart(msgspec.Struct, frozen=True, kw_only=True):
    """A missing part of a look.

    Attributes:
        part: Its name.
        items: What could fill it, the most compatible first.
    """

    part: str
    items: tuple[VisualItem, ...]


class LookAnswer(Answered, frozen=True, kw_only=True):
    """What completes a look.

    Attributes:
        product_ids: What was there already.
        compatibility: How well that goes together by itself, as the model says.
        parts: Missing parts, the most compatible first.
    """

    product_ids: tuple[str, ...]
    compatibility: float
    parts: tuple[LookPart, ...]


class HotspotAnswer(Answered, frozen=True, kw_only=True):
    """A picture of the retailer with its hotspots.

    Attributes:
        media_id: The picture.
        title: For people.
        image: Address of the picture, where the server has it.
        width: Pixels.
        height: Pixels.
        objects: Its hotspots.
    """

    media_id: str
    title: str
    image: str | None
    width: int
    height: int
    objects: tuple[SeenItem, ...]
