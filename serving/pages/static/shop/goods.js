// Lists of products. Everything that comes from the server is set as text, never as markup.

const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });

function element(tag, props = {}, ...children) {
  const made = Object.assign(document.createElement(tag), props);
  made.append(...children.filter(Boolean));
  return made;
}

function shot(good) {
  if (!good.image) {
    const letter = element("span", { className: "shot none", textContent: good.name.slice(0, 1).toUpperCase() });
    letter.setAttribute("aria-hidden", "true");
    return letter;
  }
  const kind = good.image_shows === "kind" && element("span", { className: "example", textContent: "Example" });
  return element("span", { className: "shot" }, element("img", { src: good.image, alt: "", loading: "lazy" }), kind);
}

/**
 * One product.
 * @param {object} good - As the interface gives it.
 * @param {string} decision - What showed it.
 * @param {object} acts - `open`, and by name further actions; each is called with the product and the decision.
 */
function card(good, decision, acts) {
  const about = [good.price == null ? "" : money.format(good.price), good.brand].filter(Boolean).join(", ");
  const sizes = good.sizes?.length ? `In ${good.sizes.join(", ")}` : "";
  const open = element("button", { className: "open", type: "button" },
    shot(good), element("span", { className: "title", textContent: good.name }));
  open.setAttribute("aria-label", `${good.name}: show similar products`);
  open.addEventListener("click", () => acts.open(good, decision));
  const row = element("div", { className: "acts" });
  for (const [name, { words, when, toggles, act }] of Object.entries(acts.more)) {
    if (when && !when(good)) continue;
    const button = element("button", { type: "button", textContent: words });
    button.dataset.act = name;
    button.setAttribute("aria-label", `${words}: ${good.name}`);
    button.addEventListener("click", () => {
      if (toggles) button.setAttribute("aria-pressed", "true");
      act(good, decision);
    });
    row.append(button);
  }
  const made = element("li", { className: "good" }, open,
    about && element("span", { className: "cost", textContent: about }),
    sizes && element("span", { className: "sizes-of", textContent: sizes }),
    element("p", { className: "why", textContent: good.reason?.text ?? "" }), row);
  made.dataset.product = good.product_id;
  return made;
}

/** Fill a place with one or several named lists. */
export function show(place, lists, decision, acts) {
  place.replaceChildren(...lists.flatMap(({ title, goods }) => [
    title && element("h3", { className: "part", textContent: title }),
    element("ul", { className: "goods" }, ...goods.map((good) => card(good, decision, acts))),
  ].filter(Boolean)));
}
