// The public interface, as this page uses it; the shop's own clock stamps what the visitor does.

const KEY = "continuum-visit";
const SIZES = "continuum-sizes";
const clock = { at: Date.now(), since: performance.now() };

export const visit = { session_id: session(), customer_id: "" };
let worn = [];

/** Ask for these sizes from now on, and keep them on this device. */
export function wear(chosen) {
  worn = chosen;
  try {
    localStorage.setItem(SIZES, JSON.stringify(chosen));
  } catch {
    // Without storage they hold for this page.
  }
}

/** Sizes that an earlier visit kept. */
export function keptSizes() {
  try {
    const kept = JSON.parse(localStorage.getItem(SIZES) ?? "[]");
    return Array.isArray(kept) ? kept.filter((size) => typeof size === "string") : [];
  } catch {
    return [];
  }
}

function session() {
  try {
    const known = sessionStorage.getItem(KEY) ?? `visit-${crypto.randomUUID()}`;
    sessionStorage.setItem(KEY, known);
    return known;
  } catch {
    return `visit-${Math.random().toString(36).slice(2)}`;
  }
}

function who() {
  return { session_id: visit.session_id, ...(visit.customer_id ? { customer_id: visit.customer_id } : {}) };
}

/** Who asks for products to choose from: their sizes count. */
const chooser = () => ({ ...who(), ...(worn.length ? { sizes: worn } : {}) });

/** A query string; a list is repeated. */
function query(values) {
  return new URLSearchParams(Object.entries(values).flatMap(([name, value]) => [value].flat().map((one) => [name, one])));
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The shop does not answer; check the connection and try again.");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) {
    const detail = body?.detail ?? `the shop answered ${response.status}`;
    throw new Error(`${detail[0].toUpperCase()}${detail.slice(1)}.`);
  }
  if (body?.as_of) Object.assign(clock, { at: Date.parse(body.as_of), since: performance.now() });
  return body;
}

const json = (value) => ({
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value),
});

export function searchPhoto(blob, aim = {}, remember = false) {
  const asked = query({ ...chooser(), ...aim, touchpoint: "shop", n: "8", ...(remember ? { remember: "true" } : {}) });
  return call(`/v1/search/image?${asked}`, { method: "POST", body: blob });
}

export const searchWords = (words) => call("/v1/search/text", json({ query: words, ...chooser(), n: 12 }));

export const similar = (product) =>
  call(`/v1/products/${encodeURIComponent(product)}/similar?${query({ ...chooser(), n: "8" })}`);

export const complete = (products) => call("/v1/looks/complete", json({ product_ids: products, ...chooser(), n: 4 }));

export const look = (media) => call(`/v1/looks/${encodeURIComponent(media)}?${query({ ...chooser(), n: "8" })}`);

/** What the shop would show now: a decision with its products described. */
export async function recommend(n) {
  const decision = await call("/v1/recommendations", json({ ...who(), touchpoint: "shop", n }));
  if (decision.items.length === 0) return { ...decision, goods: [] };
  const { products } = await call(`/v1/products?${query({ id: decision.items.map((item) => item.product_id) })}`);
  const known = new Map(products.map((card) => [card.product_id, card]));
  return { ...decision, goods: decision.items.map((item) => ({ ...known.get(item.product_id), ...item })) };
}

/** Tell the shop what the visitor did; what it was shown by goes with it, so that the answer can be judged. */
export function tell(action, good, decision) {
  const now = clock.at + (performance.now() - clock.since);
  return call("/v1/events", json({
    event_id: crypto.randomUUID?.() ?? `${now}-${Math.random()}`,
    source: "shop-page", occurred_at: new Date(now).toISOString(), channel: "web", touchpoint: "shop", action,
    session_id: visit.session_id, product_id: good.product_id, decision_id: decision, position: good.position,
    ...(visit.customer_id ? { identifiers: [{ kind: "customer", value: visit.customer_id }] } : {}),
  }));
}
